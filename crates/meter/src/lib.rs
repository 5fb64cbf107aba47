//! Memory, CPU and GPU use of a process, sampled from outside it, and facts about the machine.
//!
//! Nothing here runs inside a contender: what is measured is not disturbed by the measuring, and every contender is
//! measured alike.

mod gpu;
mod load;
mod machine;
mod processors;
mod sampler;
mod timeline;
mod tree;

pub use gpu::nvml::missing_cuda_device;
pub use gpu::{Gpu, GpuLook, GpuMeter, GpuUsage, GpuWindow};
pub use load::{Load, available_memory};
pub use machine::{Machine, machine};
pub use processors::{Processors, processors, spread_over_cores};
pub use sampler::{Sampler, Usage};
pub use timeline::{Moment, Timeline};
