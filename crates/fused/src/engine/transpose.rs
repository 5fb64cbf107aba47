//! Weights as the backward products want them: with the layer's inputs side by side.

use std::ops::Range;

use crate::layout::{PANEL, Panels};
use crate::memory::Shared;
use crate::plan::Operation;

/// Where an operation's weights go, run by run.
#[derive(Default)]
pub struct Runs {
    /// Where the operation's parameters begin, and how they are cut.
    start: usize,
    panels: Option<Panels>,
    runs: Vec<Run>,
    /// Where the operation's transposed weights begin.
    base: usize,
}

/// Rows of the weights that go to one set of transposed panels.
struct Run {
    /// Rows of the weights.
    rows: Range<usize>,
    /// Where the transposed panels begin and how they are cut; `None` where these weights are not needed.
    to: Option<(usize, Panels)>,
    /// The row of the transposed panels that takes the first output.
    first_row: usize,
    /// The output of the transposed panels that takes the first row.
    first_output: usize,
}

impl Runs {
    /// The runs of an operation, whose transposed weights begin at `base`, which moves behind them.
    pub fn of(operation: &Operation, base: &mut usize) -> Self {
        let (runs, len) = match operation {
            Operation::Affine(affine) if !affine.backward.is_empty() => {
                let inputs = affine.input.c;
                let taps = (0..affine.window.h).flat_map(|y| (0..affine.window.w).map(move |x| (y, x)));
                let runs = taps.enumerate().map(|(tap, (y, x))| {
                    let to = affine.transposed_place(y, x);
                    Run {
                        rows: tap * inputs..(tap + 1) * inputs,
                        to: to.map(|(phase, ..)| (phase.start, phase.panels)),
                        first_row: to.map_or(0, |(_, row, _)| row),
                        first_output: to.map_or(0, |(.., output)| output),
                    }
                });
                let (start, panels) = (affine.parameters.start, Some(affine.panels));
                (Runs { start, panels, runs: runs.collect(), base: *base }, affine.transposed)
            }
            Operation::Lstm(lstm) => {
                let (inputs, hidden) = (lstm.transposed_inputs(), lstm.transposed_hidden());
                let of_inputs = Run { rows: 0..lstm.inputs, to: Some((0, inputs)), first_row: 0, first_output: 0 };
                let rows = lstm.inputs..lstm.inputs + lstm.hidden;
                let of_hidden = Run { rows, to: Some((inputs.len(), hidden)), first_row: 0, first_output: 0 };
                let (start, panels) = (lstm.parameters.start, Some(lstm.panels));
                let len = inputs.len() + hidden.len();
                (Runs { start, panels, runs: vec![of_inputs, of_hidden], base: *base }, len)
            }
            _ => (Runs::default(), 0),
        };
        *base += len;
        runs
    }

    /// Where the operation's transposed weights begin.
    pub fn base(&self) -> usize {
        self.base
    }

    /// Copies the parameters of `range`, which begins and ends with a row of a panel, to where they go in all transposed
    /// weights.
    ///
    /// # Safety
    ///
    /// No other thread copies any of the range, or reads the transposed weights.
    pub unsafe fn copy(&self, range: Range<usize>, values: &[f32], to: Shared<'_>) {
        let Some(panels) = self.panels else { return };
        let (first, end) = (range.start - self.start, range.end - self.start);
        let mut panel = first / (PANEL * panels.depth);
        while panel * PANEL < panels.outputs && panels.start(panel) < end {
            let (start, width) = (panels.start(panel), panels.width(panel));
            let rows = first.saturating_sub(start) / width..(end - start).div_ceil(width).min(panels.depth);
            for run in &self.runs {
                let Some((begin, transposed)) = run.to else { continue };
                for row in rows.start.max(run.rows.start)..rows.end.min(run.rows.end) {
                    let input = run.first_output + row - run.rows.start;
                    let to_panel = input / PANEL;
                    let pitch = transposed.width(to_panel);
                    let first_row = run.first_row + panel * PANEL;
                    let target = self.base + begin + transposed.start(to_panel) + first_row * pitch + input % PANEL;
                    let from = &values[start + row * width - first..][..width];
                    // SAFETY: these places belong to these parameters alone, and the caller has them to itself.
                    unsafe { to.write_apart(target, pitch, from) };
                }
            }
            panel += 1;
        }
    }
}
