//! The gradient of the loss with respect to the model's outputs.

use dpsgd_core::Loss;

use super::data::Data;
use crate::kernels::CrossEntropyGradient;
use crate::layout::Frame;
use crate::plan::{Edge, Plan};
use crate::simd::Isa;

/// Examples whose classes are looked up at once.
const TOGETHER: usize = 64;

/// Writes the gradient of each example's loss where `edge`, the last one, wants it.
pub fn gradient<I: Isa>(
    isa: I,
    plan: &Plan,
    edge: &Edge,
    data: &Data,
    examples: &[u32],
    values: &[f32],
    gradients: &mut [f32],
) {
    if plan.loss == Loss::CrossEntropy && edge.value.grid.pixels() == 1 && !edge.relu {
        for (number, some) in examples.chunks(TOGETHER).enumerate() {
            let mut classes = [0; TOGETHER];
            for (class, example) in classes.iter_mut().zip(some) {
                *class = data.class(*example) as u32;
            }
            isa.dispatch(CrossEntropyGradient {
                logits: &values[number * TOGETHER * edge.value.example..],
                pitch: edge.value.example,
                gradients: &mut gradients[number * TOGETHER * edge.gradient.example..],
                gradient_pitch: edge.gradient.example,
                outputs: plan.outputs.len(),
                classes: &classes[..some.len()],
            });
        }
        return;
    }
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
                let power = |output: usize| (value(output) - largest).exp();
                let class = data.class(*example);
                // Softmax - 1 is minus the share of all others: see `CrossEntropyGradient`.
                let others: f32 = (0..outputs).filter(|output| *output != class).map(power).sum();
                let total = others + power(class);
                for output in 0..outputs {
                    set(output, if output == class { -others / total } else { power(output) / total });
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
