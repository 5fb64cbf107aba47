//! Pooling and ReLU on channels-last images, and their gradients.
//!
//! Where the input of a pooling layer came out of a ReLU, the gradient is masked here, so that it need not be later. The
//! gradient of a largest number is masked before it comes here.

#![allow(clippy::needless_range_loop, reason = "constant ranges over several arrays at once are what gets unrolled")]

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

impl Window {
    /// A pixel has the place `in_first` in the first window that it is in: its place, counted row by row, in the one that
    /// is `row` rows and `column` columns of windows further. As an f32, which is how choices are stored.
    #[inline(always)]
    fn place(self, in_first: (usize, usize), row: usize, column: usize) -> f32 {
        let (y, x) = (in_first.0 - row * self.step_h, in_first.1 - column * self.step_w);
        (y * self.w + x) as u32 as f32
    }
}

/// For each row or column of an image of `size`, which of the `count` windows it is in, `window` wide and `step` apart.
pub fn covering(size: usize, window: usize, step: usize, count: usize) -> Vec<Range<usize>> {
    let of = |at: usize| {
        let first = (at + step).saturating_sub(window) / step;
        first..(at / step + 1).min(count).max(first)
    };
    (0..size).map(of).collect()
}

/// Neighbouring pixels of an image row that lie in their windows alike: the first is in the columns `windows` of windows,
/// each next one in those one further on. Channels last, all of them are one run of numbers, whatever the channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first pixel.
    pub first: usize,
    /// How many pixels.
    pub pixels: usize,
    /// Its windows.
    pub windows: Range<usize>,
}

/// The runs of a row of `size` pixels: see [`covering`].
pub fn runs(size: usize, window: usize, step: usize, count: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (x, windows) in covering(size, window, step, count).into_iter().enumerate() {
        match runs.last_mut() {
            Some(Run { pixels, windows: of_first, .. })
                if step == 1 && windows == (of_first.start + *pixels..of_first.end + *pixels) =>
            {
                *pixels += 1;
            }
            _ => runs.push(Run { first: x, pixels: 1, windows }),
        }
    }
    runs
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
            match (self.pooling, self.window.h, self.window.w) {
                (Pooling::Max, 2, 2) => pool::<I, 2, 2, true>(isa, &mut self),
                (Pooling::Max, 3, 3) => pool::<I, 3, 3, true>(isa, &mut self),
                (Pooling::Max, ..) => pool::<I, 0, 0, true>(isa, &mut self),
                (Pooling::Mean, 2, 2) => pool::<I, 2, 2, false>(isa, &mut self),
                (Pooling::Mean, ..) => pool::<I, 0, 0, false>(isa, &mut self),
            }
        }
    }
}

/// Windows of `H` x `W`, or of any size where that is 0: their largest where `MAX`, else their mean.
///
/// # Safety
///
/// The job's `check` has passed.
#[inline(always)]
unsafe fn pool<I: Isa, const H: usize, const W: usize, const MAX: bool>(isa: I, job: &mut Pool<'_>) {
    let (from, to, window) = (job.input_frame, job.output_frame, job.window);
    // Windows one pixel apart read neighbouring numbers: a row of them is one run.
    let (runs, pixels) = if window.step_w == 1 { (1, to.grid.w) } else { (to.grid.w, 1) };
    let len = pixels * to.grid.c;
    for example in 0..job.examples {
        for y in 0..to.grid.h {
            for x in 0..runs {
                let corner = example * from.example + from.at(y * window.step_h, x * window.step_w);
                let target = example * to.example + to.at(y, x);
                let mut done = 0;
                // SAFETY: the caller says so; the windows lie in the input, their pixels in output and choices, and
                // the numbers from `done` on in each.
                unsafe {
                    while done + I::LANES <= len {
                        pool_vector::<I, H, W, MAX>(isa, job, corner + done, target + done, I::LANES);
                        done += I::LANES;
                    }
                    if done < len {
                        pool_vector::<I, H, W, MAX>(isa, job, corner + done, target + done, len - done);
                    }
                }
            }
        }
    }
}

/// `count` numbers of the output from `target` on, whose windows begin at `corner`.
///
/// # Safety
///
/// The windows lie in the input, the numbers in output and choices.
#[inline(always)]
unsafe fn pool_vector<I: Isa, const H: usize, const W: usize, const MAX: bool>(
    isa: I,
    job: &mut Pool<'_>,
    corner: usize,
    target: usize,
    count: usize,
) {
    let (h, w) = if H > 0 { (H, W) } else { (job.window.h, job.window.w) };
    let (row, pixel) = (job.input_frame.row, job.input_frame.grid.c);
    // SAFETY: the caller says so.
    unsafe {
        let corner = job.input.as_ptr().add(corner);
        let mut value = load(isa, corner, count);
        let (mut choice, mut nan, mut before) = (isa.splat(0.0), isa.none(), value);
        for place in 1..h * w {
            let next = load(isa, corner.add(place / w * row + place % w * pixel), count);
            if MAX {
                choice = isa.select(isa.gt(next, value), isa.splat(place as u32 as f32), choice);
                // One comparison finds a NaN in either of two.
                if place % 2 == 1 || place + 1 == h * w {
                    nan = isa.either(nan, isa.unordered(next, before));
                }
                before = next;
                value = isa.max(next, value);
            } else {
                value = isa.add(value, next);
            }
        }
        if MAX {
            store(isa, job.choices.as_mut_ptr().add(target), choice, count);
            // A maximum forgets a NaN; an example with one must not pass for a good one.
            value = isa.select(nan, isa.splat(f32::NAN), value);
        } else {
            value = isa.mul(value, isa.splat(1.0 / (h * w) as f32));
        }
        store(isa, job.output.as_mut_ptr().add(target), value, count);
    }
}

/// The gradient of a pooling layer's input on the first `examples` examples.
pub struct PoolGradient<'a> {
    /// Largest or mean.
    pub pooling: Pooling,
    /// The windows.
    pub window: Window,
    /// The rows of windows that each row of the input is in: see [`covering`].
    pub rows: &'a [Range<usize>],
    /// The columns of windows that the pixels of a row are in: see [`runs`].
    pub runs: &'a [Run],
    /// How many examples.
    pub examples: usize,
    /// The images that were pooled, if the gradient is to be masked by them.
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
        self.check();
        let mut first = 0;
        while first < self.examples {
            let examples = first..(first + TOGETHER).min(self.examples);
            first = examples.end;
            for (y, rows) in self.rows.iter().enumerate() {
                for run in self.runs {
                    let place = Place { examples: examples.clone(), y, rows, run };
                    // SAFETY: `check` has passed.
                    unsafe {
                        // Known counts let the compiler unroll, and keep the places in registers.
                        match (self.pooling, rows.len(), run.windows.len()) {
                            (Pooling::Max, 1, 1) => gather::<I, 1, 1, true>(isa, &mut self, &place),
                            (Pooling::Max, 1, 2) => gather::<I, 1, 2, true>(isa, &mut self, &place),
                            (Pooling::Max, 2, 1) => gather::<I, 2, 1, true>(isa, &mut self, &place),
                            (Pooling::Max, 2, 2) => gather::<I, 2, 2, true>(isa, &mut self, &place),
                            (Pooling::Max, ..) => gather::<I, 0, 0, true>(isa, &mut self, &place),
                            (Pooling::Mean, 1, 1) => gather::<I, 1, 1, false>(isa, &mut self, &place),
                            (Pooling::Mean, ..) => gather::<I, 0, 0, false>(isa, &mut self, &place),
                        }
                    }
                }
            }
        }
    }
}

/// Examples whose pixels at the same place are taken together: what there is to work out for a run is shared, and a few
/// rows of them stay in the nearest cache.
const TOGETHER: usize = 4;

impl PoolGradient<'_> {
    #[inline(always)]
    fn check(&self) {
        let (from, to, window, examples) = (self.input_frame, self.output_frame, self.window, self.examples);
        let (from_gradient, to_gradient) = (self.input_gradient_frame, self.output_gradient_frame);
        assert_eq!((from.grid, to.grid), (from_gradient.grid, to_gradient.grid));
        check(from_gradient, to_gradient, window, examples, self.input_gradient.len(), self.output_gradient.len());
        let values = self.relu.map_or(usize::MAX, <[f32]>::len);
        let choices = if self.pooling == Pooling::Max { self.choices.len() } else { usize::MAX };
        check(from, to, window, examples, values, choices);
        assert!(self.rows.len() == from.grid.h && self.rows.iter().all(|rows| rows.end <= to.grid.h), "rows");
        let is_inside = |run: &Run| {
            let further = run.pixels - 1;
            run.first + further < from.grid.w && (run.windows.is_empty() || run.windows.end + further <= to.grid.w)
        };
        assert!(self.runs.iter().all(is_inside), "runs");
    }
}

/// Pixels of the input and the windows that they are in.
struct Place<'a> {
    examples: Range<usize>,
    y: usize,
    rows: &'a Range<usize>,
    run: &'a Run,
}

/// The gradient of a run of pixels that are in `R` rows and `C` columns of windows, or in any number where that is 0.
///
/// # Safety
///
/// The job's `check` has passed, and the place is one of its rows, runs and examples.
#[inline(always)]
unsafe fn gather<I: Isa, const R: usize, const C: usize, const MAX: bool>(
    isa: I,
    job: &mut PoolGradient<'_>,
    place: &Place<'_>,
) {
    let (from, to, window) = (job.input_frame, job.output_frame, job.window);
    let (from_gradient, to_gradient) = (job.input_gradient_frame, job.output_gradient_frame);
    let Place { ref examples, y, rows, run } = *place;
    let counts = if R > 0 { (R, C) } else { (rows.len(), run.windows.len()) };
    // Where nothing is pooled there is no window to begin at.
    let is_pooled = counts.0 * counts.1 > 0;
    let first = if is_pooled { (rows.start, run.windows.start) } else { (0, 0) };
    let in_first = if is_pooled { (y - first.0 * window.step_h, run.first - first.1 * window.step_w) } else { (0, 0) };
    let mut numbers = [[isa.splat(0.0); C]; R];
    for row in 0..R {
        for column in 0..C {
            numbers[row][column] = isa.splat(window.place(in_first, row, column));
        }
    }
    let mut windows = Windows {
        counts,
        in_first,
        numbers,
        choices: examples.start * to.example + to.at(first.0, first.1),
        gradients: examples.start * to_gradient.example + to_gradient.at(first.0, first.1),
        value: examples.start * from.example + from.at(y, run.first),
        target: examples.start * from_gradient.example + from_gradient.at(y, run.first),
    };
    let len = run.pixels * from.grid.c;
    for _ in examples.clone() {
        let mut done = 0;
        // SAFETY: the caller says so: windows lie in choices and gradient, the pixels in values and gradient.
        unsafe {
            while done + I::LANES <= len {
                gather_vector::<I, R, C, MAX>(isa, job, &windows, done, I::LANES);
                done += I::LANES;
            }
            if done < len {
                gather_vector::<I, R, C, MAX>(isa, job, &windows, done, len - done);
            }
        }
        windows.choices += to.example;
        windows.gradients += to_gradient.example;
        windows.value += from.example;
        windows.target += from_gradient.example;
    }
}

/// The windows of a run of pixels, and where it lies.
struct Windows<I: Isa, const R: usize, const C: usize> {
    /// Rows and columns of windows.
    counts: (usize, usize),
    /// The place of the run's pixels in the first window.
    in_first: (usize, usize),
    /// Their places in all of them, if `R` and `C` say how many these are.
    numbers: [[I::F32; C]; R],
    /// Where the first window of the first pixel lies among the choices.
    choices: usize,
    /// And among the gradients of the output.
    gradients: usize,
    /// Where the first pixel lies among the values.
    value: usize,
    /// And among the gradients of the input.
    target: usize,
}

/// The gradient of `count` numbers of a run from `done` on.
///
/// # Safety
///
/// As [`gather`]; the numbers are the run's.
#[inline(always)]
unsafe fn gather_vector<I: Isa, const R: usize, const C: usize, const MAX: bool>(
    isa: I,
    job: &mut PoolGradient<'_>,
    windows: &Windows<I, R, C>,
    done: usize,
    count: usize,
) {
    let pixel = job.input_frame.grid.c;
    let (rows, columns) = if R > 0 { (R, C) } else { windows.counts };
    // SAFETY: the caller says so.
    unsafe {
        let mut sum = isa.splat(0.0);
        for row in 0..rows {
            for column in 0..columns {
                let gradient = windows.gradients + row * job.output_gradient_frame.row + column * pixel + done;
                let mut part = load(isa, job.output_gradient.as_ptr().add(gradient), count);
                if MAX {
                    let choice = windows.choices + row * job.output_frame.row + column * pixel + done;
                    let choice = load(isa, job.choices.as_ptr().add(choice), count);
                    let own = match R {
                        0 => isa.splat(job.window.place(windows.in_first, row, column)),
                        _ => windows.numbers[row][column],
                    };
                    part = isa.only(isa.eq(choice, own), part);
                }
                sum = isa.add(sum, part);
            }
        }
        if !MAX {
            sum = isa.mul(sum, isa.splat(1.0 / (job.window.h * job.window.w) as f32));
        }
        if let Some(values) = job.relu {
            let value = load(isa, values.as_ptr().add(windows.value + done), count);
            sum = isa.only(isa.gt(value, isa.splat(0.0)), sum);
        }
        store(isa, job.input_gradient.as_mut_ptr().add(windows.target + done), sum, count);
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
