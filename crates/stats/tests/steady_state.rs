//! Series whose settling is known because they were made that way.

use dpsgd_stats::{break_even, steady_state, warm_up};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// `series` with noise of a share of each value.
fn noisy(series: &[f64], share: f64, seed: u64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut normal = || -> f64 { StandardNormal.sample(&mut rng) };
    series.iter().map(|value| value * (1.0 + share * normal())).collect()
}

#[test]
fn a_first_epoch_that_compiles_is_a_warm_up_of_what_it_costs() {
    let epochs = [5.0, 1.0, 1.02, 0.99, 1.01, 1.0];
    assert_eq!(steady_state(&epochs), Some(1));
    assert!((warm_up(&epochs).unwrap() - 4.0).abs() < 1e-12);
}

#[test]
fn no_warm_up_is_zero_and_not_none() {
    assert_eq!(steady_state(&[1.0, 1.01, 0.99, 1.0]), Some(0));
    assert_eq!(warm_up(&[1.0, 1.01, 0.99, 1.0]), Some(0.0));
}

#[test]
fn every_epoch_before_the_settled_ones_counts() {
    // Compiled twice: a fast first epoch does not hide the second compilation.
    let epochs = [1.0, 3.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
    assert_eq!(steady_state(&epochs), Some(3));
    assert!((warm_up(&epochs).unwrap() - 4.0).abs() < 1e-12);
    // A slow start that eases.
    let epochs = [8.0, 5.0, 3.0, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
    assert_eq!(steady_state(&epochs), Some(4));
    assert!((warm_up(&epochs).unwrap() - (7.0 + 4.0 + 2.0 + 0.5)).abs() < 1e-12);
}

#[test]
fn an_outlier_later_on_does_not_restart_the_warm_up() {
    let mut epochs = vec![1.0; 20];
    epochs[0] = 4.0;
    epochs[9] = 3.0;
    epochs[15] = 2.0;
    assert_eq!(steady_state(&epochs), Some(1));
    assert!((warm_up(&epochs).unwrap() - 3.0).abs() < 1e-12);
}

#[test]
fn times_that_keep_growing_never_settle() {
    let ramp: Vec<f64> = (0..20).map(|i| 1.0 + 0.1 * f64::from(i)).collect();
    assert_eq!(steady_state(&ramp), None);
    assert_eq!(warm_up(&ramp), None);
    for seed in 0..20 {
        assert_eq!(steady_state(&noisy(&ramp, 0.01, seed)), None, "seed {seed}");
    }
}

#[test]
fn a_step_late_in_the_run_never_settles() {
    let mut epochs = vec![1.0; 20];
    epochs[15..].fill(2.0);
    assert_eq!(steady_state(&epochs), None);
}

#[test]
fn noise_alone_is_steady_from_the_start() {
    let misjudged = |share: f64, n: usize| {
        (0..200).filter(|seed| steady_state(&noisy(&vec![1.0; n], share, *seed)).is_none_or(|start| start > 1)).count()
    };
    for (share, n) in [(0.01, 5), (0.02, 10), (0.05, 20), (0.2, 40)] {
        let wrong = misjudged(share, n);
        assert!(wrong <= 10, "{wrong} of 200 series of {n} epochs with noise of {share} are misjudged");
    }
}

#[test]
fn a_compiled_first_epoch_is_found_under_noise_in_short_and_long_runs() {
    for n in [3, 4, 5, 10, 20, 100] {
        let mut series = vec![1.0; n];
        series[0] = 3.0;
        for seed in 0..20 {
            let epochs = noisy(&series, 0.01, seed);
            assert_eq!(steady_state(&epochs), Some(1), "{n} epochs, seed {seed}");
            assert!((warm_up(&epochs).unwrap() - 2.0).abs() < 0.2);
        }
    }
}

#[test]
fn too_few_epochs_or_a_nan_are_no_answer() {
    for epochs in [&[][..], &[1.0], &[1.0, 2.0], &[1.0, f64::NAN, 1.0, 1.0]] {
        assert_eq!(steady_state(epochs), None, "{epochs:?}");
    }
    assert_eq!(steady_state(&[1.0, 1.02]), Some(0));
}

#[test]
fn a_start_that_is_faster_than_what_follows_is_not_a_negative_warm_up() {
    // A processor that clocks down once it is warm.
    let epochs = [1.0, 1.0, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5];
    assert_eq!(steady_state(&epochs), Some(2));
    assert_eq!(warm_up(&epochs), Some(0.0));
}

#[test]
fn a_warm_up_is_made_up_for_at_the_first_epoch_at_which_the_totals_have_crossed() {
    for (warm_up, epoch, other_warm_up, other_epoch) in
        [(10.0, 1.0, 0.0, 3.0), (2.4, 0.94, 0.0, 1.45), (5.0, 0.5, 4.0, 0.6), (0.3, 0.1, 0.2, 5.0)]
    {
        let total = |warm_up: f64, epoch: f64, n: u32| warm_up + f64::from(n) * epoch;
        let counted =
            (0..).find(|n| total(warm_up, epoch, *n) <= total(other_warm_up, other_epoch, *n) + 1e-9).unwrap();
        assert_eq!(break_even(warm_up, epoch, other_warm_up, other_epoch), Some(f64::from(counted)));
    }
}

#[test]
fn one_that_is_slower_in_the_long_run_never_makes_up_for_its_warm_up() {
    assert_eq!(break_even(1.0, 2.0, 0.0, 1.0), None);
    assert_eq!(break_even(1.0, 1.0, 0.0, 1.0), None);
    assert_eq!(break_even(0.0, 2.0, 1.0, 1.0), None);
    assert_eq!(break_even(f64::NAN, 1.0, 0.0, 2.0), None);
    assert_eq!(break_even(0.0, 1.0, 0.0, 2.0), Some(0.0));
    assert_eq!(break_even(0.0, 1.0, 0.0, 1.0), Some(0.0));
}
