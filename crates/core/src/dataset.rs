//! A data set in memory, and on disk as the safetensors file that workers load.

use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::{Loss, ModelInput, ModelSpec};

/// The inputs of all examples, contiguous, example by example.
#[derive(Clone, Debug, PartialEq)]
pub enum Inputs {
    /// `[N, ...example_shape]` numbers.
    F32(Vec<f32>),
    /// `[N, time]` token ids.
    Tokens(Vec<i32>),
}

/// One target per example.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// `[N]` class ids, for cross-entropy.
    Class(Vec<i32>),
    /// `[N]` numbers: regression targets, or 0 and 1 for binary cross-entropy.
    Value(Vec<f32>),
}

/// N examples of one shape with their targets.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Shape of one input, such as `[1, 28, 28]`.
    pub example_shape: Vec<usize>,
    /// The inputs.
    pub inputs: Inputs,
    /// The targets.
    pub targets: Targets,
}

/// A data set that can't be read, or that doesn't fit a model.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The file can't be read or written.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What went wrong.
        reason: String,
    },
    /// The data does not fit the model.
    #[error("data set does not fit model `{model}`: {reason}")]
    Mismatch {
        /// The model's name.
        model: String,
        /// What differs, with both sides.
        reason: String,
    },
}

impl Dataset {
    /// N.
    pub fn len(&self) -> usize {
        match &self.targets {
            Targets::Class(classes) => classes.len(),
            Targets::Value(values) => values.len(),
        }
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers or tokens in one example.
    pub fn example_len(&self) -> usize {
        self.example_shape.iter().product()
    }

    /// The first `examples` examples, or all when there are fewer.
    pub fn truncate(&mut self, examples: usize) {
        let examples = examples.min(self.len());
        let numbers = examples * self.example_len();
        match &mut self.inputs {
            Inputs::F32(values) => values.truncate(numbers),
            Inputs::Tokens(tokens) => tokens.truncate(numbers),
        }
        match &mut self.targets {
            Targets::Class(classes) => classes.truncate(examples),
            Targets::Value(values) => values.truncate(examples),
        }
    }

    /// Checks that shapes, token ids and targets fit `model`; the error names both sides.
    pub fn check_fits(&self, model: &ModelSpec) -> Result<(), DatasetError> {
        let mismatch = |reason: String| Err(DatasetError::Mismatch { model: model.name.clone(), reason });
        let expected = model.input.dimensions();
        if self.example_shape != expected {
            return mismatch(format!("examples have shape {:?}, the model takes {expected:?}", self.example_shape));
        }
        let numbers = match &self.inputs {
            Inputs::F32(values) => values.len(),
            Inputs::Tokens(tokens) => tokens.len(),
        };
        if numbers != self.len() * self.example_len() {
            return mismatch(format!("{numbers} input values for {} examples of {}", self.len(), self.example_len()));
        }
        match (&self.inputs, &model.input) {
            (Inputs::F32(_), ModelInput::Features(_) | ModelInput::Image(_)) => {}
            (Inputs::Tokens(tokens), ModelInput::Tokens { vocabulary, .. }) => {
                if let Some(bad) = tokens.iter().find(|t| usize::try_from(**t).map_or(true, |t| t >= *vocabulary)) {
                    return mismatch(format!("token {bad} is outside the vocabulary of {vocabulary}"));
                }
            }
            (Inputs::F32(_), _) => return mismatch("the data has numbers, the model takes tokens".into()),
            (Inputs::Tokens(_), _) => return mismatch("the data has tokens, the model takes numbers".into()),
        }
        match (&self.targets, model.loss) {
            (Targets::Class(classes), Loss::CrossEntropy) => {
                let outputs = model
                    .outputs()
                    .map_err(|error| DatasetError::Mismatch { model: model.name.clone(), reason: error.to_string() })?;
                if let Some(bad) = classes.iter().find(|c| usize::try_from(**c).map_or(true, |c| c >= outputs)) {
                    return mismatch(format!("class {bad} is outside the model's {outputs} outputs"));
                }
                Ok(())
            }
            (Targets::Value(values), Loss::BceWithLogits) => match values.iter().find(|v| **v != 0.0 && **v != 1.0) {
                Some(bad) => mismatch(format!("target {bad}: bce_with_logits takes 0 or 1")),
                None => Ok(()),
            },
            (Targets::Value(_), Loss::Mse) => Ok(()),
            (Targets::Class(_), loss) => mismatch(format!("the data has classes, loss {loss} takes numbers")),
            (Targets::Value(_), loss) => {
                mismatch(format!("the data has numbers as targets, loss {loss} takes classes"))
            }
        }
    }

    /// Writes tensors `inputs` `[N, ...]` and `targets` `[N]` (F32 or I32) to a safetensors file.
    pub fn save(&self, path: &Path) -> Result<(), DatasetError> {
        let file_error = |reason: String| DatasetError::File { path: path.display().to_string(), reason };
        let (input_type, input_bytes) = match &self.inputs {
            Inputs::F32(values) => (Dtype::F32, le_bytes(values, |v| v.to_le_bytes())),
            Inputs::Tokens(tokens) => (Dtype::I32, le_bytes(tokens, |v| v.to_le_bytes())),
        };
        let (target_type, target_bytes) = match &self.targets {
            Targets::Class(classes) => (Dtype::I32, le_bytes(classes, |v| v.to_le_bytes())),
            Targets::Value(values) => (Dtype::F32, le_bytes(values, |v| v.to_le_bytes())),
        };
        let input_shape = [&[self.len()], self.example_shape.as_slice()].concat();
        let view = |dtype, shape, bytes| TensorView::new(dtype, shape, bytes).map_err(|e| file_error(e.to_string()));
        let tensors = [
            ("inputs", view(input_type, input_shape, &input_bytes)?),
            ("targets", view(target_type, vec![self.len()], &target_bytes)?),
        ];
        safetensors::serialize_to_file(tensors, None, path).map_err(|e| file_error(e.to_string()))
    }

    /// Reads what [`Dataset::save`] wrote.
    pub fn load(path: &Path) -> Result<Self, DatasetError> {
        let file_error = |reason: String| DatasetError::File { path: path.display().to_string(), reason };
        let bytes = std::fs::read(path).map_err(|e| file_error(e.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| file_error(e.to_string()))?;
        let tensor = |name: &str| file.tensor(name).map_err(|e| file_error(format!("tensor `{name}`: {e}")));
        let (inputs, targets) = (tensor("inputs")?, tensor("targets")?);
        let dataset = Dataset {
            example_shape: inputs.shape().get(1..).unwrap_or_default().to_vec(),
            inputs: match inputs.dtype() {
                Dtype::F32 => Inputs::F32(from_le(inputs.data(), f32::from_le_bytes)),
                Dtype::I32 => Inputs::Tokens(from_le(inputs.data(), i32::from_le_bytes)),
                other => return Err(file_error(format!("tensor `inputs` is {other:?}: must be F32 or I32"))),
            },
            targets: match targets.dtype() {
                Dtype::F32 => Targets::Value(from_le(targets.data(), f32::from_le_bytes)),
                Dtype::I32 => Targets::Class(from_le(targets.data(), i32::from_le_bytes)),
                other => return Err(file_error(format!("tensor `targets` is {other:?}: must be F32 or I32"))),
            },
        };
        if inputs.shape().first() != Some(&dataset.len()) || targets.shape().len() != 1 {
            let reason = format!("inputs {:?} and targets {:?} disagree", inputs.shape(), targets.shape());
            return Err(file_error(reason));
        }
        Ok(dataset)
    }
}

pub(crate) fn le_bytes<T: Copy>(values: &[T], bytes: impl Fn(T) -> [u8; 4]) -> Vec<u8> {
    values.iter().flat_map(|value| bytes(*value)).collect()
}

pub(crate) fn from_le<T>(bytes: &[u8], value: impl Fn([u8; 4]) -> T) -> Vec<T> {
    bytes.as_chunks::<4>().0.iter().map(|chunk| value(*chunk)).collect()
}

#[cfg(test)]
#[path = "dataset_tests.rs"]
mod tests;
