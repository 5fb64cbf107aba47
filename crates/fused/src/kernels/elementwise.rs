//! Sums, scalings and squares of slices.

#![allow(clippy::needless_range_loop, reason = "constant ranges over several arrays at once are what gets unrolled")]

use std::ops::Range;

use super::math::exp;
use super::{load, store};
use crate::layout::{PANEL, Row};
use crate::simd::{Isa, Kernel};

/// `to = by from`, or `to += by from`.
pub struct ScaledAdd<'a> {
    /// The factor.
    pub by: f32,
    /// What is added.
    pub from: &'a [f32],
    /// As long as `from`.
    pub to: &'a mut [f32],
    /// Whether to add to what is there.
    pub accumulate: bool,
}

impl Kernel for ScaledAdd<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let len = self.from.len();
        assert_eq!(len, self.to.len());
        let by = isa.splat(self.by);
        let (from, to) = (self.from.as_ptr(), self.to.as_mut_ptr());
        let mut at = 0;
        while at < len {
            let count = I::LANES.min(len - at);
            // SAFETY: `count` numbers from `at` on lie within both slices.
            unsafe {
                let part = load(isa, from.add(at), count);
                let value = match self.accumulate {
                    true => isa.mul_add(by, part, load(isa, to.add(at), count)),
                    false => isa.mul(by, part),
                };
                store(isa, to.add(at), value, count);
            }
            at += I::LANES;
        }
    }
}

/// `values *= by`.
pub struct Scale<'a> {
    /// The factor.
    pub by: f32,
    /// What is scaled.
    pub values: &'a mut [f32],
}

impl Kernel for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let len = self.values.len();
        let values = self.values.as_mut_ptr();
        let by = isa.splat(self.by);
        let mut at = 0;
        while at < len {
            let count = I::LANES.min(len - at);
            // SAFETY: `count` numbers from `at` on lie within the slice.
            unsafe {
                let scaled = isa.mul(by, load(isa, values.add(at), count));
                store(isa, values.add(at), scaled, count);
            }
            at += I::LANES;
        }
    }
}

/// The squared L2 norm, summed in f32 within 4,096 numbers and in f64 over them.
pub struct SquaredNorm<'a>(pub &'a [f32]);

impl Kernel for SquaredNorm<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f64 {
        let mut total = 0.0;
        for part in self.0.chunks(4096) {
            let mut sums = [isa.splat(0.0); 4];
            let step = 4 * I::LANES;
            let mut at = 0;
            while at + step <= part.len() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: `step` numbers from `at` on lie within the part.
                    let value = unsafe { isa.load(part.as_ptr().add(at + v * I::LANES)) };
                    *sum = isa.mul_add(value, value, *sum);
                }
                at += step;
            }
            while at < part.len() {
                let count = I::LANES.min(part.len() - at);
                // SAFETY: `count` numbers from `at` on lie within the part.
                let value = unsafe { load(isa, part.as_ptr().add(at), count) };
                sums[0] = isa.mul_add(value, value, sums[0]);
                at += count;
            }
            let sum = isa.add(isa.add(sums[0], sums[1]), isa.add(sums[2], sums[3]));
            total += f64::from(isa.sum(sum));
        }
        total
    }
}

/// Below this a sum of squares is done again in f64: numbers small enough for it may have squares that an f32 can't hold.
pub(super) const VANISHING: f64 = 1e-20;

/// |a|^2, number by number in f64.
#[inline(always)]
pub fn squared_norm_in_f64(values: &[f32]) -> f64 {
    let mut sum = 0.0;
    for value in values {
        sum += f64::from(*value) * f64::from(*value);
    }
    sum
}

/// Where the vectors of several examples begin.
#[derive(Clone, Copy)]
pub enum Places<'a> {
    /// That far apart.
    Pitch(usize),
    /// At the rows' inputs.
    Inputs(&'a [Row]),
}

impl Places<'_> {
    #[inline(always)]
    fn of(self, example: usize) -> usize {
        match self {
            Places::Pitch(pitch) => example * pitch,
            Places::Inputs(rows) => rows[example].input as usize,
        }
    }
}

/// Vectors that are squared at once.
const TOGETHER: usize = 4;

/// The squared norms of the examples' vectors of `len` numbers from `first` on: in f32 within 1,024 numbers, which one sum per
/// lane takes, in f64 over them. With fewer than [`TOGETHER`] examples left, some of the norms are repeated.
#[inline(always)]
fn squared_norms<I: Isa>(
    isa: I,
    values: &[f32],
    places: Places<'_>,
    examples: Range<usize>,
    len: usize,
) -> [f64; TOGETHER] {
    let mut vectors = [values.as_ptr(); TOGETHER];
    for (v, vector) in vectors.iter_mut().enumerate() {
        let place = places.of(if v < examples.len() { examples.start + v } else { examples.start });
        *vector = values[place..place + len].as_ptr();
    }
    let mut norms = [0.0; TOGETHER];
    let mut start = 0;
    while start < len {
        let end = len.min(start + 1024);
        let mut sums = [isa.splat(0.0); TOGETHER];
        let mut at = start;
        while at < end {
            let count = I::LANES.min(end - at);
            for v in 0..TOGETHER {
                // SAFETY: `count` numbers from `at` on lie within the vector, which is a part of the values.
                let value = unsafe { load(isa, vectors[v].add(at), count) };
                sums[v] = isa.mul_add(value, value, sums[v]);
            }
            at += count;
        }
        for (norm, sum) in norms.iter_mut().zip(isa.sums(sums)) {
            *norm += f64::from(sum);
        }
        start = end;
    }
    norms
}

/// Each example's squared norm.
pub struct SquaredNorms<'a> {
    /// Vectors.
    pub values: &'a [f32],
    /// One per example.
    pub places: Places<'a>,
    /// Length of a vector.
    pub len: usize,
    /// One per example.
    pub norms: &'a mut [f64],
}

impl Kernel for SquaredNorms<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let examples = self.norms.len();
        for (group, norms) in self.norms.chunks_mut(TOGETHER).enumerate() {
            let found = squared_norms(isa, self.values, self.places, group * TOGETHER..examples, self.len);
            norms.copy_from_slice(&found[..norms.len()]);
        }
    }
}

/// Adds each example's squared norm of a rank-one gradient, (|a|^2 + bias) |g|^2.
pub struct RankOneNorms<'a> {
    /// |a|^2 of each example.
    pub input_squares: &'a [f64],
    /// 1 if the gradient of the biases, g itself, counts; else 0.
    pub bias: f64,
    /// g: one vector per example.
    pub gradients: &'a [f32],
    /// Numbers from one example to the next.
    pub gradient_pitch: usize,
    /// Length of g.
    pub gradient_len: usize,
    /// One per example.
    pub norms: &'a mut [f64],
}

impl Kernel for RankOneNorms<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        assert_eq!(self.input_squares.len(), self.norms.len());
        let (examples, places) = (self.norms.len(), Places::Pitch(self.gradient_pitch));
        for (group, norms) in self.norms.chunks_mut(TOGETHER).enumerate() {
            let first = group * TOGETHER;
            let squares = squared_norms(isa, self.gradients, places, first..examples, self.gradient_len);
            for (example, (norm, square)) in (first..).zip(norms.iter_mut().zip(squares)) {
                let (mut square, input_square) = (square, self.input_squares[example]);
                if square < VANISHING && input_square > 1.0 {
                    // Small squares were lost in f32, and the inputs may be large.
                    square = squared_norm_in_f64(&self.gradients[places.of(example)..][..self.gradient_len]);
                }
                *norm += (input_square + self.bias) * square;
            }
        }
    }
}

/// Multiplies each example's numbers by a factor of its own; where that is NaN, they are left alone.
pub struct ScaleExamples<'a> {
    /// The numbers.
    pub values: &'a mut [f32],
    /// Numbers from one example to the next.
    pub pitch: usize,
    /// Numbers of each example.
    pub len: usize,
    /// One per example.
    pub factors: &'a [f32],
}

impl Kernel for ScaleExamples<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (example, factor) in self.factors.iter().enumerate() {
            if *factor != 1.0 && !factor.is_nan() {
                Scale { by: *factor, values: &mut self.values[example * self.pitch..][..self.len] }.run(isa);
            }
        }
    }
}

/// max(0, x); NaN stays.
pub struct Relu<'a> {
    /// x.
    pub from: &'a [f32],
    /// As long as `from`.
    pub to: &'a mut [f32],
}

impl Kernel for Relu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        assert_eq!(self.from.len(), self.to.len());
        let mut at = 0;
        while at < self.from.len() {
            let count = I::LANES.min(self.from.len() - at);
            // SAFETY: `count` numbers from `at` on lie within both slices.
            unsafe {
                let value = isa.max(isa.splat(0.0), load(isa, self.from.as_ptr().add(at), count));
                store(isa, self.to.as_mut_ptr().add(at), value, count);
            }
            at += count;
        }
    }
}

/// `gradient` where `value` is above 0, elsewhere 0.
pub struct Mask<'a> {
    /// What must be above 0.
    pub value: &'a [f32],
    /// The gradient.
    pub gradient: &'a [f32],
    /// All three as long.
    pub to: &'a mut [f32],
}

impl Kernel for Mask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        assert!(self.value.len() == self.to.len() && self.gradient.len() == self.to.len());
        let mut at = 0;
        while at < self.to.len() {
            let count = I::LANES.min(self.to.len() - at);
            // SAFETY: `count` numbers from `at` on lie within the three slices.
            unsafe {
                let value = load(isa, self.value.as_ptr().add(at), count);
                let gradient = load(isa, self.gradient.as_ptr().add(at), count);
                let masked = isa.only(isa.gt(value, isa.splat(0.0)), gradient);
                store(isa, self.to.as_mut_ptr().add(at), masked, count);
            }
            at += count;
        }
    }
}

/// Softmax minus one-hot, for each example: the gradient of the cross-entropy of its logits.
pub struct CrossEntropyGradient<'a> {
    /// Logits, side by side for each example.
    pub logits: &'a [f32],
    /// Numbers from one example's first logit to the next one's.
    pub pitch: usize,
    /// Where the gradients go.
    pub gradients: &'a mut [f32],
    /// Numbers from one example's first gradient to the next one's.
    pub gradient_pitch: usize,
    /// How many logits.
    pub outputs: usize,
    /// Each example's class.
    pub classes: &'a [u32],
}

impl Kernel for CrossEntropyGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        if self.outputs <= FEW {
            return self.few_outputs(isa);
        }
        for (example, class) in self.classes.iter().enumerate() {
            let logits = &self.logits[example * self.pitch..][..self.outputs];
            let gradients = &mut self.gradients[example * self.gradient_pitch..][..self.outputs];
            let mut largest = logits[0];
            for logit in logits {
                largest = largest.max(*logit);
            }
            let (largest, zero) = (isa.splat(largest), isa.splat(0.0));
            let mut total = 0.0;
            let mut at = 0;
            while at < self.outputs {
                let count = I::LANES.min(self.outputs - at);
                // SAFETY: `count` numbers from `at` on lie within both slices.
                unsafe {
                    let below = isa.sub(load(isa, logits.as_ptr().add(at), count), largest);
                    // `exp` never gets to 0, and inputs may be so large that it matters. A NaN stays.
                    let vanished = isa.gt(isa.splat(-87.3), below);
                    let power = isa.only(isa.and_not(isa.eq(zero, zero), vanished), exp(isa, below));
                    store(isa, gradients.as_mut_ptr().add(at), power, count);
                }
                at += count;
            }
            // Softmax - 1 is minus the share of all others: a confident example's is small, and must not come from 1 - 1.
            let of_class = std::mem::replace(&mut gradients[*class as usize], 0.0);
            for power in gradients.iter() {
                total += *power;
            }
            let share = 1.0 / (total + of_class);
            for gradient in gradients.iter_mut() {
                *gradient *= share;
            }
            gradients[*class as usize] = -total * share;
        }
    }
}

/// Outputs so few that vectors lie along examples.
const FEW: usize = 4;

impl CrossEntropyGradient<'_> {
    #[inline(always)]
    fn few_outputs<I: Isa>(self, isa: I) {
        let (zero, all) = (isa.splat(0.0), isa.eq(isa.splat(0.0), isa.splat(0.0)));
        let mut first = 0;
        while first < self.classes.len() {
            let count = I::LANES.min(self.classes.len() - first);
            // By output: what is loaded, then what is stored.
            let mut numbers = [[0.0f32; PANEL]; FEW];
            let mut of_class = [0.0f32; PANEL];
            for example in 0..count {
                let logits = &self.logits[(first + example) * self.pitch..][..self.outputs];
                for (numbers, logit) in numbers.iter_mut().zip(logits) {
                    numbers[example] = *logit;
                }
                of_class[example] = self.classes[first + example] as f32;
            }
            let mut powers = [zero; FEW];
            // SAFETY: every array has PANEL numbers, which are one vector or two.
            unsafe {
                let mut largest = isa.load(numbers[0].as_ptr());
                for output in 1..self.outputs {
                    largest = isa.max(isa.load(numbers[output].as_ptr()), largest);
                }
                let class = isa.load(of_class.as_ptr());
                let (mut others, mut own) = (zero, zero);
                for output in 0..self.outputs {
                    let below = isa.sub(isa.load(numbers[output].as_ptr()), largest);
                    let vanished = isa.gt(isa.splat(-87.3), below);
                    let power = isa.only(isa.and_not(all, vanished), exp(isa, below));
                    let is_class = isa.eq(class, isa.splat(output as f32));
                    others = isa.add(others, isa.only(isa.and_not(all, is_class), power));
                    own = isa.add(own, isa.only(is_class, power));
                    powers[output] = power;
                }
                let share = isa.div(isa.splat(1.0), isa.add(others, own));
                let of_class = isa.sub(zero, isa.mul(others, share));
                for output in 0..self.outputs {
                    let is_class = isa.eq(class, isa.splat(output as f32));
                    let gradient = isa.select(is_class, of_class, isa.mul(powers[output], share));
                    isa.store(numbers[output].as_mut_ptr(), gradient);
                }
            }
            for example in 0..count {
                let gradients = &mut self.gradients[(first + example) * self.gradient_pitch..][..self.outputs];
                for (gradient, numbers) in gradients.iter_mut().zip(&numbers) {
                    *gradient = numbers[example];
                }
            }
            first += count;
        }
    }
}

/// The clip factor of a gradient with the squared norm `norm`, min(1, C / sqrt(norm)); NaN for an example to be left out.
#[inline]
pub fn clip_factor(norm: f64, clip_norm: f64) -> f32 {
    let root = norm.sqrt();
    let exact = if root > clip_norm { clip_norm / root } else { 1.0 };
    // An infinite norm has a factor of 0. One that an f32 can't hold to all digits belongs to a gradient that it can hardly
    // hold either: it is left out in the same way, which adds no more than clipping would.
    if norm.is_nan() || exact < f64::from(f32::MIN_POSITIVE) { f32::NAN } else { exact as f32 }
}
