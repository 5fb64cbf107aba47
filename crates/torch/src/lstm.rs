//! The LSTM as an unrolled cell (Hochreiter and Schmidhuber 1997, with a forget gate), from a zero state.
//!
//! libtorch's own LSTM, which the plain forward pass uses, hides its gates; batched per-example gradients need them.

use tch::Tensor;

use crate::error::Result;

/// Runs the cell over time and gives the hidden states, one `[k, H]` per step.
///
/// `inputs` is `[time, k, 4 H]`: each step's W_ih x + b, gates in the order i, f, g, o. `recur` gives the whole
/// pre-activation of a step, its input part plus W_hh h, from that part and the hidden state before.
pub fn unroll(inputs: &Tensor, recur: impl Fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Vec<Tensor>> {
    // unbind, not a select per step: its backward stacks once, where each select's would fill a whole [time, k, 4 H].
    let inputs = inputs.f_unbind(0)?;
    let mut hidden: Vec<Tensor> = Vec::with_capacity(inputs.len());
    let mut cell: Option<Tensor> = None;
    for input in &inputs {
        let gates = match hidden.last() {
            Some(hidden) => recur(input, hidden)?,
            None => input.shallow_clone(),
        };
        let gates = gates.f_chunk(4, 1)?;
        let (i, f, g, o) = (gates[0].f_sigmoid()?, gates[1].f_sigmoid()?, gates[2].f_tanh()?, gates[3].f_sigmoid()?);
        let new = match &cell {
            Some(cell) => f.f_mul(cell)?.f_addcmul(&i, &g)?,
            None => i.f_mul(&g)?,
        };
        hidden.push(o.f_mul(&new.f_tanh()?)?);
        cell = Some(new);
    }
    Ok(hidden)
}
