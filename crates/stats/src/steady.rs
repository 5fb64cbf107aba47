//! Where a process's epoch times settle.
//!
//! Steady state is not assumed: Barrett et al., "Virtual Machine Warmup Blows Hot and Cold" (OOPSLA 2017), found that
//! many benchmarks never reach it. The method here is their question asked of series of five epochs as of thousands: is
//! the second half level, and since when have the epochs been like it?

use crate::spread::kendall;
use crate::summary::{MAD_TO_SIGMA, mad, median};

/// Differences below this share of the steady median are not called a warm-up or a drift: they are within what a
/// shared machine does by itself, and below what a comparison acts on.
pub const SETTLED: f64 = 0.10;
/// A long series is cut into so many pieces to ask whether it has a trend.
const PIECES: usize = 16;
/// Chance of calling a trend what is none.
const TREND_SIGNIFICANCE: f64 = 0.01;
/// Epochs whose median has to be at the level where a series settles, if it is several times as long.
const WINDOW: usize = 16;

/// Index of the first epoch in steady state; `None` if the times never settle, or there are too few to tell.
///
/// 1. The level is the median of the second half of the series. The series is still moving (`None`) if the medians of that
///    half's own halves differ by more than noise and by more than [`SETTLED`], *and* all epochs but the first have a
///    trend: noise alone makes two medians of one or two epochs differ by 10%, but seldom in line with the epochs before;
///    and a busy minute of the machine moves two medians, but is no trend of the whole.
/// 2. The first steady epoch is the first one that is at the level (within [`SETTLED`] or three standard deviations of it),
///    followed mostly by such, and in a long series by sixteen whose median is: an outlier in mid-run, or the slow
///    first epoch of every turn, does not restart the warm-up.
///
/// One epoch can't be compared with anything (`None`); two are steady if they agree. NaN is `None`. It takes time in
/// proportion to the number of epochs.
pub fn steady_state(epochs: &[f64]) -> Option<usize> {
    if epochs.len() < 2 || epochs.iter().any(|e| !e.is_finite()) {
        return None;
    }
    let reference = &epochs[epochs.len() / 2..];
    let level = median(reference)?;
    if medians_differ(reference, level)? && has_trend(&epochs[1..]) {
        return None;
    }
    let spread = MAD_TO_SIGMA * mad(reference)?;
    let at_level = |value: f64, spread: f64| (value - level).abs() <= (SETTLED * level).max(3.0 * spread);
    let settles_at = |start: usize| {
        let next = &epochs[start..epochs.len().min(start + 4)];
        at_level(epochs[start], spread) && 2 * next.iter().filter(|e| at_level(**e, spread)).count() > next.len()
    };
    // A median of n normal values has a standard deviation of 1.2533 sigma / sqrt(n).
    let of_window = 1.2533 * spread / (WINDOW as f64).sqrt();
    let stays = |start: usize| {
        let window = epochs.get(start..start + WINDOW).filter(|_| epochs.len() >= 4 * WINDOW);
        window.and_then(median).is_none_or(|median| at_level(median, of_window))
    };
    // With two epochs the reference is the last alone, which can't vouch for itself: the first has to agree with it.
    let last_start = if epochs.len() == 2 { 0 } else { epochs.len() - reference.len() };
    (0..=last_start).find(|&start| settles_at(start) && stays(start))
}

/// The figure of a process: the median of its warm epochs, which are those from `warm_from` on, or where it is `None` or
/// beyond them all but the first; a single epoch is its own. In the unit of `epochs`; `None` without one, or with a NaN.
pub fn process_figure(epochs: &[f64], warm_from: Option<usize>) -> Option<f64> {
    median(warm_epochs(epochs, warm_from))
}

/// The epochs that [`process_figure`] is the median of.
pub fn warm_epochs(epochs: &[f64], warm_from: Option<usize>) -> &[f64] {
    let first = warm_from.unwrap_or(1);
    if first < epochs.len() { &epochs[first..] } else { &epochs[epochs.len().saturating_sub(1).min(1)..] }
}

/// Seconds by which the epochs before steady state, which begins at `warm_from`, exceed the median of the epochs in it,
/// summed: what a run pays once. 0 if there are none, or they were faster; `None` without an epoch in steady state.
pub fn warm_up(epochs: &[f64], warm_from: usize) -> Option<f64> {
    let (before, steady) = epochs.split_at_checked(warm_from)?;
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
fn medians_differ(reference: &[f64], level: f64) -> Option<bool> {
    let half = reference.len() / 2;
    if half == 0 {
        return Some(false);
    }
    let (first, last) = (&reference[..half], &reference[reference.len() - half..]);
    let change = (median(first)? - median(last)?).abs();
    // Two medians differ by sqrt(2) of what one scatters by; three of those are noise.
    let noise = 3.0 * 1.2533 * (2.0 / half as f64).sqrt() * noise_without_trend(reference).unwrap_or(0.0);
    Some(change > noise.max(SETTLED * level))
}

/// Whether a series rises or falls as a whole: Kendall's test on the medians of up to sixteen equal pieces of it. Of four
/// values or fewer, each has to be beyond the one before, which of four is so by chance once in twelve times.
fn has_trend(series: &[f64]) -> bool {
    if series.len() <= 4 {
        let ordered = |sign: f64| series.windows(2).all(|pair| sign * (pair[1] - pair[0]) > 0.0);
        return ordered(1.0) || ordered(-1.0);
    }
    let pieces = pieces(series, PIECES);
    // Five values that are all in order have a chance of one in 60, which the approximation takes for one in 36.
    kendall(&pieces) < if pieces.len() == 5 { 0.03 } else { TREND_SIGNIFICANCE }
}

/// Medians of `count` equal pieces of a series, or the series where it is shorter.
pub(crate) fn pieces(series: &[f64], count: usize) -> Vec<f64> {
    if series.len() <= count {
        return series.to_vec();
    }
    let end = |i: usize| i * series.len() / count;
    (0..count).filter_map(|i| median(&series[end(i)..end(i + 1)])).collect()
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
