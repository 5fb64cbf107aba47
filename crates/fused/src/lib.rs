//! DP-SGD on a CPU from kernels of our own: the strategy `fused`, and a library to train with.
//!
//! Nothing of size batch x parameters is ever made. A [`plan`] of the model, made once, says for each layer how the norm
//! of an example's gradient is found and how the clipped sum is formed. Each thread takes a block of examples at a time
//! through the whole network, forward and backward, finds their norms, and adds their clipped gradients to a sum of its
//! own. At the end of a step each thread adds up a part of the sums, draws [`noise`] for it by parameter index, and
//! updates the parameters. The [`kernels`] that do it are written once over a trait of vector instructions ([`simd`]) and
//! read and write what [`layout`] describes. `docs/fused.md` explains the method, with its sources and FLOPs.
//!
//! [`Fused`] is used through [`dpsgd_core::Strategy`]:
//!
//! ```
//! use dpsgd_core::{
//!     BatchRef, Dataset, Device, DpSgd, Inputs, Layer, Load, Loss, Mode, ModelInput, ModelSpec, Params, Settings,
//!     Strategy, Targets,
//! };
//! use dpsgd_fused::Fused;
//!
//! // y = 2 x, to be learned from four examples.
//! let model = ModelSpec {
//!     name: "line".into(),
//!     input: ModelInput::Features(1),
//!     loss: Loss::Mse,
//!     layers: vec![Layer::Linear { in_features: 1, out_features: 1 }],
//! };
//! let dataset = Dataset {
//!     example_shape: vec![1],
//!     inputs: Inputs::F32(vec![-1.0, 0.0, 1.0, 2.0]),
//!     targets: Targets::Value(vec![-2.0, 0.0, 2.0, 4.0]),
//! };
//! let dp = DpSgd {
//!     mode: Mode::Private,
//!     clip_norm: 1.0,
//!     // Far too little to keep four examples private; enough to show where it goes.
//!     noise_multiplier: 0.01,
//!     learning_rate: 0.5,
//!     expected_batch_size: 4.0,
//! };
//! // Without a seed, the operating system gives the key of the noise.
//! let settings = Settings { variant: None, device: Device::Cpu, threads: 1, noise_seed: None };
//! let params = Params::init(&model, 1);
//! let mut fused = Fused::load(Load { model, params, dataset, dp, settings })?;
//! for _ in 0..200 {
//!     fused.step(&BatchRef { indices: &[0, 1, 2, 3], mask: &[true; 4] })?;
//! }
//! let outputs = fused.outputs(&[3])?;
//! assert!((outputs[0] - 4.0).abs() < 0.3, "{outputs:?}");
//! # Ok::<(), dpsgd_core::StrategyError>(())
//! ```
//!
//! `examples/train_mnist.rs` trains a convolutional network. No privacy is accounted for here: an accountant turns noise
//! multiplier, sampling probability and number of steps into an epsilon.

pub mod cuda;
mod engine;
pub mod kernels;
pub mod layout;
mod meeting;
mod memory;
pub mod noise;
pub mod plan;
pub mod simd;
mod strategy;
mod threads;

pub use strategy::Fused;
