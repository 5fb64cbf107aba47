//! Intervals against exact bootstrap distributions, and how often they hold the truth.

use dpsgd_stats::{bootstrap_median_ci95, ratio_ci95};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

#[test]
fn seven_processes_of_one_epoch_give_the_exact_bootstrap_interval() {
    let times = [1.0, 1.1, 1.3, 1.6, 2.0, 2.5, 3.1];
    // All 7^7 ways to draw seven of seven, and how often each time is their median.
    let mut counts = [0_u32; 7];
    for code in 0..7_u32.pow(7) {
        let mut drawn = [0_usize; 7];
        let mut rest = code as usize;
        for slot in &mut drawn {
            *slot = rest % 7;
            rest /= 7;
        }
        drawn.sort_unstable();
        counts[drawn[3]] += 1;
    }
    let all = f64::from(7_u32.pow(7));
    let at = |share: f64| {
        let mut sum = 0.0;
        let i = counts.iter().position(|count| {
            sum += f64::from(*count) / all;
            sum >= share
        });
        times[i.unwrap()]
    };
    let processes: Vec<Vec<f64>> = times.iter().map(|time| vec![*time]).collect();
    assert_eq!(bootstrap_median_ci95(&processes, 3), Some([at(0.025), at(0.975)]));
}

#[test]
fn two_processes_give_the_two_of_them_as_ends() {
    assert_eq!(bootstrap_median_ci95(&[vec![1.0; 5], vec![2.0; 5]], 0), Some([1.0, 2.0]));
}

#[test]
fn processes_are_the_replicates_and_not_epochs() {
    // A thousand epochs of four processes that differ by 10% say no more about the fifth than four epochs would.
    let long: Vec<Vec<f64>> = [1.0, 1.1, 1.2, 1.3].iter().map(|time| vec![*time; 250]).collect();
    let [low, high] = bootstrap_median_ci95(&long, 1).unwrap();
    assert!(low <= 1.05 && high >= 1.25, "[{low}, {high}]");
}

#[test]
fn an_interval_is_the_same_for_the_same_seed_and_none_without_an_epoch() {
    let processes = [vec![1.0, 1.4, 1.1], vec![1.2, 1.3], vec![]];
    assert_eq!(bootstrap_median_ci95(&processes, 5), bootstrap_median_ci95(&processes, 5));
    assert_eq!(bootstrap_median_ci95(&processes[..2], 5), bootstrap_median_ci95(&processes, 5));
    assert_eq!(bootstrap_median_ci95(&[], 5), None);
    assert_eq!(bootstrap_median_ci95(&[vec![]], 5), None);
    assert_eq!(bootstrap_median_ci95(&[vec![f64::NAN]], 5), None);
    assert_eq!(bootstrap_median_ci95(&[vec![2.0]], 5), Some([2.0, 2.0]));
}

#[test]
fn intervals_of_ten_processes_hold_the_true_median_about_nineteen_times_of_twenty() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut normal = || -> f64 { StandardNormal.sample(&mut rng) };
    let trials = 300;
    let mut held = 0;
    for seed in 0..trials {
        let process = |own: f64, normal: &mut dyn FnMut() -> f64| (0..6).map(|_| 10.0 + own + 0.3 * normal()).collect();
        let processes: Vec<Vec<f64>> = (0..10)
            .map(|_| {
                let own = normal();
                process(own, &mut normal)
            })
            .collect();
        let [low, high] = bootstrap_median_ci95(&processes, seed).unwrap();
        held += u32::from((low..=high).contains(&10.0));
    }
    let share = f64::from(held) / trials as f64;
    assert!((0.89..=0.99).contains(&share), "{share}");
}

#[test]
fn a_ratio_is_the_geometric_mean_of_its_pairs_whichever_is_the_denominator() {
    let (a, b) = ([2.0, 8.0, 4.0], [1.0, 2.0, 4.0]);
    let forward = ratio_ci95(&a, &b, 0).unwrap();
    let backward = ratio_ci95(&b, &a, 0).unwrap();
    assert!((forward.ratio - 2.0).abs() < 1e-12);
    assert!((forward.ratio * backward.ratio - 1.0).abs() < 1e-12);
    assert_eq!(forward.pairs, 3);
}

#[test]
fn what_slows_both_halves_of_a_round_cancels() {
    // Rounds differ a hundredfold, the two of a round never by more than 2%.
    let b = [1.0, 100.0, 10.0, 3.0, 50.0, 7.0];
    let a: Vec<f64> = b.iter().zip([2.0, 2.02, 1.98, 2.01, 1.99, 2.0]).map(|(b, ratio)| b * ratio).collect();
    let [low, high] = ratio_ci95(&a, &b, 0).unwrap().ci95.unwrap();
    assert!((1.98..2.0).contains(&low) && 2.0 < high && high <= 2.02, "[{low}, {high}]");
}

#[test]
fn a_ratio_of_two_pairs_has_its_pairs_as_ends_and_one_pair_has_no_interval() {
    // A quarter of the resamples draw one pair twice, a quarter the other.
    let [low, high] = ratio_ci95(&[2.0, 3.0], &[1.0, 1.0], 0).unwrap().ci95.unwrap();
    assert!((low - 2.0).abs() < 1e-12 && (high - 3.0).abs() < 1e-12);
    assert_eq!(ratio_ci95(&[2.0], &[1.0], 0).unwrap().ci95, None);
}

#[test]
fn pairs_that_are_no_pairs_are_none() {
    assert_eq!(ratio_ci95(&[1.0, 2.0], &[1.0], 0), None);
    assert_eq!(ratio_ci95(&[], &[], 0), None);
    assert_eq!(ratio_ci95(&[1.0, 0.0], &[1.0, 1.0], 0), None);
    assert_eq!(ratio_ci95(&[1.0, f64::NAN], &[1.0, 1.0], 0), None);
}
