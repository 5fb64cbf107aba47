//! What the strategies on libtorch share.
//!
//! A strategy on libtorch differs from another in one thing: how it comes from a batch to the sum of the clipped
//! per-example gradients. That is the trait [`ClippedSum`]; [`OnTorch`] makes a whole
//! [`Strategy`](dpsgd_core::Strategy) of it. Everything else is here, once:
//!
//! * the model as libtorch operations ([`Network`]), and the LSTM as an unrolled cell ([`lstm`]) for those who need its
//!   gates;
//! * the parameters as one flat tensor with a view for each ([`Flat`]), so that the noise is one draw and the update
//!   one addition;
//! * the data set on the device ([`ResidentData`]), gathered by index inside the step;
//! * the noise, fresh for every parameter at every step, from libtorch's own generator, which is fast but not
//!   cryptographically secure: a measured run says so;
//! * the non-private step: one batched forward pass, one backward, one update, as anyone writes it in PyTorch.
//!
//! Every call of libtorch in a step is the fallible one (`f_*`), so that running out of memory is an answer and not the
//! end of the worker.

mod data;
mod error;
mod flat;
pub mod lstm;
mod network;
mod runtime;
mod strategy;

pub use data::{Batch, ResidentData};
pub use error::{Result, strategy_error};
pub use flat::Flat;
pub use network::{Network, channels_last, conv2d, gradients, ints, without_parameters};
pub use strategy::{ClippedSum, Job, OnTorch};
