//! Plain Rust on arrays of 8: for every machine, and what the other instruction sets are tested against.
//!
//! The compiler makes vector instructions of it as far as the target has them (NEON on aarch64, SSE2 on x86-64).

#![allow(clippy::needless_range_loop, reason = "constant ranges over several arrays at once are what gets unrolled")]

use super::{Isa, Kernel};

/// No proof is needed: plain Rust runs everywhere.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

/// Eight lanes, aligned as a vector register would be.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(align(32))]
pub struct Eight<T>(pub [T; 8]);

#[inline(always)]
fn one<A: Copy, O: Copy + Default>(a: Eight<A>, operation: impl Fn(A) -> O) -> Eight<O> {
    let mut output = [O::default(); 8];
    for lane in 0..8 {
        output[lane] = operation(a.0[lane]);
    }
    Eight(output)
}

#[inline(always)]
fn two<A: Copy, B: Copy, O: Copy + Default>(a: Eight<A>, b: Eight<B>, operation: impl Fn(A, B) -> O) -> Eight<O> {
    let mut output = [O::default(); 8];
    for lane in 0..8 {
        output[lane] = operation(a.0[lane], b.0[lane]);
    }
    Eight(output)
}

// SAFETY: plain Rust runs everywhere.
unsafe impl Isa for Portable {
    type F32 = Eight<f32>;
    type U32 = Eight<u32>;
    type Mask = Eight<bool>;

    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    const ROWS: [usize; 3] = [8, 4, 0];
    const VECTORS: usize = 2;
    const NAME: &'static str = "portable";

    fn detect() -> Option<Self> {
        Some(Portable)
    }

    #[inline(always)]
    fn dispatch<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Eight<f32> {
        Eight([value; 8])
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Eight<f32> {
        // SAFETY: the caller vouches for the 8 numbers.
        Eight(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: Eight<f32>) {
        // SAFETY: the caller vouches for the 8 numbers.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(value.0) }
    }

    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, count: usize) -> Eight<f32> {
        debug_assert!(count <= 8);
        let mut lanes = [0.0; 8];
        // SAFETY: the caller vouches for the first `count`, and `lanes` has room for them.
        unsafe { std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count) };
        Eight(lanes)
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, value: Eight<f32>, count: usize) {
        debug_assert!(count <= 8);
        // SAFETY: the caller vouches for the first `count`, and `value` has that many.
        unsafe { std::ptr::copy_nonoverlapping(value.0.as_ptr(), to, count) };
    }

    #[inline(always)]
    fn add(self, a: Eight<f32>, b: Eight<f32>) -> Eight<f32> {
        two(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Eight<f32>, b: Eight<f32>) -> Eight<f32> {
        two(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Eight<f32>, b: Eight<f32>) -> Eight<f32> {
        two(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Eight<f32>, b: Eight<f32>) -> Eight<f32> {
        two(a, b, |a, b| a / b)
    }

    /// In two roundings where one would take a call of the C library.
    #[inline(always)]
    fn mul_add(self, a: Eight<f32>, b: Eight<f32>, c: Eight<f32>) -> Eight<f32> {
        let mut output = c.0;
        for lane in 0..8 {
            output[lane] = if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
                a.0[lane].mul_add(b.0[lane], output[lane])
            } else {
                a.0[lane] * b.0[lane] + output[lane]
            };
        }
        Eight(output)
    }

    #[inline(always)]
    fn max(self, a: Eight<f32>, b: Eight<f32>) -> Eight<f32> {
        two(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: Eight<f32>, b: Eight<f32>) -> Eight<f32> {
        two(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn sqrt(self, a: Eight<f32>) -> Eight<f32> {
        one(a, f32::sqrt)
    }

    #[inline(always)]
    fn sum(self, a: Eight<f32>) -> f32 {
        let [a, b, c, d, e, f, g, h] = a.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }

    #[inline(always)]
    fn gt(self, a: Eight<f32>, b: Eight<f32>) -> Eight<bool> {
        two(a, b, |a, b| a > b)
    }

    #[inline(always)]
    fn eq(self, a: Eight<f32>, b: Eight<f32>) -> Eight<bool> {
        two(a, b, |a, b| a == b)
    }

    #[inline(always)]
    fn unordered(self, a: Eight<f32>, b: Eight<f32>) -> Eight<bool> {
        two(a, b, |a, b| a.is_nan() | b.is_nan())
    }

    #[inline(always)]
    fn both(self, a: Eight<bool>, b: Eight<bool>) -> Eight<bool> {
        two(a, b, |a, b| a & b)
    }

    #[inline(always)]
    fn either(self, a: Eight<bool>, b: Eight<bool>) -> Eight<bool> {
        two(a, b, |a, b| a | b)
    }

    #[inline(always)]
    fn and_not(self, a: Eight<bool>, b: Eight<bool>) -> Eight<bool> {
        two(a, b, |a, b| a & !b)
    }

    #[inline(always)]
    fn none(self) -> Eight<bool> {
        Eight([false; 8])
    }

    #[inline(always)]
    fn only(self, mask: Eight<bool>, a: Eight<f32>) -> Eight<f32> {
        two(mask, a, |mask, a| if mask { a } else { 0.0 })
    }

    #[inline(always)]
    fn splat_u32(self, value: u32) -> Eight<u32> {
        Eight([value; 8])
    }

    #[inline(always)]
    fn count_from(self, first: u32) -> Eight<u32> {
        let mut lanes = [first; 8];
        for (lane, value) in lanes.iter_mut().enumerate() {
            *value = value.wrapping_add(lane as u32);
        }
        Eight(lanes)
    }

    #[inline(always)]
    fn add_u32(self, a: Eight<u32>, b: Eight<u32>) -> Eight<u32> {
        two(a, b, u32::wrapping_add)
    }

    #[inline(always)]
    fn sub_u32(self, a: Eight<u32>, b: Eight<u32>) -> Eight<u32> {
        two(a, b, u32::wrapping_sub)
    }

    #[inline(always)]
    fn xor(self, a: Eight<u32>, b: Eight<u32>) -> Eight<u32> {
        two(a, b, |a, b| a ^ b)
    }

    #[inline(always)]
    fn and(self, a: Eight<u32>, b: Eight<u32>) -> Eight<u32> {
        two(a, b, |a, b| a & b)
    }

    #[inline(always)]
    fn rotate_left<const BITS: i32>(self, a: Eight<u32>) -> Eight<u32> {
        one(a, |a| a.rotate_left(BITS as u32))
    }

    #[inline(always)]
    fn shift_left<const BITS: i32>(self, a: Eight<u32>) -> Eight<u32> {
        one(a, |a| a << BITS)
    }

    #[inline(always)]
    fn shift_right<const BITS: i32>(self, a: Eight<u32>) -> Eight<u32> {
        one(a, |a| a >> BITS)
    }

    #[inline(always)]
    fn high_bit(self, a: Eight<u32>) -> Eight<bool> {
        one(a, |a| a >> 31 == 1)
    }

    #[inline(always)]
    fn select(self, mask: Eight<bool>, a: Eight<f32>, b: Eight<f32>) -> Eight<f32> {
        let mut output = b.0;
        for lane in 0..8 {
            if mask.0[lane] {
                output[lane] = a.0[lane];
            }
        }
        Eight(output)
    }

    #[inline(always)]
    fn bits(self, a: Eight<f32>) -> Eight<u32> {
        one(a, f32::to_bits)
    }

    #[inline(always)]
    fn from_bits(self, a: Eight<u32>) -> Eight<f32> {
        one(a, f32::from_bits)
    }

    #[inline(always)]
    fn from_i32(self, a: Eight<u32>) -> Eight<f32> {
        one(a, |a| a as i32 as f32)
    }

    #[inline(always)]
    fn to_i32(self, a: Eight<f32>) -> Eight<u32> {
        one(a, |a| a.round_ties_even() as i32 as u32)
    }
}
