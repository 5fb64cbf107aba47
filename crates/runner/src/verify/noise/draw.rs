//! Asking a worker for noise.

use dpsgd_core::{DpSgd, Mode};

use super::super::Gate;
use super::{Drawn, MIN_STEPS, Moments, SAMPLES_PER_STEP, Steps, Unrepeated, steps_wanted};
use crate::prepare::EpochCase;
use crate::worker::WorkerError;

/// Noise multiplier of noise beside which clipped gradients, of at most one clip norm each, don't show: over 20,000 steps
/// they move the mean by a thousandth of its standard deviation.
const LOUD: f64 = 1e5;
/// The largest initial parameter in standard deviations of the noise of steps in a row: parameters wander by no more than
/// about twice themselves in 10,000 steps, and f32 blurs no number by more than [`super::BLUR`].
const STEPS_TO_LARGEST: f64 = 64.0;
/// Numbers of a large model's step that are searched for repetitions.
const SEARCHED: usize = 80_000;
/// Numbers of a small model's steps that are searched for repetitions.
const SEARCHED_OF_FEW: usize = 2_000;
/// Numbers wanted under each seed, and of an empty batch.
const OF_A_SEED: usize = 400;
/// Numbers wanted of whole epochs.
const OF_EPOCHS: usize = 1_500;
/// Slots of an empty batch, all masked: a shape that the gate's cases have, too.
const SLOTS: u32 = 8;

/// All noise that the gate judges.
pub(super) fn draw(gate: &mut Gate<'_>) -> Result<Drawn, WorkerError> {
    let parameters = gate.initial.len();
    let largest = gate.initial.values().map(f32::abs).fold(0.0, f32::max);
    let unit = if largest > 0.0 { f64::from(largest) / STEPS_TO_LARGEST } else { 1.0 / STEPS_TO_LARGEST };
    let loud = with_noise_of(unit, LOUD, gate.reference.noise);

    let mut tensors: Vec<Moments> =
        gate.initial.tensors.iter().map(|tensor| Moments::new(&format!("`{}`", tensor.name))).collect();
    let lengths: Vec<usize> = gate.initial.tensors.iter().map(|tensor| tensor.values.len()).collect();
    let mut add = |step: &[f64]| {
        let mut rest = step;
        for (moments, length) in tensors.iter_mut().zip(&lengths) {
            let (here, later) = rest.split_at(*length);
            moments.add(here);
            rest = later;
        }
    };
    let (first, ordinary) = ordinary_steps(gate, &mut add)?;
    let few = steps_wanted(parameters) - MIN_STEPS;
    let mut walk = Vec::new();
    gate.reset(&loud)?;
    steps_in_a_row(gate, unit, few, (&[0], &[true]), |step| {
        add(step);
        walk.extend_from_slice(step);
    })?;
    let unrepeated = match walk.len() >= SEARCHED_OF_FEW {
        true => Unrepeated { numbers: walk[..SEARCHED_OF_FEW].to_vec(), same: 4e-5 },
        // Twice what f32 parameters blur.
        false => Unrepeated { numbers: from_begin_and_middle(&first), same: 1e-6 },
    };
    let numbers = [ordinary, walk].concat();

    let mut seeds = [const { Vec::new() }; 4];
    for (seed, noise) in [Some(1), Some(2), None, None].into_iter().zip(&mut seeds) {
        gate.load(&loud, seed)?;
        let steps = OF_A_SEED.div_ceil(parameters);
        steps_in_a_row(gate, unit, steps, (&[0], &[true]), |step| noise.extend(sample(step)))?;
    }
    let epochs = noise_of_epochs(gate, unit)?;
    let empty = if gate.expectations.empty_batch { Some(noise_of_empty_batches(gate, unit)?) } else { None };
    let width = numbers.len() / steps_wanted(parameters);
    Ok(Drawn { tensors, steps: Steps { width, numbers }, unrepeated, seeds, epochs, empty })
}

/// `dp` with noise of standard deviation `unit` on the parameters, by the learning rate.
fn with_noise_of(unit: f64, noise_multiplier: f64, dp: DpSgd) -> DpSgd {
    let learning_rate = unit * dp.expected_batch_size / (noise_multiplier * dp.clip_norm);
    DpSgd { noise_multiplier, learning_rate, ..dp }
}

/// Steps from the initial parameters with an ordinary noise multiplier, less the same step without noise: the whole
/// first one, and samples of all.
fn ordinary_steps(gate: &mut Gate<'_>, add: &mut impl FnMut(&[f64])) -> Result<(Vec<f64>, Vec<f64>), WorkerError> {
    let dp = gate.reference.noise;
    let scale = dp.noise_multiplier * dp.clip_norm * dp.learning_rate / dp.expected_batch_size;
    gate.load(&dp, Some(1))?;
    gate.reset(&DpSgd { noise_multiplier: 0.0, ..dp })?;
    gate.step(&[0], &[true])?;
    let quiet: Vec<f32> = gate.params()?.values().collect();
    let (mut first, mut samples) = (Vec::new(), Vec::new());
    for _ in 0..MIN_STEPS {
        gate.reset(&dp)?;
        gate.step(&[0], &[true])?;
        let noisy = gate.params()?;
        let step: Vec<f64> =
            noisy.values().zip(&quiet).map(|(noisy, quiet)| f64::from(noisy - quiet) / scale).collect();
        add(&step);
        samples.extend(sample(&step));
        if first.is_empty() {
            first = step;
        }
    }
    Ok((first, samples))
}

/// The noise of steps on one batch, each from where the one before it ended; the first from the initial parameters.
fn steps_in_a_row(
    gate: &mut Gate<'_>,
    unit: f64,
    steps: usize,
    (indices, mask): (&[u32], &[bool]),
    mut take: impl FnMut(&[f64]),
) -> Result<(), WorkerError> {
    let mut before: Vec<f32> = gate.initial.values().collect();
    for _ in 0..steps {
        gate.step(indices, mask)?;
        let after: Vec<f32> = gate.params()?.values().collect();
        take(&differences(&before, &after, unit));
        before = after;
    }
    Ok(())
}

/// The noise of steps taken in a row by the `epoch` request, as when they are timed.
fn noise_of_epochs(gate: &mut Gate<'_>, unit: f64) -> Result<Moments, WorkerError> {
    let reference = gate.reference;
    let private = |case: &&EpochCase| case.dp.mode == Mode::Private;
    let case = reference.epochs.iter().find(private).expect("one case for each mode");
    gate.load(&with_noise_of(unit, LOUD, case.dp), Some(1))?;
    let mut moments = Moments::new(&format!("all parameters over {} steps in a row", case.steps));
    let mut before: Vec<f32> = gate.initial.values().collect();
    for _ in 0..OF_EPOCHS.div_ceil(before.len()) {
        gate.epoch(case)?;
        let after: Vec<f32> = gate.params()?.values().collect();
        moments.add(&differences(&before, &after, unit * (case.steps as f64).sqrt()));
        before = after;
    }
    Ok(moments)
}

/// The noise of steps on a batch in which no example counts, with an ordinary noise multiplier.
fn noise_of_empty_batches(gate: &mut Gate<'_>, unit: f64) -> Result<Moments, WorkerError> {
    let dp = gate.reference.noise;
    gate.reset(&with_noise_of(unit, dp.noise_multiplier, dp))?;
    let mut moments = Moments::new("all parameters on an empty batch");
    let steps = OF_A_SEED.div_ceil(gate.initial.len());
    let indices: Vec<u32> = (0..SLOTS).collect();
    steps_in_a_row(gate, unit, steps, (&indices, &[false; SLOTS as usize]), |step| moments.add(step))?;
    Ok(moments)
}

fn differences(before: &[f32], after: &[f32], scale: f64) -> Vec<f64> {
    let pairs = before.iter().zip(after);
    pairs.map(|(before, after)| (f64::from(*before) - f64::from(*after)) / scale).collect()
}

/// Up to [`SEARCHED`] numbers, half of them from the beginning of the step, half from its middle, where a generator that
/// repeats itself would begin again.
fn from_begin_and_middle(step: &[f64]) -> Vec<f64> {
    let half = step.len() / 2;
    let taken = (SEARCHED / 2).min(half);
    [&step[..taken], &step[half..half + taken]].concat()
}

/// At most [`SAMPLES_PER_STEP`] numbers, evenly spaced.
fn sample(step: &[f64]) -> impl Iterator<Item = f64> + '_ {
    step.iter().copied().step_by(step.len().div_ceil(SAMPLES_PER_STEP))
}
