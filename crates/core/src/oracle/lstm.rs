//! A single-layer LSTM from a zero state with one bias; all hidden states are its output.
//!
//! ```text
//! z_t = W_ih x_t + W_hh h_{t-1} + b,  its four parts of length H in the order i, f, g, o
//! i, f, o = sigmoid(z),  g = tanh(z)
//! c_t = f c_{t-1} + i g
//! h_t = o tanh(c_t)
//! ```

use super::{add_scaled, dot, linear};

/// `W_ih` `[4H, D]`, `W_hh` `[4H, H]` and `b` `[4H]`, or their gradients.
pub(super) struct Weights<T> {
    pub(super) input: T,
    pub(super) hidden: T,
    pub(super) bias: T,
}

/// What the backward pass needs of the forward pass.
pub(super) struct States {
    /// i, f, g, o of each step: `[T, 4H]`.
    gates: Vec<f64>,
    /// c of each step: `[T, H]`.
    cells: Vec<f64>,
}

/// h of each step, `[T, H]`, for x `[T, D]`.
pub(super) fn forward(weights: &Weights<&[f64]>, width: usize, x: &[f64]) -> (Vec<f64>, States) {
    let hidden = weights.bias.len() / 4;
    let (mut h, mut c) = (vec![0.0; hidden], vec![0.0; hidden]);
    let mut y = Vec::new();
    let mut states = States { gates: Vec::new(), cells: Vec::new() };
    for x in x.chunks_exact(width) {
        let mut z = linear::forward(weights.input, weights.bias, x);
        for (z, row) in z.iter_mut().zip(weights.hidden.chunks_exact(hidden)) {
            *z += dot(row, &h);
        }
        let (i_f, g_o) = z.split_at_mut(2 * hidden);
        let (g, o) = g_o.split_at_mut(hidden);
        i_f.iter_mut().chain(o).for_each(|z| *z = sigmoid(*z));
        g.iter_mut().for_each(|z| *z = z.tanh());
        for k in 0..hidden {
            let [i, f, g, o] = gates(&z, k);
            c[k] = f * c[k] + i * g;
            h[k] = o * c[k].tanh();
        }
        y.extend(&h);
        states.cells.extend(&c);
        states.gates.extend(z);
    }
    (y, states)
}

/// Adds to the gradients of the weights and returns dx, for dy `[T, H]`, from the last step to the first:
///
/// ```text
/// dh_t = dy_t + W_hh^T dz_{t+1}
/// dc_t = dh_t o (1 - tanh(c_t)^2) + dc_{t+1} f_{t+1}
/// dz_t = (dc_t g i(1-i),  dc_t c_{t-1} f(1-f),  dc_t i (1-g^2),  dh_t tanh(c_t) o(1-o))
/// dx_t = W_ih^T dz_t,  dW_ih += dz_t x_t^T,  dW_hh += dz_t h_{t-1}^T,  db += dz_t
/// ```
pub(super) fn backward(
    weights: &Weights<&[f64]>,
    width: usize,
    x: &[f64],
    y: &[f64],
    states: &States,
    dy: &[f64],
    gradients: Weights<&mut [f64]>,
) -> Vec<f64> {
    let hidden = weights.bias.len() / 4;
    let zero_state = vec![0.0; hidden];
    let mut unused_bias = vec![0.0; 4 * hidden];
    let mut dx = vec![0.0; x.len()];
    let (mut dh_next, mut dc_next) = (vec![0.0; hidden], vec![0.0; hidden]);
    for t in (0..y.len() / hidden).rev() {
        let now = t * hidden..(t + 1) * hidden;
        let (h_before, c_before) = match t {
            0 => (&zero_state[..], &zero_state[..]),
            _ => (&y[now.start - hidden..now.start], &states.cells[now.start - hidden..now.start]),
        };
        let c = &states.cells[now.clone()];
        let mut dz = vec![0.0; 4 * hidden];
        for k in 0..hidden {
            let [i, f, g, o] = gates(&states.gates[4 * now.start..4 * now.end], k);
            let dh = dy[now.start + k] + dh_next[k];
            let tanh_c = c[k].tanh();
            let dc = dh * o * (1.0 - tanh_c * tanh_c) + dc_next[k];
            dz[k] = dc * g * i * (1.0 - i);
            dz[hidden + k] = dc * c_before[k] * f * (1.0 - f);
            dz[2 * hidden + k] = dc * i * (1.0 - g * g);
            dz[3 * hidden + k] = dh * tanh_c * o * (1.0 - o);
            dc_next[k] = dc * f;
        }
        let step = t * width..(t + 1) * width;
        let dx_now = linear::backward(weights.input, &x[step.clone()], &dz, gradients.input, gradients.bias);
        dh_next = linear::backward(weights.hidden, h_before, &dz, gradients.hidden, &mut unused_bias);
        add_scaled(&mut dx[step], 1.0, &dx_now);
    }
    dx
}

/// i, f, g and o of unit `k` in the `[4H]` of one step.
fn gates(step: &[f64], k: usize) -> [f64; 4] {
    let hidden = step.len() / 4;
    [step[k], step[hidden + k], step[2 * hidden + k], step[3 * hidden + k]]
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}
