//! LSTMs.

use std::ops::Range;

use super::Edge;
use crate::layout::{Frame, Grid, Margins, Panels, Position, Row, Rows, Segment, offset};

/// A single-layer LSTM from a zero state.
///
/// Its parameters are one affine map from (x, h of the step before) to the four gates. A time step is two products over
/// the block's examples and a pointwise half; the weight gradient of an example is one product over time and is kept.
pub struct Lstm {
    /// The model's layer.
    pub layer: usize,
    /// Time steps.
    pub time: usize,
    /// Length of x.
    pub inputs: usize,
    /// Length of h.
    pub hidden: usize,
    /// Rows over x, h and the bias; outputs i, f, g, o.
    pub panels: Panels,
    /// Their place among all parameters.
    pub parameters: Range<usize>,
    /// The gates of all time steps, and later the gradients of their pre-activations.
    pub gates: Frame,
    /// c of all time steps; tanh c lies the same way.
    pub cells: Frame,
    /// x to gates: one row per example, at time 0.
    pub from_inputs: Rows,
    /// h to gates of the next step: one row per example, from h at time 0 to the gates at time 0.
    pub from_hidden: Rows,
    /// Gradients of the gates to that of h before: one row per example, at time 0.
    pub to_hidden: Rows,
    /// Gradients of the gates to that of x: one row per example, at time 0; none if it isn't needed.
    pub to_inputs: Option<Rows>,
    /// Positions of the weight gradient in x: block's examples, then time steps.
    pub input_positions: Vec<Position>,
    /// Positions of the weight gradient in h, without the first step: block's examples, then time steps.
    pub hidden_positions: Vec<Position>,
    /// 0, 1, 2, ...: the columns of x and of h.
    pub columns: Vec<u32>,
    needs_input_gradient: bool,
}

impl Lstm {
    /// The layer without tables, which need frames: see [`Lstm::place`].
    pub fn new(
        layer: usize,
        time: usize,
        inputs: usize,
        hidden: usize,
        first_parameter: usize,
        needs_input_gradient: bool,
    ) -> Self {
        let panels = Panels { depth: inputs + hidden + 1, outputs: 4 * hidden };
        let sequence = |c: usize| Frame::new(Grid { h: time, w: 1, c }, Margins::default());
        Lstm {
            layer,
            time,
            inputs,
            hidden,
            panels,
            parameters: first_parameter..first_parameter + panels.len(),
            gates: sequence(4 * hidden),
            cells: sequence(hidden),
            from_inputs: Rows::default(),
            from_hidden: Rows::default(),
            to_hidden: Rows::default(),
            to_inputs: None,
            input_positions: Vec::new(),
            hidden_positions: Vec::new(),
            columns: (0..inputs.max(hidden)).map(offset).collect(),
            needs_input_gradient,
        }
    }

    /// Makes the tables for these frames and blocks of `block` examples.
    pub fn place(&mut self, input: &Edge, output: &Edge, block: usize) {
        let gates = self.gates;
        let row = |input: usize, output: usize| Row { input: offset(input), output: offset(output), mask: 0 };
        let examples = 0..block;
        self.from_inputs = examples.clone().map(|e| row(e * input.value.example, e * gates.example)).collect();
        self.from_hidden = examples.clone().map(|e| row(e * output.value.example, e * gates.example)).collect();
        self.to_hidden = examples.clone().map(|e| row(e * gates.example, e * self.hidden)).collect();
        let all = || examples.clone().flat_map(|example| (0..self.time).map(move |t| (example, t)));
        if self.needs_input_gradient {
            let rows = examples.clone().map(|e| row(e * gates.example, e * input.gradient.example));
            self.to_inputs = Some(rows.collect());
        }
        let at = |from: &Frame, example: usize, t: usize| example * from.example + from.at(t, 0);
        let position = |input: usize, gradient: usize| Position { input: offset(input), gradient: offset(gradient) };
        self.input_positions = all().map(|(e, t)| position(at(&input.value, e, t), at(&gates, e, t))).collect();
        self.hidden_positions = all()
            .filter(|(_, t)| *t > 0)
            .map(|(e, t)| position(at(&output.value, e, t - 1), at(&gates, e, t)))
            .collect();
    }

    /// How the transposed weights of x are cut.
    pub fn transposed_inputs(&self) -> Panels {
        Panels { depth: 4 * self.hidden, outputs: self.inputs }
    }

    /// How the transposed weights of h are cut.
    pub fn transposed_hidden(&self) -> Panels {
        Panels { depth: 4 * self.hidden, outputs: self.hidden }
    }

    /// The window of x, of h and of the gates.
    pub fn segments(&self) -> [[Segment; 1]; 3] {
        [self.inputs, self.hidden, 4 * self.hidden].map(|len| [Segment::first(len)])
    }
}
