//! The data sets by name, and what they have in common.

use std::path::{Path, PathBuf};

use dpsgd_core::{Dataset, Inputs, Loss, ModelInput, ModelSpec, Targets, nearest};

use crate::{DataError, adult, cifar10, imdb, mnist, synthetic};

/// How many examples `synthetic` has unless told.
const SYNTHETIC_EXAMPLES: usize = 4096;

const NAMES: [(&str, &str); 6] = [
    ("adult", "Adult census income, 30,162 rows of 104 features, 2 classes; embedded, real"),
    ("adult-age", "Adult for regression: standardized age from the other 103 features; embedded, real"),
    ("mnist", "MNIST, 1x28x28 images, 10 classes; 4,096 embedded, all 60,000 from a folder; real"),
    ("cifar10", "CIFAR-10, 50,000 3x32x32 images, 10 classes; real from a folder, otherwise synthetic"),
    ("imdb", "IMDb reviews, 25,000 token sequences, 2 classes; real from a folder, otherwise synthetic"),
    ("synthetic", "made up to fit any model: its input shape, its loss, its number of classes"),
];

/// The data sets: names with one-line descriptions.
pub fn names() -> &'static [(&'static str, &'static str)] {
    &NAMES
}

/// A data set, and where it is from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The examples; they fit the model that they were loaded for.
    pub dataset: Dataset,
    /// Whether these are real data; otherwise they are synthetic, which every table and plot must say.
    pub real: bool,
    /// What, how many and where from, in one line.
    pub source: String,
    /// One line each: files whose content is not the published one, folders that were not used.
    pub warnings: Vec<String>,
}

/// Loads the data set `name`, one of [`names`], for `model`: at most `examples` of it, or all.
///
/// Files under `data_dir` are preferred, see the [crate's documentation](crate) for the places looked at. Without it,
/// `adult` and `mnist` are the embedded samples, `cifar10` and `imdb` are synthetic sets of the same shape and size;
/// with it, `cifar10` and `imdb` must be there. `seed` makes the synthetic sets.
///
/// Two-class sets serve cross-entropy (classes 0 and 1) and binary cross-entropy (numbers 0 and 1); image sets also serve
/// models that take as many features as an image has pixels; IMDb is cut to the model's sequence length and vocabulary.
/// The data set that is returned passes [`Dataset::check_fits`].
pub fn load(
    name: &str,
    model: &ModelSpec,
    examples: Option<usize>,
    data_dir: Option<&Path>,
    seed: u64,
) -> Result<Loaded, DataError> {
    let Some((name, _)) = NAMES.iter().find(|(known, _)| *known == name) else {
        let suggestion = nearest(name, NAMES.map(|(known, _)| known));
        return Err(DataError::Unknown {
            name: name.to_string(),
            valid: NAMES.map(|(known, _)| format!("`{known}`")).join(", "),
            suggestion: suggestion.map_or(String::new(), |name| format!("; did you mean `{name}`?")),
        });
    };
    if examples == Some(0) {
        return Err(DataError::Unsuitable { name: name.to_string(), reason: "examples = 0: must be above 0".into() });
    }
    if let Some(root) = data_dir.filter(|root| !root.is_dir()) {
        let reason = "no such folder: name the folder that holds the data sets, or none".into();
        return Err(DataError::File { path: root.display().to_string(), reason });
    }
    let request = Request { name, model, limit: examples.unwrap_or(usize::MAX), data_dir };
    let imitate = |what: &str, size: usize| made_up(&request, what, size.min(request.limit), seed);
    let (loaded, real) = match (*name, data_dir) {
        ("adult", _) => (adult::load(&request, adult::Target::Income)?, true),
        ("adult-age", _) => (adult::load(&request, adult::Target::Age)?, true),
        ("mnist", _) => (mnist::load(&request)?, true),
        ("cifar10", Some(root)) => (cifar10::load(&request, root)?, true),
        ("imdb", Some(root)) => (imdb::load(&request, root)?, true),
        ("cifar10", None) => {
            request.shape(&cifar10::SHAPE)?;
            (imitate("synthetic stand-in for CIFAR-10", cifar10::EXAMPLES)?, false)
        }
        ("imdb", None) => {
            imdb::sizes(&request)?;
            (imitate("synthetic stand-in for IMDb", imdb::EXAMPLES)?, false)
        }
        _ => (imitate("synthetic", examples.unwrap_or(SYNTHETIC_EXAMPLES))?, false),
    };
    let Examples { shape, inputs, targets, source, warnings } = loaded;
    let dataset = Dataset { example_shape: shape, inputs, targets };
    dataset.check_fits(model)?;
    Ok(Loaded { dataset, real, source, warnings })
}

fn made_up(request: &Request, what: &str, count: usize, seed: u64) -> Result<Examples, DataError> {
    let dataset = synthetic::generate(request.model, count, seed).map_err(|e| request.unsuitable(e.to_string()))?;
    Ok(Examples {
        source: format!("{what}: {} examples of shape {:?}, seed {seed}", grouped(count), dataset.example_shape),
        shape: dataset.example_shape,
        inputs: dataset.inputs,
        targets: dataset.targets,
        warnings: Vec::new(),
    })
}

/// What one loader returns.
pub(crate) struct Examples {
    pub shape: Vec<usize>,
    pub inputs: Inputs,
    pub targets: Targets,
    pub source: String,
    pub warnings: Vec<String>,
}

/// What a loader is asked for.
pub(crate) struct Request<'a> {
    pub name: &'static str,
    pub model: &'a ModelSpec,
    /// At most so many examples; `usize::MAX` for all.
    pub limit: usize,
    pub data_dir: Option<&'a Path>,
}

impl Request<'_> {
    pub fn unsuitable(&self, reason: String) -> DataError {
        DataError::Unsuitable { name: self.name.to_string(), reason }
    }

    /// The shape under which the model takes examples of `shape`: `shape` itself, or flat. Called before anything is read.
    pub fn shape(&self, shape: &[usize]) -> Result<Vec<usize>, DataError> {
        let takes = self.model.input.dimensions();
        let flat = matches!(self.model.input, ModelInput::Features(n) if n == shape.iter().product::<usize>());
        if flat || (takes == shape && !matches!(self.model.input, ModelInput::Tokens { .. })) {
            return Ok(takes);
        }
        let (model, input) = (&self.model.name, self.model.input.shape());
        let fix = "change the model's input, or use data `synthetic`";
        Err(self.unsuitable(format!("its examples have shape {shape:?}, model `{model}` takes {input}: {fix}")))
    }

    /// Classes as the model's loss takes them.
    pub fn classes(&self, classes: Vec<i32>, count: usize) -> Result<Targets, DataError> {
        match self.model.loss {
            Loss::CrossEntropy => Ok(Targets::Class(classes)),
            Loss::BceWithLogits if count == 2 => {
                Ok(Targets::Value(classes.iter().map(|class| *class as f32).collect()))
            }
            Loss::BceWithLogits => {
                Err(self.unsuitable(format!("it has {count} classes, loss bce_with_logits takes 2: use cross_entropy")))
            }
            Loss::Mse => {
                let fix = "use cross_entropy, or data `adult-age` or `synthetic`";
                Err(self.unsuitable(format!("it has {count} classes, loss mse takes numbers: {fix}")))
            }
        }
    }
}

/// The first of `folders` that holds the files looked for.
pub(crate) fn folder_with(folders: &[PathBuf], holds: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    folders.iter().find(|folder| holds(folder)).cloned()
}

/// Paths for an error.
pub(crate) fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// `30162` as `30,162`.
pub(crate) fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
