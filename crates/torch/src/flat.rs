//! One value per parameter of the model, in one tensor.

use dpsgd_core::{ModelSpec, Params};
use tch::{Device, Kind, Tensor};

use crate::error::Result;

/// A tensor `[P]` and, over the same memory, one tensor per parameter of the model.
///
/// One tensor makes a step's update a few operations whatever the number of layers: one draw of noise, one addition.
pub struct Flat {
    /// `[P]`.
    pub all: Tensor,
    /// Views of `all` in the order and of the shapes of [`ModelSpec::params`].
    pub views: Vec<Tensor>,
}

impl Flat {
    /// Zeros for `model`.
    pub fn zeros(model: &ModelSpec, device: Device) -> Result<Self> {
        let shapes: Vec<Vec<i64>> =
            model.params().iter().map(|spec| spec.shape.iter().map(|size| *size as i64).collect()).collect();
        let lengths: Vec<i64> = shapes.iter().map(|shape| shape.iter().product()).collect();
        let all = Tensor::f_zeros([lengths.iter().sum::<i64>()], (Kind::Float, device))?;
        let mut views = Vec::with_capacity(shapes.len());
        let mut start = 0;
        for (shape, length) in shapes.iter().zip(lengths) {
            views.push(all.f_narrow(0, start, length)?.f_view(shape.as_slice())?);
            start += length;
        }
        Ok(Flat { all, views })
    }

    /// Overwrites all values.
    pub fn set(&mut self, params: &Params) -> Result<()> {
        let values: Vec<f32> = params.values().collect();
        self.all.f_copy_(&Tensor::f_from_slice(&values)?)
    }

    /// A copy on the host, named and shaped as in `model`.
    pub fn get(&self, model: &ModelSpec) -> Result<Params> {
        let mut values = vec![0f32; self.all.numel()];
        self.all.f_to_device(Device::Cpu)?.f_copy_data(&mut values, self.all.numel())?;
        let mut rest = values.as_slice();
        let tensors = model.params().into_iter().map(|spec| {
            let (these, others) = rest.split_at(spec.shape.iter().product());
            rest = others;
            dpsgd_core::Tensor { name: spec.name, shape: spec.shape, values: these.to_vec() }
        });
        Ok(Params { tensors: tensors.collect() })
    }
}
