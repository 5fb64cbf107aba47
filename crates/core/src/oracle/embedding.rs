//! A row of a table for each token.

use super::add_scaled;

/// `y[t, :] = W[token_t, :]`.
pub(super) fn forward(weight: &[f64], width: usize, tokens: &[usize]) -> Vec<f64> {
    tokens.iter().flat_map(|token| &weight[token * width..(token + 1) * width]).copied().collect()
}

/// `dW[token_t, :] += dy[t, :]`: a repeated token's row gets the sum.
pub(super) fn backward(width: usize, tokens: &[usize], dy: &[f64], d_weight: &mut [f64]) {
    for (token, d) in tokens.iter().zip(dy.chunks_exact(width)) {
        add_scaled(&mut d_weight[token * width..(token + 1) * width], 1.0, d);
    }
}
