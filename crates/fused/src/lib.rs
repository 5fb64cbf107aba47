//! The strategy `fused`: DP-SGD from kernels of our own.

pub mod noise;
pub mod simd;
