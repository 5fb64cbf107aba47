//! How far an update may be from the right one: as far as f32's rounding explains, and no further.

use dpsgd_core::Params;

use crate::prepare::Bounds;

/// f32's unit roundoff, 2^-24.
const ROUNDOFF: f64 = 5.960_464_477_539_063e-8;
/// Relative error that is always allowed, over all parameters: the floor, and what a registry's `tolerance` scales.
pub const FLOOR: f64 = 1e-5;
/// What roundings of independent signs may add up to, in square roots of their number; see `docs/methodology.md`.
const DEVIATIONS: f64 = 2.0;
/// Relative error allowed in a single tensor: half of what must be found.
const TENSOR: f64 = 5e-4;
/// Error allowed in a single tensor for what its sum adds up.
const TENSOR_ADDED: f64 = 1e-5;
/// Roundings of a parameter that is read, updated and written.
const READING: f64 = 4.0;

/// An update held against the right one.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// L2 norm of the error over that of the right update, over all parameters.
    pub relative_error: f64,
    /// The error over what is allowed, the largest of all parameters and each tensor; above 1 it is wrong.
    pub share: f64,
    /// What is wrong, with figures.
    pub wrong: Option<String>,
}

/// Compares `changes` with `expected`, for a contender that is allowed the relative error `tolerance` where others are
/// allowed [`FLOOR`].
///
/// Over all parameters, the error may be `max(FLOOR |E|, k u A)` with A what the sum adds up and k from
/// [`Bounds::roundings`]: where gradients cancel, so that E is short, rounding errors do not. In each tensor t it may be
/// `TENSOR |E_t| + TENSOR_ADDED A_t`, so that a layer that is short beside the others counts as well. Both may miss what
/// f32 parameters blur, and what the epsilon of a framework's clip factor takes away.
pub fn compare(changes: &[f64], expected: &[f64], initial: &Params, bounds: &Bounds, tolerance: f64) -> Comparison {
    let looser = tolerance / FLOOR;
    let blur = |length: f64, update: f64| ROUNDOFF * bounds.steps.sqrt() * (length + update);
    let (mut squared_error, mut squared_update, mut squared_length) = (0.0, 0.0, 0.0);
    let (mut share, mut wrong) = (0.0_f64, None);
    let mut begin = 0;
    let largest = |share: f64, other: f64| if other.is_nan() { f64::INFINITY } else { share.max(other) };
    let added = bounds.added_of_tensors.iter().zip(&bounds.epsilon_of_tensors);
    for (tensor, (added, epsilon)) in initial.tensors.iter().zip(added) {
        let here = begin..begin + tensor.values.len();
        begin = here.end;
        let error: f64 = changes[here.clone()].iter().zip(&expected[here.clone()]).map(|(a, b)| (a - b).powi(2)).sum();
        let update: f64 = expected[here].iter().map(|value| value.powi(2)).sum();
        let length: f64 = tensor.values.iter().map(|value| f64::from(*value).powi(2)).sum();
        squared_error += error;
        squared_update += update;
        squared_length += length;
        let (error, update) = (error.sqrt(), update.sqrt());
        let summed = TENSOR * update + TENSOR_ADDED * added;
        let allowed = looser * summed + epsilon + READING * blur(length.sqrt(), update);
        let of_this = if error == 0.0 { 0.0 } else { error / allowed };
        if of_this.is_nan() || of_this > 1.0 {
            let name = &tensor.name;
            let fault = format!("relative error {:.2e} of `{name}`, allowed {:.1e}", error / update, allowed / update);
            wrong = wrong.or(Some(fault));
        }
        share = largest(share, of_this);
    }
    let (error, update, length) = (squared_error.sqrt(), squared_update.sqrt(), squared_length.sqrt());
    let summed = DEVIATIONS * bounds.roundings * ROUNDOFF * bounds.added;
    let allowed = looser * summed.max(FLOOR * update) + bounds.epsilon + blur(length, update);
    let relative_error = if error == 0.0 { 0.0 } else { error / update };
    let of_all = if error == 0.0 { 0.0 } else { error / allowed };
    if of_all.is_nan() || of_all > 1.0 {
        wrong = Some(format!("relative error {relative_error:.2e}, allowed {:.1e}", allowed / update));
    }
    Comparison { relative_error, share: largest(share, of_all), wrong }
}

#[cfg(test)]
mod tests {
    use dpsgd_core::{ModelSpec, Tensor};

    use super::*;

    fn params() -> Params {
        let params = Params::init(&ModelSpec::built_in("logreg").unwrap(), 1);
        let shorter = |tensor: &Tensor| Tensor { values: vec![1e-3; tensor.values.len()], ..tensor.clone() };
        Params { tensors: params.tensors.iter().map(shorter).collect() }
    }

    fn bounds(added: f64) -> Bounds {
        let (added_of_tensors, epsilon_of_tensors) = (vec![added, 0.1], vec![0.0; 2]);
        Bounds { added, added_of_tensors, epsilon: 0.0, epsilon_of_tensors, roundings: 100.0, steps: 1.0 }
    }

    #[test]
    fn a_thousandth_of_a_short_tensor_is_found_where_it_is_nothing_beside_the_others() {
        let mut expected = vec![10.0; 105];
        expected[104] = 0.1;
        let mut changes = expected.clone();
        changes[104] *= 0.999;
        let found = compare(&changes, &expected, &params(), &bounds(102.0), FLOOR);
        assert!((found.relative_error / (1e-4 / 102.0) - 1.0).abs() < 0.01, "{found:?}");
        assert!(
            found.wrong.as_ref().unwrap().starts_with("relative error 1.00e-3 of `0.bias`, allowed 5."),
            "{found:?}"
        );
        let found = compare(&changes, &expected, &params(), &bounds(102.0), 1e-2);
        assert!(found.wrong.is_none() && found.share < 1.0, "a tolerance loosens both: {found:?}");
    }

    #[test]
    fn a_sum_that_nearly_cancels_may_be_off_by_what_its_terms_round_to() {
        let expected = vec![1.0; 105];
        let changes: Vec<f64> = expected.iter().map(|value| value * (1.0 + 1.6e-5)).collect();
        // 2 * 100 * 2^-24 of terms that add up to 1.5 times the sum: 1.8e-5.
        let length = 105.0_f64.sqrt();
        let found = compare(&changes, &expected, &params(), &bounds(1.5 * length), FLOOR);
        assert_eq!(found.wrong, None);
        assert!(found.share > 0.85 && found.share < 0.95, "{found:?}");
        let found = compare(&changes, &expected, &params(), &bounds(0.5 * length), FLOOR);
        assert!(found.wrong.unwrap().starts_with("relative error 1.60e-5, allowed 1.0e-5"));
    }

    #[test]
    fn a_framework_s_epsilon_beside_short_norms_is_no_fault() {
        let expected = vec![1.0; 105];
        let changes = vec![1.0 - 2e-5; 105];
        let mut bounds = bounds(0.5);
        assert!(compare(&changes, &expected, &params(), &bounds, FLOOR).wrong.is_some());
        // Norms of 0.05, all clipped.
        bounds.epsilon = 2e-5 * 105.0_f64.sqrt();
        assert_eq!(compare(&changes, &expected, &params(), &bounds, FLOOR).wrong, None);
    }

    #[test]
    fn what_is_not_a_number_is_wrong() {
        let found = compare(&[f64::NAN; 105], &[1.0; 105], &params(), &bounds(1.0), FLOOR);
        assert!(found.wrong.unwrap().contains("NaN") && found.share == f64::INFINITY);
    }
}
