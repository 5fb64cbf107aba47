//! Adult census income: 30,162 training rows without a missing value, embedded, or the user's `adult.data`.
//!
//! 104 columns: the 6 numeric ones in the file's order, each standardized in float64 by its mean and population standard
//! deviation over all complete rows (whatever the cap on examples), then the 8 categorical ones in the file's order,
//! one-hot over their 98 values in alphabetical order. Class 1 is an income above 50,000 dollars.

use std::io::{BufRead, BufReader};

use dpsgd_core::{Inputs, Loss, Targets};

use crate::DataError;
use crate::catalog::{Examples, Request, grouped};
use crate::source::Source;

/// SHA-256 of `adult.data` as published.
const PUBLISHED_SHA256: &str = "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d";
const FIX: &str = "use UCI's adult.data as published";
const COLUMNS: usize = 15;
/// Positions and names of the numeric columns; the first is the target of the regression.
const NUMERIC: [(usize, &str); 6] = [
    (0, "age"),
    (2, "fnlwgt"),
    (4, "education-num"),
    (10, "capital-gain"),
    (11, "capital-loss"),
    (12, "hours-per-week"),
];
/// Positions, names and values of the categorical columns. `Never-worked` has no complete row and so is not a value.
const CATEGORICAL: [(usize, &str, &[&str]); 8] = [
    (
        1,
        "workclass",
        &["Federal-gov", "Local-gov", "Private", "Self-emp-inc", "Self-emp-not-inc", "State-gov", "Without-pay"],
    ),
    (
        3,
        "education",
        &[
            "10th",
            "11th",
            "12th",
            "1st-4th",
            "5th-6th",
            "7th-8th",
            "9th",
            "Assoc-acdm",
            "Assoc-voc",
            "Bachelors",
            "Doctorate",
            "HS-grad",
            "Masters",
            "Preschool",
            "Prof-school",
            "Some-college",
        ],
    ),
    (
        5,
        "marital-status",
        &[
            "Divorced",
            "Married-AF-spouse",
            "Married-civ-spouse",
            "Married-spouse-absent",
            "Never-married",
            "Separated",
            "Widowed",
        ],
    ),
    (
        6,
        "occupation",
        &[
            "Adm-clerical",
            "Armed-Forces",
            "Craft-repair",
            "Exec-managerial",
            "Farming-fishing",
            "Handlers-cleaners",
            "Machine-op-inspct",
            "Other-service",
            "Priv-house-serv",
            "Prof-specialty",
            "Protective-serv",
            "Sales",
            "Tech-support",
            "Transport-moving",
        ],
    ),
    (7, "relationship", &["Husband", "Not-in-family", "Other-relative", "Own-child", "Unmarried", "Wife"]),
    (8, "race", &["Amer-Indian-Eskimo", "Asian-Pac-Islander", "Black", "Other", "White"]),
    (9, "sex", &["Female", "Male"]),
    (
        13,
        "native-country",
        &[
            "Cambodia",
            "Canada",
            "China",
            "Columbia",
            "Cuba",
            "Dominican-Republic",
            "Ecuador",
            "El-Salvador",
            "England",
            "France",
            "Germany",
            "Greece",
            "Guatemala",
            "Haiti",
            "Holand-Netherlands",
            "Honduras",
            "Hong",
            "Hungary",
            "India",
            "Iran",
            "Ireland",
            "Italy",
            "Jamaica",
            "Japan",
            "Laos",
            "Mexico",
            "Nicaragua",
            "Outlying-US(Guam-USVI-etc)",
            "Peru",
            "Philippines",
            "Poland",
            "Portugal",
            "Puerto-Rico",
            "Scotland",
            "South",
            "Taiwan",
            "Thailand",
            "Trinadad&Tobago",
            "United-States",
            "Vietnam",
            "Yugoslavia",
        ],
    ),
];

/// What is to be predicted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Whether the income is above 50,000 dollars, from all 104 columns.
    Income,
    /// The standardized age, from the other 103.
    Age,
}

/// The complete rows, compactly: 33 bytes each.
#[derive(Default)]
struct Table {
    numeric: Vec<[i32; NUMERIC.len()]>,
    categories: Vec<[u8; CATEGORICAL.len()]>,
    incomes: Vec<bool>,
}

/// The user's `adult.data` if it is there, otherwise the embedded rows.
pub(crate) fn load(request: &Request, target: Target) -> Result<Examples, DataError> {
    let one_hot: usize = CATEGORICAL.iter().map(|(_, _, values)| values.len()).sum();
    let skipped = usize::from(target == Target::Age);
    let shape = request.shape(&[NUMERIC.len() - skipped + one_hot])?;
    if target == Target::Age && request.model.loss != Loss::Mse {
        return Err(request.unsuitable("its targets are numbers: use loss mse, or data `adult`".into()));
    }

    let mut warnings = Vec::new();
    let found = request.data_dir.and_then(|root| {
        let path = [root.join("adult").join("adult.data"), root.join("adult.data")].into_iter().find(|p| p.is_file());
        if path.is_none() {
            let root = root.display();
            warnings.push(format!(
                "{root}: holds no Adult (looked for adult/adult.data, adult.data): using the embedded rows"
            ));
        }
        path
    });
    let (mut source, place) = match &found {
        Some(path) => (Source::open(path)?, path.display().to_string()),
        None => {
            let embedded = include_bytes!("../assets/adult-complete.csv.gz");
            (Source::embedded("adult-complete.csv.gz", embedded), "embedded".into())
        }
    };
    let table = read(&mut source)?;
    if found.is_some() {
        warnings.extend(source.unrecognized(PUBLISHED_SHA256));
    }

    let total = table.incomes.len();
    let count = total.min(request.limit);
    let scales: Vec<(f64, f64)> = (0..NUMERIC.len()).map(|column| mean_and_std(&table.numeric, column)).collect();
    let standardized = |row: usize, column: usize| {
        let (mean, std) = scales[column];
        ((f64::from(table.numeric[row][column]) - mean) / std) as f32
    };
    let mut values = Vec::with_capacity(count * (NUMERIC.len() - skipped + one_hot));
    for row in 0..count {
        values.extend((skipped..NUMERIC.len()).map(|column| standardized(row, column)));
        for (category, (_, _, names)) in table.categories[row].iter().zip(CATEGORICAL) {
            values.extend((0..names.len()).map(|value| f32::from(value == usize::from(*category))));
        }
    }
    let targets = match target {
        Target::Age => Targets::Value((0..count).map(|row| standardized(row, 0)).collect()),
        Target::Income => request.classes(table.incomes[..count].iter().map(|above| i32::from(*above)).collect(), 2)?,
    };
    let source = format!("Adult: {} of {} complete rows, {place}", grouped(count), grouped(total));
    Ok(Examples { shape, inputs: Inputs::F32(values), targets, source, warnings })
}

/// Mean and population standard deviation of a column; 1 for the latter where the column is constant.
fn mean_and_std(rows: &[[i32; NUMERIC.len()]], column: usize) -> (f64, f64) {
    let count = rows.len() as f64;
    let mean = rows.iter().map(|row| f64::from(row[column])).sum::<f64>() / count;
    let variance = rows.iter().map(|row| (f64::from(row[column]) - mean).powi(2)).sum::<f64>() / count;
    (mean, if variance > 0.0 { variance.sqrt() } else { 1.0 })
}

/// All rows without a `?`.
fn read(source: &mut Source) -> Result<Table, DataError> {
    let name = source.name.clone();
    let wrong = |line: usize, found: String, expected: String| DataError::Content {
        path: format!("{name}:{line}"),
        found,
        expected,
        fix: FIX,
    };
    let mut table = Table::default();
    let mut lines = BufReader::new(&mut *source);
    let mut text = String::new();
    for line in 1.. {
        text.clear();
        match lines.read_line(&mut text) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                return Err(DataError::File { path: format!("{name}:{line}"), reason: format!("{error}: {FIX}") });
            }
        }
        let fields: Vec<&str> = text.split(',').map(str::trim).collect();
        if fields == [""] || fields.contains(&"?") {
            continue;
        }
        if fields.len() != COLUMNS {
            return Err(wrong(line, format!("{} fields", fields.len()), COLUMNS.to_string()));
        }
        let mut numeric = [0; NUMERIC.len()];
        for (value, (position, column)) in numeric.iter_mut().zip(NUMERIC) {
            let field = fields[position];
            *value = field.parse().map_err(|_| wrong(line, format!("{column} `{field}`"), "an integer".into()))?;
        }
        let mut categories = [0; CATEGORICAL.len()];
        for (value, (position, column, names)) in categories.iter_mut().zip(CATEGORICAL) {
            let found = names.iter().position(|name| *name == fields[position]);
            let found = found.ok_or_else(|| {
                wrong(line, format!("{column} `{}`", fields[position]), format!("one of {}", names.join(", ")))
            })?;
            *value = found as u8;
        }
        let above = match fields[COLUMNS - 1] {
            ">50K" => true,
            "<=50K" => false,
            other => return Err(wrong(line, format!("income `{other}`"), "`<=50K` or `>50K`".into())),
        };
        table.numeric.push(numeric);
        table.categories.push(categories);
        table.incomes.push(above);
    }
    if table.incomes.is_empty() {
        return Err(source.wrong("no complete row".into(), "at least one"));
    }
    Ok(table)
}
