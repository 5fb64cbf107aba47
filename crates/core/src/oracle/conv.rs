//! Convolution (cross-correlation, as in PyTorch): at every output position, a linear layer on the patch under the
//! kernel.

use super::windows::Windows;
use super::{add_scaled, dot};

/// `y[o, t] = b[o] + sum_j W[o, j] patch_t[j]`, where position t = (row, column) of the output and
/// j = (channel, kernel row, kernel column); see [`Windows::patch`].
pub(super) fn forward(windows: &Windows, weight: &[f64], bias: &[f64], x: &[f64]) -> Vec<f64> {
    let positions = windows.positions();
    let mut y = vec![0.0; bias.len() * positions];
    for t in 0..positions {
        let patch = windows.patch(x, t);
        for (o, (row, b)) in weight.chunks_exact(patch.len()).zip(bias).enumerate() {
            y[o * positions + t] = b + dot(row, &patch);
        }
    }
    y
}

/// `dW[o, j] += sum_t dy[o, t] patch_t[j]`, `db[o] += sum_t dy[o, t]`; returns dx, to which every position adds
/// `sum_o dy[o, t] W[o, j]` where its patch was taken.
pub(super) fn backward(
    windows: &Windows,
    weight: &[f64],
    x: &[f64],
    dy: &[f64],
    d_weight: &mut [f64],
    d_bias: &mut [f64],
) -> Vec<f64> {
    let positions = windows.positions();
    let mut dx = vec![0.0; x.len()];
    for t in 0..positions {
        let patch = windows.patch(x, t);
        let mut d_patch = vec![0.0; patch.len()];
        for (o, d_bias) in d_bias.iter_mut().enumerate() {
            let d = dy[o * positions + t];
            let row = o * patch.len()..(o + 1) * patch.len();
            add_scaled(&mut d_weight[row.clone()], d, &patch);
            add_scaled(&mut d_patch, d, &weight[row]);
            *d_bias += d;
        }
        windows.add_patch(&mut dx, t, &d_patch);
    }
    dx
}
