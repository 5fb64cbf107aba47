//! Memory, CPU and GPU use of a process, sampled from outside it, and facts about the machine.
//!
//! Nothing here runs inside a contender: what is measured is not disturbed by the measuring, and every contender is
//! measured alike.

mod gpu;
mod machine;
mod sampler;
mod timeline;
mod tree;

pub use gpu::nvml::missing_cuda_device;
pub use gpu::{Gpu, GpuLook, GpuMeter, GpuUsage, GpuWindow};
pub use machine::{Machine, machine};
pub use sampler::{Sampler, Usage};
pub use timeline::{Moment, Timeline};
