//! [`Product`] and [`WeightGradient`] for maps with one output: dot products, whose vectors lie along the inputs.
//!
//! A vector of outputs would hold one number. The panel of such a map is a column, so weights and inputs are both read
//! in order.

#![allow(clippy::needless_range_loop, reason = "constant ranges over several arrays at once are what gets unrolled")]

use super::product::{Finish, Product, Start};
use super::weight_gradient::{Held, WeightGradient};
use super::{load, store};
use crate::layout::Row;
use crate::simd::Isa;

/// Rows that share a vector of weights.
const ROWS: usize = 4;
/// Vectors of inputs whose sums over positions are in registers.
const VECTORS: usize = 8;
/// Positions after which a sum in registers moves to the sum of all: before its rounding errors add up.
const POSITIONS: usize = 128;

/// The product.
///
/// # Safety
///
/// Its bounds are checked, and it has one output.
#[inline(always)]
pub unsafe fn product<I: Isa>(isa: I, product: &mut Product<'_>) {
    let (fours, rest) = product.rows.rows().as_chunks::<ROWS>();
    for rows in fours {
        // SAFETY: as the caller says.
        unsafe { dots(isa, product, rows) };
    }
    for row in rest {
        // SAFETY: as the caller says.
        unsafe { dots(isa, product, std::array::from_ref(row)) };
    }
}

/// # Safety
///
/// As [`product`]; the rows are of the product.
#[inline(always)]
unsafe fn dots<I: Isa, const R: usize>(isa: I, product: &mut Product<'_>, rows: &[Row; R]) {
    let mut sums = [isa.splat(0.0); R];
    // SAFETY: bounds are checked: every row's segments, and the weights that they meet, can be read.
    unsafe {
        let mut inputs = [product.inputs.as_ptr(); R];
        for r in 0..R {
            inputs[r] = inputs[r].add(rows[r].input as usize);
        }
        for segment in product.segments {
            let (offset, len) = (segment.offset as usize, segment.len as usize);
            let weights = product.weights.as_ptr().add(product.first_row + segment.weight as usize);
            let mut at = 0;
            while at < len {
                let count = I::LANES.min(len - at);
                let factors = load(isa, weights.add(at), count);
                for r in 0..R {
                    sums[r] = isa.mul_add(load(isa, inputs[r].add(offset + at), count), factors, sums[r]);
                }
                at += count;
            }
        }
    }
    for r in 0..R {
        let output = rows[r].output as usize;
        let value = isa.sum(sums[r])
            + match product.start {
                Start::Zero => 0.0,
                Start::Bias => product.weights[product.panels.depth - 1],
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
                if mask[rows[r].mask as usize] > 0.0 {
                    value
                } else {
                    0.0
                }
            }
        };
    }
}

/// Whether the inputs lie side by side far enough for vectors along them.
#[inline(always)]
pub fn has_long_runs<I: Isa>(columns: &[u32]) -> bool {
    let breaks = columns.windows(2).filter(|pair| pair[0].checked_add(1) != Some(pair[1])).count();
    columns.len() >= (breaks + 1) * I::LANES
}

/// The weight gradient, and its squared norm if asked for.
///
/// # Safety
///
/// Its bounds are checked, and it has one output.
#[inline(always)]
pub unsafe fn weight_gradient<I: Isa>(isa: I, job: &mut WeightGradient<'_>) -> f64 {
    let mut squares = 0.0;
    if job.bias {
        let mut sum = 0.0;
        for position in job.positions {
            sum += f64::from(job.output_gradients[position.gradient as usize]);
        }
        let place = job.panels.depth - 1;
        let bias = &mut job.gradient[place];
        // SAFETY: bounds are checked, also those of a sum.
        unsafe { job.held.leave(isa, bias, place, 1) };
        *bias = sum as f32 + if matches!(job.held, Held::Kept) { *bias } else { 0.0 };
        squares += f64::from(*bias) * f64::from(*bias);
    }
    let mut column = 0;
    while column < job.columns.len() {
        // Inputs that lie side by side, as many as the registers take.
        let first = job.columns[column];
        let mut len = 1;
        while len < VECTORS * I::LANES && job.columns.get(column + len) == first.checked_add(len as u32).as_ref() {
            len += 1;
        }
        // SAFETY: as the caller says; the run lies in the columns.
        squares += unsafe {
            match len.div_ceil(I::LANES) {
                1 => run::<I, 1>(isa, job, column, len),
                2 => run::<I, 2>(isa, job, column, len),
                3 => run::<I, 3>(isa, job, column, len),
                4 => run::<I, 4>(isa, job, column, len),
                5 => run::<I, 5>(isa, job, column, len),
                6 => run::<I, 6>(isa, job, column, len),
                7 => run::<I, 7>(isa, job, column, len),
                8 => run::<I, 8>(isa, job, column, len),
                _ => unreachable!("runs of at most VECTORS vectors"),
            }
        };
        column += len;
    }
    if job.squares { squares } else { 0.0 }
}

/// `len` columns from `column` on, whose inputs lie side by side: `V` vectors, the last with what remains.
///
/// # Safety
///
/// As [`weight_gradient`]; the columns are of the job.
#[inline(always)]
unsafe fn run<I: Isa, const V: usize>(isa: I, job: &mut WeightGradient<'_>, column: usize, len: usize) -> f64 {
    let last = len - (V - 1) * I::LANES;
    let mut sums = [isa.splat(0.0); V];
    let mut squares = isa.splat(0.0);
    // SAFETY: bounds are checked: these inputs and the gradient of every position can be read, and the columns' rows
    // written.
    unsafe {
        let inputs = job.inputs.as_ptr().add(job.columns[column] as usize);
        for positions in job.positions.chunks(POSITIONS) {
            let mut some = [isa.splat(0.0); V];
            for position in positions {
                let gradient = isa.splat(*job.output_gradients.as_ptr().add(position.gradient as usize));
                let inputs = inputs.add(position.input as usize);
                for v in 0..V {
                    let count = if v + 1 < V { I::LANES } else { last };
                    some[v] = isa.mul_add(load(isa, inputs.add(v * I::LANES), count), gradient, some[v]);
                }
            }
            for v in 0..V {
                sums[v] = isa.add(sums[v], some[v]);
            }
        }
        for v in 0..V {
            let count = if v + 1 < V { I::LANES } else { last };
            let place = job.first_row + column + v * I::LANES;
            let to = job.gradient.as_mut_ptr().add(place);
            job.held.leave(isa, to, place, count);
            if matches!(job.held, Held::Kept) {
                sums[v] = isa.add(sums[v], load(isa, to, count));
            }
            store(isa, to, sums[v], count);
            squares = isa.mul_add(sums[v], sums[v], squares);
        }
    }
    f64::from(isa.sum(squares))
}
