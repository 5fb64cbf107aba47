//! The strategy on CUDA: its kernels by NVRTC, for several architectures; all of it on an emulator, against the float64
//! oracle; and on a device, if there is one.

mod compile;
mod conformance;
mod device;
mod emulator;
mod extremes;
mod faults;
#[path = "../generated/mod.rs"]
mod generated;
mod generated_models;
mod noise;
mod precision;
mod profile;
mod recorded;
#[path = "../steps_against_oracle/mod.rs"]
mod steps_against_oracle;
