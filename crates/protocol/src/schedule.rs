//! The batches of an epoch, as a file that every contender reads: the same batches for all.

use std::path::Path;

use dpsgd_core::BatchRef;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// `steps` batches of `width` slots each, row-major; see [`BatchRef`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Slots per batch, at least 1.
    pub width: usize,
    /// `[steps * width]` rows of the data set.
    pub indices: Vec<u32>,
    /// `[steps * width]`: which slots count.
    pub mask: Vec<bool>,
}

/// A schedule file that can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ScheduleError {
    /// The file.
    pub path: String,
    /// What went wrong.
    pub reason: String,
}

impl Schedule {
    /// Number of batches.
    pub fn steps(&self) -> usize {
        self.indices.len() / self.width
    }

    /// The batches in order.
    pub fn batches(&self) -> impl Iterator<Item = BatchRef<'_>> {
        let batches = self.indices.chunks_exact(self.width).zip(self.mask.chunks_exact(self.width));
        batches.map(|(indices, mask)| BatchRef { indices, mask })
    }

    /// Writes tensors `indices` I32 and `mask` BOOL, both `[steps, width]`, to a safetensors file.
    pub fn save(&self, path: &Path) -> Result<(), ScheduleError> {
        let failed = |reason: String| ScheduleError { path: path.display().to_string(), reason };
        let indices: Vec<u8> = self.indices.iter().flat_map(|index| index.to_le_bytes()).collect();
        let mask: Vec<u8> = self.mask.iter().map(|counts| u8::from(*counts)).collect();
        let shape = vec![self.steps(), self.width];
        let view = |dtype, bytes| TensorView::new(dtype, shape.clone(), bytes).map_err(|e| failed(e.to_string()));
        let tensors = [("indices", view(Dtype::I32, &indices)?), ("mask", view(Dtype::BOOL, &mask)?)];
        safetensors::serialize_to_file(tensors, None, path).map_err(|e| failed(e.to_string()))
    }

    /// Reads what [`Schedule::save`] wrote.
    pub fn load(path: &Path) -> Result<Self, ScheduleError> {
        let failed = |reason: String| ScheduleError { path: path.display().to_string(), reason };
        let bytes = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| failed(e.to_string()))?;
        let tensor = |name: &str, dtype: Dtype| {
            let view = file.tensor(name).map_err(|e| failed(format!("tensor `{name}`: {e}")))?;
            if view.dtype() != dtype || view.shape().len() != 2 || view.shape()[1] == 0 {
                let found = format!("{:?} {:?}", view.dtype(), view.shape());
                return Err(failed(format!("tensor `{name}` is {found}: must be {dtype:?} [steps, width]")));
            }
            Ok(view)
        };
        let (indices, mask) = (tensor("indices", Dtype::I32)?, tensor("mask", Dtype::BOOL)?);
        if indices.shape() != mask.shape() {
            return Err(failed(format!("indices {:?} and mask {:?} differ", indices.shape(), mask.shape())));
        }
        Ok(Schedule {
            width: indices.shape()[1],
            indices: indices.data().as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect(),
            mask: mask.data().iter().map(|byte| *byte != 0).collect(),
        })
    }
}
