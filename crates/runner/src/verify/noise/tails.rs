//! Bounds on how probable a statistic at least as large is, if the noise is right: rigorous for every number of
//! numbers, so that the gate's rate of false alarms is at most what it says. Each takes a NaN for impossible (0).

/// P(mean of n standard normals is as far from 0): `exp(-z^2 / 2)` for a standard score `z`, which bounds both tails
/// together.
pub fn normal(score: f64) -> f64 {
    at_most_one((-score * score / 2.0).exp())
}

/// Both tails of the chi-square distribution with `n` degrees of freedom, by Chernoff's bound: `2 (x e^(1-x))^(n/2)` with
/// `x = sum_of_squares / n`.
pub fn chi_square(sum_of_squares: f64, n: f64) -> f64 {
    let x = sum_of_squares / n;
    at_most_one(2.0 * (n / 2.0 * (x.ln() + 1.0 - x)).exp())
}

/// P(Kolmogorov-Smirnov distance of n numbers from their true distribution is at least `distance`): the inequality of
/// Dvoretzky, Kiefer and Wolfowitz with Massart's constant, `2 exp(-2 n D^2)` (Annals of Probability 18, 1990).
pub fn kolmogorov_smirnov(distance: f64, n: f64) -> f64 {
    at_most_one(2.0 * (-2.0 * n * distance * distance).exp())
}

/// P(at least `count` of independent events occur that are expected `mean` times), whatever the probability of each, by
/// Chernoff's bound.
pub fn at_least(count: f64, mean: f64) -> f64 {
    if count <= mean { 1.0 } else { at_most_one((count - mean - count * (count / mean).ln()).exp()) }
}

/// Chains of independent standard normals: so many of so many numbers each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chains {
    /// Numbers in each chain.
    pub length: usize,
    /// How many chains.
    pub count: usize,
}

/// P(|sum of the products of neighbours in all chains| is at least `|sum|`), by Chernoff's bound.
///
/// The products of neighbours are not independent of each other, but their sum over a chain of m numbers z is the
/// quadratic form `z A z / 2` with A the adjacency matrix of a path, so its moment generating function is exactly
/// `det(I - t A)^(-1/2)`. That determinant is `(r^(m+1) - q^(m+1)) / (r - q)` with r and q the roots of
/// `x^2 - x + t^2`. For pairs (m = 2) it is `1 - t^2`, as for the product of two independent normals. Every t from 0
/// to 1/2 gives a bound; the best one is searched for.
pub fn products(sum: f64, chains: &[Chains]) -> f64 {
    let pairs: f64 = chains.iter().map(|chain| (chain.length.saturating_sub(1) * chain.count) as f64).sum();
    let score = sum.abs() / pairs.sqrt();
    // The bound would be above 1/4: nothing to search for.
    if score < 2.0 || pairs == 0.0 {
        return 1.0;
    }
    if !score.is_finite() {
        return 0.0;
    }
    let log_bound = |t: f64| {
        let logs = chains.iter().map(|chain| chain.count as f64 * log_determinant(t, chain.length));
        -t * sum.abs() - logs.sum::<f64>() / 2.0
    };
    // The logarithm is convex in t.
    let (mut low, mut high) = (0.0, 0.5);
    for _ in 0..60 {
        let third = (high - low) / 3.0;
        if log_bound(low + third) < log_bound(high - third) {
            high -= third;
        } else {
            low += third;
        }
    }
    at_most_one(2.0 * log_bound((low + high) / 2.0).exp())
}

/// `ln det(I - t A)` of a path of `length` numbers.
fn log_determinant(t: f64, length: usize) -> f64 {
    let root = (1.0 - 4.0 * t * t).max(0.0).sqrt();
    let (r, q) = ((1.0 + root) / 2.0, (1.0 - root) / 2.0);
    if root < 1e-6 {
        return ((length + 1) as f64).ln() + length as f64 * r.ln();
    }
    let power = (length + 1) as i32;
    power as f64 * r.ln() + (-(q / r).powi(power)).ln_1p() - root.ln()
}

fn at_most_one(p: f64) -> f64 {
    if p.is_nan() { 0.0 } else { p.min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_determinant_of_a_path_is_that_of_its_matrix() {
        // By the recurrence D_m = D_(m-1) - t^2 D_(m-2) of tridiagonal matrices.
        for t in [0.0, 0.01, 0.3, 0.49] {
            let (mut before, mut now) = (1.0, 1.0);
            for length in 1..40 {
                let found = log_determinant(t, length).exp();
                assert!((found / now - 1.0).abs() < 1e-10, "t = {t}, m = {length}: {found}, {now}");
                (before, now) = (now, now - t * t * before);
            }
        }
    }

    #[test]
    fn pairs_are_bounded_as_products_of_independent_normals_are() {
        for (n, sum) in [(1000_usize, 250.0), (1000, -400.0), (50, 30.0), (3, 9.0)] {
            // Chernoff's bound from (1 - t^2)^(-n/2), at its best t, which is below 1/2 for all but the last two.
            let (numbers, s) = (n as f64, f64::abs(sum));
            let t = ((-numbers + (numbers * numbers + 4.0 * s * s).sqrt()) / (2.0 * s)).min(0.5);
            let expected = (2.0 * (-t * s).exp() * (1.0 - t * t).powf(-numbers / 2.0)).min(1.0);
            let found = products(sum, &[Chains { length: 2, count: n }]);
            assert!((found / expected - 1.0).abs() < 1e-6, "{n} {sum}: {found:e}, {expected:e}");
        }
    }

    #[test]
    fn no_bound_is_below_the_exact_probability() {
        // Exact values by SciPy: chi2.sf(20, 5), chi2.cdf(0.01, 5), norm: 2 * norm.sf(4), binom.sf(9, 100, 0.02).
        assert!(chi_square(20.0, 5.0) > 1.2497e-3 && chi_square(0.01, 5.0) > 5.3e-7);
        assert!(normal(4.0) > 6.334e-5 && normal(0.0) == 1.0);
        assert!(at_least(10.0, 2.0) > 3.4e-5 && at_least(2.0, 2.0) == 1.0);
        assert!((kolmogorov_smirnov(0.02, 10_000.0) / 6.709e-4 - 1.0).abs() < 1e-3);
    }

    #[test]
    fn what_is_no_number_is_impossible() {
        for p in [normal(f64::NAN), chi_square(f64::NAN, 3.0), products(f64::NAN, &[Chains { length: 2, count: 9 }])] {
            assert_eq!(p, 0.0);
        }
        assert_eq!(chi_square(0.0, 9.0), 0.0, "no noise at all");
        assert_eq!(chi_square(f64::INFINITY, 9.0), 0.0);
    }
}
