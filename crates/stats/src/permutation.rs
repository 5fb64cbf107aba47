//! Fisher's randomization test of two samples.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::summary::mean;

/// Splits that are enumerated at most; two samples of ten have 184,756.
const MAX_EXACT: u128 = 200_000;
/// Random splits if there are too many to enumerate.
const SAMPLED: usize = 100_000;

/// Two-sided p-value of the difference of the means of `a` and `b` under every way to split the pooled values into
/// samples of these sizes.
///
/// Exact up to 200,000 splits (two samples of ten), from 100,000 random splits with a fixed seed beyond. It assumes
/// nothing but exchangeability; give it logarithms to test a ratio. The least value possible is 1 over the number of
/// splits, or 2 over it for samples of equal size: three against three can't fall below 0.1. `None` if a sample is empty
/// or a value is not finite.
pub fn permutation_test(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.is_empty() || b.is_empty() || a.iter().chain(b).any(|v| !v.is_finite()) {
        return None;
    }
    let observed = (mean(a)? - mean(b)?).abs();
    let mut pool: Vec<f64> = a.iter().chain(b).copied().collect();
    let total: f64 = pool.iter().sum();
    // Splits that tie with the observed one must count although rounding made their sums differ.
    let slack = 1e-9 * observed.max(pool.iter().fold(0.0, |m: f64, v| m.max(v.abs())) * f64::EPSILON);
    let as_extreme = |sum: f64| {
        let difference = sum / a.len() as f64 - (total - sum) / b.len() as f64;
        difference.abs() >= observed - slack
    };
    if splits(pool.len(), a.len()) <= MAX_EXACT {
        let mut count = Count { extreme: 0, all: 0 };
        enumerate(&pool, a.len(), 0.0, &as_extreme, &mut count);
        return Some(count.extreme as f64 / count.all as f64);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut extreme = 0;
    for _ in 0..SAMPLED {
        for i in 0..a.len() {
            let j = rng.random_range(i..pool.len());
            pool.swap(i, j);
        }
        extreme += usize::from(as_extreme(pool[..a.len()].iter().sum()));
    }
    // The observed split is one of those possible: p is never 0.
    Some((extreme + 1) as f64 / (SAMPLED + 1) as f64)
}

struct Count {
    extreme: u64,
    all: u64,
}

/// Sums of all ways to take `take` of `values`, each given to `as_extreme`.
fn enumerate(values: &[f64], take: usize, sum: f64, as_extreme: &impl Fn(f64) -> bool, count: &mut Count) {
    if take == 0 {
        count.all += 1;
        count.extreme += u64::from(as_extreme(sum));
    } else if values.len() >= take {
        enumerate(&values[1..], take - 1, sum + values[0], as_extreme, count);
        enumerate(&values[1..], take, sum, as_extreme, count);
    }
}

/// n choose k, saturating once it is beyond [`MAX_EXACT`].
fn splits(n: usize, k: usize) -> u128 {
    let mut splits = 1_u128;
    for i in 0..k.min(n - k) {
        splits = splits * (n - i) as u128 / (i + 1) as u128;
        if splits > MAX_EXACT {
            break;
        }
    }
    splits
}
