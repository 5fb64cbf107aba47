//! ReLU, and how near an example comes to where a gradient jumps.

/// `y = max(0, x)`; NaN stays NaN.
pub(super) fn relu_forward(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| if *x <= 0.0 { 0.0 } else { *x }).collect()
}

/// `dx = dy where x > 0, else 0`. Also returns the smallest `|x|`, among those that get a gradient and are not exactly
/// 0, relative to the root mean square of x.
pub(super) fn relu_backward(x: &[f64], dy: &[f64]) -> (Vec<f64>, f64) {
    let dx = x.iter().zip(dy).map(|(x, d)| if *x <= 0.0 { 0.0 } else { *d }).collect();
    let nearest = x.iter().zip(dy).filter(|(x, d)| **x != 0.0 && **d != 0.0).map(|(x, _)| x.abs());
    (dx, relative(nearest.fold(f64::INFINITY, f64::min), x))
}

/// `distance` over the root mean square of `x`, the scale of its rounding errors; infinity stays infinity.
pub(super) fn relative(distance: f64, x: &[f64]) -> f64 {
    if distance == f64::INFINITY {
        return distance;
    }
    distance / (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64).sqrt()
}
