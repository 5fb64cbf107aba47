//! Numbers and memory for the kernels: poisoned, and under watch.

use std::ops::{Deref, DerefMut};

use crate::generated::Random;

impl Random {
    /// Uniform in (-1, 1).
    pub fn number(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn fill(&mut self, numbers: &mut [f32]) {
        numbers.iter_mut().for_each(|number| *number = self.number());
    }

    pub fn numbers(&mut self, count: usize) -> Guarded {
        let mut numbers = Guarded::new(self, count);
        self.fill(&mut numbers);
        numbers
    }
}

/// What nothing may be computed from and what nothing may overwrite: a NaN that no computation gives.
pub const POISON: f32 = f32::from_bits(0x7fc0_dead);

/// Poisoned numbers. Half of the time they are an allocation of their own, so that Miri and valgrind see each step over
/// its ends; otherwise there is more poison around them, which [`Guarded::assert_untouched_but`] looks at.
pub struct Guarded {
    numbers: Vec<f32>,
    margin: usize,
}

impl Guarded {
    pub fn new(random: &mut Random, len: usize) -> Self {
        let margin = if random.once_in(2) { 0 } else { random.within(17..64) };
        Guarded { numbers: vec![POISON; margin + len + margin], margin }
    }

    /// Fails if something outside of `written` is no longer poison.
    pub fn assert_untouched_but(&self, written: impl IntoIterator<Item = usize>, what: &str) {
        let mut may_be_written = vec![false; self.numbers.len()];
        written.into_iter().for_each(|place| may_be_written[self.margin + place] = true);
        for (place, number) in self.numbers.iter().enumerate() {
            if !may_be_written[place] && number.to_bits() != POISON.to_bits() {
                panic!("{what}: {number} was written to {}", place as isize - self.margin as isize);
            }
        }
    }
}

impl Deref for Guarded {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.numbers[self.margin..self.numbers.len() - self.margin]
    }
}

impl DerefMut for Guarded {
    fn deref_mut(&mut self) -> &mut [f32] {
        let end = self.numbers.len() - self.margin;
        &mut self.numbers[self.margin..end]
    }
}

/// Fails unless `found` is `expected`, up to what rounding makes of a sum of `terms` numbers whose absolute values add up
/// to `magnitude`; NaN is NaN.
pub fn assert_close(found: f32, expected: f64, terms: usize, magnitude: f64, what: &dyn Fn() -> String) {
    let unit = f64::from(f32::EPSILON) / 2.0;
    let tolerance = (terms as f64 + 2.0) * unit * magnitude + f64::from(f32::MIN_POSITIVE);
    let error = (f64::from(found) - expected).abs();
    let both_nan = found.is_nan() && expected.is_nan();
    assert!(both_nan || error <= tolerance, "{}: {found} instead of {expected}, off by {error:e}", what());
}

/// Relative error of numbers that can't cancel.
pub fn assert_near(found: f64, expected: f64, tolerance: f64, what: &dyn Fn() -> String) {
    let error = (found - expected).abs();
    assert!(error <= tolerance * expected.abs(), "{}: {found} instead of {expected}", what());
}
