//! Pooling and ReLU on channels-last images, and their gradients.
//!
//! Where the input of a pooling layer came out of a ReLU, its gradient is masked here, so that it need not be later.

use std::ops::Range;

use super::{load, store};
use crate::layout::Frame;
use crate::simd::{Isa, Kernel};

/// Height and width of a window, and its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Rows from a window to the next.
    pub step_h: usize,
    /// Columns from a window to the next.
    pub step_w: usize,
}

/// For each row or column of an image of `size`, which of the `count` windows it is in, `window` wide and `step` apart.
pub fn covering(size: usize, window: usize, step: usize, count: usize) -> Vec<Range<usize>> {
    let of = |at: usize| {
        let first = (at + step).saturating_sub(window) / step;
        first..(at / step + 1).min(count).max(first)
    };
    (0..size).map(of).collect()
}

/// How the outputs of a pooling layer come from its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The largest; ties go to the first in row-major order.
    Max,
    /// The mean.
    Mean,
}

/// The forward pass of a pooling layer on the first `examples` examples.
pub struct Pool<'a> {
    /// Largest or mean.
    pub pooling: Pooling,
    /// The windows.
    pub window: Window,
    /// How many examples.
    pub examples: usize,
    /// The images.
    pub input: &'a [f32],
    /// Where they lie.
    pub input_frame: Frame,
    /// The pooled images.
    pub output: &'a mut [f32],
    /// Which place of its window each output came from, row-major, where the largest is taken; lies as the output does.
    pub choices: &'a mut [f32],
    /// Where output and choices lie.
    pub output_frame: Frame,
}

impl Kernel for Pool<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        check(self.input_frame, self.output_frame, self.window, self.examples, self.input.len(), self.output.len());
        assert!(self.pooling == Pooling::Mean || self.choices.len() >= self.output.len(), "choices");
        // SAFETY: `check` has passed.
        unsafe {
            // Known sizes let the compiler unroll the window.
            match (self.window.h, self.window.w) {
                (2, 2) => pool::<I, 2, 2>(isa, &mut self),
                (3, 3) => pool::<I, 3, 3>(isa, &mut self),
                _ => pool::<I, 0, 0>(isa, &mut self),
            }
        }
    }
}

/// Windows of `H` x `W`, or of any size where that is 0.
///
/// # Safety
///
/// The job's `check` has passed.
#[inline(always)]
unsafe fn pool<I: Isa, const H: usize, const W: usize>(isa: I, job: &mut Pool<'_>) {
    let (from, to, window) = (job.input_frame, job.output_frame, job.window);
    let (h, w) = if H > 0 { (H, W) } else { (window.h, window.w) };
    let share = isa.splat(1.0 / (h * w) as f32);
    let channels = to.grid.c;
    for example in 0..job.examples {
        for y in 0..to.grid.h {
            for x in 0..to.grid.w {
                let corner = example * from.example + from.at(y * window.step_h, x * window.step_w);
                let target = example * to.example + to.at(y, x);
                let mut channel = 0;
                while channel < channels {
                    let count = I::LANES.min(channels - channel);
                    // SAFETY: the window lies in the input, the pixel in output and choices, and `count` channels
                    // from `channel` on in each.
                    unsafe {
                        let corner = job.input.as_ptr().add(corner + channel);
                        let mut value = load(isa, corner, count);
                        let mut choice = isa.splat(0.0);
                        let all = isa.eq(choice, choice);
                        let mut nan = isa.and_not(all, isa.eq(value, value));
                        for place in 1..h * w {
                            let next = corner.add(place / w * from.row + place % w * channels);
                            let next = load(isa, next, count);
                            match job.pooling {
                                Pooling::Max => {
                                    choice = isa.select(isa.gt(next, value), isa.splat(place as f32), choice);
                                    value = isa.max(next, value);
                                    nan = isa.either(nan, isa.and_not(all, isa.eq(next, next)));
                                }
                                Pooling::Mean => value = isa.add(value, next),
                            }
                        }
                        match job.pooling {
                            Pooling::Max => {
                                store(isa, job.choices.as_mut_ptr().add(target + channel), choice, count);
                                // A maximum forgets a NaN; an example with one must not pass for a good one.
                                value = isa.select(nan, isa.splat(f32::NAN), value);
                            }
                            Pooling::Mean => value = isa.mul(value, share),
                        }
                        store(isa, job.output.as_mut_ptr().add(target + channel), value, count);
                    }
                    channel += count;
                }
            }
        }
    }
}

/// The gradient of a pooling layer's input on the first `examples` examples.
pub struct PoolGradient<'a> {
    /// Largest or mean.
    pub pooling: Pooling,
    /// The windows.
    pub window: Window,
    /// The windows that each row and each column of the input is in: see [`covering`].
    pub covering: (&'a [Range<usize>], &'a [Range<usize>]),
    /// How many examples.
    pub examples: usize,
    /// The images that were pooled, if they came out of a ReLU.
    pub relu: Option<&'a [f32]>,
    /// Where they lie.
    pub input_frame: Frame,
    /// As [`Pool`] left them.
    pub choices: &'a [f32],
    /// Where the choices lie.
    pub output_frame: Frame,
    /// The gradient of the pooled images.
    pub output_gradient: &'a [f32],
    /// Where it lies.
    pub output_gradient_frame: Frame,
    /// The gradient of the images.
    pub input_gradient: &'a mut [f32],
    /// Where it lies.
    pub input_gradient_frame: Frame,
}

impl Kernel for PoolGradient<'_> {
    type Output = ();

    /// Every pixel gathers from the windows that it is in: nothing is written twice.
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let (from, to, window) = (self.input_frame, self.output_frame, self.window);
        let (from_gradient, to_gradient) = (self.input_gradient_frame, self.output_gradient_frame);
        assert_eq!((from.grid, to.grid), (from_gradient.grid, to_gradient.grid));
        let (lengths, examples) = ((self.input_gradient.len(), self.output_gradient.len()), self.examples);
        check(from_gradient, to_gradient, window, examples, lengths.0, lengths.1);
        let values = self.relu.map_or(usize::MAX, <[f32]>::len);
        let choices = if self.pooling == Pooling::Max { self.choices.len() } else { usize::MAX };
        check(from, to, window, examples, values, choices);
        let covered = |ranges: &[Range<usize>], size: usize, count: usize| {
            ranges.len() == size && ranges.iter().all(|range| range.end <= count)
        };
        assert!(covered(self.covering.0, from.grid.h, to.grid.h) && covered(self.covering.1, from.grid.w, to.grid.w));
        for example in 0..examples {
            for y in 0..from.grid.h {
                let rows = &self.covering.0[y];
                for x in 0..from.grid.w {
                    let columns = &self.covering.1[x];
                    let pixel = Pixel { example, y, x, rows, columns };
                    let mut channel = 0;
                    while channel < from.grid.c {
                        let left = from.grid.c - channel;
                        // SAFETY: both checks have passed; `left` channels are left.
                        channel += unsafe {
                            if left >= 2 * I::LANES {
                                gather::<I, 2>(isa, &mut self, &pixel, channel, I::LANES)
                            } else {
                                gather::<I, 1>(isa, &mut self, &pixel, channel, left.min(I::LANES))
                            }
                        };
                    }
                }
            }
        }
    }
}

/// A pixel of the input and the windows that it is in.
struct Pixel<'a> {
    example: usize,
    y: usize,
    x: usize,
    rows: &'a Range<usize>,
    columns: &'a Range<usize>,
}

/// The gradient of `V` vectors of channels of a pixel, the last of `count` channels. Gives how many channels that were.
///
/// # Safety
///
/// The job's checks have passed, and the pixel and channels are the input's.
#[inline(always)]
unsafe fn gather<I: Isa, const V: usize>(
    isa: I,
    job: &mut PoolGradient<'_>,
    pixel: &Pixel<'_>,
    channel: usize,
    count: usize,
) -> usize {
    let (from, to, window) = (job.input_frame, job.output_frame, job.window);
    let (from_gradient, to_gradient) = (job.input_gradient_frame, job.output_gradient_frame);
    let channels = from.grid.c;
    let step = isa.splat(window.step_w as u32 as f32);
    let mut sums = [isa.splat(0.0); V];
    // SAFETY: the caller says so: windows lie in choices and gradient, the pixel in values and gradient.
    unsafe {
        // Between columns of windows there may be none.
        let rows = if pixel.columns.is_empty() { 0..0 } else { pixel.rows.clone() };
        for y in rows {
            let first = pixel.columns.start;
            // As a number, because converting one takes longer than all else here.
            let place = (pixel.y - y * window.step_h) * window.w + (pixel.x - first * window.step_w);
            let mut place = isa.splat(place as u32 as f32);
            let mut choice = job.choices.as_ptr().wrapping_add(pixel.example * to.example + to.at(y, first) + channel);
            let gradient = pixel.example * to_gradient.example + to_gradient.at(y, first) + channel;
            let mut gradient = job.output_gradient.as_ptr().add(gradient);
            for x in first..pixel.columns.end {
                for (v, sum) in sums.iter_mut().enumerate() {
                    let count = if v + 1 == V { count } else { I::LANES };
                    let mut part = load(isa, gradient.add(v * I::LANES), count);
                    if job.pooling == Pooling::Max {
                        let choice = load(isa, choice.add(v * I::LANES), count);
                        part = isa.only(isa.eq(choice, place), part);
                    }
                    *sum = isa.add(*sum, part);
                }
                if x + 1 < pixel.columns.end {
                    place = isa.sub(place, step);
                    choice = choice.wrapping_add(channels);
                    gradient = gradient.add(channels);
                }
            }
        }
        let value = pixel.example * from.example + from.at(pixel.y, pixel.x) + channel;
        let target = pixel.example * from_gradient.example + from_gradient.at(pixel.y, pixel.x) + channel;
        for (v, sum) in sums.iter().enumerate() {
            let count = if v + 1 == V { count } else { I::LANES };
            let mut sum = *sum;
            if job.pooling == Pooling::Mean {
                sum = isa.mul(sum, isa.splat(1.0 / (window.h * window.w) as f32));
            }
            if let Some(values) = job.relu {
                let value = load(isa, values.as_ptr().add(value + v * I::LANES), count);
                sum = isa.only(isa.gt(value, isa.splat(0.0)), sum);
            }
            store(isa, job.input_gradient.as_mut_ptr().add(target + v * I::LANES), sum, count);
        }
    }
    (V - 1) * I::LANES + count
}

/// That windows lie in the input, and both buffers hold the examples.
#[inline(always)]
fn check(from: Frame, to: Frame, window: Window, examples: usize, input: usize, output: usize) {
    let reach = |count: usize, step: usize, size: usize| count.saturating_sub(1) * step + size;
    assert!(reach(to.grid.h, window.step_h, window.h) <= from.grid.h && from.grid.c == to.grid.c, "windows");
    assert!(reach(to.grid.w, window.step_w, window.w) <= from.grid.w, "windows");
    let end = |frame: Frame| examples.saturating_sub(1) * frame.example + frame.at(frame.grid.h - 1, frame.grid.w - 1);
    assert!(end(from) + from.grid.c <= input && end(to) + to.grid.c <= output, "buffers");
}
