//! y = W x + b.

use super::{add_scaled, dot};

/// `y[o] = b[o] + sum_i W[o, i] x[i]`.
pub(super) fn forward(weight: &[f64], bias: &[f64], x: &[f64]) -> Vec<f64> {
    weight.chunks_exact(x.len()).zip(bias).map(|(row, b)| b + dot(row, x)).collect()
}

/// `dW[o, i] += dy[o] x[i]`, `db[o] += dy[o]`; returns `dx[i] = sum_o dy[o] W[o, i]`.
pub(super) fn backward(weight: &[f64], x: &[f64], dy: &[f64], d_weight: &mut [f64], d_bias: &mut [f64]) -> Vec<f64> {
    let mut dx = vec![0.0; x.len()];
    for (o, d) in dy.iter().enumerate() {
        let row = o * x.len()..(o + 1) * x.len();
        add_scaled(&mut d_weight[row.clone()], *d, x);
        add_scaled(&mut dx, *d, &weight[row]);
        d_bias[o] += d;
    }
    dx
}
