//! Single steps: which batches, and their right updates.

use std::path::Path;

use dpsgd_core::oracle::Gradient;
use dpsgd_core::{DpSgd, Mode, ModelSpec};

use super::pool::{ORDINARY, Pool};
use super::sum::Sum;
use super::{Case, EXPECTED_BATCH_SIZE, Needs, write};
use crate::prepare::PrepareError;

/// Slots of most batches: a JIT that compiles for each shape compiles few.
const WIDTH: usize = 8;
/// Length of an update in lengths of the parameters.
const UPDATE_LENGTH: f64 = 30.0;

/// Works out all cases of few examples and writes their updates into `out`; `length` is that of the parameters.
pub fn work_out(model: &ModelSpec, length: f64, pool: &Pool, out: &Path) -> Result<Vec<Case>, PrepareError> {
    let work_out = |(number, plan): (usize, Plan)| {
        let counted = plan.indices.iter().zip(&plan.mask).filter(|(_, counts)| **counts);
        let gradients: Vec<&Gradient> = counted.map(|(index, _)| &pool.gradients[*index as usize]).collect();
        let non_finite = gradients.iter().filter(|gradient| !gradient.is_finite()).count() as u64;
        let sum = Sum::of(model, plan.mode, plan.clip_norm, gradients);
        plan.expecting(model, &sum, non_finite, length, &out.join(format!("expected-{number}.f64")))
    };
    plans(pool).into_iter().enumerate().map(work_out).collect()
}

/// A case whose right answer is still to be written down.
pub struct Plan {
    /// Shown when it fails.
    pub name: String,
    /// Private or plain.
    pub mode: Mode,
    /// The clip norm.
    pub clip_norm: f64,
    /// Rows of the gate's data set.
    pub indices: Vec<u32>,
    /// Which slots count.
    pub mask: Vec<bool>,
    /// What a strategy must support.
    pub needs: Needs,
}

fn plans(pool: &Pool) -> Vec<Plan> {
    use Mode::{NonPrivate, Private};
    let norms = pool.norms();
    let (some_clip, none_clip, all_clip) = (pool.median_norm(), norms[ORDINARY - 1] * 1e3, norms[0] * 1e-3);
    let first: Vec<u32> = (0..WIDTH as u32).collect();
    let spread = vec![0, 9, 2, 7, 4, 5, 8, 3];
    let repeated = vec![9, 9, 9, pool.zero, 4, 4, pool.zero, 0];
    let all = vec![true; WIDTH];
    let some = vec![true, false, true, true, false, true, false, false];
    let none = vec![false; WIDTH];
    let plan = |name: &str, mode, clip_norm, indices: &[u32], mask: &[bool], needs| Plan {
        name: name.into(),
        mode,
        clip_norm,
        indices: indices.to_vec(),
        mask: mask.to_vec(),
        needs,
    };
    let mut plans = vec![
        plan("some examples clipped", Private, some_clip, &spread, &all, Needs::Nothing),
        plan("no example clipped", Private, none_clip, &first, &all, Needs::Nothing),
        plan("every example clipped", Private, all_clip, &spread, &all, Needs::Nothing),
        plan("a batch of one", Private, some_clip, &[9], &[true], Needs::Nothing),
        plan("repeated and all-zero examples", Private, some_clip, &repeated, &all, Needs::Nothing),
        plan("a padded batch", Private, some_clip, &spread, &some, Needs::Nothing),
        plan("an empty batch", Private, some_clip, &first, &none, Needs::EmptyBatch),
        plan("plain SGD", NonPrivate, some_clip, &spread, &all, Needs::Nothing),
        plan("plain SGD, a batch of one", NonPrivate, some_clip, &[3], &[true], Needs::Nothing),
        plan("plain SGD, repeated and all-zero examples", NonPrivate, some_clip, &repeated, &all, Needs::Nothing),
        plan("plain SGD, a padded batch", NonPrivate, some_clip, &spread, &some, Needs::Nothing),
        plan("plain SGD, an empty batch", NonPrivate, some_clip, &first, &none, Needs::EmptyBatch),
    ];
    if let Some(nan) = pool.not_a_number {
        let indices = [2, nan, 7, 9, nan, 0, 5, 1];
        plans.push(plan("an example with a NaN", Private, some_clip, &indices, &all, Needs::NonFinite));
    }
    plans
}

impl Plan {
    /// The case whose step moves along `sum`, in which so many examples are not finite; `params_length` is the length of
    /// the parameters. The update goes into `file`.
    pub fn expecting(
        self,
        model: &ModelSpec,
        sum: &Sum,
        non_finite: u64,
        params_length: f64,
        file: &Path,
    ) -> Result<Case, PrepareError> {
        let norm = sum.gradient.norm();
        let factor = if norm > 0.0 { UPDATE_LENGTH * params_length / norm } else { 1.0 };
        let mut expected = None;
        if norm > 0.0 {
            write(file, sum.gradient.values().map(|value| value * factor))?;
            expected = Some(file.to_path_buf());
        }
        Ok(Case {
            name: self.name,
            indices: self.indices,
            mask: self.mask,
            dp: noiseless(self.mode, self.clip_norm, factor * sum.divisor().max(1.0)),
            needs: self.needs,
            expected,
            bounds: sum.bounds(model, factor),
            non_finite,
        })
    }
}

/// Hyperparameters of a step whose update is foreseeable.
pub fn noiseless(mode: Mode, clip_norm: f64, learning_rate: f64) -> DpSgd {
    // Plain SGD must ignore it.
    let noise_multiplier = if mode == Mode::NonPrivate { 1.3 } else { 0.0 };
    DpSgd { mode, clip_norm, noise_multiplier, learning_rate, expected_batch_size: EXPECTED_BATCH_SIZE }
}
