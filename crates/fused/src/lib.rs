//! The strategy `fused`: DP-SGD from kernels of our own.

mod engine;
pub mod kernels;
pub mod layout;
mod memory;
pub mod noise;
pub mod plan;
pub mod simd;
mod strategy;
mod threads;

pub use strategy::Fused;
