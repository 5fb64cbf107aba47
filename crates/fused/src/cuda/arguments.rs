//! The argument of every kernel.

/// As `struct Step` in `kernels/prelude.cuh`: the same fields in the same order. Addresses are the device's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "explained in prelude.cuh")]
pub struct Step {
    pub theta: u64,
    pub sums: u64,
    pub values: u64,
    pub gradients: u64,
    pub marks: u64,
    pub states: u64,
    pub kept: u64,
    pub partials: u64,
    pub squares: u64,
    pub factors: u64,
    pub non_finite: u64,
    pub inputs: u64,
    pub tokens: u64,
    pub classes: u64,
    pub targets: u64,
    pub rows: u64,
    pub order: u64,
    pub number: u64,
    pub clip_norm: f64,
    pub key: [u32; 8],
    pub rate: f32,
    pub noise: f32,
    pub first: i32,
    pub examples: i32,
    pub group_first: i32,
    pub group_examples: i32,
    pub accumulate: i32,
    pub is_private: i32,
    pub has_sum: i32,
    pub forward_only: i32,
}
