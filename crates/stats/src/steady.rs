//! Where a process's epoch times settle.
//!
//! Steady state is not assumed: Barrett et al., "Virtual Machine Warmup Blows Hot and Cold" (OOPSLA 2017), found that
//! many benchmarks never reach it. The method here is their question asked of short series, where change point
//! detection has too few points: is the second half level, and since when have the epochs been like it?

use crate::summary::{MAD_TO_SIGMA, mad, median};

/// Differences below this share of the steady median are not called a warm-up or a drift: they are within what a
/// shared machine does by itself, and below what a comparison acts on.
pub const SETTLED: f64 = 0.10;

/// Index of the first epoch in steady state; `None` if the times never settle, or there are too few to tell.
///
/// 1. The reference is the second half of the series. If the medians of its own first and second half differ by more
///    than noise and by more than [`SETTLED`], the series is still moving: `None`.
/// 2. The first steady epoch is the first one that is like the reference (within [`SETTLED`] or three standard
///    deviations of its median) and followed mostly by such: an outlier in mid-run does not restart the warm-up.
///
/// One epoch can't be compared with anything (`None`); two are steady if they agree. NaN is `None`.
pub fn steady_state(epochs: &[f64]) -> Option<usize> {
    if epochs.len() < 2 || epochs.iter().any(|e| !e.is_finite()) {
        return None;
    }
    let reference = &epochs[epochs.len() / 2..];
    let level = median(reference)?;
    if is_moving(reference, level)? {
        return None;
    }
    let allowed = (SETTLED * level).max(3.0 * MAD_TO_SIGMA * mad(reference)?);
    let like_reference = |epoch: &f64| (epoch - level).abs() <= allowed;
    // With two epochs the reference is the last alone, which can't vouch for itself: the first has to agree with it.
    let last_start = if epochs.len() == 2 { 0 } else { epochs.len() - reference.len() };
    (0..=last_start).find(|&start| {
        let next = &epochs[start..epochs.len().min(start + 4)];
        like_reference(&epochs[start]) && 2 * next.iter().filter(|e| like_reference(e)).count() > next.len()
    })
}

/// Seconds by which the epochs before steady state exceed the median of the epochs in it, summed: what a run pays once.
/// 0 if there are none, or they were faster; `None` as for [`steady_state`].
pub fn warm_up(epochs: &[f64]) -> Option<f64> {
    let (before, steady) = epochs.split_at(steady_state(epochs)?);
    let level = median(steady)?;
    Some(before.iter().map(|epoch| epoch - level).sum::<f64>().max(0.0))
}

/// The number of epochs after which a contender with a longer warm-up has caught up with one that is slower once warm:
/// the least n with `warm_up + n * epoch <= other_warm_up + n * other_epoch`, all in seconds. 0 if it is never behind;
/// `None` if it never catches up, or a figure is not finite.
pub fn break_even(warm_up: f64, epoch: f64, other_warm_up: f64, other_epoch: f64) -> Option<f64> {
    let (behind, gain) = (warm_up - other_warm_up, other_epoch - epoch);
    if !(behind.is_finite() && gain.is_finite()) || (gain <= 0.0 && behind > 0.0) || gain < 0.0 {
        return None;
    }
    // A rounding error above a whole number of epochs is that number.
    if behind <= 0.0 { Some(0.0) } else { Some((behind / gain * (1.0 - 1e-9)).ceil()) }
}

/// Whether the medians of the two halves differ by more than noise and by more than [`SETTLED`] of `level`.
fn is_moving(reference: &[f64], level: f64) -> Option<bool> {
    let half = reference.len() / 2;
    if half == 0 {
        return Some(false);
    }
    let (first, last) = (&reference[..half], &reference[reference.len() - half..]);
    let change = (median(first)? - median(last)?).abs();
    // A median of n normal values has a standard deviation of 1.2533 sigma / sqrt(n); two of them differ by sqrt(2) of
    // that; three of those are noise.
    let noise = 3.0 * 1.2533 * (2.0 / half as f64).sqrt() * noise_without_trend(reference).unwrap_or(0.0);
    Some(change > noise.max(SETTLED * level))
}

/// Standard deviation of a series about its own trend, from second differences, in which a straight trend cancels
/// (their variance is 6 sigma^2: 1 + 4 + 1). `None` with fewer than four values.
fn noise_without_trend(series: &[f64]) -> Option<f64> {
    if series.len() < 4 {
        return None;
    }
    let second: Vec<f64> = series.windows(3).map(|w| (w[0] - 2.0 * w[1] + w[2]).abs()).collect();
    Some(MAD_TO_SIGMA * median(&second)? / 6.0_f64.sqrt())
}
