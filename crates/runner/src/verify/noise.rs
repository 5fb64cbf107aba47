//! The gate's test of the noise: its distribution, in every tensor, fresh at every step and for every seed.
//!
//! The difference of a step with noise and the same step without it, over the noise's standard deviation
//! `sigma C eta / B`, must be standard normal. A Kolmogorov-Smirnov test over [`SAMPLES`] numbers must accept that, and
//! must reject the same numbers against a sigma 5% larger and 5% smaller: if it could not tell those apart, passing
//! would mean little. The parameters of the step are such that the noise is about as large as the parameters, so f32
//! rounding does not blur it.

use dpsgd_core::{DpSgd, Mode};
use dpsgd_stats::ks_normal;

use super::Gate;
use crate::prepare::EpochCase;
use crate::worker::WorkerError;

/// Numbers that the Kolmogorov-Smirnov test wants. With these it tells a 5% error of sigma apart with certainty: its
/// statistic is then 0.012, and 0.0055 is already significant at [`SIGNIFICANCE`].
const SAMPLES: usize = 200_000;
/// Steps at least, so that steps can be compared with each other.
const MIN_STEPS: usize = 4;
/// Numbers kept of one step: a step of a large model has more than the test needs.
const SAMPLES_PER_STEP: usize = SAMPLES / MIN_STEPS;
/// Probability of a false alarm of the Kolmogorov-Smirnov test.
const SIGNIFICANCE: f64 = 1e-5;
/// Bound on standard scores of moments and correlations: a false alarm once in 500 million.
const MAX_SCORE: f64 = 6.0;

/// Distances in steps at which noise is compared with earlier noise.
const LAGS: usize = 8;
/// Numbers of one step that are searched for repetitions.
const SEARCHED: usize = 80_000;
/// Absolute values closer than this count as the same: twice what f32 parameters blur.
const SAME: f64 = 1e-6;
/// Share of numbers that may be a repetition by chance, or by rounding.
const MAX_REPEATED: f64 = 0.25;
/// Noise over the clipped gradients, where several noisy steps are looked at together.
const LOUD: f64 = 100.0;
/// Numbers wanted of noisy epochs.
const EPOCH_SAMPLES: usize = 5_000;

/// What is wrong with the noise, if anything.
pub(super) fn check(gate: &mut Gate<'_>) -> Result<Option<String>, WorkerError> {
    if let Some(fault) = Noise::draw(gate)?.fault() {
        return Ok(Some(fault));
    }
    if let Some(fault) = noise_of_epochs(gate)?.fault() {
        return Ok(Some(fault));
    }
    let empty_batch = gate.expectations.empty_batch;
    Ok(if empty_batch { noise_of_an_empty_batch(gate)?.fault() } else { None })
}

/// Standardized noise, as drawn by a worker.
struct Noise {
    /// For each step, a sample of all scalars.
    steps: Vec<Vec<f64>>,
    /// The first step under another seed, and twice without one, as when it is timed.
    other_seeds: Vec<Vec<f64>>,
    /// Share of the first step's numbers whose absolute value another of them has.
    repeated: f64,
    /// For each parameter tensor: name and moments over all steps.
    tensors: Vec<TensorNoise>,
}

#[derive(Clone)]
struct TensorNoise {
    name: String,
    count: f64,
    sum: f64,
    sum_of_squares: f64,
    unchanged: usize,
}

impl Noise {
    fn draw(gate: &mut Gate<'_>) -> Result<Self, WorkerError> {
        let dp = gate.reference.noise;
        let scale = dp.noise_multiplier * dp.clip_norm * dp.learning_rate / dp.expected_batch_size;
        let steps = SAMPLES.div_ceil(gate.initial.len()).max(MIN_STEPS);

        gate.load(&dp, Some(1))?;
        gate.reset(&DpSgd { noise_multiplier: 0.0, ..dp })?;
        gate.step(&[0], &[true])?;
        let quiet: Vec<f32> = gate.params()?.values().collect();

        let tensor = |tensor: &dpsgd_core::Tensor| TensorNoise::new(&format!("`{}`", tensor.name));
        let mut noise = Noise {
            steps: Vec::with_capacity(steps),
            other_seeds: Vec::new(),
            repeated: 0.0,
            tensors: gate.initial.tensors.iter().map(tensor).collect(),
        };
        for number in 0..steps {
            let step = noise_of_a_step(gate, &dp, &quiet, scale)?;
            if number == 0 {
                noise.repeated = repeated(&step);
            }
            let mut rest = step.as_slice();
            for (moments, tensor) in noise.tensors.iter_mut().zip(&gate.initial.tensors) {
                let (here, later) = rest.split_at(tensor.values.len());
                moments.add(here);
                rest = later;
            }
            noise.steps.push(sample(&step));
        }
        for seed in [Some(2), None, None] {
            gate.load(&dp, seed)?;
            noise.other_seeds.push(sample(&noise_of_a_step(gate, &dp, &quiet, scale)?));
        }
        Ok(noise)
    }

    fn fault(&self) -> Option<String> {
        if let Some(fault) = self.tensors.iter().find_map(TensorNoise::fault) {
            return Some(fault);
        }
        if self.repeated > MAX_REPEATED {
            let percent = self.repeated * 100.0;
            return Some(format!("{percent:.0}% of a step's noise repeats other noise of that step, up to its sign"));
        }
        for later in 1..self.steps.len() {
            for earlier in later.saturating_sub(LAGS)..later {
                if let Some(score) = correlation_score(&self.steps[earlier], &self.steps[later]) {
                    return Some(format!("noise of steps {earlier} and {later} is correlated, z = {score:.1}"));
                }
            }
        }
        let starts: Vec<&Vec<f64>> = self.steps.iter().take(1).chain(&self.other_seeds).collect();
        for (position, first) in starts.iter().enumerate() {
            for second in &starts[position + 1..] {
                if let Some(score) = correlation_score(first, second) {
                    return Some(format!("noise of two seeds is correlated, z = {score:.1}"));
                }
            }
        }
        let mut all: Vec<f64> = self.steps.concat();
        let mut against = |sigma: f64| ks_normal(&mut all, 0.0, sigma);
        let exact = against(1.0);
        if exact.p_value < SIGNIFICANCE {
            let (statistic, p) = (exact.statistic, exact.p_value);
            let spread = (self.tensors.iter().map(|t| t.sum_of_squares).sum::<f64>()
                / self.tensors.iter().map(|t| t.count).sum::<f64>())
            .sqrt();
            return Some(format!(
                "noise is not N(0, (sigma C eta / B)^2): Kolmogorov-Smirnov D = {statistic:.4}, p = {p:.1e}; its \
                 standard deviation is {spread:.3} of what it should be"
            ));
        }
        for sigma in [0.95, 1.05] {
            if against(sigma).p_value >= SIGNIFICANCE {
                return Some(format!("the noise test could not tell sigma from {sigma} sigma: too few numbers"));
            }
        }
        None
    }
}

impl TensorNoise {
    fn new(name: &str) -> Self {
        TensorNoise { name: name.to_string(), count: 0.0, sum: 0.0, sum_of_squares: 0.0, unchanged: 0 }
    }

    fn add(&mut self, noise: &[f64]) {
        self.count += noise.len() as f64;
        self.sum += noise.iter().sum::<f64>();
        self.sum_of_squares += noise.iter().map(|value| value * value).sum::<f64>();
        self.unchanged += noise.iter().filter(|value| **value == 0.0).count();
    }

    /// The mean of n standard normals has variance 1/n, the mean of their squares 2/n.
    fn fault(&self) -> Option<String> {
        let TensorNoise { name, count, sum, sum_of_squares, unchanged } = self;
        // f32 can round a draw to no change, but not one in a hundred.
        if *unchanged as f64 > 0.01 * count + 1.0 {
            return Some(format!("{unchanged} of {count} scalars of {name} got no noise"));
        }
        let mean_score = sum / count.sqrt();
        let square_score = (sum_of_squares / count - 1.0) * (count / 2.0).sqrt();
        // Squares of few numbers have a long upper tail: allow it.
        let long_tail = MAX_SCORE * (1.0 + 4.0 / count.sqrt());
        let is_finite = sum_of_squares.is_finite();
        if !is_finite || mean_score.abs() > MAX_SCORE || square_score.abs() > long_tail {
            let spread = (sum_of_squares / count).sqrt();
            return Some(format!(
                "noise of {name} has mean {:.4} and standard deviation {spread:.4} in units of sigma C eta / B, over \
                 {count} numbers",
                sum / count
            ));
        }
        None
    }
}

/// The standardized noise of one step from the initial parameters, all scalars.
fn noise_of_a_step(gate: &mut Gate<'_>, dp: &DpSgd, quiet: &[f32], scale: f64) -> Result<Vec<f64>, WorkerError> {
    gate.reset(dp)?;
    gate.step(&[0], &[true])?;
    let noisy = gate.params()?;
    Ok(noisy.values().zip(quiet).map(|(noisy, quiet)| f64::from(noisy - quiet) / scale).collect())
}

/// The noise of steps taken in a row, by the `epoch` request, as when they are timed. It is so loud that the clipped
/// gradients beside it, at most one norm each, don't show.
fn noise_of_epochs(gate: &mut Gate<'_>) -> Result<TensorNoise, WorkerError> {
    let reference = gate.reference;
    let private = |case: &&EpochCase| case.dp.mode == Mode::Private;
    let case = reference.epochs.iter().find(private).expect("one case for each mode");
    let DpSgd { clip_norm, expected_batch_size, .. } = case.dp;
    let learning_rate = expected_batch_size / (LOUD * clip_norm);
    gate.load(&DpSgd { noise_multiplier: LOUD, learning_rate, ..case.dp }, Some(1))?;
    let mut moments = TensorNoise::new(&format!("all parameters over {} steps in a row", case.steps));
    let mut before: Vec<f32> = gate.initial.values().collect();
    for _ in 0..EPOCH_SAMPLES.div_ceil(before.len()) {
        gate.epoch(case)?;
        let after: Vec<f32> = gate.params()?.values().collect();
        let scale = (case.steps as f64).sqrt();
        let noise = before.iter().zip(&after).map(|(before, after)| f64::from(before - after) / scale);
        moments.add(&noise.collect::<Vec<_>>());
        before = after;
    }
    Ok(moments)
}

/// The noise of a step on a batch in which no example counts.
fn noise_of_an_empty_batch(gate: &mut Gate<'_>) -> Result<TensorNoise, WorkerError> {
    let dp = gate.reference.noise;
    let scale = dp.noise_multiplier * dp.clip_norm * dp.learning_rate / dp.expected_batch_size;
    gate.reset(&dp)?;
    gate.step(&[0, 1], &[false, false])?;
    let after = gate.params()?;
    let noise = gate.initial.values().zip(after.values()).map(|(before, after)| f64::from(before - after) / scale);
    let mut moments = TensorNoise::new("all parameters on an empty batch");
    moments.add(&noise.collect::<Vec<_>>());
    Ok(moments)
}

/// The share of numbers whose absolute value another has, among up to [`SEARCHED`]: half of them from the beginning of
/// the step, half from its middle, where a generator that repeats itself would begin again.
fn repeated(step: &[f64]) -> f64 {
    let half = step.len() / 2;
    let taken = (SEARCHED / 2).min(half);
    let mut sizes: Vec<f64> = step[..taken].iter().chain(&step[half..half + taken]).map(|value| value.abs()).collect();
    sizes.sort_unstable_by(f64::total_cmp);
    let close = sizes.windows(2).filter(|pair| pair[1] - pair[0] < SAME).count();
    // Of a pair of equal numbers, one repeats the other.
    close as f64 / sizes.len().max(1) as f64
}

/// At most [`SAMPLES_PER_STEP`] numbers, evenly spaced.
fn sample(step: &[f64]) -> Vec<f64> {
    step.iter().copied().step_by(step.len().div_ceil(SAMPLES_PER_STEP)).collect()
}

/// The standard score of the correlation of two standard normal vectors, if it is too large to be chance.
fn correlation_score(a: &[f64], b: &[f64]) -> Option<f64> {
    let products: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    let score = products / (a.len() as f64).sqrt();
    (score.abs() > MAX_SCORE).then_some(score)
}
