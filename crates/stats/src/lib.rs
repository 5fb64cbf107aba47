//! The statistics of a benchmark, as pure functions of raw epoch times: the figure of a process ([`process_figure`]), what
//! processes agree on and ratios of contenders ([`Estimate`], [`Pool`]), the detection of a warm-up ([`steady_state`],
//! [`warm_up`], [`break_even`]), an exact [`permutation_test`], the goodness of fit of noise ([`ks_normal`]), and the facts
//! behind warnings ([`outliers`], [`drift`]).
//!
//! The replicate is the *process*: a thousand epochs of one process are one trial, because memory layout, clock
//! frequency and JIT decisions are drawn once per process. Intervals are therefore over processes.
//!
//! Nothing here reads a clock or draws unseeded random numbers: the same input gives the same output. Figures that
//! can't be computed (no values, or a NaN among them) are `None`, never a NaN or a zero.

mod ks;
mod logs;
mod permutation;
mod spread;
mod steady;
mod summary;

pub use ks::{KsTest, ks_normal};
pub use logs::{Estimate, LEAST_FOR_INTERVAL, Pool, t_975};
pub use permutation::permutation_test;
pub use spread::{Drift, Outliers, drift, outliers};
pub use steady::{SETTLED, break_even, process_figure, steady_state, warm_epochs, warm_up};
pub use summary::{geometric_mean, mad, mean, median, quantile};
