//! Norms, clip factors and clipped sums of a block's gradients.

use super::pass::Context;
use super::worker::Worker;
use crate::kernels::{
    GhostNorm, Held, Places, RankOneNorms, ScaleExamples, ScaledAdd, SquaredNorms, WeightGradient, clip_factor,
    squared_norm_in_f64,
};
use crate::layout::Position;
use crate::plan::{Affine, Lstm, Method, Operation};
use crate::simd::Isa;

/// Below this, squares of f32 may have been lost to underflow.
const TINY: f64 = 1e-28;

/// Adds the block's (clipped) gradients to `sum`: all that the forward and backward passes left behind is there.
/// `block`: its examples.
pub fn add<I: Isa>(context: &Context<'_, I>, worker: &mut Worker, block: &[u32], sum: &mut [f32]) {
    let examples = block.len();
    match context.clip_norm {
        Some(clip_norm) => {
            block_norms(context, worker, examples);
            for example in 0..examples {
                add_kept(context, worker, example, clip_norm, sum);
            }
        }
        None => worker.factors[..examples].fill(1.0),
    }
    add_embeddings(context, worker, block, sum);
    add_block(context, worker, examples, sum);
}

/// The part of every example's squared norm that is known without its gradient.
fn block_norms<I: Isa>(context: &Context<'_, I>, worker: &mut Worker, examples: usize) {
    worker.norms[..examples].fill(0.0);
    for (i, operation) in context.plan.operations.iter().enumerate() {
        let Operation::Affine(affine) = operation else { continue };
        let (input, gradient) = (context.plan.edges[i].value, context.plan.edges[i + 1].gradient);
        match affine.method {
            Method::RankOne => {
                context.isa.dispatch(SquaredNorms {
                    values: &worker.values[i],
                    places: Places::Pitch(input.example),
                    len: affine.input.len(),
                    norms: &mut worker.input_squares[..examples],
                });
                context.isa.dispatch(RankOneNorms {
                    input_squares: &worker.input_squares[..examples],
                    bias: 1.0,
                    gradients: &worker.gradients[i + 1][gradient.at(0, 0)..],
                    gradient_pitch: gradient.example,
                    gradient_len: affine.output.len(),
                    norms: &mut worker.norms[..examples],
                });
            }
            Method::Ghost => {
                for example in 0..examples {
                    worker.norms[example] += context.isa.dispatch(GhostNorm {
                        inputs: &worker.values[i],
                        segments: &affine.segments,
                        output_gradients: &worker.gradients[i + 1],
                        outputs: affine.output.c,
                        positions: positions_of(affine, example),
                    });
                }
            }
            Method::Kept => {}
        }
    }
}

/// Whether a squared norm was taken with too few digits, if any.
pub fn needs_care(norm: f64) -> bool {
    !norm.is_finite() || norm < TINY
}

fn positions_of(affine: &Affine, example: usize) -> &[Position] {
    let count = affine.positions_per_example();
    &affine.positions[example * count..(example + 1) * count]
}

/// Computes one example's kept gradients and its norm. They wait until the next example's take their place: then they are
/// added, clipped, and so are those that waited before.
fn add_kept<I: Isa>(context: &Context<'_, I>, worker: &mut Worker, example: usize, clip_norm: f64, sum: &mut [f32]) {
    let (plan, isa) = (context.plan, context.isa);
    let mut norm = worker.norms[example];
    let mut kept = std::mem::take(&mut worker.kept);
    let mut rest = &mut *kept;
    let (factor_before, accumulate) = (worker.kept_factor.take(), !worker.nothing_added);
    for (i, operation) in plan.operations.iter().enumerate() {
        match operation {
            Operation::Affine(affine) if affine.method == Method::Kept => {
                let (own, others) = rest.split_at_mut(affine.panels.len());
                let positions = positions_of(affine, example);
                let held = held(factor_before, accumulate, &mut sum[affine.parameters.clone()]);
                norm += affine_gradient(context, worker, i, affine, positions, &[], own, held, true);
                rest = others;
            }
            Operation::Lstm(lstm) => {
                let (own, others) = rest.split_at_mut(lstm.panels.len());
                let held = held(factor_before, accumulate, &mut sum[lstm.parameters.clone()]);
                norm += lstm_gradient(context, worker, i, lstm, example..example + 1, own, held, true);
                rest = others;
            }
            Operation::Embedding(embedding) => {
                let (tokens, frame) = (tokens_of(&worker.tokens, plan.time, example), plan.edges[i + 1].gradient);
                let gradient = &worker.gradients[i + 1][example * frame.example..];
                if embedding.mean {
                    let waiting = worker.waiting.as_mut().expect("a mean over time has memory");
                    norm += waiting.norm(isa, tokens, &gradient[frame.at(0, 0)..]);
                } else {
                    let merged = worker.embeddings[i].as_mut().expect("an embedding has memory");
                    merged.merge(isa, embedding, tokens, frame, gradient);
                    norm += merged.norm(isa, embedding);
                }
            }
            _ => {}
        }
    }
    worker.nothing_added &= factor_before.is_none();
    if needs_care(norm) {
        norm = careful_norm(context, worker, example, &kept);
    }
    let factor = clip_factor(norm, clip_norm);
    worker.factors[example] = factor;
    if factor.is_nan() {
        worker.non_finite += 1;
    } else {
        worker.kept_factor = Some(factor);
        for (i, operation) in plan.operations.iter().enumerate() {
            if let Operation::Embedding(embedding) = operation
                && !embedding.mean
            {
                let merged = worker.embeddings[i].as_ref().expect("an embedding has memory");
                merged.add(isa, embedding, factor, sum);
            }
        }
    }
    worker.kept = kept;
}

/// What becomes of the kept gradient before, with its factor if it is to be added.
fn held(factor: Option<f32>, accumulate: bool, sum: &mut [f32]) -> Held<'_> {
    match factor {
        Some(by) => Held::Moved { by, sum, accumulate },
        None => Held::Forgotten,
    }
}

/// Ends a step in which something may have been kept: adds the gradients that wait, or leaves zeros if there were none at
/// all.
pub fn add_last_kept<I: Isa>(context: &Context<'_, I>, worker: &mut Worker, sum: &mut [f32]) {
    let factor = worker.kept_factor.take();
    let mut start = 0;
    for operation in &context.plan.operations {
        if operation.method() == Some(Method::Kept) {
            let range = operation.parameters();
            let from = &worker.kept[start..start + range.len()];
            start += range.len();
            let to = &mut sum[range];
            match factor {
                Some(by) => context.isa.dispatch(ScaledAdd { by, from, to, accumulate: !worker.nothing_added }),
                None if worker.nothing_added => to.fill(0.0),
                None => {}
            }
        }
    }
}

fn tokens_of(tokens: &[u32], time: Option<usize>, example: usize) -> &[u32] {
    let time = time.expect("an embedding's input is tokens");
    &tokens[example * time..(example + 1) * time]
}

/// The gradient of an affine map over some positions, and its squared norm if asked for.
#[allow(clippy::too_many_arguments, reason = "what a gradient is made of")]
fn affine_gradient<I: Isa>(
    context: &Context<'_, I>,
    worker: &Worker,
    i: usize,
    affine: &Affine,
    positions: &[Position],
    factors: &[f32],
    to: &mut [f32],
    held: Held<'_>,
    squares: bool,
) -> f64 {
    context.isa.dispatch(WeightGradient {
        inputs: &worker.values[i],
        output_gradients: &worker.gradients[i + 1],
        positions,
        factors,
        columns: &affine.columns,
        gradient: to,
        panels: affine.panels,
        first_row: 0,
        bias: true,
        held,
        squares,
    })
}

/// The gradient of an LSTM over some examples, and its squared norm if asked for.
#[allow(clippy::too_many_arguments, reason = "what a gradient is made of")]
fn lstm_gradient<I: Isa>(
    context: &Context<'_, I>,
    worker: &Worker,
    i: usize,
    lstm: &Lstm,
    examples: std::ops::Range<usize>,
    to: &mut [f32],
    mut held: Held<'_>,
    squares: bool,
) -> f64 {
    let state = worker.lstms[i].as_ref().expect("an LSTM has a state");
    let steps = |per_example: usize| examples.start * per_example..examples.end * per_example;
    let of_inputs = context.isa.dispatch(WeightGradient {
        inputs: &worker.values[i],
        output_gradients: &state.gates,
        positions: &lstm.input_positions[steps(lstm.time)],
        factors: &[],
        columns: &lstm.columns[..lstm.inputs],
        gradient: to,
        panels: lstm.panels,
        first_row: 0,
        bias: true,
        held: held.reborrow(),
        squares,
    });
    let of_hidden = context.isa.dispatch(WeightGradient {
        inputs: &worker.values[i + 1],
        output_gradients: &state.gates,
        positions: &lstm.hidden_positions[steps(lstm.time - 1)],
        factors: &[],
        columns: &lstm.columns[..lstm.hidden],
        gradient: to,
        panels: lstm.panels,
        first_row: lstm.inputs,
        bias: false,
        held,
        squares,
    });
    of_inputs + of_hidden
}

/// The embeddings' gradients: those that wait, with their factors, and in non-private mode all others.
fn add_embeddings<I: Isa>(context: &Context<'_, I>, worker: &mut Worker, block: &[u32], sum: &mut [f32]) {
    let (plan, isa) = (context.plan, context.isa);
    for (i, operation) in plan.operations.iter().enumerate() {
        let Operation::Embedding(embedding) = operation else { continue };
        let frame = plan.edges[i + 1].gradient;
        for (slot, example) in block.iter().enumerate() {
            let gradient = &worker.gradients[i + 1][slot * frame.example..];
            let tokens = tokens_of(&worker.tokens, plan.time, slot);
            let factor = worker.factors[slot];
            if embedding.mean {
                let waiting = worker.waiting.as_mut().expect("a mean over time has memory");
                if !factor.is_nan() {
                    waiting.push(isa, *example, tokens.len(), factor, &gradient[frame.at(0, 0)..]);
                }
            } else if context.clip_norm.is_none() {
                let merged = worker.embeddings[i].as_mut().expect("an embedding has memory");
                merged.merge(isa, embedding, tokens, frame, gradient);
                merged.add(isa, embedding, 1.0, sum);
            }
        }
    }
}

/// Adds the gradients of the operations that are summed over the block, with the examples' factors.
fn add_block<I: Isa>(context: &Context<'_, I>, worker: &mut Worker, examples: usize, sum: &mut [f32]) {
    let first = worker.nothing_summed;
    let held = || if first { Held::Forgotten } else { Held::Kept };
    let private = context.clip_norm.is_some();
    let all_finite = !worker.factors[..examples].iter().any(|factor| factor.is_nan());
    for (i, operation) in context.plan.operations.iter().enumerate() {
        match operation {
            Operation::Affine(affine) if !(private && affine.method == Method::Kept) => {
                let frame = context.plan.edges[i + 1].gradient;
                // With one position per example they are scaled on their way.
                let scaled_later = all_finite && affine.method == Method::RankOne;
                if private && !scaled_later {
                    context.isa.dispatch(ScaleExamples {
                        values: &mut worker.gradients[i + 1],
                        pitch: frame.example,
                        len: frame.example,
                        factors: &worker.factors[..examples],
                    });
                }
                let to = &mut sum[affine.parameters.clone()];
                let count = affine.positions_per_example();
                if all_finite {
                    let positions = &affine.positions[..examples * count];
                    let factors = if private && scaled_later { &worker.factors[..examples] } else { &[] };
                    affine_gradient(context, worker, i, affine, positions, factors, to, held(), false);
                } else {
                    let mut positions = std::mem::take(&mut worker.positions);
                    positions.clear();
                    for example in (0..examples).filter(|example| !worker.factors[*example].is_nan()) {
                        positions.extend_from_slice(positions_of(affine, example));
                    }
                    affine_gradient(context, worker, i, affine, &positions, &[], to, held(), false);
                    worker.positions = positions;
                }
            }
            Operation::Lstm(lstm) if !private => {
                lstm_gradient(context, worker, i, lstm, 0..examples, &mut sum[lstm.parameters.clone()], held(), false);
            }
            _ => {}
        }
    }
}

/// An example's squared norm in f64, number by number: for gradients whose squares an f32 can't hold, or whose positions
/// cancel. Infinite or NaN only if some input, output gradient or kept gradient is.
fn careful_norm<I: Isa>(context: &Context<'_, I>, worker: &mut Worker, example: usize, kept: &[f32]) -> f64 {
    let mut norm = squared_norm_in_f64(kept);
    for (i, operation) in context.plan.operations.iter().enumerate() {
        let gradients = &worker.gradients[i + 1];
        match operation {
            Operation::Affine(affine) if affine.method != Method::Kept => {
                let inputs = &worker.values[i];
                let input = |position: &Position, column: u32| f64::from(inputs[(position.input + column) as usize]);
                let gradient = |position: &Position| &gradients[position.gradient as usize..][..affine.output.c];
                let positions = positions_of(affine, example);
                let (mut layer, mut size) = (0.0, 0.0);
                for (t, one) in positions.iter().enumerate() {
                    for (u, other) in positions[t..].iter().enumerate() {
                        let a: f64 =
                            affine.columns.iter().map(|column| input(one, *column) * input(other, *column)).sum();
                        let both = gradient(one).iter().zip(gradient(other));
                        let g: f64 = both.map(|(one, other)| f64::from(*one) * f64::from(*other)).sum();
                        let pairs = if u == 0 { 1.0 } else { 2.0 };
                        layer += pairs * (a + 1.0) * g;
                        if u == 0 {
                            size += ((a + 1.0) * g).sqrt();
                        }
                    }
                }
                // Whatever cancels, the sum that is taken in f32 is off by about this much. (`max` would lose a NaN.)
                let least = 1e-12 * size * size;
                norm += if layer < least { least } else { layer };
            }
            Operation::Embedding(embedding) => {
                if embedding.mean {
                    let frame = context.plan.edges[i + 1].gradient;
                    let tokens = tokens_of(&worker.tokens, context.plan.time, example);
                    let gradient = &gradients[example * frame.example + frame.at(0, 0)..];
                    norm +=
                        worker.waiting.as_mut().expect("a mean over time has memory").careful_norm(tokens, gradient);
                } else {
                    let merged = worker.embeddings[i].as_ref().expect("an embedding has memory");
                    norm += merged.careful_norm(embedding);
                }
            }
            _ => {}
        }
    }
    norm
}
