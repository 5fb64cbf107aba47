//! The pointwise half of an LSTM's time step, forward and backward; the other half is products.
//!
//! Gates lie side by side in the order i, f, g, o, `hidden` numbers each: before a step their pre-activations, after it
//! the gates, and after the backward step the gradients of the pre-activations, all in the same place.

use super::math::{sigmoid, tanh};
use super::{load, store};
use crate::simd::{Isa, Kernel};

/// One time step of one example: c = f c' + i g, h = o tanh c.
pub struct LstmCell<'a> {
    /// `[4 hidden]`: pre-activations in, gates out.
    pub gates: &'a mut [f32],
    /// `[hidden]`: c of the step before; `None` at the first.
    pub cell_before: Option<&'a [f32]>,
    /// `[hidden]`: c.
    pub cell: &'a mut [f32],
    /// `[hidden]`: tanh c, for the backward step.
    pub cell_tanh: &'a mut [f32],
    /// `[hidden]`: h.
    pub output: &'a mut [f32],
}

impl Kernel for LstmCell<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let hidden = self.output.len();
        assert!(self.gates.len() == 4 * hidden && self.cell.len() == hidden && self.cell_tanh.len() == hidden);
        assert!(self.cell_before.is_none_or(|cell| cell.len() == hidden));
        let gates = self.gates.as_mut_ptr();
        let mut at = 0;
        while at < hidden {
            let count = I::LANES.min(hidden - at);
            // SAFETY: `count` numbers from `at` on lie in each gate and in every other slice.
            unsafe {
                let i = sigmoid(isa, load(isa, gates.add(at), count));
                let f = sigmoid(isa, load(isa, gates.add(hidden + at), count));
                let g = tanh(isa, load(isa, gates.add(2 * hidden + at), count));
                let o = sigmoid(isa, load(isa, gates.add(3 * hidden + at), count));
                let before = match self.cell_before {
                    Some(cell) => load(isa, cell.as_ptr().add(at), count),
                    None => isa.splat(0.0),
                };
                let cell = isa.mul_add(f, before, isa.mul(i, g));
                let cell_tanh = tanh(isa, cell);
                store(isa, gates.add(at), i, count);
                store(isa, gates.add(hidden + at), f, count);
                store(isa, gates.add(2 * hidden + at), g, count);
                store(isa, gates.add(3 * hidden + at), o, count);
                store(isa, self.cell.as_mut_ptr().add(at), cell, count);
                store(isa, self.cell_tanh.as_mut_ptr().add(at), cell_tanh, count);
                store(isa, self.output.as_mut_ptr().add(at), isa.mul(o, cell_tanh), count);
            }
            at += count;
        }
    }
}

/// The backward step of one example.
pub struct LstmCellGradient<'a> {
    /// `[4 hidden]`: gates in, gradients of the pre-activations out.
    pub gates: &'a mut [f32],
    /// `[hidden]`: c of the step before; `None` at the first.
    pub cell_before: Option<&'a [f32]>,
    /// `[hidden]`: tanh c.
    pub cell_tanh: &'a [f32],
    /// `[hidden]`: the gradient of h from the layer above.
    pub output_gradient: &'a [f32],
    /// `[hidden]`: the gradient of h from the next step; `None` at the last.
    pub recurrent_gradient: Option<&'a [f32]>,
    /// `[hidden]`: the gradient of c from the next step in, for the step before out; 0 at the last.
    pub cell_gradient: &'a mut [f32],
}

impl Kernel for LstmCellGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let hidden = self.output_gradient.len();
        assert!(self.gates.len() == 4 * hidden && self.cell_tanh.len() == hidden && self.cell_gradient.len() == hidden);
        assert!(self.cell_before.is_none_or(|cell| cell.len() == hidden));
        assert!(self.recurrent_gradient.is_none_or(|gradient| gradient.len() == hidden));
        let gates = self.gates.as_mut_ptr();
        let one = isa.splat(1.0);
        let zero = isa.splat(0.0);
        let mut at = 0;
        while at < hidden {
            let count = I::LANES.min(hidden - at);
            // SAFETY: `count` numbers from `at` on lie in each gate and in every other slice.
            unsafe {
                let i = load(isa, gates.add(at), count);
                let f = load(isa, gates.add(hidden + at), count);
                let g = load(isa, gates.add(2 * hidden + at), count);
                let o = load(isa, gates.add(3 * hidden + at), count);
                let cell_tanh = load(isa, self.cell_tanh.as_ptr().add(at), count);
                let before = match self.cell_before {
                    Some(cell) => load(isa, cell.as_ptr().add(at), count),
                    None => zero,
                };
                let mut dh = load(isa, self.output_gradient.as_ptr().add(at), count);
                if let Some(recurrent) = self.recurrent_gradient {
                    dh = isa.add(dh, load(isa, recurrent.as_ptr().add(at), count));
                }
                let later = load(isa, self.cell_gradient.as_ptr().add(at), count);
                // d tanh c = 1 - tanh^2 c.
                let slope = isa.sub(one, isa.mul(cell_tanh, cell_tanh));
                let dc = isa.mul_add(isa.mul(dh, o), slope, later);
                let di = isa.mul(isa.mul(dc, g), isa.mul(i, isa.sub(one, i)));
                let df = isa.mul(isa.mul(dc, before), isa.mul(f, isa.sub(one, f)));
                let dg = isa.mul(isa.mul(dc, i), isa.sub(one, isa.mul(g, g)));
                let d_o = isa.mul(isa.mul(dh, cell_tanh), isa.mul(o, isa.sub(one, o)));
                store(isa, self.cell_gradient.as_mut_ptr().add(at), isa.mul(dc, f), count);
                store(isa, gates.add(at), di, count);
                store(isa, gates.add(hidden + at), df, count);
                store(isa, gates.add(2 * hidden + at), dg, count);
                store(isa, gates.add(3 * hidden + at), d_o, count);
            }
            at += count;
        }
    }
}
