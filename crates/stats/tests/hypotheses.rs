//! Tests of hypotheses against scipy 1.17.1 and by their power.

use dpsgd_stats::{ks_normal, permutation_test};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

#[test]
fn exact_permutation_tests_are_those_of_scipy() {
    // scipy.stats.permutation_test with n_resamples=inf and |difference of means|.
    let treated = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30];
    let control = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.12, 1.29];
    let cases: [(&[f64], &[f64], f64); 4] = [
        (&treated, &control, 11_706.0 / 48_620.0),
        (&[1.0, 2.0, 3.0, 4.0, 5.0], &[6.0, 7.0, 8.0, 9.0, 10.0], 2.0 / 252.0),
        (&[1.0, 2.0, 4.0], &[1.5, 3.0, 9.0, 7.0], 11.0 / 35.0),
        (&[3.0, 3.0, 3.0], &[3.0, 3.0], 1.0),
    ];
    for (a, b, expected) in cases {
        for (a, b) in [(a, b), (b, a)] {
            let found = permutation_test(a, b).unwrap();
            assert!((found - expected).abs() < 1e-12, "{found}, expected {expected}");
        }
    }
}

#[test]
fn large_samples_are_tested_by_sampling_and_never_with_certainty() {
    let low: Vec<f64> = (0..30).map(f64::from).collect();
    let shifted: Vec<f64> = low.iter().map(|v| v + 100.0).collect();
    let p = permutation_test(&low, &shifted).unwrap();
    assert!(p > 0.0 && p < 1e-4, "{p}");
    let (even, odd): (Vec<f64>, Vec<f64>) = (0..30).map(|i| (f64::from(2 * i), f64::from(2 * i + 1))).unzip();
    assert!(permutation_test(&even, &odd).unwrap() > 0.5);
}

#[test]
fn samples_that_cannot_be_compared_have_no_p_value() {
    assert_eq!(permutation_test(&[], &[1.0]), None);
    assert_eq!(permutation_test(&[1.0], &[f64::NAN]), None);
}

#[test]
fn the_kolmogorov_smirnov_statistic_is_that_of_scipy() {
    let mut sample = [3.1, 0.2, -1.7, 0.9, 2.2, 5.5, -0.4, 1.8];
    let found = ks_normal(&mut sample, 1.0, 2.0);
    assert!((found.statistic - 0.155_421_741_610_324_18).abs() < 1e-12, "{}", found.statistic);
    // scipy's p-value is exact for n = 8, ours the corrected limit.
    assert!((found.p_value - 0.973_886_652_984_365_6).abs() < 0.01, "{}", found.p_value);
}

fn normal_sample(n: usize, seed: u64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| StandardNormal.sample(&mut rng)).collect()
}

#[test]
fn two_hundred_thousand_numbers_tell_sigma_from_one_five_percent_off() {
    for seed in 0..5 {
        let mut sample = normal_sample(200_000, seed);
        assert!(ks_normal(&mut sample, 0.0, 1.0).p_value >= 1e-4, "seed {seed}: the right sigma");
        for sigma in [0.95, 1.05] {
            assert!(ks_normal(&mut sample, 0.0, sigma).p_value < 1e-4, "seed {seed}: sigma {sigma}");
        }
        assert!(ks_normal(&mut sample, 0.02, 1.0).p_value < 1e-4, "seed {seed}: mean 0.02");
    }
}

#[test]
fn p_values_of_true_samples_are_uniform() {
    let p_values: Vec<f64> = (0..400).map(|seed| ks_normal(&mut normal_sample(500, seed), 0.0, 1.0).p_value).collect();
    for level in [0.1, 0.25, 0.5, 0.75] {
        let share = p_values.iter().filter(|p| **p <= level).count() as f64 / p_values.len() as f64;
        // Three standard deviations of a share of 400.
        let allowed = 3.0 * (level * (1.0 - level) / 400.0).sqrt();
        assert!((share - level).abs() <= allowed, "{share} of the p-values are at most {level}");
    }
}

#[test]
fn a_broken_sampler_never_passes() {
    for mut sample in [vec![], vec![f64::NAN; 10], vec![0.0; 1000], vec![f64::INFINITY; 1000]] {
        assert!(ks_normal(&mut sample, 0.0, 1.0).p_value < 1e-4);
    }
    assert_eq!(ks_normal(&mut [0.0, 1.0], 0.0, 0.0).p_value, 0.0);
    assert_eq!(ks_normal(&mut [0.0, 1.0], 0.0, f64::NAN).p_value, 0.0);
}
