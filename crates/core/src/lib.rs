//! What every part of dpsgd-bench agrees on: models as data ([`ModelSpec`]), their parameters ([`Params`]), the data
//! they are trained on ([`Dataset`]), what one DP-SGD step is ([`DpSgd`]), the interface of everything that can take
//! such a step ([`Strategy`]), and the float64 [`oracle`] that says what the right answer is.
//!
//! Layouts are PyTorch's throughout: images NCHW, convolution weights OIHW, linear weights `[out, in]`, LSTM gates in
//! the order input, forget, cell, output. Values are `f32`, tokens and classes `i32`.

mod dataset;
mod dp;
mod input;
mod model;
mod params;
mod strategy;

pub mod cost;
pub mod oracle;

pub use dataset::{Dataset, DatasetError, Inputs, Targets};
pub use dp::{BatchRef, DpSgd, DpSgdError, Mode};
pub use input::{InputError, nearest, read_toml};
pub use model::{Layer, Loss, ModelError, ModelInput, ModelSpec, Pair, ParamSpec, Shape};
pub use params::{Params, ParamsError, Tensor};
pub use strategy::{Description, Device, Kernels, Load, Settings, Strategy, StrategyError};
