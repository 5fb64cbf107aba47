//! The losses of one example, written so that nothing overflows and no gradient cancels.

use crate::{Loss, Targets};

/// The loss of outputs `y` against target `index`.
pub(super) fn value(loss: Loss, y: &[f64], targets: &Targets, index: usize) -> f64 {
    match loss {
        // -log softmax(y)[class] = log sum_k exp(y_k) - y_class
        Loss::CrossEntropy => log_sum_exp(y) - y[class(targets, index)],
        // -t log sigmoid(y) - (1 - t) log(1 - sigmoid(y)) = max(y, 0) - t y + log(1 + exp(-|y|))
        Loss::BceWithLogits => y[0].max(0.0) - number(targets, index) * y[0] + (-y[0].abs()).exp().ln_1p(),
        Loss::Mse => (y[0] - number(targets, index)).powi(2),
    }
}

/// The gradient of [`value`] with respect to `y`.
pub(super) fn gradient(loss: Loss, y: &[f64], targets: &Targets, index: usize) -> Vec<f64> {
    match loss {
        // p - onehot; p_class - 1 is minus the sum of the other p, which does not cancel when p_class is near 1.
        Loss::CrossEntropy => {
            let normalizer = log_sum_exp(y);
            let mut d: Vec<f64> = y.iter().map(|y| (y - normalizer).exp()).collect();
            let class = class(targets, index);
            d[class] = 0.0;
            d[class] = -d.iter().sum::<f64>();
            d
        }
        // sigmoid(y) - t, likewise.
        Loss::BceWithLogits => {
            let t = number(targets, index);
            vec![(1.0 - t) / (1.0 + (-y[0]).exp()) - t / (1.0 + y[0].exp())]
        }
        Loss::Mse => vec![2.0 * (y[0] - number(targets, index))],
    }
}

fn log_sum_exp(y: &[f64]) -> f64 {
    let largest = y.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest + y.iter().map(|y| (y - largest).exp()).sum::<f64>().ln()
}

fn class(targets: &Targets, index: usize) -> usize {
    match targets {
        Targets::Class(classes) => classes[index] as usize,
        Targets::Value(_) => unreachable!("cross-entropy takes classes: check_fits says so"),
    }
}

fn number(targets: &Targets, index: usize) -> f64 {
    match targets {
        Targets::Value(values) => values[index].into(),
        Targets::Class(_) => unreachable!("this loss takes numbers: check_fits says so"),
    }
}
