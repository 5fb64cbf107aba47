//! Several steps in a row: state that outlives a step, or an epoch that is not its steps, is found out.

use std::path::Path;

use dpsgd_core::oracle::{Gradient, Oracle};
use dpsgd_core::{DpSgd, Mode, ModelSpec, Params};
use dpsgd_protocol::schedule::Schedule;

use super::cases::noiseless;
use super::pool::{MIN_MARGIN, Pool};
use super::sum::{Bounds, Sum};
use super::{EpochCase, length, write};
use crate::prepare::{PrepareError, ScheduleFile};

/// Rows of the pool, step by step.
const BATCHES: [[u32; 8]; 3] = [[0, 9, 2, 7, 4, 5, 8, 3], [1, 6, 3, 9, 9, 0, 2, 5], [8, 7, 6, 4, 1, 2, 5, 0]];
/// Length of the first update in lengths of the parameters: long enough to be read off f32 parameters, short enough that
/// the errors of one step are not blown up by the next. (With 0.03 an LSTM saturates after the first step: two right
/// implementations, that differed only in whether they rounded once or twice in a multiply-add, ended 2e-5 apart.)
const FIRST_LENGTH: f64 = 0.01;
/// Learning rates tried, each 10% below the one before, to keep the later steps clear of kinks.
const RATES: u32 = 12;

/// Works out one case for each mode and writes batches and differences into `out`.
pub fn work_out(model: &ModelSpec, params: &Params, pool: &Pool, out: &Path) -> Result<Vec<EpochCase>, PrepareError> {
    let indices = BATCHES.concat();
    let examples = indices.len();
    let batches = Schedule { width: BATCHES[0].len(), indices, mask: vec![true; examples] };
    let schedule = ScheduleFile::save(&batches, out.join("epoch.safetensors"))?;
    let work_out = |mode: Mode| {
        let (dp, end) = clear_of_kinks(model, params, pool, mode);
        let expected = out.join(format!("expected-epoch-{}.f64", mode.name()));
        let pairs = params.values().zip(end.params.values());
        write(&expected, pairs.map(|(first, last)| f64::from(first) - f64::from(last)))?;
        let (steps, examples) = (BATCHES.len() as u64, examples as u64);
        Ok(EpochCase { dp, schedule: schedule.clone(), steps, examples, expected, bounds: end.bounds })
    };
    [Mode::Private, Mode::NonPrivate].into_iter().map(work_out).collect()
}

/// Where steps end.
struct End {
    /// The least margin after the first step.
    margin: f64,
    params: Params,
    bounds: Bounds,
}

/// The first learning rate with which no later example comes near a kink, or the best of all tried; and where it ends.
fn clear_of_kinks(model: &ModelSpec, params: &Params, pool: &Pool, mode: Mode) -> (DpSgd, End) {
    let clip_norm = pool.median_norm();
    let first: Vec<&Gradient> = BATCHES[0].iter().map(|row| &pool.gradients[*row as usize]).collect();
    let first = Sum::of(model, mode, clip_norm, first);
    let mut best: Option<(DpSgd, End)> = None;
    for attempt in 0..RATES {
        let length = FIRST_LENGTH * 0.9_f64.powf(f64::from(attempt)) * length(params);
        let dp = noiseless(mode, clip_norm, length * first.divisor() / first.gradient.norm());
        let end = steps(model, params, pool, &dp);
        let margin = end.margin;
        if best.as_ref().is_none_or(|(_, known)| margin > known.margin) {
            best = Some((dp, end));
        }
        if margin >= MIN_MARGIN {
            break;
        }
    }
    best.expect("one learning rate is tried")
}

/// Takes the steps in float64 between parameters kept in f32.
fn steps(model: &ModelSpec, params: &Params, pool: &Pool, dp: &DpSgd) -> End {
    let mut params = params.clone();
    let mut margin = f64::INFINITY;
    let mut bounds: Option<Bounds> = None;
    for (step, batch) in BATCHES.iter().enumerate() {
        let oracle = Oracle::new(model, &params).expect("the model is valid");
        let examples: Vec<_> = batch.iter().map(|row| oracle.example(&pool.dataset, *row as usize)).collect();
        if step > 0 {
            margin = examples.iter().map(|example| example.margin).fold(margin, f64::min);
        }
        let sum = Sum::of(model, dp.mode, dp.clip_norm, examples.iter().map(|example| &example.gradient));
        let rate = dp.learning_rate / sum.divisor();
        for (tensor, sum) in params.tensors.iter_mut().zip(&sum.gradient.0) {
            for (value, sum) in tensor.values.iter_mut().zip(sum) {
                *value = (f64::from(*value) - rate * sum) as f32;
            }
        }
        let of_this = sum.bounds(model, rate);
        bounds = Some(match bounds {
            None => of_this,
            Some(before) => before.and(of_this),
        });
    }
    End { margin, params, bounds: bounds.expect("there are steps") }
}
