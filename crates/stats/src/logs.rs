//! Student's t on logarithms: what processes agree on, and ratios of two contenders.
//!
//! The replicate is the process, and times multiply: a machine that is busy takes a share of them. So figures are
//! averaged as logarithms, and an interval is that of a mean of a few of those. With five processes an own variance has
//! four degrees of freedom, which makes intervals 40% wider than they need to be; rows of one kind of worker can lend each
//! other theirs ([`Pool`]).

use statrs::distribution::{ContinuousCDF, StudentsT};
use statrs::function::gamma::digamma;

use crate::summary::{mean, median};

/// Fewer figures or pairs than this have no interval: with three, Student's t is so wide that it says nothing, and
/// nothing would show that they are not normal.
pub const LEAST_FOR_INTERVAL: usize = 4;

/// The mean of logarithms, as a figure in the unit of what the logarithms are of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// exp of the mean logarithm: the geometric mean.
    pub value: f64,
    /// 95% interval; `None` with fewer than [`LEAST_FOR_INTERVAL`] figures.
    pub ci95: Option<[f64; 2]>,
    /// Standard error of the mean logarithm; `None` with a single figure and no pool.
    pub standard_error: Option<f64>,
    /// Degrees of freedom of that standard error.
    pub degrees: f64,
    /// Figures, or pairs of them, that it rests on.
    pub count: usize,
    /// Whether the variance is one that other rows had a part in.
    pub pooled: bool,
}

impl Estimate {
    /// The geometric mean of `figures`, with the interval that follows from their own spread. `None` if there is none, or one
    /// is not positive and finite.
    pub fn of(figures: &[f64]) -> Option<Self> {
        Self::of_logs(&logs(figures)?, None)
    }

    /// The same, with the variance moderated by what rows of its kind have.
    pub fn pooled(figures: &[f64], pool: &Pool) -> Option<Self> {
        Self::of_logs(&logs(figures)?, Some(pool))
    }

    /// How many times larger `a` is than `b`, where `a[i]` and `b[i]` are neighbours in time: exp of the mean difference of
    /// logarithms, with Student's interval on these differences, in which cancels what slowed both. It does not
    /// matter which of the two is the denominator. `None` if the lengths differ, or as for [`Estimate::of`].
    pub fn of_ratio(a: &[f64], b: &[f64]) -> Option<Self> {
        if a.len() != b.len() {
            return None;
        }
        let differences: Vec<f64> = logs(a)?.iter().zip(&logs(b)?).map(|(a, b)| a - b).collect();
        Self::of_logs(&differences, None)
    }

    /// The estimate of given logarithms, or of differences of such.
    pub fn of_logs(logs: &[f64], pool: Option<&Pool>) -> Option<Self> {
        let centre = mean(logs)?;
        let own = variance(logs);
        let (variance, degrees) = match (pool, own) {
            (Some(pool), own) => pool.moderate(own.map(|variance| (variance, logs.len() as f64 - 1.0))),
            (None, Some(own)) => (own, logs.len() as f64 - 1.0),
            (None, None) => (f64::NAN, 0.0),
        };
        let standard_error = Some((variance / logs.len() as f64).sqrt()).filter(|error| error.is_finite());
        let ci95 = standard_error.filter(|_| logs.len() >= LEAST_FOR_INTERVAL).map(|error| {
            let reach = t_975(degrees) * error;
            [(centre - reach).exp(), (centre + reach).exp()]
        });
        let pooled = pool.is_some();
        Some(Self { value: centre.exp(), ci95, standard_error, degrees, count: logs.len(), pooled })
    }
}

/// What the rows of one kind of worker say about the variance of another such row.
///
/// Variances of rows differ: an epoch of a millisecond scatters more than one of a second. One variance for all would
/// give the quiet rows intervals that are too wide and the noisy ones intervals that are too narrow. So the rows'
/// variances are themselves taken as drawn from a scaled inverse chi-squared distribution around `variance`, as if that
/// rested on `degrees` degrees of freedom; a row adds its own. Where the rows agree, `degrees` is all that they have
/// together, and the variance is the plain pooled one; where they differ, it is few, and a row keeps its own.
///
/// Source: Smyth, "Linear models and empirical Bayes methods for assessing differential expression in microarray
/// experiments" (2004), section 6.2: the moderated t.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pool {
    /// Variance of logarithms about which those of the rows scatter.
    pub variance: f64,
    /// How much that counts, in degrees of freedom.
    pub degrees: f64,
    /// Degrees of freedom of all rows together: none has more.
    pub all: f64,
}

impl Pool {
    /// The pool of rows, each the figures of its processes; rows with fewer than two, or with one that is not positive
    /// and finite, have no part in it. `None` with fewer than three rows that have one, from which no spread of variances
    /// can be told, and if no row's figures differ.
    pub fn of<'a>(rows: impl IntoIterator<Item = &'a [f64]>) -> Option<Self> {
        let own = |row: &'a [f64]| Some((variance(&logs(row)?)?, row.len() as f64 - 1.0));
        let rows: Vec<(f64, f64)> = rows.into_iter().filter_map(own).collect();
        if rows.len() < 3 {
            return None;
        }
        // A variance of zero, of figures that a coarse clock made equal, has no logarithm.
        let floor = 1e-5 * median(&rows.iter().map(|row| row.0).collect::<Vec<_>>())?;
        if floor <= 0.0 {
            return None;
        }
        let all: f64 = rows.iter().map(|row| row.1).sum();
        // The logarithm of a variance of d degrees of freedom scatters by trigamma(d / 2) about its expectation.
        let logs: Vec<f64> =
            rows.iter().map(|(s2, d)| s2.max(floor).ln() - digamma(d / 2.0) + (d / 2.0).ln()).collect();
        let centre = mean(&logs)?;
        let scatter = logs.iter().map(|log| (log - centre).powi(2)).sum::<f64>() / (rows.len() as f64 - 1.0);
        let excess = scatter - rows.iter().map(|(_, d)| trigamma(d / 2.0)).sum::<f64>() / rows.len() as f64;
        let pooled = rows.iter().map(|(s2, d)| s2 * d).sum::<f64>() / all;
        let half = if excess > 0.0 { inverse_trigamma(excess) } else { f64::INFINITY };
        if 2.0 * half >= all {
            return Some(Self { variance: pooled, degrees: all, all });
        }
        Some(Self { variance: (centre + digamma(half) - half.ln()).exp(), degrees: 2.0 * half, all })
    }

    /// Variance and degrees of freedom of a row with this variance and these degrees of its own.
    fn moderate(&self, own: Option<(f64, f64)>) -> (f64, f64) {
        let (variance, degrees) = own.unwrap_or((0.0, 0.0));
        let both = self.degrees + degrees;
        ((self.degrees * self.variance + degrees * variance) / both, both.min(self.all))
    }
}

/// The 97.5% quantile of Student's t.
pub fn t_975(degrees: f64) -> f64 {
    const NORMAL: f64 = 1.959_963_984_540_054;
    // Where its solver loses digits, the first term of Cornish and Fisher's expansion leaves an error below 1e-5.
    if degrees > 1000.0 {
        return NORMAL + (NORMAL.powi(3) + NORMAL) / (4.0 * degrees);
    }
    StudentsT::new(0.0, 1.0, degrees).map_or(f64::NAN, |t| t.inverse_cdf(0.975))
}

fn logs(figures: &[f64]) -> Option<Vec<f64>> {
    figures.iter().map(|figure| (figure.is_finite() && *figure > 0.0).then(|| figure.ln())).collect()
}

/// The unbiased sample variance; `None` with fewer than two values.
pub(crate) fn variance(values: &[f64]) -> Option<f64> {
    let centre = mean(values).filter(|_| values.len() > 1)?;
    Some(values.iter().map(|value| (value - centre).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0))
}

/// The second derivative of ln gamma at a positive `x` (Abramowitz and Stegun, 6.4.12, after 6.4.6 has taken `x` beyond 12).
fn trigamma(x: f64) -> f64 {
    let (mut x, mut sum) = (x, 0.0);
    while x < 12.0 {
        sum += 1.0 / (x * x);
        x += 1.0;
    }
    let inverse = 1.0 / (x * x);
    let series = 1.0 / 6.0 - inverse * (1.0 / 30.0 - inverse * (1.0 / 42.0 - inverse / 30.0));
    sum + 1.0 / x + inverse / 2.0 + series * inverse / x
}

/// The x with `trigamma(x) = y`, for a positive `y`: bisection of its logarithm, as the function falls.
fn inverse_trigamma(y: f64) -> f64 {
    let (mut low, mut high) = (-20.0_f64, 20.0_f64);
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        if trigamma(middle.exp()) > y { low = middle } else { high = middle }
    }
    ((low + high) / 2.0).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trigamma_has_its_known_values_and_its_inverse_undoes_it() {
        let pi2 = std::f64::consts::PI.powi(2);
        for (x, expected) in [(1.0, pi2 / 6.0), (0.5, pi2 / 2.0), (2.0, pi2 / 6.0 - 1.0), (1.5, pi2 / 2.0 - 4.0)] {
            assert!((trigamma(x) - expected).abs() < 1e-12, "trigamma({x}) = {}", trigamma(x));
        }
        for x in [1e-3, 0.3, 1.0, 7.5, 400.0] {
            assert!((inverse_trigamma(trigamma(x)) / x - 1.0).abs() < 1e-9, "{x}");
        }
    }

    #[test]
    fn quantiles_of_t_are_those_of_the_tables() {
        for (degrees, expected) in [(1.0, 12.7062), (3.0, 3.18245), (4.0, 2.77645), (9.0, 2.26216), (1e9, 1.95996)] {
            assert!((t_975(degrees) - expected).abs() < 1e-4, "{degrees}: {}", t_975(degrees));
        }
        // Of degrees that are no whole number, between their neighbours.
        assert!((2.5706..2.7765).contains(&t_975(4.6)));
    }
}
