//! Requests and replies. An unknown message, field or version is an error on either side.

use std::path::PathBuf;

use dpsgd_core::{Description, DpSgd, Kernels, ModelSpec, Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Version of this protocol; both sides must have the same.
pub const PROTOCOL_VERSION: u32 = 3;

/// What the runner asks. One line of JSON each, such as `{"request":"hello","version":3}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// First of all. Answered by [`Reply::Hello`].
    Hello {
        /// [`PROTOCOL_VERSION`].
        version: u32,
    },
    /// Build the model and place parameters and data on the device. Answered by [`Reply::Loaded`].
    Load {
        /// The model.
        model: ModelSpec,
        /// Safetensors file of initial parameters, F32 under the names of [`ModelSpec::params`].
        params: PathBuf,
        /// Safetensors file with `inputs` `[N, ...]` (F32 or I32) and `targets` `[N]` (I32 classes or F32 values).
        dataset: PathBuf,
        /// Hyperparameters.
        dp: DpSgd,
        /// Where and how to run.
        settings: Settings,
    },
    /// Replace parameters, hyperparameters or both. Answered by [`Reply::Set`].
    Set {
        /// Safetensors file of parameters.
        params: Option<PathBuf>,
        /// Hyperparameters.
        dp: Option<DpSgd>,
    },
    /// Take one step and wait for it. Answered by [`Reply::Stepped`].
    Step {
        /// Rows of the data set, one per slot.
        indices: Vec<u32>,
        /// Which slots count; as long as `indices`.
        mask: Vec<bool>,
    },
    /// Run all batches of a schedule, several times in a row if asked to. Answered by [`Reply::Epoch`].
    Epoch {
        /// A file as written by [`crate::schedule::Schedule::save`].
        schedule: PathBuf,
        /// How many times, at least 1; each is an epoch with a time of its own.
        repeat: u32,
    },
    /// Write the current parameters. Answered by [`Reply::Params`].
    Params {
        /// Safetensors file to write.
        path: PathBuf,
    },
    /// End. Answered by [`Reply::Bye`], then the worker exits with status 0.
    Bye {},
}

/// What a worker answers. One line of JSON each, such as `{"reply":"set"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "reply", rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// To [`Request::Hello`].
    Hello {
        /// [`PROTOCOL_VERSION`] of the worker.
        version: u32,
        /// The strategy's name.
        name: String,
        /// Variants on offer, the default first; empty when there is no choice.
        variants: Vec<String>,
    },
    /// To [`Request::Load`].
    Loaded {
        /// Seconds from reading the request to being ready, but for those of the checksum.
        load_s: f64,
        /// [`checksum::of_dataset`](crate::checksum::of_dataset) of the data set as it was received.
        data_sha256: String,
        /// What is running, as read back from the libraries in use.
        description: Description,
        /// What of `load_s` went into kernels of the strategy's own; may be missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kernels: Option<Kernels>,
    },
    /// To [`Request::Set`].
    Set {},
    /// To [`Request::Step`].
    Stepped {
        /// Seconds until the updated parameters were ready.
        step_s: f64,
        /// Examples left out for a NaN or an infinity in their gradient, since load.
        non_finite_examples: u64,
    },
    /// To [`Request::Epoch`].
    Epoch {
        /// For each repetition, seconds from before its first step until the updated parameters were ready after its
        /// last. Examples are chosen in the steps; batches' row numbers may have been put into a framework's own arrays
        /// before.
        epochs_s: Vec<f64>,
        /// The same for the first step since load; only in the first epoch, and not where a strategy runs an epoch as
        /// one program.
        first_step_s: Option<f64>,
        /// Steps taken, over all repetitions.
        steps: u64,
        /// Examples that counted, over all steps.
        examples: u64,
        /// [`checksum::of_batches`](crate::checksum::of_batches) of the batches that the steps of each repetition were
        /// given, worked out after the clock has stopped.
        batches_sha256: String,
        /// Examples left out for a NaN or an infinity in their gradient, since load.
        non_finite_examples: u64,
    },
    /// To [`Request::Params`].
    Params {
        /// The file written.
        path: PathBuf,
    },
    /// To [`Request::Bye`].
    Bye {},
    /// To any request that could not be carried out. The worker stays for the next one.
    Error {
        /// What kind of failure.
        kind: ErrorKind,
        /// One line for people.
        message: String,
    },
}

/// Kinds of [`Reply::Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// This strategy can't do that, by design.
    Unsupported,
    /// Memory ran out.
    OutOfMemory,
    /// The request was not understood: unknown message, field or version, or out of order.
    Protocol,
    /// Anything else.
    Failed,
}
