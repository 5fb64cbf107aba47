//! Estimates against figures worked out by hand, and how often their intervals hold the truth.

use dpsgd_stats::{Estimate, Pool, t_975};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Standard normal numbers.
fn normals(seed: u64) -> impl FnMut() -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    move || StandardNormal.sample(&mut rng)
}

#[test]
fn a_figure_is_the_geometric_mean_with_students_interval_on_logarithms() {
    // Logarithms 0, 1, 2, 3: mean 1.5, variance 5/3; the t of three degrees of freedom is 3.18245.
    let figures: Vec<f64> = (0..4).map(|i| f64::from(i).exp()).collect();
    let found = Estimate::of(&figures).unwrap();
    let reach = 3.182_446 * (5.0 / 3.0 / 4.0_f64).sqrt();
    let [low, high] = found.ci95.unwrap().map(f64::ln);
    assert!((found.value.ln() - 1.5).abs() < 1e-12 && (low - 1.5 + reach).abs() < 1e-5, "{found:?}");
    assert!((high - 1.5 - reach).abs() < 1e-5 && (found.degrees, found.count) == (3.0, 4));
}

#[test]
fn fewer_than_four_have_no_interval_and_what_is_no_time_no_figure() {
    assert_eq!(Estimate::of(&[1.0, 1.1, 1.2]).unwrap().ci95, None);
    assert_eq!(Estimate::of(&[2.0]).unwrap().standard_error, None);
    for figures in [&[][..], &[1.0, 0.0], &[1.0, -1.0], &[1.0, f64::NAN], &[f64::INFINITY]] {
        assert_eq!(Estimate::of(figures), None, "{figures:?}");
    }
    assert_eq!(Estimate::of_ratio(&[1.0, 2.0], &[1.0]), None);
}

#[test]
fn a_ratio_is_the_geometric_mean_of_its_pairs_whichever_is_the_denominator() {
    let (a, b) = ([2.0, 8.0, 4.0, 1.0], [1.0, 2.0, 4.0, 0.5]);
    let (forward, backward) = (Estimate::of_ratio(&a, &b).unwrap(), Estimate::of_ratio(&b, &a).unwrap());
    assert!((forward.value - 2.0).abs() < 1e-12 && (forward.value * backward.value - 1.0).abs() < 1e-12);
    let (there, back) = (forward.ci95.unwrap(), backward.ci95.unwrap());
    assert!((there[0] * back[1] - 1.0).abs() < 1e-12 && (there[1] * back[0] - 1.0).abs() < 1e-12);
    // Logarithms of 2 of the pairs: 1, 2, 0, 1. Their variance is 2/3.
    let reach = 3.182_446 * (2.0 / 3.0 / 4.0_f64).sqrt();
    assert!((there[1].log2() - 1.0 - reach).abs() < 1e-5, "{there:?}");
}

#[test]
fn what_slows_both_halves_of_a_pair_cancels() {
    // Pairs differ a hundredfold, the two of a pair never by more than 2%.
    let b = [1.0, 100.0, 10.0, 3.0, 50.0, 7.0];
    let a: Vec<f64> = b.iter().zip([2.0, 2.02, 1.98, 2.01, 1.99, 2.0]).map(|(b, ratio)| b * ratio).collect();
    let [low, high] = Estimate::of_ratio(&a, &b).unwrap().ci95.unwrap();
    assert!((1.98..2.0).contains(&low) && 2.0 < high && high <= 2.02, "[{low}, {high}]");
}

/// Figures of `processes` processes of each row, whose logarithms scatter by its own spread about 0.
fn run(spreads: &[f64], processes: usize, normal: &mut impl FnMut() -> f64) -> Vec<Vec<f64>> {
    spreads.iter().map(|spread| (0..processes).map(|_| (spread * normal()).exp()).collect()).collect()
}

#[test]
fn rows_that_scatter_alike_have_the_degrees_of_freedom_of_all() {
    let mut normal = normals(3);
    let mut whole = 0;
    for _ in 0..100 {
        let rows = run(&[0.1; 20], 5, &mut normal);
        let pool = Pool::of(rows.iter().map(Vec::as_slice)).unwrap();
        assert_eq!(pool.all, 80.0);
        assert!((0.06..0.14).contains(&pool.variance.sqrt()), "{pool:?}");
        let found = Estimate::pooled(&rows[0], &pool).unwrap();
        assert!(found.degrees <= 80.0 && found.pooled);
        whole += usize::from(found.degrees == 80.0);
    }
    // Half of all runs have variances that differ by more than chance makes them, by chance.
    assert!(whole > 40, "{whole}");
}

#[test]
fn rows_that_scatter_differently_keep_more_of_their_own() {
    let mut normal = normals(4);
    let spreads: Vec<f64> = (0..20).map(|i| 0.01 * 1.25_f64.powi(i)).collect();
    for _ in 0..100 {
        let rows = run(&spreads, 5, &mut normal);
        let pool = Pool::of(rows.iter().map(Vec::as_slice)).unwrap();
        assert!(pool.degrees < 6.0, "{pool:?}");
    }
}

#[test]
fn two_rows_make_no_pool_and_equal_figures_none() {
    let rows = [vec![1.0, 1.1, 1.2], vec![2.0, 2.1, 2.3]];
    assert_eq!(Pool::of(rows.iter().map(Vec::as_slice)), None);
    let equal = vec![vec![1.0; 5]; 8];
    assert_eq!(Pool::of(equal.iter().map(Vec::as_slice)), None);
}

/// Shares of rows whose interval holds the truth, least and most noisy third of the rows and all; and the mean half
/// width of their intervals over that by a known spread.
fn coverage(spreads: &[f64], processes: usize, pooled: bool, normal: &mut impl FnMut() -> f64) -> [f64; 4] {
    let (runs, third) = (400, spreads.len() / 3);
    let (mut held, mut width) = (vec![0.0; spreads.len()], 0.0);
    for _ in 0..runs {
        let rows = run(spreads, processes, normal);
        let pool = Pool::of(rows.iter().map(Vec::as_slice)).unwrap();
        for (i, row) in rows.iter().enumerate() {
            let found = if pooled { Estimate::pooled(row, &pool) } else { Estimate::of(row) };
            let [low, high] = found.unwrap().ci95.unwrap();
            held[i] += f64::from((low..=high).contains(&1.0)) / f64::from(runs);
            let known = 1.96 * spreads[i] / (processes as f64).sqrt();
            width += (high / low).ln() / 2.0 / known / spreads.len() as f64 / f64::from(runs);
        }
    }
    let mean = |shares: &[f64]| shares.iter().sum::<f64>() / shares.len() as f64;
    [mean(&held[..third]), mean(&held[spreads.len() - third..]), mean(&held), width]
}

#[test]
fn intervals_of_five_and_ten_processes_hold_the_truth_nineteen_times_of_twenty() {
    let mut normal = normals(5);
    let alike = vec![0.05; 24];
    let spread_out: Vec<f64> = (0..24).map(|i| 0.02 * 1.1_f64.powi(i)).collect();
    let two_kinds: Vec<f64> = (0..24).map(|i| if i < 16 { 0.02 } else { 0.12 }).collect();
    for (name, spreads) in [("alike", &alike), ("spread out", &spread_out), ("two kinds", &two_kinds)] {
        for (processes, pooled) in [(5, true), (5, false), (10, false)] {
            let [quiet, noisy, all, width] = coverage(spreads, processes, pooled, &mut normal);
            let about =
                format!("{name}, {processes}, {pooled}: quiet {quiet:.3} noisy {noisy:.3} all {all:.3} x{width:.2}");
            println!("{about}");
            assert!((0.93..=0.97).contains(&all), "{about}");
            assert!(quiet >= 0.93 && noisy >= 0.88, "{about}");
        }
    }
    // What pooling is for: intervals of five processes that are less wide.
    let [.., own] = coverage(&alike, 5, false, &mut normal);
    let [.., pooled] = coverage(&alike, 5, true, &mut normal);
    assert!(pooled < 1.1 && own > 1.25, "{pooled} {own}");
}

#[test]
fn t_shrinks_to_the_normal_quantile() {
    assert!(t_975(3.0) > t_975(4.0) && t_975(1e6) > 1.9599 && t_975(f64::INFINITY) < 1.96);
}
