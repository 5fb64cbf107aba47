//! The strategy on a CUDA device, without a CUDA toolkit: kernels are compiled at load by NVRTC, driver and compiler are
//! loaded when they are asked for.
//!
//! A [`Plan`] of the model is written out as a [`Program`]: structs of constants and the kernels' templates
//! (`kernels/*.cuh`). An [`Engine`] starts its kernels on a [`Device`], of which [`Hardware`] is the real one: the launches of
//! a step are recorded, and then started as one.

mod arguments;
mod cache;
mod compile;
mod constants;
mod device;
mod engine;
mod hardware;
mod pinned;
mod plan;
mod profile;
mod program;
mod recordings;
mod resident;
mod schedule;
mod staging;
mod tiled;
mod work;

pub use arguments::{Step, Varying};
pub use cache::Cache;
pub use compile::{Compiled, compile, compile_with_ptx, load_compiler, version as compiler_version};
pub use device::{Device, DeviceError, Launch, Limits, Peak};
pub use engine::Engine;
pub use hardware::Hardware;
pub use plan::Plan;
pub use profile::{KernelTime, Profile};
pub use program::{Precision, Program, Purpose};

use dpsgd_core::ModelSpec;

/// The parameter, counted in PyTorch's order, that each normal of the noise belongs to: the one that it belongs to on a
/// processor, whose plan for the model this is.
pub fn noise_order(model: &ModelSpec, plan: &crate::plan::Plan) -> Vec<u32> {
    let mut order = vec![0; plan.parameters];
    let mut first = 0;
    for (tensor, map) in model.params().iter().zip(&plan.tensors) {
        let length = tensor.shape.iter().product::<usize>();
        (0..length).for_each(|i| order[map.place(i)] = (first + i) as u32);
        first += length;
    }
    order
}
