//! Location and spread of one sample.

/// Arithmetic mean; `None` if there are no values or one is NaN.
pub fn mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() || values.iter().any(|v| v.is_nan()) {
        return None;
    }
    Some(values.iter().sum::<f64>() / values.len() as f64)
}

/// Geometric mean, for ratios; `None` if there are no values or one is not positive.
pub fn geometric_mean(values: &[f64]) -> Option<f64> {
    if values.iter().any(|v| v.is_nan() || *v <= 0.0) {
        return None;
    }
    let logs: Vec<f64> = values.iter().map(|v| v.ln()).collect();
    mean(&logs).map(f64::exp)
}

/// The middle value, or the mean of the two middle ones; `None` if there are no values or one is NaN.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// Quantile `q` in 0..=1 with linear interpolation between order statistics (Hyndman and Fan's type 7, the default of
/// numpy and R); `None` if there are no values, one is NaN, or `q` is out of range.
pub fn quantile(values: &[f64], q: f64) -> Option<f64> {
    quantile_in_place(&mut values.to_vec(), q)
}

/// Median absolute deviation from the median, in the unit of the values and not scaled: times 1.4826 it estimates the
/// standard deviation of normal data. `None` as for [`median`].
pub fn mad(values: &[f64]) -> Option<f64> {
    let centre = median(values)?;
    let deviations: Vec<f64> = values.iter().map(|v| (v - centre).abs()).collect();
    median(&deviations)
}

/// [`quantile`] that reorders its input; by selection, not a full sort, because there may be millions of epochs.
fn quantile_in_place(values: &mut [f64], q: f64) -> Option<f64> {
    if values.is_empty() || values.iter().any(|v| v.is_nan()) || !(0.0..=1.0).contains(&q) {
        return None;
    }
    let position = q * (values.len() - 1) as f64;
    let below = position.floor() as usize;
    let (_, low, above) = values.select_nth_unstable_by(below, f64::total_cmp);
    let low = *low;
    let fraction = position - below as f64;
    if fraction == 0.0 {
        return Some(low);
    }
    let high = above.iter().copied().fold(f64::INFINITY, f64::min);
    Some(low + fraction * (high - low))
}

/// Turns a median absolute deviation into an estimate of the standard deviation of normal data: 1 over the 0.75
/// quantile of N(0, 1).
pub(crate) const MAD_TO_SIGMA: f64 = 1.482_602_218_505_602;
