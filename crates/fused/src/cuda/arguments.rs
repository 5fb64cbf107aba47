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
    pub varying: u64,
    pub key: [u32; 8],
    pub first: i32,
    pub examples: i32,
    pub group_first: i32,
    pub group_examples: i32,
    pub accumulate: i32,
    pub is_private: i32,
    pub forward_only: i32,
    pub padding: i32,
}

/// As `struct Varying` in `kernels/prelude.cuh`: what differs from step to step, and so is in the device's memory.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "explained in prelude.cuh")]
pub struct Varying {
    pub number: u64,
    pub clip_norm: f64,
    pub rate: f32,
    pub noise: f32,
    pub examples: i32,
}

impl Varying {
    /// Bytes on the device.
    pub const BYTES: usize = 32;

    /// What is on the device, but for the padding in the end.
    pub fn write(&self, to: &mut Vec<u8>) {
        let start = to.len();
        to.extend(self.number.to_ne_bytes());
        to.extend(self.clip_norm.to_ne_bytes());
        to.extend(self.rate.to_ne_bytes());
        to.extend(self.noise.to_ne_bytes());
        to.extend(self.examples.to_ne_bytes());
        to.resize(start + Varying::BYTES, 0);
    }
}
