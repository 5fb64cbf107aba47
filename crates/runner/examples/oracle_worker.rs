//! A worker whose strategy is the float64 oracle itself, and that can be wrong on purpose, one variant per mistake: the
//! verification gate must pass `right` and disqualify every other.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use dpsgd_core::oracle::{Gradient, Oracle};
use dpsgd_core::{BatchRef, Dataset, Description, DpSgd, Kernels, Load, Mode, ModelSpec, Params, Settings};
use dpsgd_core::{Strategy, StrategyError};
use dpsgd_protocol::KERNEL_CACHE;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use rand_distr::StandardNormal;

fn main() -> ExitCode {
    dpsgd_protocol::worker_main::<OracleStrategy>()
}

struct OracleStrategy {
    model: ModelSpec,
    params: Params,
    dataset: Dataset,
    dp: DpSgd,
    settings: Settings,
    variant: String,
    rng: ChaCha12Rng,
    non_finite_examples: u64,
    steps: u64,
    /// By the variant `momentum`, for the next step.
    velocity: Vec<Vec<f64>>,
    kernels: Option<Kernels>,
}

/// What a strategy that compiles kernels would say, had it taken 2.5 s and 0.125 s to read them back, or 0.25 s from
/// the cache of an earlier process: it has none.
fn pretended_kernels() -> std::io::Result<Option<Kernels>> {
    let Some(cache) = std::env::var_os(KERNEL_CACHE) else { return Ok(None) };
    let file = Path::new(&cache).join("kernel");
    if file.exists() {
        return Ok(Some(Kernels { compile_s: None, cached_s: Some(0.25) }));
    }
    std::fs::write(file, "machine code")?;
    Ok(Some(Kernels { compile_s: Some(2.5), cached_s: Some(0.125) }))
}

impl OracleStrategy {
    fn is(&self, variant: &str) -> bool {
        self.variant == variant
    }

    /// The factor of each parameter tensor of one example; `forgotten` is one whose clipping is forgotten.
    fn factors(&self, gradient: &Gradient, forgotten: bool) -> Vec<f64> {
        let clip = |norm: f64| if forgotten { 1.0 } else { (self.dp.clip_norm / norm).min(1.0) };
        let norm = gradient.norm();
        let tensor_norm = |tensor: &Vec<f64>| tensor.iter().map(|value| value * value).sum::<f64>().sqrt();
        match self.variant.as_str() {
            "inverted-clip-factor" => vec![(norm / self.dp.clip_norm).min(1.0); gradient.0.len()],
            "clipping-per-layer" => gradient.0.iter().map(|tensor| clip(tensor_norm(tensor))).collect(),
            _ => vec![clip(norm); gradient.0.len()],
        }
    }

    fn noise(&mut self, tensor: usize) -> f64 {
        if self.is("noiseless-bias") && self.params.tensors[tensor].name.ends_with("bias") {
            return 0.0;
        }
        let error = match self.variant.as_str() {
            "noise-5-percent-too-small" => 0.95,
            "noise-5-percent-too-large" => 1.05,
            _ => 1.0,
        };
        // Uniform noise of the same mean and variance: only the shape of the distribution gives it away.
        let draw = match self.is("uniform-noise") {
            true => (self.rng.random::<f64>() - 0.5) * 12.0_f64.sqrt(),
            false => self.rng.sample(StandardNormal),
        };
        error * self.dp.noise_multiplier * self.dp.clip_norm * draw
    }

    fn generator(settings: &Settings, variant: &str) -> ChaCha12Rng {
        let from_the_system = || getrandom::u64().expect("the operating system has entropy");
        let seed = match variant {
            "one-seed-for-all" => 7,
            "constant-seed-unless-given" => settings.noise_seed.unwrap_or(0),
            _ => settings.noise_seed.unwrap_or_else(from_the_system),
        };
        ChaCha12Rng::seed_from_u64(seed)
    }
}

impl Strategy for OracleStrategy {
    const NAME: &'static str = "oracle";
    const VARIANTS: &'static [&'static str] = &[
        "right",
        "inverted-clip-factor",
        "noise-5-percent-too-small",
        "noise-5-percent-too-large",
        "uniform-noise",
        "mean-in-place-of-sum",
        "clipping-per-layer",
        "noiseless-bias",
        "same-noise-every-step",
        "one-seed-for-all",
        "mask-ignored",
        "plain-sum-in-place-of-mean",
        "nan-not-counted",
        "momentum",
        "half-the-noise-reused",
        "antithetic-noise",
        "two-noises-in-turn",
        "constant-seed-unless-given",
        "no-noise-on-an-empty-batch",
        "one-layer-short-by-a-thousandth",
        "one-bias-short-by-a-thousandth",
        "one-example-of-256-unclipped",
    ];

    fn load(job: Load) -> Result<Self, StrategyError> {
        let variant = job.settings.variant.clone().unwrap_or_else(|| Self::VARIANTS[0].to_string());
        Ok(OracleStrategy {
            rng: Self::generator(&job.settings, &variant),
            model: job.model,
            params: job.params,
            dataset: job.dataset,
            dp: job.dp,
            settings: job.settings,
            variant,
            non_finite_examples: 0,
            steps: 0,
            velocity: Vec::new(),
            kernels: pretended_kernels().map_err(|error| StrategyError::Failed(error.to_string()))?,
        })
    }

    fn describe(&self) -> Description {
        Description {
            name: Self::NAME.into(),
            variant: Some(self.variant.clone()),
            versions: BTreeMap::from([("dpsgd-core".into(), env!("CARGO_PKG_VERSION").into())]),
            device: "cpu".into(),
            // It computes with one, but its times are of no interest.
            threads: self.settings.threads,
            rng: "ChaCha12".into(),
        }
    }

    fn step(&mut self, batch: &BatchRef<'_>) -> Result<(), StrategyError> {
        let oracle = Oracle::new(&self.model, &self.params).map_err(|e| StrategyError::Failed(e.to_string()))?;
        let mut sum: Vec<Vec<f64>> = self.params.tensors.iter().map(|tensor| vec![0.0; tensor.values.len()]).collect();
        let private = self.dp.mode == Mode::Private;
        // Forgets the clipping of the first example of a batch of 256 or more that would have been clipped.
        let mut forgets = self.is("one-example-of-256-unclipped") && batch.examples() >= 256;
        for (index, counts) in batch.indices.iter().zip(batch.mask) {
            if !counts && !self.is("mask-ignored") {
                continue;
            }
            let gradient = oracle.example(&self.dataset, *index as usize).gradient;
            if private && !gradient.is_finite() {
                self.non_finite_examples += u64::from(!self.is("nan-not-counted"));
                continue;
            }
            let forgotten = forgets && gradient.norm() > self.dp.clip_norm;
            forgets &= !forgotten;
            let factors = if private { self.factors(&gradient, forgotten) } else { vec![1.0; gradient.0.len()] };
            for ((sum, tensor), factor) in sum.iter_mut().zip(&gradient.0).zip(factors) {
                sum.iter_mut().zip(tensor).for_each(|(sum, value)| *sum += factor * value);
            }
        }
        if self.is("momentum") {
            for (sum, before) in sum.iter_mut().zip(&self.velocity) {
                sum.iter_mut().zip(before).for_each(|(sum, before)| *sum += 0.9 * before);
            }
            self.velocity.clone_from(&sum);
        }
        let short = match self.variant.as_str() {
            "one-layer-short-by-a-thousandth" => Some(0),
            "one-bias-short-by-a-thousandth" => Some(sum.len() - 1),
            _ => None,
        };
        if let Some(short) = short {
            sum[short].iter_mut().for_each(|sum| *sum *= 0.999);
        }
        let examples = batch.examples();
        let divisor = match self.dp.mode {
            Mode::Private if self.is("mean-in-place-of-sum") => examples.max(1) as f64,
            Mode::Private => self.dp.expected_batch_size,
            Mode::NonPrivate if self.is("plain-sum-in-place-of-mean") => 1.0,
            Mode::NonPrivate => examples.max(1) as f64,
        };
        if self.is("same-noise-every-step") || self.is("two-noises-in-turn") && self.steps.is_multiple_of(2) {
            self.rng = Self::generator(&self.settings, &self.variant);
        }
        self.steps += 1;
        let mut draws: Vec<f64> = Vec::new();
        for (position, tensor) in sum.iter().enumerate() {
            for (element, value) in tensor.iter().enumerate() {
                let silent = examples == 0 && self.is("no-noise-on-an-empty-batch");
                let drawn = draws.len();
                let noise = match self.variant.as_str() {
                    _ if !private || self.dp.noise_multiplier == 0.0 || silent => 0.0,
                    "half-the-noise-reused" if drawn >= self.params.len() / 2 => draws[drawn - self.params.len() / 2],
                    "antithetic-noise" if drawn % 2 == 1 => -draws[drawn - 1],
                    _ => self.noise(position),
                };
                draws.push(noise);
                let change = self.dp.learning_rate / divisor * (value + noise);
                let parameter = &mut self.params.tensors[position].values[element];
                *parameter = (f64::from(*parameter) - change) as f32;
            }
        }
        Ok(())
    }

    fn synchronize(&mut self) -> Result<(), StrategyError> {
        Ok(())
    }

    fn params(&mut self) -> Result<Params, StrategyError> {
        Ok(self.params.clone())
    }

    fn set_params(&mut self, params: &Params) -> Result<(), StrategyError> {
        self.params = params.clone();
        self.velocity.clear();
        Ok(())
    }

    fn set_dp(&mut self, dp: &DpSgd) -> Result<(), StrategyError> {
        self.dp = *dp;
        Ok(())
    }

    fn non_finite_examples(&mut self) -> Result<u64, StrategyError> {
        Ok(self.non_finite_examples)
    }

    fn kernels(&self) -> Option<Kernels> {
        self.kernels
    }
}
