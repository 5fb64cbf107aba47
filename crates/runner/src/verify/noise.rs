//! The gate's test of the noise: its distribution, in every tensor, fresh at every step and for every seed.
//!
//! The difference of a step with noise and the same step without it, over the noise's standard deviation
//! `sigma C eta / B`, must be standard normal. A Kolmogorov-Smirnov test over [`SAMPLES`] numbers must accept that, and
//! must reject the same numbers against a sigma 5% larger and 5% smaller: if it could not tell those apart, passing
//! would mean little. The parameters of the step are such that the noise is about as large as the parameters, so f32
//! rounding does not blur it.

use dpsgd_stats::ks_normal;

use super::Gate;
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

/// What is wrong with the noise, if anything.
pub(super) fn check(gate: &mut Gate<'_>) -> Result<Option<String>, WorkerError> {
    let noise = Noise::draw(gate)?;
    Ok(noise.fault())
}

/// Standardized noise, as drawn by a worker.
struct Noise {
    /// For each step, a sample of all scalars.
    steps: Vec<Vec<f64>>,
    /// The first step under another seed.
    other_seed: Vec<f64>,
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

        gate.load(1)?;
        gate.reset(&dpsgd_core::DpSgd { noise_multiplier: 0.0, ..dp })?;
        gate.step(&[0], &[true])?;
        let quiet: Vec<f32> = gate.params()?.values().collect();

        let tensor = |tensor: &dpsgd_core::Tensor| TensorNoise {
            name: tensor.name.clone(),
            count: 0.0,
            sum: 0.0,
            sum_of_squares: 0.0,
            unchanged: 0,
        };
        let mut noise = Noise {
            steps: Vec::with_capacity(steps),
            other_seed: Vec::new(),
            tensors: gate.initial.tensors.iter().map(tensor).collect(),
        };
        for _ in 0..steps {
            let step = noise_of_a_step(gate, &dp, &quiet, scale)?;
            let mut rest = step.as_slice();
            for (moments, tensor) in noise.tensors.iter_mut().zip(&gate.initial.tensors) {
                let (here, later) = rest.split_at(tensor.values.len());
                moments.add(here);
                rest = later;
            }
            noise.steps.push(sample(&step));
        }
        gate.load(2)?;
        noise.other_seed = sample(&noise_of_a_step(gate, &dp, &quiet, scale)?);
        Ok(noise)
    }

    fn fault(&self) -> Option<String> {
        if let Some(fault) = self.tensors.iter().find_map(TensorNoise::fault) {
            return Some(fault);
        }
        for (position, pair) in self.steps.windows(2).enumerate() {
            if let Some(score) = correlation_score(&pair[0], &pair[1]) {
                return Some(format!("noise of steps {position} and {} is correlated, z = {score:.1}", position + 1));
            }
        }
        if let Some(score) = correlation_score(&self.steps[0], &self.other_seed) {
            return Some(format!("noise of two seeds is correlated, z = {score:.1}"));
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
            return Some(format!("{unchanged} of {count} scalars of `{name}` got no noise"));
        }
        let mean_score = sum / count.sqrt();
        let square_score = (sum_of_squares / count - 1.0) * (count / 2.0).sqrt();
        // Squares of few numbers have a long upper tail: allow it.
        let long_tail = MAX_SCORE * (1.0 + 4.0 / count.sqrt());
        let is_finite = sum_of_squares.is_finite();
        if !is_finite || mean_score.abs() > MAX_SCORE || square_score.abs() > long_tail {
            let spread = (sum_of_squares / count).sqrt();
            return Some(format!(
                "noise of `{name}` has mean {:.4} and standard deviation {spread:.4} in units of sigma C eta / B, over \
                 {count} numbers",
                sum / count
            ));
        }
        None
    }
}

/// The standardized noise of one step from the initial parameters, all scalars.
fn noise_of_a_step(
    gate: &mut Gate<'_>,
    dp: &dpsgd_core::DpSgd,
    quiet: &[f32],
    scale: f64,
) -> Result<Vec<f64>, WorkerError> {
    gate.reset(dp)?;
    gate.step(&[0], &[true])?;
    let noisy = gate.params()?;
    Ok(noisy.values().zip(quiet).map(|(noisy, quiet)| f64::from(noisy - quiet) / scale).collect())
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
