//! The statistics of a benchmark, as pure functions of raw epoch times: [`median`]s and their bootstrap intervals
//! ([`bootstrap_median_ci95`]), paired ratios ([`ratio_ci95`]), the detection of a warm-up ([`steady_state`],
//! [`warm_up`], [`break_even`]), an exact [`permutation_test`], the goodness of fit of noise ([`ks_normal`]), and the facts behind
//! warnings ([`outliers`], [`drift`]).
//!
//! The replicate is the *process*: a hundred epochs of one process are one trial, because memory layout, clock
//! frequency and JIT decisions are drawn once per process. Intervals are therefore resampled over processes.
//!
//! Nothing here reads a clock or draws unseeded random numbers: the same input gives the same output. Figures that
//! can't be computed (no values, or a NaN among them) are `None`, never a NaN or a zero.

mod bootstrap;
mod ks;
mod permutation;
mod spread;
mod steady;
mod summary;

pub use bootstrap::{Ratio, bootstrap_median_ci95, ratio_ci95};
pub use ks::{KsTest, ks_normal};
pub use permutation::permutation_test;
pub use spread::{Drift, Outliers, drift, outliers};
pub use steady::{SETTLED, break_even, steady_state, warm_up};
pub use summary::{geometric_mean, mad, mean, median, quantile};
