//! The gradient of the loss with respect to the model's outputs.

use dpsgd_core::Loss;

use super::data::Data;
use crate::layout::Frame;
use crate::plan::Plan;

/// Writes the gradient of each example's loss where the last edge wants it.
pub fn gradient(plan: &Plan, data: &Data, examples: &[u32], values: &[f32], gradients: &mut [f32]) {
    let edge = plan.edges.last().expect("there is an output");
    for (slot, example) in examples.iter().enumerate() {
        let value = |output: usize| values[place(plan, edge.value, slot, output)];
        let outputs = plan.outputs.len();
        let mut set = |output: usize, gradient: f32| {
            // Where the model ends in a ReLU, its mask is part of the gradient.
            let gradient = if edge.relu && value(output) <= 0.0 { 0.0 } else { gradient };
            gradients[place(plan, edge.gradient, slot, output)] = gradient;
        };
        match plan.loss {
            Loss::CrossEntropy => {
                let largest = (0..outputs).map(value).fold(f32::NEG_INFINITY, f32::max);
                let total: f32 = (0..outputs).map(|output| (value(output) - largest).exp()).sum();
                let class = data.class(*example);
                for output in 0..outputs {
                    let softmax = (value(output) - largest).exp() / total;
                    set(output, if output == class { softmax - 1.0 } else { softmax });
                }
            }
            Loss::BceWithLogits => {
                let x = value(0);
                // Neither form loses digits: e^-|x| is at most 1.
                let e = (-x.abs()).exp();
                let (positive, negative) = if x >= 0.0 { (1.0, e) } else { (e, 1.0) };
                // sigma(x) - y for y of 0 or 1, without the cancellation in sigma(x) - 1.
                let y = data.value(*example);
                set(0, ((1.0 - y) * positive - y * negative) / (1.0 + e));
            }
            Loss::Mse => set(0, 2.0 * (value(0) - data.value(*example))),
        }
    }
}

fn place(plan: &Plan, frame: Frame, slot: usize, output: usize) -> usize {
    let [y, x, c] = plan.outputs[output];
    slot * frame.example + frame.at(y, x) + c
}

/// The model's outputs for the block's examples, `[examples, outputs]` in PyTorch's order.
pub fn outputs<'a>(plan: &'a Plan, values: &'a [f32], examples: usize) -> impl Iterator<Item = f32> + 'a {
    let edge = plan.edges.last().expect("there is an output");
    (0..examples)
        .flat_map(move |slot| (0..plan.outputs.len()).map(move |output| values[place(plan, edge.value, slot, output)]))
}
