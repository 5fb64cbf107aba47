//! [`Product`] and [`WeightGradient`] for the last panel of a map where it has few outputs: dot products, whose vectors
//! lie along the inputs.
//!
//! A vector of outputs would be nearly empty. The panel of a single output is a column, so weights and inputs are both
//! read in order; those of a few are copied apart first.

#![allow(clippy::needless_range_loop, reason = "constant ranges over several arrays at once are what gets unrolled")]

use std::mem::MaybeUninit;
use std::ops::Range;

use super::product::{Finish, Product, Start};
use super::weight_gradient::{Held, WeightGradient};
use super::{load, store};
use crate::layout::{PANEL, Row, Segment};
use crate::simd::Isa;

/// Most outputs.
pub const FEW: usize = 4;
/// Rows that share a vector of weights.
const ROWS: usize = 4;
/// Inputs of a row whose weights for several outputs can be copied apart: on the stack of every product, up to 4 KB.
const INPUTS: usize = 256;
/// Vectors of inputs whose sums over positions are in registers, for one output.
const VECTORS: usize = 8;
/// The same for a few.
const VECTORS_OF_FEW: usize = 4;
/// Positions after which a sum in registers moves to the sum of all: before its rounding errors add up.
const POSITIONS: usize = 128;

/// Whether the last panel of a product, `rest` outputs of `outputs`, is better taken along the inputs: always where there
/// is one output; with few, if the inputs lie side by side and are enough for the sums over lanes to pay.
#[inline(always)]
pub fn suits_product<I: Isa>(rest: usize, outputs: usize, segments: &[Segment]) -> bool {
    let mut inputs = 0;
    for segment in segments {
        inputs += segment.len as usize;
    }
    outputs == 1 || (1..=FEW).contains(&rest) && (2 * I::LANES * segments.len().max(1)..=INPUTS).contains(&inputs)
}

/// Whether the last panel of a weight gradient is better taken along the inputs: if enough of them lie side by side.
#[inline(always)]
pub fn suits_gradient<I: Isa>(rest: usize, columns: &[u32]) -> bool {
    let breaks = columns.windows(2).filter(|pair| pair[0].checked_add(1) != Some(pair[1])).count();
    (1..=FEW).contains(&rest) && columns.len() >= (breaks + 1) * I::LANES
}

/// The last panel's outputs, of which there are `W`.
///
/// # Safety
///
/// The product's bounds are checked, its last panel has `W` outputs, and [`suits_product`].
#[inline(always)]
pub unsafe fn product<I: Isa, const W: usize>(isa: I, product: &mut Product<'_>) {
    let panel = product.panels.start((product.panels.outputs - 1) / PANEL);
    let mut apart = MaybeUninit::<[[f32; INPUTS]; W]>::uninit();
    let mut weights = [product.weights[panel..].as_ptr().wrapping_add(product.first_row); W];
    if W > 1 {
        let mut at = 0;
        for segment in product.segments {
            let from = panel + (product.first_row + segment.weight as usize) * W;
            for row in product.weights[from..from + segment.len as usize * W].chunks_exact(W) {
                for w in 0..W {
                    // SAFETY: segments have at most INPUTS inputs together.
                    unsafe { apart.as_mut_ptr().cast::<f32>().add(w * INPUTS + at).write(row[w]) };
                }
                at += 1;
            }
        }
        for w in 0..W {
            weights[w] = apart.as_ptr().cast::<f32>().wrapping_add(w * INPUTS);
        }
    }
    let (fours, rest) = product.rows.rows().as_chunks::<ROWS>();
    for rows in fours {
        // SAFETY: as the caller says.
        unsafe { dots(isa, product, rows, panel, &weights) };
    }
    for row in rest {
        // SAFETY: as the caller says.
        unsafe { dots(isa, product, std::array::from_ref(row), panel, &weights) };
    }
}

/// # Safety
///
/// As [`product`]; the rows are of the product. `weights`: those of each output, by the rows of its panel if there is one
/// output, else by the inputs of a row.
#[inline(always)]
unsafe fn dots<I: Isa, const R: usize, const W: usize>(
    isa: I,
    product: &mut Product<'_>,
    rows: &[Row; R],
    panel: usize,
    weights: &[*const f32; W],
) {
    let mut sums = [[isa.splat(0.0); R]; W];
    // SAFETY: bounds are checked: every row's segments, and the weights that they meet, can be read.
    unsafe {
        let mut inputs = [product.inputs.as_ptr(); R];
        for r in 0..R {
            inputs[r] = inputs[r].add(rows[r].input as usize);
        }
        let mut before = 0;
        for segment in product.segments {
            let (offset, len) = (segment.offset as usize, segment.len as usize);
            let first = if W == 1 { segment.weight as usize } else { before };
            let mut at = 0;
            while at < len {
                let count = I::LANES.min(len - at);
                let mut factors = [isa.splat(0.0); W];
                for w in 0..W {
                    factors[w] = load(isa, weights[w].add(first + at), count);
                }
                for r in 0..R {
                    let input = load(isa, inputs[r].add(offset + at), count);
                    for w in 0..W {
                        sums[w][r] = isa.mul_add(input, factors[w], sums[w][r]);
                    }
                }
                at += count;
            }
            before += len;
        }
    }
    let column = product.panels.outputs - W;
    for w in 0..W {
        let mut totals = [0.0; R];
        if R == ROWS {
            totals.copy_from_slice(&isa.sums([sums[w][0], sums[w][1 % R], sums[w][2 % R], sums[w][3 % R]])[..R]);
        } else {
            for r in 0..R {
                totals[r] = isa.sum(sums[w][r]);
            }
        }
        for r in 0..R {
            let output = rows[r].output as usize + column + w;
            let value = totals[r]
                + match product.start {
                    Start::Zero => 0.0,
                    Start::Bias => product.weights[panel + (product.panels.depth - 1) * W + w],
                    Start::Outputs => product.outputs[output],
                };
            product.outputs[output] = match product.finish {
                Finish::Store => value,
                // NaN stays.
                Finish::Relu => {
                    if value < 0.0 {
                        0.0
                    } else {
                        value
                    }
                }
                Finish::Mask(mask) => {
                    if mask[rows[r].mask as usize + column + w] > 0.0 {
                        value
                    } else {
                        0.0
                    }
                }
            };
        }
    }
}

/// Vectors of inputs whose sums are in registers, for so many outputs.
const fn vectors<I: Isa>(outputs: usize) -> usize {
    let of_few = VECTORS_OF_FEW * I::LANES / PANEL;
    if outputs == 1 {
        VECTORS
    } else if of_few > 1 {
        of_few
    } else {
        1
    }
}

/// The last panel's weight gradient, of `W` outputs, and its squared norm if asked for.
///
/// # Safety
///
/// The job's bounds are checked, its last panel has `W` outputs, and [`suits_gradient`].
#[inline(always)]
pub unsafe fn weight_gradient<I: Isa, const W: usize>(isa: I, job: &mut WeightGradient<'_>) -> f64 {
    let panel = job.panels.start((job.panels.outputs - 1) / PANEL);
    let mut squares = 0.0;
    if job.bias {
        let sums = if job.factors.is_empty() { biases::<W, false>(job) } else { biases::<W, true>(job) };
        let place = panel + (job.panels.depth - 1) * W;
        let biases = &mut job.gradient[place..place + W];
        // SAFETY: bounds are checked, also those of a sum.
        unsafe { job.held.leave(isa, biases.as_ptr(), place, W) };
        for (bias, sum) in biases.iter_mut().zip(sums) {
            *bias = sum as f32 + if matches!(job.held, Held::Kept) { *bias } else { 0.0 };
            squares += f64::from(*bias) * f64::from(*bias);
        }
    }
    let most = vectors::<I>(W);
    let mut column = 0;
    while column < job.columns.len() {
        // Inputs that lie side by side, as many as the registers take.
        let first = job.columns[column];
        let mut len = 1;
        while len < most * I::LANES && job.columns.get(column + len) == first.checked_add(len as u32).as_ref() {
            len += 1;
        }
        // SAFETY: as the caller says; the run lies in the columns.
        squares += unsafe {
            with_constant!(len.div_ceil(I::LANES), vectors::<I>(W), V => run::<I, V, W>(isa, job, panel, column, len))
        };
        column += len;
    }
    if job.squares { squares } else { 0.0 }
}

/// What the output gradients at position number `number` are multiplied by, if there are factors.
#[inline(always)]
fn factor<const HAS_FACTORS: bool>(job: &WeightGradient<'_>, number: usize) -> f32 {
    if HAS_FACTORS { job.factors[number] } else { 1.0 }
}

/// The gradients of the biases.
#[inline(always)]
fn biases<const W: usize, const HAS_FACTORS: bool>(job: &WeightGradient<'_>) -> [f64; W] {
    let first_output = job.panels.outputs - W;
    let mut sums = [0.0; W];
    for (number, position) in job.positions.iter().enumerate() {
        let by = factor::<HAS_FACTORS>(job, number);
        let gradients = &job.output_gradients[position.gradient as usize + first_output..][..W];
        for w in 0..W {
            sums[w] += f64::from(gradients[w] * by);
        }
    }
    sums
}

/// The sums over some positions of `V` vectors of inputs from column number `column` on times each
/// of the `W` outputs' gradients; the last vector has `last` inputs.
///
/// # Safety
///
/// As [`run`].
#[inline(always)]
unsafe fn sums_over<I: Isa, const V: usize, const W: usize, const HAS_FACTORS: bool>(
    isa: I,
    job: &WeightGradient<'_>,
    positions: Range<usize>,
    column: usize,
    last: usize,
) -> [[I::F32; V]; W] {
    let first_output = job.panels.outputs - W;
    let mut sums = [[isa.splat(0.0); V]; W];
    // SAFETY: bounds are checked: these inputs and the gradients of every position can be read.
    unsafe {
        let inputs = job.inputs.as_ptr().add(job.columns[column] as usize);
        for (number, position) in (positions.start..).zip(&job.positions[positions]) {
            let by = factor::<HAS_FACTORS>(job, number);
            let from = job.output_gradients.as_ptr().add(position.gradient as usize + first_output);
            let mut gradients = [isa.splat(0.0); W];
            for w in 0..W {
                gradients[w] = isa.splat(*from.add(w) * by);
            }
            let inputs = inputs.add(position.input as usize);
            for v in 0..V {
                let count = if v + 1 < V { I::LANES } else { last };
                let input = load(isa, inputs.add(v * I::LANES), count);
                for w in 0..W {
                    sums[w][v] = isa.mul_add(input, gradients[w], sums[w][v]);
                }
            }
        }
    }
    sums
}

/// `len` columns from `column` on, whose inputs lie side by side: `V` vectors, the last with what remains.
///
/// # Safety
///
/// As [`weight_gradient`]; the columns are of the job, and `panel` is where its last panel begins.
#[inline(always)]
unsafe fn run<I: Isa, const V: usize, const W: usize>(
    isa: I,
    job: &mut WeightGradient<'_>,
    panel: usize,
    column: usize,
    len: usize,
) -> f64 {
    let last = len - (V - 1) * I::LANES;
    let mut sums = [[isa.splat(0.0); V]; W];
    let mut squares = isa.splat(0.0);
    // SAFETY: bounds are checked: these inputs and the gradients of every position can be read, and the columns' rows
    // written.
    unsafe {
        for start in (0..job.positions.len()).step_by(POSITIONS) {
            let positions = start..job.positions.len().min(start + POSITIONS);
            let some = if job.factors.is_empty() {
                sums_over::<I, V, W, false>(isa, job, positions, column, last)
            } else {
                sums_over::<I, V, W, true>(isa, job, positions, column, last)
            };
            for w in 0..W {
                for v in 0..V {
                    sums[w][v] = isa.add(sums[w][v], some[w][v]);
                }
            }
        }
        let place = panel + (job.first_row + column) * W;
        let to = job.gradient.as_mut_ptr().add(place);
        for first in (0..len * W).step_by(I::LANES) {
            job.held.leave(isa, to.add(first), place + first, I::LANES.min(len * W - first));
        }
        let is_kept = matches!(job.held, Held::Kept);
        for w in 0..W {
            for v in 0..V {
                let count = if v + 1 < V { I::LANES } else { last };
                let mut sum = sums[w][v];
                if W == 1 {
                    let to = to.add(v * I::LANES);
                    if is_kept {
                        sum = isa.add(sum, load(isa, to, count));
                    }
                    store(isa, to, sum, count);
                } else {
                    // Rows of the panel have the outputs side by side.
                    let mut numbers = [0.0f32; PANEL];
                    if is_kept {
                        for lane in 0..count {
                            numbers[lane] = *to.add((v * I::LANES + lane) * W + w);
                        }
                        sum = isa.add(sum, isa.load(numbers.as_ptr()));
                    }
                    isa.store(numbers.as_mut_ptr(), sum);
                    for lane in 0..count {
                        *to.add((v * I::LANES + lane) * W + w) = numbers[lane];
                    }
                }
                squares = isa.mul_add(sum, sum, squares);
            }
        }
    }
    f64::from(isa.sum(squares))
}
