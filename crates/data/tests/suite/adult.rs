use std::io::Read;

use dpsgd_core::{Loss, ModelInput, ModelSpec};
use dpsgd_data::load;
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::{assert_contains, built_in, classes, error_of, numbers, values};

const ROW: &str = "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40, United-States, <=50K\n";
const OLDER: &str =
    "59, Private, 77516, Bachelors, 13, Divorced, Sales, Unmarried, Black, Female, 0, 0, 40, Cuba, >50K\n";
const INCOMPLETE: &str = "70, ?, 1, Bachelors, 13, Divorced, ?, Unmarried, Black, Female, 0, 0, 40, Cuba, >50K\n";

#[test]
fn all_complete_rows_are_embedded_and_balanced_as_uci_states() {
    let loaded = load("adult", &built_in("ffnn"), None, None, 0).unwrap();
    assert!(loaded.real && loaded.warnings.is_empty());
    assert_eq!(loaded.source, "Adult: 30,162 of 30,162 complete rows, embedded");
    assert_eq!(loaded.dataset.example_shape, [104]);
    assert_eq!(classes(&loaded.dataset).len(), 30_162);
    // adult.names states a probability of 24.78% for ">50K" without unknowns over train and test together; these are the
    // counts of the training part.
    assert_eq!(classes(&loaded.dataset).iter().filter(|class| **class == 1).count(), 7_508);
}

#[test]
fn the_embedded_rows_are_the_ones_that_the_provenance_file_describes() {
    let readme = include_str!("../../assets/README.md");
    let files: [(&str, &[u8]); 3] = [
        ("adult-complete.csv.gz", include_bytes!("../../assets/adult-complete.csv.gz")),
        ("mnist-4096-images-idx3-ubyte.gz", include_bytes!("../../assets/mnist-4096-images-idx3-ubyte.gz")),
        ("mnist-4096-labels-idx1-ubyte.gz", include_bytes!("../../assets/mnist-4096-labels-idx1-ubyte.gz")),
    ];
    for (name, packed) in files {
        let mut content = Vec::new();
        GzDecoder::new(packed).read_to_end(&mut content).unwrap();
        let line = readme.lines().find(|line| line.contains(name)).unwrap();
        let hex = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_contains(line, &[&hex(packed), &hex(&content)]);
    }
}

#[test]
fn the_first_row_has_the_values_of_its_csv_line() {
    // Expected values computed with Python's float and math.fsum from the file's first line and columns.
    let loaded = load("adult", &built_in("ffnn"), Some(1), None, 0).unwrap();
    let row = numbers(&loaded.dataset);
    let numeric = [0.04279571, -1.06272160, 1.12891838, 0.14609228, -0.21858598, -0.07773411];
    for (found, expected) in row.iter().zip(numeric) {
        assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} is not {expected}");
    }
    let ones: Vec<usize> = (6..104).filter(|column| row[*column] == 1.0).collect();
    assert_eq!(ones, [11, 22, 33, 36, 51, 60, 62, 101]);
    assert_eq!(row[6..].iter().filter(|value| **value == 0.0).count(), 90);
}

#[test]
fn numeric_columns_have_mean_zero_and_deviation_one_and_every_category_occurs() {
    let loaded = load("adult", &built_in("ffnn"), None, None, 0).unwrap();
    let rows: Vec<&[f32]> = numbers(&loaded.dataset).chunks_exact(104).collect();
    let count = rows.len() as f64;
    for column in 0..104 {
        let sum: f64 = rows.iter().map(|row| f64::from(row[column])).sum();
        let squares: f64 = rows.iter().map(|row| f64::from(row[column]).powi(2)).sum();
        if column < 6 {
            assert!((sum / count).abs() < 1e-6 && (squares / count - 1.0).abs() < 1e-6, "column {column}");
        } else {
            assert!(sum >= 1.0 && sum == squares, "column {column} sums to {sum}");
        }
    }
    // One value in each of the eight categorical columns.
    assert!(rows.iter().all(|row| row[6..].iter().sum::<f32>() == 8.0));
}

#[test]
fn targets_follow_the_loss() {
    let logistic = load("adult", &built_in("logreg"), Some(100), None, 0).unwrap().dataset;
    let softmax = load("adult", &built_in("ffnn"), Some(100), None, 0).unwrap().dataset;
    assert_eq!(values(&logistic).iter().map(|value| *value as i32).collect::<Vec<_>>(), classes(&softmax));
    assert_eq!(logistic.inputs, softmax.inputs);
}

#[test]
fn regression_predicts_the_column_that_classification_has_first() {
    let ages = load("adult-age", &built_in("ffnn-regression"), Some(500), None, 0).unwrap().dataset;
    let full = load("adult", &built_in("ffnn"), Some(500), None, 0).unwrap().dataset;
    assert_eq!(ages.example_shape, [103]);
    for (row, (inputs, age)) in numbers(&ages).chunks_exact(103).zip(values(&ages)).enumerate() {
        let expected = &numbers(&full)[row * 104..(row + 1) * 104];
        assert_eq!((*age, inputs), (expected[0], &expected[1..]));
    }
}

#[test]
fn a_capped_set_is_standardized_by_all_rows() {
    let few = load("adult", &built_in("ffnn"), Some(10), None, 0).unwrap().dataset;
    let mut all = load("adult", &built_in("ffnn"), None, None, 0).unwrap().dataset;
    all.truncate(10);
    assert_eq!(few, all);
    let more = load("adult", &built_in("ffnn"), Some(1_000_000), None, 0).unwrap().dataset;
    assert_eq!(more.len(), 30_162);
}

#[test]
fn adult_data_of_the_user_is_read_without_its_incomplete_rows() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("adult.data"), [ROW, INCOMPLETE, OLDER, "\n"].concat()).unwrap();
    let loaded = load("adult", &built_in("ffnn"), None, Some(folder.path()), 0).unwrap();
    assert_eq!(classes(&loaded.dataset), [0, 1]);
    // Two values standardize to -1 and 1, and a constant column to 0.
    assert_eq!(numbers(&loaded.dataset)[..6], [-1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    assert_eq!(numbers(&loaded.dataset)[104], 1.0);
    assert_contains(&loaded.warnings.join("\n"), &["adult.data", "unrecognized content", "5b00264637db"]);
}

#[test]
fn a_folder_without_adult_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let loaded = load("adult", &built_in("ffnn"), Some(1), Some(folder.path()), 0).unwrap();
    assert!(loaded.real);
    assert_contains(&loaded.warnings.join("\n"), &["holds no Adult", "adult/adult.data", "embedded"]);
}

#[test]
fn a_bad_row_is_answered_with_its_line_and_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("adult")).unwrap();
    let cases = [
        (ROW.replace("39", "old"), "adult.data:2: found age `old`, expected an integer"),
        (ROW.replace("Male", "M"), "adult.data:2: found sex `M`, expected one of Female, Male"),
        (ROW.replace("<=50K", "poor"), "adult.data:2: found income `poor`, expected `<=50K` or `>50K`"),
        (ROW.replace(", White", ""), "adult.data:2: found 14 fields, expected 15"),
    ];
    for (bad, expected) in cases {
        std::fs::write(folder.path().join("adult").join("adult.data"), [OLDER, &bad].concat()).unwrap();
        assert_contains(&error_of("adult", &built_in("ffnn"), folder.path()), &[expected, "use UCI's adult.data"]);
    }
    std::fs::write(folder.path().join("adult").join("adult.data"), INCOMPLETE).unwrap();
    assert_contains(&error_of("adult", &built_in("ffnn"), folder.path()), &["no complete row"]);
}

#[test]
fn a_model_that_adult_does_not_fit_is_an_error_with_both_sides() {
    let fails = |name: &str, model: &ModelSpec| load(name, model, None, None, 0).unwrap_err().to_string();
    assert_contains(&fails("adult", &built_in("mnist-cnn")), &["[104]", "image [1, 28, 28]", "`synthetic`"]);
    assert_contains(&fails("adult-age", &built_in("ffnn")), &["[103]", "features [104]"]);
    let mut mse = built_in("logreg");
    mse.loss = Loss::Mse;
    assert_contains(&fails("adult", &mse), &["2 classes", "loss mse", "`adult-age`"]);
    let mut classifier = built_in("ffnn-regression");
    (classifier.loss, classifier.input) = (Loss::BceWithLogits, ModelInput::Features(103));
    assert_contains(&fails("adult-age", &classifier), &["loss mse", "`adult`"]);
}
