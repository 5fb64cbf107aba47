//! The norm of an example's weight gradient without the gradient: the inner product of two Gram matrices.
//!
//! For inputs a_t and output gradients g_t at T positions, |sum_t a_t g_t'|^2 = sum_{t,u} (a_t . a_u)(g_t . g_u)
//! (Goodfellow, arXiv 1510.01799; for convolutions Bu et al., arXiv 2205.10683). The biases add 1 to each a_t . a_u.

use super::elementwise::VANISHING;
use super::load;
use crate::layout::{Position, Segment};
use crate::simd::{Isa, Kernel};

/// The squared norm of one example's gradient of an affine map, weights and biases; see the module. NaN where the
/// positions' gradients cancel: then it takes more digits.
pub struct GhostNorm<'a> {
    /// What positions and segments point into.
    pub inputs: &'a [f32],
    /// Which inputs a position has.
    pub segments: &'a [Segment],
    /// The gradients of the outputs.
    pub output_gradients: &'a [f32],
    /// Outputs of a position.
    pub outputs: usize,
    /// Where the map was applied on this example.
    pub positions: &'a [Position],
}

/// A norm this much smaller than the positions' gradients together (squared) has lost too many digits to cancellation.
/// Positions that have nothing in common come to one over their number, and ghost norms are for fewer than this.
const CANCELLED: f64 = 64.0;

/// Dot products that are taken at once.
const TOGETHER: usize = 4;

impl Kernel for GhostNorm<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f64 {
        let reach = self.segments.iter().map(|segment| (segment.offset + segment.len) as usize).max().unwrap_or(0);
        for position in self.positions {
            assert!(position.input as usize + reach <= self.inputs.len(), "inputs");
            assert!(position.gradient as usize + self.outputs <= self.output_gradients.len(), "gradients of outputs");
        }
        let all = [Segment::first(self.outputs)];
        let (mut norm, mut size) = (0.0, 0.0);
        for (t, position) in self.positions.iter().enumerate() {
            for (group, others) in self.positions[t..].chunks(TOGETHER).enumerate() {
                let mut inputs = [self.inputs.as_ptr(); TOGETHER];
                let mut gradients = [self.output_gradients.as_ptr(); TOGETHER];
                // A last group with fewer repeats its first.
                for u in 0..TOGETHER {
                    let other = others.get(u).unwrap_or(&others[0]);
                    inputs[u] = inputs[u].wrapping_add(other.input as usize);
                    gradients[u] = gradients[u].wrapping_add(other.gradient as usize);
                }
                let input = self.inputs.as_ptr().wrapping_add(position.input as usize);
                let gradient = self.output_gradients.as_ptr().wrapping_add(position.gradient as usize);
                // SAFETY: checked above: every position's segments and outputs lie in the slices.
                let (input_dots, gradient_dots) =
                    unsafe { (dots(isa, input, inputs, self.segments), dots(isa, gradient, gradients, &all)) };
                for u in 0..others.len() {
                    let mut product = f64::from(gradient_dots[u]);
                    if product.abs() < VANISHING && input_dots[u].abs() > 1.0 {
                        // Small products were lost in f32, and the inputs may be large.
                        product = 0.0;
                        let one = &self.output_gradients[position.gradient as usize..][..self.outputs];
                        let other = &self.output_gradients[others[u].gradient as usize..][..self.outputs];
                        for (one, other) in one.iter().zip(other) {
                            product += f64::from(*one) * f64::from(*other);
                        }
                    }
                    product *= f64::from(input_dots[u]) + 1.0;
                    if group + u == 0 {
                        size += product.sqrt();
                        norm += product;
                    } else {
                        // A pair of two positions stands for both its orders.
                        norm += 2.0 * product;
                    }
                }
            }
        }
        // Where positions cancel, what is left is rounding.
        if norm < size * size / CANCELLED { f64::NAN } else { norm }
    }
}

/// The dot products of `one` with each of `others`, over the segments.
///
/// # Safety
///
/// The segments of each must be readable.
#[inline(always)]
unsafe fn dots<I: Isa>(
    isa: I,
    one: *const f32,
    others: [*const f32; TOGETHER],
    segments: &[Segment],
) -> [f32; TOGETHER] {
    let mut sums = [isa.splat(0.0); TOGETHER];
    for segment in segments {
        let (mut at, end) = (segment.offset as usize, (segment.offset + segment.len) as usize);
        while at < end {
            let count = I::LANES.min(end - at);
            // SAFETY: the caller vouches for the segments.
            unsafe {
                let a = load(isa, one.add(at), count);
                for u in 0..TOGETHER {
                    sums[u] = isa.mul_add(a, load(isa, others[u].add(at), count), sums[u]);
                }
            }
            at += count;
        }
    }
    let mut dots = [0.0; TOGETHER];
    for u in 0..TOGETHER {
        dots[u] = isa.sum(sums[u]);
    }
    dots
}
