//! The data set on the device, and the batches gathered from it.

use dpsgd_core::{BatchRef, Dataset, Inputs, Targets};
use tch::{Device, Kind, Tensor};

use crate::error::Result;

/// All examples, resident on the device.
pub struct ResidentData {
    /// `[N, ...]`, f32 or i32 tokens.
    inputs: Tensor,
    /// `[N]`, i64 classes or f32 values.
    targets: Tensor,
    device: Device,
}

/// The examples of a batch that count, gathered.
pub struct Batch {
    /// `[k, ...]`, f32 or i32 tokens.
    pub inputs: Tensor,
    /// `[k]`, i64 classes or f32 values.
    pub targets: Tensor,
    /// k, at least 1.
    pub examples: i64,
}

impl ResidentData {
    /// Copies `dataset` to `device`.
    pub fn new(dataset: &Dataset, device: Device) -> Result<Self> {
        let mut shape = vec![dataset.len() as i64];
        shape.extend(dataset.example_shape.iter().map(|size| *size as i64));
        let inputs = match &dataset.inputs {
            Inputs::F32(values) => Tensor::f_from_slice(values)?,
            Inputs::Tokens(tokens) => Tensor::f_from_slice(tokens)?,
        };
        let targets = match &dataset.targets {
            Targets::Class(classes) => Tensor::f_from_slice(classes)?.f_to_kind(Kind::Int64)?,
            Targets::Value(values) => Tensor::f_from_slice(values)?,
        };
        Ok(ResidentData {
            inputs: inputs.f_view(shape.as_slice())?.f_to_device(device)?,
            targets: targets.f_to_device(device)?,
            device,
        })
    }

    /// Gathers the examples of `batch` that count, in order; `None` if there is none.
    ///
    /// Nothing here needs one batch shape, so padding is dropped rather than masked: whatever a padded slot holds, a
    /// NaN included, can't reach the others.
    pub fn gather(&self, batch: &BatchRef<'_>) -> Result<Option<Batch>> {
        let slots = batch.indices.iter().zip(batch.mask);
        let rows: Vec<i64> = slots.filter(|(_, counts)| **counts).map(|(index, _)| i64::from(*index)).collect();
        if rows.is_empty() {
            return Ok(None);
        }
        let examples = rows.len() as i64;
        let rows = Tensor::f_from_slice(&rows)?.f_to_device(self.device)?;
        Ok(Some(Batch {
            inputs: self.inputs.f_index_select(0, &rows)?,
            targets: self.targets.f_index_select(0, &rows)?,
            examples,
        }))
    }
}

impl Batch {
    /// Example `position` of the batch as a batch of one, without copying.
    pub fn example(&self, position: i64) -> Result<Batch> {
        Ok(Batch {
            inputs: self.inputs.f_narrow(0, position, 1)?,
            targets: self.targets.f_narrow(0, position, 1)?,
            examples: 1,
        })
    }
}
