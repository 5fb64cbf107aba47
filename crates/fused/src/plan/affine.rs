//! Convolutions and linear layers: the same thing. A linear layer is a convolution with one window.

use std::ops::Range;

use super::{Edge, Method};
use crate::kernels::Window;
use crate::layout::{Frame, Grid, Margins, Panels, Position, Row, Rows, Segment};

/// y = W x + b at every position of a window.
pub struct Affine {
    /// The model's layer.
    pub layer: usize,
    /// Its kind, for people.
    pub kind: &'static str,
    /// The windows.
    pub window: Window,
    /// Rows and columns of zeros on each side of the input.
    pub padding: (usize, usize),
    /// What comes in.
    pub input: Grid,
    /// What comes out.
    pub output: Grid,
    /// How parameters and gradient are cut: rows over kernel h, kernel w, input channel, then the bias.
    pub panels: Panels,
    /// Their place among all parameters.
    pub parameters: Range<usize>,
    /// How per-example gradients are normed and summed.
    pub method: Method,
    /// Rows of the forward product: block's examples, then positions.
    pub forward: Rows,
    /// The window, as the runs of numbers it is.
    pub segments: Vec<Segment>,
    /// Where each input of a window lies.
    pub columns: Vec<u32>,
    /// Positions of the weight gradient: block's examples, then positions.
    pub positions: Vec<Position>,
    /// The gradient of the input, in parts; none if it isn't needed.
    pub backward: Vec<Phase>,
    /// Numbers in the transposed weights of all phases.
    pub transposed: usize,
    needs_input_gradient: bool,
}

/// The inputs whose gradient takes the same kernel positions: with stride s, every s-th.
///
/// An input at y (counted from the padding's edge) gets gradient from outputs (y - k) / s over those kernel rows k for
/// which that is whole; for each phase y mod s that is a stride-1 convolution of the output gradient (with zeros around
/// it) by a part of the kernel, turned around.
pub struct Phase {
    /// Rows of the product: the block's examples, then the phase's inputs.
    pub rows: Rows,
    /// Rows per example.
    pub inputs: usize,
    /// One per kernel row, last first.
    pub segments: Vec<Segment>,
    /// How the transposed weights are cut: rows over kernel h, kernel w (each last first), output channel.
    pub panels: Panels,
    /// Where they begin among the layer's transposed weights.
    pub start: usize,
}

/// The kernel positions k = rest, rest + step, ... below `size`.
fn taps(rest: usize, step: usize, size: usize) -> usize {
    if rest < size { (size - rest).div_ceil(step) } else { 0 }
}

impl Affine {
    /// The layer without tables, which need frames: see [`Affine::place`].
    #[allow(clippy::too_many_arguments, reason = "what a layer is")]
    pub fn new(
        layer: usize,
        kind: &'static str,
        input: Grid,
        window: Window,
        padding: (usize, usize),
        outputs: usize,
        first_parameter: usize,
        needs_input_gradient: bool,
    ) -> Self {
        let count = |size: usize, padding: usize, window: usize, step: usize| (size + 2 * padding - window) / step + 1;
        let output = Grid {
            h: count(input.h, padding.0, window.h, window.step_h),
            w: count(input.w, padding.1, window.w, window.step_w),
            c: outputs,
        };
        let depth = window.h * window.w * input.c;
        let panels = Panels { depth: depth + 1, outputs };
        Affine {
            layer,
            kind,
            window,
            padding,
            input,
            output,
            panels,
            parameters: first_parameter..first_parameter + panels.len(),
            method: Method::cheapest(output.pixels(), depth, outputs),
            forward: Rows::default(),
            segments: Vec::new(),
            columns: Vec::new(),
            positions: Vec::new(),
            backward: Vec::new(),
            transposed: 0,
            needs_input_gradient,
        }
    }

    /// Zeros that the input's values must have around them.
    pub fn value_margins(&self) -> Margins {
        let (h, w) = self.padding;
        Margins { top: h, bottom: h, left: w, right: w }
    }

    /// Zeros that the output's gradients must have around them, for [`Phase`]'s products to read.
    pub fn gradient_margins(&self) -> Margins {
        if !self.needs_input_gradient {
            return Margins::default();
        }
        let Window { h, w, step_h, step_w } = self.window;
        let (top, bottom) = margin(self.input.h, self.padding.0, h, step_h, self.output.h);
        let (left, right) = margin(self.input.w, self.padding.1, w, step_w, self.output.w);
        Margins { top, bottom, left, right }
    }

    /// Makes the tables for these frames and blocks of `block` examples.
    pub fn place(&mut self, input: &Edge, output: &Edge, block: usize) {
        let Window { h, w, step_h, step_w } = self.window;
        // A window begins in the padding, which is the frame's margin.
        let corner = |y: usize, x: usize| y * step_h * input.value.row + x * step_w * input.value.grid.c;
        let (from, to) = (input.value, output.value);
        assert_eq!((from.top, from.left), self.padding, "the frame has this layer's padding");
        let pixels = move |grid: Grid| (0..grid.h).flat_map(move |y| (0..grid.w).map(move |x| (y, x)));
        let all = |grid: Grid| (0..block).flat_map(move |example| pixels(grid).map(move |(y, x)| (example, y, x)));
        self.forward = all(self.output)
            .map(|(example, y, x)| Row {
                input: offset(example * from.example + corner(y, x)),
                output: offset(example * to.example + to.at(y, x)),
                mask: 0,
            })
            .collect();
        self.positions = all(self.output)
            .map(|(example, y, x)| Position {
                input: offset(example * from.example + corner(y, x)),
                gradient: offset(example * output.gradient.example + output.gradient.at(y, x)),
            })
            .collect();
        let row = w * self.input.c;
        self.segments = (0..h).map(|y| Segment { offset: offset(y * from.row), len: offset(row) }).collect();
        self.segments = joined(&self.segments);
        self.columns = (0..h).flat_map(|y| (0..row).map(move |k| offset(y * from.row + k))).collect();
        if self.needs_input_gradient {
            let phases = (0..step_h).flat_map(|y| (0..step_w).map(move |x| (y, x)));
            let phases: Vec<_> = phases.collect();
            for (rest_y, rest_x) in phases {
                self.phase(rest_y, rest_x, input, output.gradient, block);
            }
        }
    }

    fn phase(&mut self, rest_y: usize, rest_x: usize, input: &Edge, output: Frame, block: usize) {
        let Window { h, w, step_h, step_w } = self.window;
        let (taps_y, taps_x) = (taps(rest_y, step_h, h), taps(rest_x, step_w, w));
        let of_phase = |size: usize, padding: usize, step: usize, rest: usize| {
            (0..size).filter(move |at| (at + padding) % step == rest).map(move |at| (at, (at + padding - rest) / step))
        };
        let ys: Vec<_> = of_phase(self.input.h, self.padding.0, step_h, rest_y).collect();
        let xs: Vec<_> = of_phase(self.input.w, self.padding.1, step_w, rest_x).collect();
        // Inputs that no window touches keep a gradient of 0.
        if taps_y * taps_x * ys.len() * xs.len() == 0 {
            return;
        }
        let rows = (0..block).flat_map(|example| {
            let (ys, xs) = (&ys, &xs);
            ys.iter().flat_map(move |y| xs.iter().map(move |x| (example, *y, *x)))
        });
        // The first output that gives to an input: (input + padding - rest) / step - (taps - 1), perhaps in the margin.
        let rows = rows.map(|(example, (y, from_y), (x, from_x))| Row {
            input: offset(
                example * output.example
                    + (output.top + from_y - (taps_y - 1)) * output.row
                    + (output.left + from_x - (taps_x - 1)) * output.grid.c,
            ),
            output: offset(example * input.gradient.example + input.gradient.at(y, x)),
            mask: offset(example * input.value.example + input.value.at(y, x)),
        });
        let rows: Rows = rows.collect();
        let run = taps_x * self.output.c;
        let segments: Vec<_> =
            (0..taps_y).map(|tap| Segment { offset: offset(tap * output.row), len: offset(run) }).collect();
        let panels = Panels { depth: taps_y * run, outputs: self.input.c };
        let inputs = ys.len() * xs.len();
        self.backward.push(Phase { rows, inputs, segments: joined(&segments), panels, start: self.transposed });
        self.transposed += panels.len();
    }

    /// Where the weights of kernel position (`y`, `x`) go in the transposed weights: the phase, and the first of their
    /// rows, one for each output channel.
    pub fn transposed_rows(&self, y: usize, x: usize) -> Option<(&Phase, usize)> {
        let Window { h, w, step_h, step_w } = self.window;
        let (rest_y, rest_x) = (y % step_h, x % step_w);
        // Phases that no input belongs to were left out; the others are in order.
        let mut phases = self.backward.iter();
        for phase_y in 0..step_h {
            for phase_x in 0..step_w {
                let exists = self.phase_exists(phase_y, phase_x);
                let phase = if exists { phases.next() } else { None };
                if (phase_y, phase_x) == (rest_y, rest_x) {
                    let (taps_y, taps_x) = (taps(rest_y, step_h, h), taps(rest_x, step_w, w));
                    let (tap_y, tap_x) = (taps_y - 1 - y / step_h, taps_x - 1 - x / step_w);
                    return phase.map(|phase| (phase, (tap_y * taps_x + tap_x) * self.output.c));
                }
            }
        }
        None
    }

    fn phase_exists(&self, rest_y: usize, rest_x: usize) -> bool {
        let Window { h, w, step_h, step_w } = self.window;
        let has_inputs = |size: usize, padding: usize, step: usize, rest: usize| {
            (0..size).any(|at| (at + padding) % step == rest)
        };
        taps(rest_y, step_h, h) * taps(rest_x, step_w, w) > 0
            && has_inputs(self.input.h, self.padding.0, step_h, rest_y)
            && has_inputs(self.input.w, self.padding.1, step_w, rest_x)
    }

    /// Positions of one example.
    pub fn positions_per_example(&self) -> usize {
        self.output.pixels()
    }
}

/// The zeros before and after a row of output gradients that its inputs' gradients read.
fn margin(size: usize, padding: usize, window: usize, step: usize, outputs: usize) -> (usize, usize) {
    let (mut before, mut after) = (0, 0);
    for at in 0..size {
        let rest = (at + padding) % step;
        let taps = taps(rest, step, window);
        if taps > 0 {
            let last = (at + padding - rest) / step;
            before = before.max((taps - 1).saturating_sub(last));
            after = after.max((last + 1).saturating_sub(outputs));
        }
    }
    (before, after)
}

/// Segments that follow one another without a gap, as one.
fn joined(segments: &[Segment]) -> Vec<Segment> {
    let mut joined: Vec<Segment> = Vec::new();
    for segment in segments {
        match joined.last_mut() {
            Some(last) if last.offset + last.len == segment.offset => last.len += segment.len,
            _ => joined.push(*segment),
        }
    }
    joined
}

/// An offset within a block. Blocks are a few megabytes; one example of the largest image would have to have four
/// thousand million numbers not to fit.
pub(super) fn offset(offset: usize) -> u32 {
    u32::try_from(offset).expect("a block of examples has fewer than 2^32 numbers")
}

impl Method {
    /// The method with the fewest FLOPs for T positions, d inputs and p outputs: see `docs/fused.md`.
    pub fn cheapest(positions: usize, inputs: usize, outputs: usize) -> Self {
        let ghost = positions * positions * (inputs + outputs);
        match positions {
            1 => Method::RankOne,
            _ if ghost < 4 * inputs * outputs => Method::Ghost,
            _ => Method::Kept,
        }
    }
}
