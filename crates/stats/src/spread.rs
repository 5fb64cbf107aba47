//! The facts behind a warning: values far from the rest, and values that move with time.

use crate::steady::pieces;
use crate::summary::{MAD_TO_SIGMA, mad, median};

/// Values far from the rest of their sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outliers {
    /// Values further above the median than allowed.
    pub high: usize,
    /// Values further below it.
    pub low: usize,
    /// Both over all values, 0 to 1.
    pub share: f64,
    /// The value furthest from the median, over the median; 1 if all are equal.
    pub worst_over_median: f64,
}

/// Values whose modified z-score, 0.6745 |x - median| / MAD, is above 3.5 (Iglewicz and Hoaglin, "How to Detect and
/// Handle Outliers", 1993) *and* that are more than 5% from the median, so that timers' jitter on an idle machine is
/// not reported. Give it the epochs in steady state: a warm-up is no outlier. `None` if there are no values, or a value
/// or the median is not positive and finite.
pub fn outliers(values: &[f64]) -> Option<Outliers> {
    let centre = median(values)?;
    if values.iter().any(|v| !v.is_finite() || *v < 0.0) || centre <= 0.0 {
        return None;
    }
    let allowed = (3.5 * MAD_TO_SIGMA * mad(values)?).max(0.05 * centre);
    let high = values.iter().filter(|v| **v - centre > allowed).count();
    let low = values.iter().filter(|v| centre - **v > allowed).count();
    let worst = values.iter().copied().max_by(|x, y| (x - centre).abs().total_cmp(&(y - centre).abs()))?;
    Some(Outliers { high, low, share: (high + low) as f64 / values.len() as f64, worst_over_median: worst / centre })
}

/// How values move with their position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drift {
    /// Change per position, by Theil and Sen, in the unit of the values.
    pub slope: f64,
    /// Change from the first position to the last over the median: 0.1 is 10% slower at the end.
    pub relative_change: f64,
    /// Two-sided p-value of Kendall's test against no trend (Mann, "Nonparametric Tests Against Trend", 1945), by its
    /// normal approximation with the correction for ties.
    pub p_value: f64,
}

/// Values beyond which a series is cut into so many pieces, as the number of pairs grows with the square.
const MOST_VALUES: usize = 256;

/// The trend of `values` in the order measured, by methods that a few outliers do not move. Give it the epochs in
/// steady state, or one figure per round. Of a series longer than 256 it is that of the medians of 256 equal pieces.
/// `None` with fewer than four values, a NaN, or a median that is not positive.
pub fn drift(values: &[f64]) -> Option<Drift> {
    let centre = median(values)?;
    if values.len() < 4 || centre <= 0.0 || values.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let pieces = pieces(values, MOST_VALUES);
    let n = pieces.len();
    let mut slopes = Vec::with_capacity(n * (n - 1) / 2);
    for i in 0..n {
        slopes.extend((i + 1..n).map(|j| (pieces[j] - pieces[i]) / (j - i) as f64));
    }
    let slope = median(&slopes)?;
    let relative_change = slope * (n - 1) as f64 / centre;
    Some(Drift { slope: slope * n as f64 / values.len() as f64, relative_change, p_value: kendall(&pieces) })
}

/// Two-sided p-value of Kendall's S: the number of pairs that rise less that of those that fall, by its normal
/// approximation with ties and the continuity correction. It compares all pairs.
pub(crate) fn kendall(values: &[f64]) -> f64 {
    let sign = |rise: f64| if rise == 0.0 { 0.0 } else { rise.signum() };
    let of_first = |i: usize| values[i + 1..].iter().map(|later| sign(later - values[i])).sum::<f64>();
    let s: f64 = (0..values.len()).map(of_first).sum();
    let weight = |m: f64| m * (m - 1.0) * (2.0 * m + 5.0);
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let ties: f64 = sorted.chunk_by(|a, b| a == b).map(|run| weight(run.len() as f64)).sum();
    let variance = (weight(values.len() as f64) - ties) / 18.0;
    if variance <= 0.0 {
        return 1.0;
    }
    let z = ((s.abs() - 1.0).max(0.0)) / variance.sqrt();
    statrs::function::erf::erfc(z / std::f64::consts::SQRT_2)
}
