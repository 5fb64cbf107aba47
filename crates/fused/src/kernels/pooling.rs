//! Pooling and ReLU on channels-last images, and their gradients.
//!
//! Where the input of a pooling layer came out of a ReLU, its gradient is masked here, so that it need not be later.

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
    /// Where they lie.
    pub output_frame: Frame,
}

impl Kernel for Pool<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (from, to, window) = (self.input_frame, self.output_frame, self.window);
        check(from, to, window, self.examples, self.input.len(), self.output.len());
        let share = isa.splat(1.0 / (window.h * window.w) as f32);
        for example in 0..self.examples {
            for y in 0..to.grid.h {
                for x in 0..to.grid.w {
                    let corner = example * from.example + from.at(y * window.step_h, x * window.step_w);
                    let target = example * to.example + to.at(y, x);
                    let mut channel = 0;
                    while channel < to.grid.c {
                        let count = I::LANES.min(to.grid.c - channel);
                        // SAFETY: `check` has passed: the window lies in the input, the pixel in the output, and
                        // `count` channels from `channel` on in both.
                        unsafe {
                            let corner = self.input.as_ptr().add(corner + channel);
                            let mut value = load(isa, corner, count);
                            for dy in 0..window.h {
                                for dx in 0..window.w {
                                    if dy + dx == 0 {
                                        continue;
                                    }
                                    let next = load(isa, corner.add(dy * from.row + dx * from.grid.c), count);
                                    value = match self.pooling {
                                        Pooling::Max => isa.max(next, value),
                                        Pooling::Mean => isa.add(value, next),
                                    };
                                }
                            }
                            if self.pooling == Pooling::Mean {
                                value = isa.mul(value, share);
                            }
                            store(isa, self.output.as_mut_ptr().add(target + channel), value, count);
                        }
                        channel += I::LANES;
                    }
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
    /// How many examples.
    pub examples: usize,
    /// The images that were pooled.
    pub input: &'a [f32],
    /// Where they lie.
    pub input_frame: Frame,
    /// Whether they came out of a ReLU.
    pub relu: bool,
    /// The pooled images.
    pub output: &'a [f32],
    /// Where they lie.
    pub output_frame: Frame,
    /// The gradient of the pooled images.
    pub output_gradient: &'a [f32],
    /// Where it lies.
    pub output_gradient_frame: Frame,
    /// The gradient of the images; only its pixels are written, not the frame around them.
    pub input_gradient: &'a mut [f32],
    /// Where it lies.
    pub input_gradient_frame: Frame,
}

impl Kernel for PoolGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (from, to, window) = (self.input_frame, self.output_frame, self.window);
        let (from_gradient, to_gradient) = (self.input_gradient_frame, self.output_gradient_frame);
        assert_eq!((from.grid, to.grid), (from_gradient.grid, to_gradient.grid));
        check(from, to, window, self.examples, self.input.len(), self.output.len());
        let (lengths, examples) = ((self.input_gradient.len(), self.output_gradient.len()), self.examples);
        check(from_gradient, to_gradient, window, examples, lengths.0, lengths.1);
        let zero = isa.splat(0.0);
        let share = isa.splat(1.0 / (window.h * window.w) as f32);
        for example in 0..self.examples {
            for y in 0..from.grid.h {
                let start = example * from_gradient.example + from_gradient.at(y, 0);
                self.input_gradient[start..start + from.grid.w * from.grid.c].fill(0.0);
            }
            for y in 0..to.grid.h {
                for x in 0..to.grid.w {
                    let (corner_y, corner_x) = (y * window.step_h, x * window.step_w);
                    let corner = example * from.example + from.at(corner_y, corner_x);
                    let corner_gradient = example * from_gradient.example + from_gradient.at(corner_y, corner_x);
                    let source = example * to.example + to.at(y, x);
                    let source_gradient = example * to_gradient.example + to_gradient.at(y, x);
                    let mut channel = 0;
                    while channel < to.grid.c {
                        let count = I::LANES.min(to.grid.c - channel);
                        // SAFETY: `check` has passed for values and gradients: windows and pixels lie in both, and
                        // `count` channels from `channel` on.
                        unsafe {
                            let input = self.input.as_ptr().add(corner + channel);
                            let largest = load(isa, self.output.as_ptr().add(source + channel), count);
                            let gradient = self.output_gradient.as_ptr().add(source_gradient + channel);
                            let gradient = load(isa, gradient, count);
                            let shared = isa.mul(gradient, share);
                            let to = self.input_gradient.as_mut_ptr().add(corner_gradient + channel);
                            let mut found = isa.none();
                            for dy in 0..window.h {
                                for dx in 0..window.w {
                                    let input = load(isa, input.add(dy * from.row + dx * from.grid.c), count);
                                    let mut part = match self.pooling {
                                        Pooling::Max => {
                                            let equal = isa.eq(input, largest);
                                            let first = isa.and_not(equal, found);
                                            found = isa.either(found, equal);
                                            isa.only(first, gradient)
                                        }
                                        Pooling::Mean => shared,
                                    };
                                    if self.relu {
                                        part = isa.only(isa.gt(input, zero), part);
                                    }
                                    let to = to.add(dy * from_gradient.row + dx * from.grid.c);
                                    store(isa, to, isa.add(load(isa, to, count), part), count);
                                }
                            }
                        }
                        channel += I::LANES;
                    }
                }
            }
        }
    }
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
