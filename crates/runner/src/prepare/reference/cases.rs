//! Single steps: which batches, and their right updates.

use std::path::Path;

use dpsgd_core::oracle::Gradient;
use dpsgd_core::{DpSgd, Mode, ModelSpec, Params};

use super::pool::{ORDINARY, Pool};
use super::{Case, EXPECTED_BATCH_SIZE, Needs, direction, length, write};
use crate::prepare::PrepareError;

/// Slots of most batches: a JIT that compiles for each shape compiles few.
const WIDTH: usize = 8;
/// Length of an update in lengths of the parameters.
const UPDATE_LENGTH: f64 = 30.0;

/// Works out all cases and writes their updates into `out`.
pub fn work_out(
    model: &ModelSpec,
    params: &Params,
    pool: &Pool,
    widest: usize,
    out: &Path,
) -> Result<Vec<Case>, PrepareError> {
    let length = length(params);
    let plans = plans(pool, widest).into_iter().enumerate();
    plans
        .map(|(number, plan)| plan.work_out(model, pool, length, &out.join(format!("expected-{number}.f64"))))
        .collect()
}

struct Plan {
    name: &'static str,
    mode: Mode,
    clip_norm: f64,
    indices: Vec<u32>,
    mask: Vec<bool>,
    needs: Needs,
}

fn plans(pool: &Pool, widest: usize) -> Vec<Plan> {
    use Mode::{NonPrivate, Private};
    let norms = pool.norms();
    let (some_clip, none_clip, all_clip) = (pool.median_norm(), norms[ORDINARY - 1] * 1e3, norms[0] * 1e-3);
    let first: Vec<u32> = (0..WIDTH as u32).collect();
    let wide: Vec<u32> = (0..widest as u32).map(|slot| slot * 7 % ORDINARY as u32).collect();
    let spread = vec![0, 9, 2, 7, 4, 5, 8, 3];
    let repeated = vec![9, 9, 9, pool.zero, 4, 4, pool.zero, 0];
    let all = vec![true; WIDTH];
    let some = vec![true, false, true, true, false, true, false, false];
    let none = vec![false; WIDTH];
    let plan = |name, mode, clip_norm, indices: &[u32], mask: &[bool], needs| Plan {
        name,
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
        plan("a batch of the size measured", Private, some_clip, &wide, &vec![true; widest], Needs::Nothing),
        plan("plain SGD", NonPrivate, some_clip, &spread, &all, Needs::Nothing),
        plan("plain SGD, a batch of one", NonPrivate, some_clip, &[3], &[true], Needs::Nothing),
        plan("plain SGD, repeated and all-zero examples", NonPrivate, some_clip, &repeated, &all, Needs::Nothing),
        plan("plain SGD, a padded batch", NonPrivate, some_clip, &spread, &some, Needs::Nothing),
        plan(
            "plain SGD, a batch of the size measured",
            NonPrivate,
            some_clip,
            &wide,
            &vec![true; widest],
            Needs::Nothing,
        ),
        plan("plain SGD, an empty batch", NonPrivate, some_clip, &first, &none, Needs::EmptyBatch),
    ];
    if let Some(nan) = pool.not_a_number {
        let indices = [2, nan, 7, 9, nan, 0, 5, 1];
        plans.push(plan("an example with a NaN", Private, some_clip, &indices, &all, Needs::NonFinite));
    }
    plans
}

impl Plan {
    fn work_out(self, model: &ModelSpec, pool: &Pool, params_length: f64, file: &Path) -> Result<Case, PrepareError> {
        let counted = self.indices.iter().zip(&self.mask).filter(|(_, counts)| **counts);
        let gradients: Vec<&Gradient> = counted.map(|(index, _)| &pool.gradients[*index as usize]).collect();
        let (sum, divisor) = direction(model, self.mode, self.clip_norm, &gradients);
        let norm = sum.norm();
        let factor = if norm > 0.0 { UPDATE_LENGTH * params_length / norm } else { 1.0 };
        let mut expected = None;
        if norm > 0.0 {
            write(file, sum.values().map(|value| value * factor))?;
            expected = Some(file.to_path_buf());
        }
        let dp = DpSgd {
            mode: self.mode,
            clip_norm: self.clip_norm,
            // Plain SGD must ignore it.
            noise_multiplier: if self.mode == Mode::NonPrivate { 1.3 } else { 0.0 },
            learning_rate: factor * divisor.max(1.0),
            expected_batch_size: EXPECTED_BATCH_SIZE,
        };
        let non_finite = gradients.iter().filter(|gradient| !gradient.is_finite()).count() as u64;
        Ok(Case {
            name: self.name.into(),
            indices: self.indices,
            mask: self.mask,
            dp,
            needs: self.needs,
            expected,
            non_finite,
        })
    }
}
