//! Steps of `fused` against the float64 oracle: any batch, any number of threads, any variant.

use dpsgd_core::oracle::{Gradient, Oracle, clipped_sum, sum};
use dpsgd_core::{BatchRef, DpSgd, Load, Mode, Params, Strategy};
use dpsgd_fused::Fused;

/// Every variant that this machine can run; says which ones it can't.
#[allow(dead_code, reason = "one of the tests that share this file runs elsewhere")]
pub fn variants(job: &Load) -> Vec<&'static str> {
    let can_run = |variant: &&&str| {
        let mut job = job.clone();
        job.settings.variant = Some(variant.to_string());
        Fused::load(job).is_ok()
    };
    let (can, cannot): (Vec<&str>, Vec<&str>) = Fused::VARIANTS.iter().partition(can_run);
    cannot.iter().for_each(|variant| println!("skipped: {variant}: this processor doesn't have it"));
    can
}

/// The job's strategy in this variant and with this many threads.
#[allow(dead_code, reason = "one of the tests that share this file runs elsewhere")]
pub fn load(job: &Load, variant: &str, threads: usize) -> Fused {
    let mut job = job.clone();
    job.settings.variant = Some(variant.to_string());
    job.settings.threads = threads;
    Fused::load(job).expect("loads")
}

/// The oracle's gradients of all examples of the job's data set.
pub fn gradients(job: &Load) -> Vec<Gradient> {
    let oracle = Oracle::new(&job.model, &job.params).expect("a valid model");
    (0..job.dataset.len()).map(|example| oracle.example(&job.dataset, example).gradient).collect()
}

/// The examples at which f32 and f64 can't turn different ways: see [`dpsgd_core::oracle::Example::margin`].
#[allow(dead_code, reason = "one of the tests that share this file needs it")]
pub fn away_from_kinks(job: &Load) -> impl Iterator<Item = u32> {
    let oracle = Oracle::new(&job.model, &job.params).expect("a valid model");
    (0..job.dataset.len())
        .filter(move |index| oracle.example(&job.dataset, *index).margin > 1e-5)
        .map(|index| index as u32)
}

/// Takes one step from the job's parameters; gives the L2 error of the sum of gradients behind it, relative to the sum of
/// their norms: gradients that cancel each other leave their rounding errors.
pub fn error_of_step(
    strategy: &mut impl Strategy,
    job: &Load,
    gradients: &[Gradient],
    (mode, clip_norm): (Mode, f64),
    batch: &BatchRef<'_>,
) -> f64 {
    let slots = batch.indices.iter().zip(batch.mask).filter(|(_, counts)| **counts);
    let counted: Vec<&Gradient> = slots.map(|(index, _)| &gradients[*index as usize]).collect();
    let norms = counted.iter().map(|gradient| gradient.norm()).filter(|norm| norm.is_finite());
    let (expected, size): (Gradient, f64) = match mode {
        Mode::Private => {
            (clipped_sum(counted.iter().copied(), clip_norm, &job.model), norms.map(|norm| norm.min(clip_norm)).sum())
        }
        Mode::NonPrivate => (sum(counted.iter().copied(), &job.model), norms.sum()),
    };
    // Far, so that the step is not lost in the parameters' rounding.
    let rate = if size > 0.0 { 1e6 / size } else { 1.0 };
    let divisor = match mode {
        Mode::Private => 8.0,
        Mode::NonPrivate => counted.len().max(1) as f64,
    };
    let learning_rate = rate * divisor;
    strategy
        .set_dp(&DpSgd { mode, clip_norm, noise_multiplier: 0.0, learning_rate, expected_batch_size: 8.0 })
        .expect("accepted");
    strategy.set_params(&job.params).expect("accepted");
    strategy.step(batch).expect("a step");
    strategy.synchronize().expect("a step");
    let after = strategy.params().expect("parameters");
    let mut error = difference(&job.params, &after, rate);
    error.add_scaled(&expected, -1.0);
    let error = error.norm();
    if error == 0.0 { 0.0 } else { error / size }
}

/// (before - after) / rate.
fn difference(before: &Params, after: &Params, rate: f64) -> Gradient {
    let tensors = before.tensors.iter().zip(&after.tensors).map(|(before, after)| {
        let pairs = before.values.iter().zip(&after.values);
        pairs.map(|(before, after)| (f64::from(*before) - f64::from(*after)) / rate).collect()
    });
    Gradient(tensors.collect())
}
