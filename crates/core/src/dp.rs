//! The hyperparameters of one step, and the batch that it is taken on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a step is differentially private or plain SGD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Per-example clipping and Gaussian noise.
    Private,
    /// The mean gradient of the batch.
    NonPrivate,
}

impl Mode {
    /// The name used in results files: `private` or `non_private`.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Private => "private",
            Mode::NonPrivate => "non_private",
        }
    }
}

/// What one optimizer step does (Abadi et al., "Deep Learning with Differential Privacy", 2016, algorithm 1).
///
/// For the k examples of a batch with gradients `g_i`, [`Mode::Private`] is
/// `theta <- theta - (eta / B) * (sum_i min(1, C / |g_i|) g_i + sigma * C * z)` with `z ~ N(0, I)` fresh at every step
/// and `|g_i|` the L2 norm over all parameters together; [`Mode::NonPrivate`] is
/// `theta <- theta - (eta / k) * sum_i g_i`, and leaves theta alone when k is 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DpSgd {
    /// Private or plain.
    pub mode: Mode,
    /// C, the L2 norm to which each example's gradient is clipped; finite and above 0.
    pub clip_norm: f64,
    /// sigma, the noise's standard deviation in units of `clip_norm`; finite and at least 0.
    pub noise_multiplier: f64,
    /// eta; finite and above 0.
    pub learning_rate: f64,
    /// B, the fixed denominator of the private update; finite and above 0.
    pub expected_batch_size: f64,
}

/// A hyperparameter outside its range.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{key} = {value}: must be a finite number {range}")]
pub struct DpSgdError {
    /// Name of the hyperparameter.
    pub key: &'static str,
    /// The value found.
    pub value: f64,
    /// The values allowed.
    pub range: &'static str,
}

impl DpSgd {
    /// Checks every range; the error names the first hyperparameter outside its own.
    pub fn validate(&self) -> Result<(), DpSgdError> {
        let positive = [
            ("clip_norm", self.clip_norm),
            ("learning_rate", self.learning_rate),
            ("expected_batch_size", self.expected_batch_size),
        ];
        for (key, value) in positive {
            if !(value.is_finite() && value > 0.0) {
                return Err(DpSgdError { key, value, range: "above 0" });
            }
        }
        let value = self.noise_multiplier;
        if !(value.is_finite() && value >= 0.0) {
            return Err(DpSgdError { key: "noise_multiplier", value, range: "of at least 0" });
        }
        Ok(())
    }
}

/// One batch: positions in the data set, and which of them count.
///
/// A batch may be padded to a fixed length: a slot whose mask is `false` holds a valid index whose example must
/// contribute nothing. All slots may be masked: the empty batch is legal and still adds noise.
#[derive(Clone, Copy, Debug)]
pub struct BatchRef<'a> {
    /// Rows of the data set, one per slot.
    pub indices: &'a [u32],
    /// Which slots count; as long as `indices`.
    pub mask: &'a [bool],
}

impl BatchRef<'_> {
    /// How many examples count: k.
    pub fn examples(&self) -> usize {
        self.mask.iter().filter(|counts| **counts).count()
    }

    /// Whether some slot is padding.
    pub fn is_padded(&self) -> bool {
        self.mask.iter().any(|counts| !counts)
    }
}

#[cfg(test)]
#[path = "dp_tests.rs"]
mod tests;
