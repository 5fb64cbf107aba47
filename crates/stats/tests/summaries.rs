//! Location, spread, outliers and drift against numpy and scipy 1.17.1.

use dpsgd_stats::{drift, geometric_mean, mad, mean, median, outliers, quantile};

const VALUES: [f64; 7] = [9.0, 1.0, 4.0, 16.0, 25.0, 2.5, 7.0];

#[track_caller]
fn close(found: Option<f64>, expected: f64) {
    let found = found.expect("a figure");
    assert!((found - expected).abs() <= 1e-12 * expected.abs().max(1.0), "{found}, expected {expected}");
}

#[test]
fn quantiles_are_those_of_numpy() {
    let expected = [(0.0, 1.0), (0.1, 1.9), (0.25, 3.25), (0.5, 7.0), (0.9, 19.6), (1.0, 25.0)];
    for (q, value) in expected {
        close(quantile(&VALUES, q), value);
    }
    close(median(&[3.0, 1.0]), 2.0);
    close(median(&[5.0]), 5.0);
}

#[test]
fn mean_geometric_mean_and_mad_are_those_of_numpy_and_scipy() {
    close(mean(&VALUES), 9.214_285_714_285_714);
    close(geometric_mean(&VALUES), 5.910_560_249_440_979);
    close(mad(&VALUES), 4.5);
}

#[test]
fn what_cannot_be_computed_is_none_and_not_a_nan() {
    for values in [&[][..], &[1.0, f64::NAN]] {
        assert_eq!(mean(values), None);
        assert_eq!(median(values), None);
        assert_eq!(mad(values), None);
        assert_eq!(outliers(values), None);
        assert_eq!(drift(values), None);
    }
    assert_eq!(geometric_mean(&[1.0, 0.0]), None);
    assert_eq!(quantile(&VALUES, 1.1), None);
    assert_eq!(quantile(&VALUES, f64::NAN), None);
}

#[test]
fn outliers_are_counted_on_their_side_of_the_median() {
    let values = [1.00, 1.01, 0.99, 1.02, 0.98, 1.00, 1.01, 0.99, 2.00, 0.50];
    let found = outliers(&values).unwrap();
    assert_eq!((found.high, found.low), (1, 1));
    assert_eq!(found.share, 0.2);
    assert_eq!(found.worst_over_median, 2.0);
}

#[test]
fn jitter_of_a_percent_is_no_outlier_even_where_most_values_are_equal() {
    let mut values = [1.0; 20];
    values[7] = 1.01;
    assert_eq!(outliers(&values).unwrap().share, 0.0);
}

#[test]
fn a_drift_has_the_slope_of_scipy_and_the_p_value_of_mann_and_kendall() {
    let values = [1.0, 1.02, 1.05, 1.01, 1.09, 1.12, 1.10, 1.18, 1.2, 1.19];
    let found = drift(&values).unwrap();
    close(Some(found.slope), 0.025);
    close(Some(found.relative_change), 0.025 * 9.0 / 1.095);
    // S = 37 of 45 pairs.
    close(Some(found.p_value), 0.001_282_183_741_804_8);
}

#[test]
fn a_constant_series_has_neither_outliers_nor_drift() {
    let flat = [2.0; 12];
    assert_eq!(outliers(&flat).unwrap().share, 0.0);
    let drift = drift(&flat).unwrap();
    assert_eq!((drift.slope, drift.p_value), (0.0, 1.0));
}
