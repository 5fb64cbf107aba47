//! The strategy `batched`: the gradients of all examples of a batch at once, one tensor with a batch dimension per
//! parameter, clipped and summed by batched operations; what vectorizing maps (`vmap`) do. Two ways:
//!
//! * [`captured`] (the default): the inputs and the pre-activations of the layers with parameters are captured in an
//!   ordinary forward pass, one backward pass gives the gradients of all pre-activations, and each layer's per-example
//!   gradients follow from the two in closed form.
//! * [`expanded`]: every example gets its own copy of the parameters, so that autograd itself yields per-example
//!   gradients: batched matrix products, grouped convolutions, one embedding table per example.
//!
//! `expanded` always holds `batch x parameters` values. `captured` holds them for convolutions and LSTMs; the gradients
//! of a linear layer it keeps as the two factors of their outer products, those of an embedding as the rows that are not
//! zero. Neither adds gradients up before every example's norm over all parameters is known, so both take one forward
//! and one backward pass per step. In non-private mode both take the plain batched PyTorch step.
//!
//! What the clip factors do to a gradient that is zero or not finite is in [`clip`].

pub mod captured;
pub mod clip;
pub mod expanded;
mod windows;

use dpsgd_core::{ModelSpec, StrategyError};
use dpsgd_torch::{ClippedSum, Flat, Job, OnTorch, Result};

/// The strategy.
pub type Batched = OnTorch<BatchOfGradients>;

/// All examples at once, in one of two ways.
pub enum BatchOfGradients {
    /// See [`captured`].
    Captured,
    /// See [`expanded`].
    Expanded,
}

impl ClippedSum for BatchOfGradients {
    const NAME: &'static str = "batched";
    const VARIANTS: &'static [&'static str] = &["captured", "expanded"];

    fn new(_model: &ModelSpec, variant: Option<&'static str>) -> std::result::Result<Self, StrategyError> {
        Ok(if variant == Some("expanded") { BatchOfGradients::Expanded } else { BatchOfGradients::Captured })
    }

    fn clipped_sum(&mut self, job: &Job<'_>, sum: &mut Flat) -> Result<u64> {
        match self {
            BatchOfGradients::Captured => captured::clipped_sum(job, sum),
            BatchOfGradients::Expanded => expanded::clipped_sum(job, sum),
        }
    }
}
