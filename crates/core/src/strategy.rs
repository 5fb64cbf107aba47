//! The interface of everything that can take a DP-SGD step.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{BatchRef, Dataset, DpSgd, ModelSpec, Params};

/// One way to run DP-SGD, behind the few calls that both the verification and the measurement use, so that the code
/// that is verified is the code that is timed.
pub trait Strategy: Sized {
    /// The strategy's name in the registry, such as `naive`.
    const NAME: &'static str;
    /// The variants on offer, the default first; empty when there is only one way.
    const VARIANTS: &'static [&'static str];

    /// Puts model, parameters and data where the strategy keeps them (device memory included) and prepares all that
    /// can be prepared before the first step.
    fn load(job: Load) -> Result<Self, StrategyError>;

    /// What is running: versions, device, threads and kind of random number generator as actually in force.
    fn describe(&self) -> Description;

    /// One optimizer step as [`DpSgd`] defines it. May return before the device has finished.
    fn step(&mut self, batch: &BatchRef<'_>) -> Result<(), StrategyError>;

    /// Returns when the updated parameters are ready.
    fn synchronize(&mut self) -> Result<(), StrategyError>;

    /// The current parameters, after [`Strategy::synchronize`].
    fn params(&mut self) -> Result<Params, StrategyError>;

    /// Replaces the parameters; names and shapes are those given at load.
    fn set_params(&mut self, params: &Params) -> Result<(), StrategyError>;

    /// Replaces the hyperparameters.
    fn set_dp(&mut self, dp: &DpSgd) -> Result<(), StrategyError>;

    /// How many examples had a gradient with a NaN or an infinity, and so contributed nothing, since load.
    fn non_finite_examples(&mut self) -> Result<u64, StrategyError>;

    /// How long the load took to make the strategy's own kernels; `None` if it makes none then, as those whose
    /// libraries bring their kernels along, or compile in the first step.
    fn kernels(&self) -> Option<Kernels> {
        None
    }
}

/// Everything a strategy is given at load.
#[derive(Clone, Debug)]
pub struct Load {
    /// The model; already validated.
    pub model: ModelSpec,
    /// Initial parameters, matching the model.
    pub params: Params,
    /// The data set, matching the model's input.
    pub dataset: Dataset,
    /// Hyperparameters; already validated.
    pub dp: DpSgd,
    /// Where and how to run.
    pub settings: Settings,
}

/// Where and how a strategy runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// One of [`Strategy::VARIANTS`], or `None` for the default.
    pub variant: Option<String>,
    /// `cpu` or `cuda:N`.
    pub device: Device,
    /// Threads to compute with, at least 1.
    pub threads: usize,
    /// Seed of the noise, for benchmarks and tests; `None` draws it from the operating system.
    pub noise_seed: Option<u64>,
}

/// Where a strategy computes. Written `cpu` or `cuda:0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum Device {
    /// The processor.
    Cpu,
    /// The CUDA device of this ordinal.
    Cuda(usize),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("device `{text}`: must be `cpu` or `cuda:N`, such as `cuda:0`");
        match text.split_once(':') {
            None if text == "cpu" => Ok(Device::Cpu),
            Some(("cuda", ordinal)) => ordinal.parse().map(Device::Cuda).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Device {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> String {
        device.to_string()
    }
}

/// What is running, as the strategy itself reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// [`Strategy::NAME`].
    pub name: String,
    /// The variant in force, if there is a choice.
    pub variant: Option<String>,
    /// Versions of what computes, such as `{"libtorch": "2.11.0"}`, and what else changes its numbers, such as
    /// `{"tf32": "off"}`.
    pub versions: BTreeMap<String, String>,
    /// The device in force, such as `cpu` or `cuda:0 (NVIDIA H200)`.
    pub device: String,
    /// The number of threads in force, read back from the library that uses them.
    pub threads: usize,
    /// The noise's generator, such as `mt19937 (libtorch default, not cryptographically secure)`.
    pub rng: String,
}

/// How long it took to have kernels that can be started, from their source, which is a part of the load. What was not
/// done is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kernels {
    /// Seconds where they were compiled.
    pub compile_s: Option<f64>,
    /// Seconds where their machine code was read from a cache on disk; beside `compile_s`, right after it was written.
    pub cached_s: Option<f64>,
}

/// Why a strategy could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StrategyError {
    /// This strategy can't run this model, device or variant, by design.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// Memory ran out, on the host or on the device.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}
