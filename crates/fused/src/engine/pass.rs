//! Forward and backward through the operations, for one block of examples.

use super::data::Data;
use super::transpose::Runs;
use super::worker::{LstmState, Worker};
use crate::kernels::{Finish, LstmCell, LstmCellGradient, Mask, Pool, PoolGradient, Product, Relu, Start};
use crate::layout::Frame;
use crate::plan::{Affine, Edge, Lstm, Operation, Plan};
use crate::simd::Isa;

/// What all threads read in a step.
#[derive(Clone, Copy)]
pub struct Context<'a, I> {
    /// The instruction set.
    pub isa: I,
    /// The plan.
    pub plan: &'a Plan,
    /// The data set.
    pub data: &'a Data,
    /// The parameters.
    pub theta: &'a [f32],
    /// The transposed weights.
    pub transposed: &'a [f32],
    /// Where each operation's begin.
    pub runs: &'a [Runs],
    /// C; `None` in non-private mode.
    pub clip_norm: Option<f64>,
}

/// Fills every edge's values for the first `examples` examples of the block; those of the first edge, or the tokens, are
/// there.
pub fn forward<I: Isa>(context: &Context<'_, I>, worker: &mut Worker, examples: usize) {
    let plan = context.plan;
    for (i, operation) in plan.operations.iter().enumerate() {
        let (before, after) = worker.values.split_at_mut(i + 1);
        let (input, output) = (&*before[i], &mut *after[0]);
        let (from, to) = (&plan.edges[i], &plan.edges[i + 1]);
        match operation {
            Operation::Affine(affine) => {
                let finish = if to.relu { Finish::Relu } else { Finish::Store };
                for group in &affine.forward {
                    context.isa.dispatch(Product {
                        inputs: input,
                        rows: group.rows.first(examples * group.pixels),
                        scattered: false,
                        segments: &group.segments,
                        weights: &context.theta[affine.parameters.start..],
                        panels: affine.panels,
                        first_row: 0,
                        start: Start::Bias,
                        finish,
                        outputs: output,
                    });
                }
            }
            Operation::Pool { pooling, window, .. } => context.isa.dispatch(Pool {
                pooling: *pooling,
                window: *window,
                examples,
                input,
                input_frame: from.value,
                output,
                choices: &mut worker.choices[i],
                output_frame: to.value,
            }),
            Operation::Relu { .. } => lines(from.value, to.value, examples, |from, to, len| {
                context.isa.dispatch(Relu { from: &input[from..from + len], to: &mut output[to..to + len] });
            }),
            Operation::Embedding(embedding) => {
                embedding.forward(context, &worker.tokens, examples, to.value, output);
            }
            Operation::Lstm(lstm) => {
                let state = worker.lstms[i].as_mut().expect("an LSTM has a state");
                lstm_forward(context, lstm, state, examples, from, input, to, output);
            }
        }
    }
}

/// Fills every edge's gradients that are needed, from those of the last edge, which are there.
pub fn backward<I: Isa>(context: &Context<'_, I>, worker: &mut Worker, examples: usize) {
    let plan = context.plan;
    for (i, operation) in plan.operations.iter().enumerate().rev() {
        let (before, after) = worker.gradients.split_at_mut(i + 1);
        let (input_gradient, output_gradient) = (&mut *before[i], &*after[0]);
        let (input, output) = (&*worker.values[i], &*worker.values[i + 1]);
        let (from, to) = (&plan.edges[i], &plan.edges[i + 1]);
        let is_needed = !input_gradient.is_empty();
        match operation {
            Operation::Affine(affine) if is_needed => {
                let base = context.runs[i].base();
                affine_backward(context, affine, base, examples, from.relu, input, output_gradient, input_gradient);
            }
            Operation::Pool { pooling, window, rows, runs, .. } if is_needed => context.isa.dispatch(PoolGradient {
                pooling: *pooling,
                window: *window,
                rows,
                runs,
                examples,
                relu: (from.relu && !to.relu).then_some(input),
                input_frame: from.value,
                choices: &worker.choices[i],
                output_frame: to.value,
                output_gradient,
                output_gradient_frame: to.gradient,
                input_gradient,
                input_gradient_frame: from.gradient,
            }),
            // A ReLU's output is above 0 where its input is, also where the input came out of another.
            Operation::Relu { .. } if is_needed => lines(to.gradient, from.gradient, examples, |at, target, len| {
                let place = at / to.gradient.example * to.value.example + row_in(to.value, to.gradient, at);
                context.isa.dispatch(Mask {
                    value: &output[place..place + len],
                    gradient: &output_gradient[at..at + len],
                    to: &mut input_gradient[target..target + len],
                });
            }),
            Operation::Lstm(lstm) => {
                let state = worker.lstms[i].as_mut().expect("an LSTM has a state");
                let base = context.runs[i].base();
                lstm_backward(context, lstm, base, state, examples, from, to, output_gradient, input_gradient);
            }
            _ => {}
        }
    }
}

/// Calls `line` with the two places and the length of every image row of every example.
fn lines(from: Frame, to: Frame, examples: usize, mut line: impl FnMut(usize, usize, usize)) {
    for example in 0..examples {
        for y in 0..from.grid.h {
            let (a, b) = (example * from.example + from.at(y, 0), example * to.example + to.at(y, 0));
            line(a, b, from.grid.w * from.grid.c);
        }
    }
}

/// Where the image row that begins at `at` in frame `other` begins in `frame`, within its example.
fn row_in(frame: Frame, other: Frame, at: usize) -> usize {
    let y = (at % other.example - other.at(0, 0)) / other.row;
    frame.at(y, 0)
}

#[allow(clippy::too_many_arguments, reason = "what a product is made of")]
fn affine_backward<I: Isa>(
    context: &Context<'_, I>,
    affine: &Affine,
    base: usize,
    examples: usize,
    relu: bool,
    input: &[f32],
    output_gradient: &[f32],
    input_gradient: &mut [f32],
) {
    for phase in &affine.backward {
        for group in &phase.groups {
            context.isa.dispatch(Product {
                inputs: output_gradient,
                rows: group.rows.first(examples * group.pixels),
                scattered: false,
                segments: &group.segments,
                weights: &context.transposed[base + phase.start..],
                panels: phase.panels,
                first_row: 0,
                start: Start::Zero,
                finish: if relu { Finish::Mask(input) } else { Finish::Store },
                outputs: input_gradient,
            });
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "what an LSTM reads and writes")]
fn lstm_forward<I: Isa>(
    context: &Context<'_, I>,
    lstm: &Lstm,
    state: &mut LstmState,
    examples: usize,
    from: &Edge,
    input: &[f32],
    to: &Edge,
    output: &mut [f32],
) {
    let Lstm { time, hidden, panels, gates, cells, .. } = *lstm;
    let weights = &context.theta[lstm.parameters.start..];
    let [input_segment, hidden_segment, _] = lstm.segments();
    for t in 0..time {
        context.isa.dispatch(Product {
            inputs: &input[from.value.at(t, 0)..],
            rows: lstm.from_inputs.first(examples),
            scattered: false,
            segments: &input_segment,
            weights,
            panels,
            first_row: 0,
            start: Start::Bias,
            finish: Finish::Store,
            outputs: &mut state.gates[gates.at(t, 0)..],
        });
        if t > 0 {
            context.isa.dispatch(Product {
                inputs: &output[to.value.at(t - 1, 0)..],
                rows: lstm.from_hidden.first(examples),
                scattered: false,
                segments: &hidden_segment,
                weights,
                panels,
                first_row: lstm.inputs,
                start: Start::Outputs,
                finish: Finish::Store,
                outputs: &mut state.gates[gates.at(t, 0)..],
            });
        }
        for example in 0..examples {
            let cell = example * cells.example + cells.at(t, 0);
            let (before, cell_now) = state.cells.split_at_mut(cell);
            let gate = example * gates.example + gates.at(t, 0);
            let place = example * to.value.example + to.value.at(t, 0);
            context.isa.dispatch(LstmCell {
                gates: &mut state.gates[gate..gate + 4 * hidden],
                cell_before: (t > 0).then(|| &before[cell - hidden..]),
                cell: &mut cell_now[..hidden],
                cell_tanh: &mut state.cell_tanhs[cell..cell + hidden],
                output: &mut output[place..place + hidden],
            });
        }
    }
}

/// Turns the gates of all time steps into the gradients of their pre-activations, and gives that of the input if it is
/// needed: step by step, while the gates are in the nearest cache.
#[allow(clippy::too_many_arguments, reason = "what an LSTM reads and writes")]
fn lstm_backward<I: Isa>(
    context: &Context<'_, I>,
    lstm: &Lstm,
    base: usize,
    state: &mut LstmState,
    examples: usize,
    from: &Edge,
    to: &Edge,
    output_gradient: &[f32],
    input_gradient: &mut [f32],
) {
    let Lstm { time, hidden, gates, cells, .. } = *lstm;
    let transposed = lstm.transposed_hidden();
    let weights = &context.transposed[base + lstm.transposed_inputs().len()..];
    let [.., gate_segment] = lstm.segments();
    state.cell_gradient[..examples * hidden].fill(0.0);
    for t in (0..time).rev() {
        for example in 0..examples {
            let cell = example * cells.example + cells.at(t, 0);
            let gate = example * gates.example + gates.at(t, 0);
            let place = example * to.gradient.example + to.gradient.at(t, 0);
            let own = example * hidden..(example + 1) * hidden;
            context.isa.dispatch(LstmCellGradient {
                gates: &mut state.gates[gate..gate + 4 * hidden],
                cell_before: (t > 0).then(|| &state.cells[cell - hidden..cell]),
                cell_tanh: &state.cell_tanhs[cell..cell + hidden],
                output_gradient: &output_gradient[place..place + hidden],
                recurrent_gradient: (t + 1 < time).then(|| &state.recurrent_gradient[own.clone()]),
                cell_gradient: &mut state.cell_gradient[own],
            });
        }
        if let (Some(rows), false) = (&lstm.to_inputs, input_gradient.is_empty()) {
            debug_assert!(!from.relu, "only a vector or an image comes out of an affine map's ReLU");
            context.isa.dispatch(Product {
                inputs: &state.gates[gates.at(t, 0)..],
                rows: rows.first(examples),
                scattered: false,
                segments: &gate_segment,
                weights: &context.transposed[base..],
                panels: lstm.transposed_inputs(),
                first_row: 0,
                start: Start::Zero,
                finish: Finish::Store,
                outputs: &mut input_gradient[from.gradient.at(t, 0)..],
            });
        }
        if t > 0 {
            context.isa.dispatch(Product {
                inputs: &state.gates[gates.at(t, 0)..],
                rows: lstm.to_hidden.first(examples),
                scattered: false,
                segments: &gate_segment,
                weights,
                panels: transposed,
                first_row: 0,
                start: Start::Zero,
                finish: Finish::Store,
                outputs: &mut state.recurrent_gradient,
            });
        }
    }
}
