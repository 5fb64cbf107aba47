//! Convolutions and linear layers: the same thing. A linear layer is a convolution with one window.

use std::ops::Range;

use super::{Edge, Method};
use crate::kernels::Window;
use crate::layout::{Frame, Grid, Margins, Panels, Position, Row, Rows, Segment, joined, offset};

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
    /// The forward products.
    pub forward: Vec<RowGroup>,
    /// The window, padding included, as the runs of numbers that it is.
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

/// Rows of a product that use the same part of the kernel.
///
/// At the border of an image part of the kernel lies outside. What lies there is 0: it is left out rather than multiplied,
/// and rows are grouped by what is left.
pub struct RowGroup {
    /// The block's examples, then the group's pixels.
    pub rows: Rows,
    /// Rows per example.
    pub pixels: usize,
    /// One per kernel row.
    pub segments: Vec<Segment>,
}

/// The inputs whose gradient takes as many kernel positions: with stride s, every s-th, or some neighbours every s-th.
///
/// An input at y (counted from the padding's edge) gets gradient from outputs (y - k) / s over those kernel rows k for
/// which that is whole; for each phase y mod s that is a stride-1 convolution of the output gradient by a part of the
/// kernel, turned around. Phases of neighbouring columns that have equally many kernel positions see the same outputs:
/// their inputs, side by side in memory, are one row of a product that is as many times wider, a *cell*. A cell at the
/// border may reach beyond the image, into its margin.
pub struct Phase {
    /// y mod s of its inputs.
    rest_y: usize,
    /// x mod s of its inputs: all of these are in a cell.
    rests_x: Range<usize>,
    /// The phase's cells, by which outputs there are.
    pub groups: Vec<RowGroup>,
    /// How the transposed weights are cut: rows over kernel h, kernel w (each last first), output channel; outputs over
    /// the cell's inputs, their channels.
    pub panels: Panels,
    /// Where they begin among the layer's transposed weights.
    pub start: usize,
}

/// Kernel positions of which a pixel uses some: which ones, along height and width.
type Taps = (Range<usize>, Range<usize>);

/// Groups the pixels of an image by the taps they use. `row` gives a pixel's row for an example, `segment` the run of a
/// kernel row.
fn grouped(
    pixels: impl Iterator<Item = (usize, usize, Taps)>,
    block: usize,
    row: impl Fn(usize, usize, usize, &Taps) -> Row,
    segment: impl Fn(usize, &Taps) -> Segment,
) -> Vec<RowGroup> {
    let mut groups: Vec<(Taps, Vec<(usize, usize)>)> = Vec::new();
    for (y, x, mut taps) in pixels {
        if taps.0.is_empty() || taps.1.is_empty() {
            taps = (0..0, 0..0);
        }
        match groups.iter_mut().find(|(known, _)| *known == taps) {
            Some((_, pixels)) => pixels.push((y, x)),
            None => groups.push((taps, vec![(y, x)])),
        }
    }
    let group = |(taps, pixels): (Taps, Vec<(usize, usize)>)| {
        let rows = (0..block).flat_map(|example| pixels.iter().map(move |(y, x)| (example, *y, *x)));
        let rows = rows.map(|(example, y, x)| row(example, y, x, &taps)).collect();
        RowGroup { rows, pixels: pixels.len(), segments: joined(taps.0.clone().map(|y| segment(y, &taps))) }
    };
    groups.into_iter().map(group).collect()
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
            method: match Method::cheapest(output.pixels(), depth, outputs) {
                // One window, but not of the image as it lies in its frame.
                Method::RankOne if (window.h, window.w, padding) != (input.h, input.w, (0, 0)) => Method::Ghost,
                method => method,
            },
            forward: Vec::new(),
            segments: Vec::new(),
            columns: Vec::new(),
            positions: Vec::new(),
            backward: Vec::new(),
            transposed: 0,
            needs_input_gradient,
        }
    }

    /// Zeros that the input's values must have around them, and at the right room for the masks of cells that reach beyond
    /// the image.
    pub fn value_margins(&self) -> Margins {
        let (h, w) = self.padding;
        Margins { top: h, bottom: h, left: w, right: w.max(self.gradient_margins().right) }
    }

    /// How far cells reach beyond the gradients of the input.
    pub fn gradient_margins(&self) -> Margins {
        let mut margins = Margins::default();
        let (padding, size) = (self.padding.1, self.input.w);
        for rests in self.rests_x() {
            for cell in self.cells(&rests) {
                let (start, end) = (cell * self.window.step_w + rests.start, cell * self.window.step_w + rests.end);
                margins.left = margins.left.max(padding.saturating_sub(start));
                margins.right = margins.right.max(end.saturating_sub(padding + size));
            }
        }
        margins
    }

    /// The phases along the width, those with equally many kernel positions together.
    fn rests_x(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let Window { w, step_w, .. } = self.window;
        // The first ones have one more. Beyond the kernel no phase has a kernel position.
        let with_more = w % step_w;
        let all = [0..with_more, with_more..step_w.min(w)];
        let needed = self.needs_input_gradient;
        all.into_iter().filter(move |rests| needed && !rests.is_empty())
    }

    /// The numbers of a phase's cells, counted from the padding's edge.
    fn cells(&self, rests_x: &Range<usize>) -> Vec<usize> {
        let (padding, step) = (self.padding.1, self.window.step_w);
        let inputs = (0..self.input.w).filter(|x| rests_x.contains(&((x + padding) % step)));
        let mut cells: Vec<usize> = inputs.map(|x| (x + padding) / step).collect();
        cells.dedup();
        cells
    }

    /// Makes the tables for these frames and blocks of `block` examples.
    pub fn place(&mut self, input: &Edge, output: &Edge, block: usize) {
        let Window { h, w, step_h, step_w } = self.window;
        let (from, to, c) = (input.value, output.value, self.input.c);
        assert_eq!((from.top, from.left), self.padding, "the frame has this layer's padding");
        // A window begins in the padding, which is the frame's margin.
        let corner = move |y: usize, x: usize| y * step_h * from.row + x * step_w * c;
        // The kernel positions that lie in the image.
        let inside = |at: usize, padding: usize, step: usize, window: usize, size: usize| {
            let start = at * step;
            padding.saturating_sub(start)..(size + padding).saturating_sub(start).min(window)
        };
        let taps_y: Vec<_> = (0..self.output.h).map(|y| inside(y, self.padding.0, step_h, h, self.input.h)).collect();
        let taps_x: Vec<_> = (0..self.output.w).map(|x| inside(x, self.padding.1, step_w, w, self.input.w)).collect();
        self.forward = grouped(
            pixels(self.output).map(|(y, x)| (y, x, (taps_y[y].clone(), taps_x[x].clone()))),
            block,
            |example, y, x, _| Row {
                input: offset(example * from.example + corner(y, x)),
                output: offset(example * to.example + to.at(y, x)),
                mask: 0,
            },
            |y, (_, xs)| Segment {
                offset: offset(y * from.row + xs.start * c),
                len: offset(xs.len() * c),
                weight: offset((y * w + xs.start) * c),
            },
        );
        self.positions = (0..block)
            .flat_map(|example| pixels(self.output).map(move |(y, x)| (example, y, x)))
            .map(|(example, y, x)| Position {
                input: offset(example * from.example + corner(y, x)),
                gradient: offset(example * output.gradient.example + output.gradient.at(y, x)),
            })
            .collect();
        let kernel_row =
            |y: usize| Segment { offset: offset(y * from.row), len: offset(w * c), weight: offset(y * w * c) };
        self.segments = joined((0..h).map(kernel_row));
        self.columns = (0..h).flat_map(|y| (0..w * c).map(move |k| offset(y * from.row + k))).collect();
        for rests_x in self.rests_x() {
            for rest_y in 0..step_h.min(h) {
                self.phase(rest_y, rests_x.clone(), input, output.gradient, block);
            }
        }
    }

    /// Adds a phase, unless no input belongs to it.
    fn phase(&mut self, rest_y: usize, rests_x: Range<usize>, input: &Edge, output: Frame, block: usize) {
        let Window { h, w, step_h, step_w } = self.window;
        let (taps_y, taps_x) = (taps(rest_y, step_h, h), taps(rests_x.start, step_w, w));
        // An input with the place `last` of the last output that it could give to, last = (input + padding - rest) / step,
        // gets from the outputs last - (taps - 1) to last. Tap t, counted from the first of these, is used if it is an
        // output.
        let used = |last: usize, taps: usize, outputs: usize| {
            (taps - 1).saturating_sub(last)..(outputs + taps - 1).saturating_sub(last).min(taps)
        };
        let padding = self.padding;
        let ys: Vec<usize> = (0..self.input.h).filter(|y| (y + padding.0) % step_h == rest_y).collect();
        let cells = self.cells(&rests_x);
        if ys.is_empty() || cells.is_empty() {
            return;
        }
        let (height, width, c) = (self.output.h, self.output.w, self.output.c);
        let last_y = move |y: usize| (y + padding.0) / step_h;
        let inputs = ys.iter().flat_map(|y| {
            cells.iter().map(move |cell| (*y, *cell, (used(last_y(*y), taps_y, height), used(*cell, taps_x, width))))
        });
        // Where a cell begins in a frame.
        let place = |frame: Frame, y: usize, cell: usize| {
            let column = frame.left + cell * step_w + rests_x.start - padding.1;
            frame.at(y, 0) - frame.left * frame.grid.c + column * frame.grid.c
        };
        let groups = grouped(
            inputs,
            block,
            |example, y, cell, (ys, xs)| {
                let first = match ys.is_empty() {
                    true => 0,
                    false => output.at(last_y(y) + ys.start + 1 - taps_y, cell + xs.start + 1 - taps_x),
                };
                Row {
                    input: offset(example * output.example + first),
                    output: offset(example * input.gradient.example + place(input.gradient, y, cell)),
                    mask: offset(example * input.value.example + place(input.value, y, cell)),
                }
            },
            |y, (ys, xs)| Segment {
                offset: offset((y - ys.start) * output.row),
                len: offset(xs.len() * c),
                weight: offset((y * taps_x + xs.start) * c),
            },
        );
        let panels = Panels { depth: taps_y * taps_x * c, outputs: rests_x.len() * self.input.c };
        self.backward.push(Phase { rest_y, rests_x, groups, panels, start: self.transposed });
        self.transposed += panels.len();
    }

    /// Where the weights of kernel position (`y`, `x`) go in the transposed weights: the phase, the first of their rows,
    /// one for each output channel, and the first of their outputs, one for each input channel.
    pub fn transposed_place(&self, y: usize, x: usize) -> Option<(&Phase, usize, usize)> {
        let Window { h, w, step_h, step_w } = self.window;
        let (rest_y, rest_x) = (y % step_h, x % step_w);
        // Phases that no input belongs to were left out.
        let phase = self.backward.iter().find(|phase| phase.rest_y == rest_y && phase.rests_x.contains(&rest_x))?;
        let (taps_y, taps_x) = (taps(rest_y, step_h, h), taps(rest_x, step_w, w));
        let (tap_y, tap_x) = (taps_y - 1 - y / step_h, taps_x - 1 - x / step_w);
        let first_row = (tap_y * taps_x + tap_x) * self.output.c;
        Some((phase, first_row, (rest_x - phase.rests_x.start) * self.input.c))
    }

    /// Positions of one example.
    pub fn positions_per_example(&self) -> usize {
        self.output.pixels()
    }
}

/// All pixels, row by row.
fn pixels(grid: Grid) -> impl Iterator<Item = (usize, usize)> {
    (0..grid.h).flat_map(move |y| (0..grid.w).map(move |x| (y, x)))
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
