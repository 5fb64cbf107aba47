//! A model's parameters: named tensors in the model's own order.

use std::path::Path;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use rand_distr::StandardNormal;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::dataset::{from_le, le_bytes};
use crate::model::{Initialization, ModelSpec, ParamSpec};

/// One named parameter tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// As in [`ParamSpec::name`].
    pub name: String,
    /// As in [`ParamSpec::shape`].
    pub shape: Vec<usize>,
    /// `shape.product()` values.
    pub values: Vec<f32>,
}

/// All parameters of a model, in the order of [`ModelSpec::params`].
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Params {
    /// The tensors.
    pub tensors: Vec<Tensor>,
}

/// A parameter file that can't be read or doesn't fit its model.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ParamsError {
    /// The file.
    pub path: String,
    /// What went wrong, naming the tensor.
    pub reason: String,
}

impl Params {
    /// PyTorch's default initialization from a seed: the same numbers on every machine and for every contender.
    ///
    /// Linear, convolution and LSTM parameters are uniform in ±1/√fan_in (an LSTM's fan-in is its hidden size),
    /// embeddings are standard normal.
    pub fn init(model: &ModelSpec, seed: u64) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let tensors = model.params().into_iter().map(|spec| init_tensor(spec, &mut rng)).collect();
        Params { tensors }
    }

    /// The number of scalars.
    pub fn len(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.values.len()).sum()
    }

    /// Whether there is no scalar.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All scalars, tensor after tensor.
    pub fn values(&self) -> impl Iterator<Item = f32> + '_ {
        self.tensors.iter().flat_map(|tensor| tensor.values.iter().copied())
    }

    /// Writes a safetensors file of F32 tensors under their names.
    pub fn save(&self, path: &Path) -> Result<(), ParamsError> {
        let failed = |reason: String| ParamsError { path: path.display().to_string(), reason };
        let bytes: Vec<Vec<u8>> = self.tensors.iter().map(|t| le_bytes(&t.values, |v| v.to_le_bytes())).collect();
        let mut views = Vec::with_capacity(bytes.len());
        for (tensor, bytes) in self.tensors.iter().zip(&bytes) {
            let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes);
            views.push((tensor.name.as_str(), view.map_err(|e| failed(format!("tensor `{}`: {e}", tensor.name)))?));
        }
        safetensors::serialize_to_file(views, None, path).map_err(|e| failed(e.to_string()))
    }

    /// Reads the parameters of `model` from a safetensors file; a missing, extra or misshapen tensor is an error.
    pub fn load(path: &Path, model: &ModelSpec) -> Result<Self, ParamsError> {
        let failed = |reason: String| ParamsError { path: path.display().to_string(), reason };
        let bytes = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| failed(e.to_string()))?;
        let specs = model.params();
        if let Some(extra) = file.names().into_iter().find(|name| specs.iter().all(|spec| spec.name != **name)) {
            return Err(failed(format!("tensor `{extra}` is no parameter of model `{}`", model.name)));
        }
        let mut tensors = Vec::with_capacity(specs.len());
        for ParamSpec { name, shape, .. } in specs {
            let view = file.tensor(&name).map_err(|e| failed(format!("tensor `{name}`: {e}")))?;
            if view.dtype() != Dtype::F32 || view.shape() != shape {
                let found = format!("{:?} {:?}", view.dtype(), view.shape());
                return Err(failed(format!("tensor `{name}` is {found}: the model has F32 {shape:?}")));
            }
            tensors.push(Tensor { name, shape, values: from_le(view.data(), f32::from_le_bytes) });
        }
        Ok(Params { tensors })
    }
}

fn init_tensor(spec: ParamSpec, rng: &mut impl Rng) -> Tensor {
    let count = spec.shape.iter().product();
    let values = match spec.initialization {
        Initialization::StandardNormal => (0..count).map(|_| rng.sample::<f32, _>(StandardNormal)).collect(),
        Initialization::UniformFanIn(fan_in) => {
            let bound = 1.0 / (fan_in as f32).sqrt();
            (0..count).map(|_| (rng.random::<f32>() * 2.0 - 1.0) * bound).collect()
        }
    };
    Tensor { name: spec.name, shape: spec.shape, values }
}

#[cfg(test)]
#[path = "params_tests.rs"]
mod tests;
