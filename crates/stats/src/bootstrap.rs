//! Percentile bootstrap intervals (Efron and Tibshirani, "An Introduction to the Bootstrap", chapters 12, 13).

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::summary::{mean, quantile, quantile_in_place};

/// Resamples per interval: the 2.5% quantile then rests on 50 of them, and an interval takes milliseconds.
const RESAMPLES: usize = 2000;

/// 95% interval `[low, high]` of the median over all epochs of all processes, in the unit of the epochs.
///
/// The bootstrap is hierarchical: it draws processes with replacement, then epochs with replacement within each process
/// drawn, pools them and takes the median; the interval is between the 2.5% and the 97.5% quantile of these medians.
/// `processes` holds one list of epochs per process; empty ones are left out.
///
/// `None` if no process has an epoch, or one is NaN. **With few processes the interval is too narrow**: with one it shows
/// how epochs vary within that process only, with two its ends are the processes themselves, and percentile intervals
/// reach their nominal coverage only from about ten. Five processes are a reasonable least for comparisons.
pub fn bootstrap_median_ci95(processes: &[Vec<f64>], seed: u64) -> Option<[f64; 2]> {
    let processes: Vec<&[f64]> = processes.iter().map(Vec::as_slice).filter(|epochs| !epochs.is_empty()).collect();
    if processes.is_empty() {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut pool = Vec::new();
    let mut medians = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        pool.clear();
        for _ in 0..processes.len() {
            let epochs = processes[rng.random_range(0..processes.len())];
            pool.extend((0..epochs.len()).map(|_| epochs[rng.random_range(0..epochs.len())]));
        }
        medians.push(quantile_in_place(&mut pool, 0.5)?);
    }
    percentile_interval(&medians)
}

/// How many times larger one contender's figure is than another's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// Geometric mean over pairs of a / b.
    pub ratio: f64,
    /// 95% bootstrap interval of it; `None` with a single pair, which says nothing about spread.
    pub ci95: Option<[f64; 2]>,
    /// Pairs it rests on.
    pub pairs: usize,
}

/// The ratio a / b of figures that were measured in pairs, `a[i]` and `b[i]` in the same round.
///
/// Pairs are resampled whole, so that what slowed both halves of a round cancels. The figure is the geometric mean of
/// the pairs' ratios (the mean of their logarithms): it does not depend on which of the two is the denominator.
///
/// `None` if the lengths differ, there are no pairs, or a value is not positive and finite. As for
/// [`bootstrap_median_ci95`], intervals over fewer than about six pairs are too narrow.
pub fn ratio_ci95(a: &[f64], b: &[f64], seed: u64) -> Option<Ratio> {
    let usable = |v: &f64| v.is_finite() && *v > 0.0;
    if a.len() != b.len() || !a.iter().chain(b).all(usable) {
        return None;
    }
    let logs: Vec<f64> = a.iter().zip(b).map(|(a, b)| a.ln() - b.ln()).collect();
    let ratio = mean(&logs)?.exp();
    let pairs = logs.len();
    if pairs == 1 {
        return Some(Ratio { ratio, ci95: None, pairs });
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let means: Vec<f64> = (0..RESAMPLES)
        .map(|_| (0..pairs).map(|_| logs[rng.random_range(0..pairs)]).sum::<f64>() / pairs as f64)
        .collect();
    let ci95 = percentile_interval(&means).map(|interval| interval.map(f64::exp));
    Some(Ratio { ratio, ci95, pairs })
}

fn percentile_interval(statistics: &[f64]) -> Option<[f64; 2]> {
    Some([quantile(statistics, 0.025)?, quantile(statistics, 0.975)?])
}
