//! Ready-made jobs for tests and benchmarks: any model, inputs that mean nothing, the same numbers at every call.

use dpsgd_core::{
    BatchRef, Dataset, Device, DpSgd, Inputs, Load, Loss, Mode, ModelInput, ModelSpec, Params, Settings, Strategy,
    StrategyError, Targets,
};

/// A job for `model` with `examples` synthetic examples, on one thread of the CPU, its noise seeded.
///
/// Clip norm 1, learning rate 1 and an expected batch size of 1, so that parameters move by exactly the clipped sum
/// where there is no noise; change what should differ.
pub fn job(model: &ModelSpec, examples: usize, mode: Mode, variant: Option<&str>) -> Load {
    Load {
        model: model.clone(),
        params: Params::init(model, 1),
        dataset: dataset(model, examples),
        dp: DpSgd { mode, clip_norm: 1.0, noise_multiplier: 0.0, learning_rate: 1.0, expected_batch_size: 1.0 },
        settings: Settings {
            variant: variant.map(str::to_string),
            device: Device::Cpu,
            threads: 1,
            noise_seed: Some(1),
        },
    }
}

/// A strategy at work on one synthetic batch, for benchmarks.
pub struct Steps<S> {
    strategy: S,
    indices: Vec<u32>,
    mask: Vec<bool>,
}

impl<S: Strategy> Steps<S> {
    /// Loads a [`job`] of one batch of `batch_size`, with noise multiplier 1, on `threads` threads of the CPU.
    pub fn new(
        model: &ModelSpec,
        batch_size: usize,
        mode: Mode,
        variant: Option<&str>,
        threads: usize,
    ) -> Result<Self, StrategyError> {
        let mut job = job(model, batch_size, mode, variant);
        job.settings.threads = threads;
        job.dp.noise_multiplier = 1.0;
        // Small, so that any number of steps stays finite.
        job.dp.learning_rate = 1e-6;
        let indices = (0..batch_size as u32).collect();
        Ok(Steps { strategy: S::load(job)?, indices, mask: vec![true; batch_size] })
    }

    /// One step, finished.
    pub fn step(&mut self) -> Result<(), StrategyError> {
        self.strategy.step(&BatchRef { indices: &self.indices, mask: &self.mask })?;
        self.strategy.synchronize()
    }
}

/// Inputs uniform in (-1, 1), tokens from the vocabulary with many repetitions, targets of every kind.
fn dataset(model: &ModelSpec, examples: usize) -> Dataset {
    let example_shape = model.input.dimensions();
    let count = examples * example_shape.iter().product::<usize>();
    let mut state = 1u64;
    let mut random = move || splitmix64(&mut state);
    let uniform = |bits: u64| (bits >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    let inputs = match model.input {
        // The lower of two draws: some tokens come often, as words do.
        ModelInput::Tokens { vocabulary, .. } => {
            let mut token = || random() % vocabulary as u64;
            Inputs::Tokens((0..count).map(|_| token().min(token()) as i32).collect())
        }
        _ => Inputs::F32((0..count).map(|_| uniform(random())).collect()),
    };
    let outputs = model.outputs().expect("a validated model") as u64;
    let targets = match model.loss {
        Loss::CrossEntropy => Targets::Class((0..examples).map(|_| (random() % outputs) as i32).collect()),
        Loss::BceWithLogits => Targets::Value((0..examples).map(|_| (random() % 2) as f32).collect()),
        Loss::Mse => Targets::Value((0..examples).map(|_| uniform(random())).collect()),
    };
    Dataset { example_shape, inputs, targets }
}

/// Sebastiano Vigna's generator: good enough here, and without a dependency.
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
