//! The end of a step: what the threads summed, the noise and the update, in one pass over the parameters.
//!
//! The noise is never in memory: it is drawn a group of 256 at a time, by parameter index, into a kilobyte on the stack.

use std::ops::Range;

use super::{Scale, ScaledAdd};
use crate::memory::Shared;
use crate::noise::{GROUP, Key, group};
use crate::simd::{Isa, Kernel};

/// The noise of one step.
#[derive(Clone, Copy)]
pub struct Noise<'a> {
    /// The seed's key.
    pub key: &'a Key,
    /// The number of the step.
    pub step: u64,
    /// The standard deviation, sigma C.
    pub scale: f32,
}

/// `theta <- theta - rate (sum + scale z)` for the parameters of a range.
pub struct Update<'a> {
    /// Which parameters, by index; all of them lie in the sums.
    pub range: Range<usize>,
    /// Their values.
    pub theta: &'a mut [f32],
    /// The threads' sums, one after another.
    pub sums: Shared<'a>,
    /// Numbers from one thread's sum to the next.
    pub pitch: usize,
    /// Which threads summed anything.
    pub active: &'a [bool],
    /// Whether to leave zeros in the sums.
    pub clear: bool,
    /// eta / B.
    pub rate: f32,
    /// The noise, if there is any.
    pub noise: Option<Noise<'a>>,
}

impl Kernel for Update<'_> {
    type Output = ();

    /// The caller keeps others away from the range's part of every sum.
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        assert_eq!(self.theta.len(), self.range.len());
        let mut changes = [0.0; GROUP];
        let mut start = self.range.start;
        while start < self.range.end {
            let number = start / GROUP;
            let end = ((number + 1) * GROUP).min(self.range.end);
            if let Some(noise) = self.noise {
                group(isa, noise.key, noise.step, number as u64, &mut changes);
            }
            let changes = &mut changes[start % GROUP..][..end - start];
            match self.noise {
                Some(noise) => Scale { by: noise.scale, values: changes }.run(isa),
                None => changes.fill(0.0),
            }
            for (thread, active) in self.active.iter().enumerate() {
                if *active {
                    let begin = thread * self.pitch + start;
                    // SAFETY: the caller keeps others away from the range in every sum.
                    let sum = unsafe { self.sums.part(begin..begin + changes.len()) };
                    ScaledAdd { by: 1.0, from: sum, to: changes, accumulate: true }.run(isa);
                    if self.clear {
                        sum.fill(0.0);
                    }
                }
            }
            let theta = &mut self.theta[start - self.range.start..end - self.range.start];
            ScaledAdd { by: -self.rate, from: changes, to: theta, accumulate: true }.run(isa);
            start = end;
        }
    }
}
