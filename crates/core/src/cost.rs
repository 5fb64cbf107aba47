//! FLOPs and bytes that a step needs at the least: the floor that a measured time is held against.
//!
//! **FLOPs** count a multiplication and an addition as one each. For a layer that is a matrix product, with T positions,
//! d inputs (of the im2col patch, for a convolution) and p outputs, per example:
//!
//! | piece | FLOPs |
//! |---|---|
//! | forward, bias included | 2Tpd |
//! | gradient of the layer's input | 2Tpd |
//! | gradient of the weights, added to the batch's | 2Tpd |
//! | privacy, T = 1: the norm is that of a product of two vectors | 2(p + d) |
//! | privacy, T > 1: the cheaper of squaring and scaled adding of the example's own weight gradient, 4pd, and of the two Gram matrices' inner product (half by symmetry), T²(p + d) | min(4pd, T²(p + d)) |
//!
//! Much of the literature counts 6Tpd for every layer. Here the input gradient of the first layer with parameters, and
//! of what lies before it, counts as 0, because no step needs it; that makes the plain step cheaper and the floor lower.
//! An LSTM is a matrix product with d = D + H, p = 4H. Smaller terms (the bias's gradient, the scaling of output
//! gradients) are left out.
//!
//! Everything else counts one per element handled, each way: activations, the cells of pooling windows, means, losses,
//! and in an LSTM the four gates, the cell and the hidden state. An embedding's gather counts nothing, its gradient one
//! per number, its privacy four (square and add, scale and add). The update of a parameter counts 2, with noise 4; how
//! normals are drawn is the generator's affair and counts nothing.
//!
//! **Bytes** are those that must pass between memory and processor even with a cache that holds all that a step makes
//! itself: inputs and targets of the batch read once, each parameter read once and written once; noise is never stored.
//! A plain step touches only the rows of an embedding table whose tokens occur, counted as if all of the batch's tokens
//! differed; the noise of a private step touches the whole table.

use std::iter::Sum;
use std::ops::Add;

use crate::{Layer, Mode, ModelError, ModelInput, ModelSpec, Pair, Shape};

/// What something costs at the least.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes moved between memory and processor.
    pub bytes: f64,
}

impl Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost { flops: self.flops + other.flops, bytes: self.bytes + other.bytes }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Cost>>(costs: I) -> Cost {
        costs.fold(Cost::default(), Add::add)
    }
}

/// One layer's share of a step's cost, for the whole batch.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerCost {
    /// `input`, `layer 0 (conv2d)` and so on, or `loss`.
    pub name: String,
    /// FLOPs of the forward pass.
    pub forward: f64,
    /// FLOPs of the gradient with respect to the layer's input.
    pub input_gradient: f64,
    /// FLOPs of the gradient with respect to the layer's parameters, summed over the batch.
    pub weight_gradient: f64,
    /// FLOPs that a private step adds for the norms and the clipping; 0 in a plain step.
    pub privacy: f64,
    /// FLOPs of the update, noise included.
    pub update: f64,
    /// Bytes of the input, of the targets (under `loss`) or of the layer's parameters.
    pub bytes: f64,
}

impl LayerCost {
    /// All FLOPs together, and the bytes.
    pub fn total(&self) -> Cost {
        let flops = self.forward + self.input_gradient + self.weight_gradient + self.privacy + self.update;
        Cost { flops, bytes: self.bytes }
    }
}

/// Cost of one plain SGD step on `examples` examples.
pub fn plain_step(model: &ModelSpec, examples: usize) -> Result<Cost, ModelError> {
    step(model, examples, Mode::NonPrivate)
}

/// Cost of one private step on `examples` examples.
pub fn private_step(model: &ModelSpec, examples: usize) -> Result<Cost, ModelError> {
    step(model, examples, Mode::Private)
}

/// Cost of one step in `mode` on `examples` examples.
pub fn step(model: &ModelSpec, examples: usize, mode: Mode) -> Result<Cost, ModelError> {
    Ok(layers(model, examples, mode)?.iter().map(LayerCost::total).sum())
}

/// One row for the input, one for each layer and one for the loss.
pub fn layers(model: &ModelSpec, examples: usize, mode: Mode) -> Result<Vec<LayerCost>, ModelError> {
    let shapes = model.shapes()?;
    let batch = examples as f64;
    let input_numbers = model.input.dimensions().iter().product::<usize>() as f64;
    let outputs = size(*shapes.last().expect("there is an output"));
    let row = |name: String| LayerCost {
        name,
        forward: 0.0,
        input_gradient: 0.0,
        weight_gradient: 0.0,
        privacy: 0.0,
        update: 0.0,
        bytes: 0.0,
    };
    let mut rows = vec![LayerCost { bytes: BYTES * batch * input_numbers, ..row("input".into()) }];
    let first_trained = model.layers.iter().position(|layer| !layer.params().is_empty());
    for (position, layer) in model.layers.iter().enumerate() {
        let work = Work::of(layer, shapes[position], shapes[position + 1]);
        let touched = updated_params(layer, &model.input, examples, mode);
        let needs_input_gradient = first_trained.is_some_and(|first| position > first);
        rows.push(LayerCost {
            forward: batch * work.forward,
            input_gradient: if needs_input_gradient { batch * work.input_gradient } else { 0.0 },
            weight_gradient: batch * work.weight_gradient,
            privacy: if mode == Mode::Private { batch * work.privacy } else { 0.0 },
            update: touched * if mode == Mode::Private { 4.0 } else { 2.0 },
            bytes: touched * 2.0 * BYTES,
            ..row(format!("layer {position} ({})", layer.kind()))
        });
    }
    let loss = batch * outputs;
    rows.push(LayerCost { forward: loss, input_gradient: loss, bytes: BYTES * batch, ..row("loss".into()) });
    Ok(rows)
}

/// Size of an `f32` or an `i32`.
const BYTES: f64 = 4.0;

/// FLOPs of one example in one layer.
#[derive(Default)]
struct Work {
    forward: f64,
    input_gradient: f64,
    weight_gradient: f64,
    privacy: f64,
}

impl Work {
    fn of(layer: &Layer, input: Shape, output: Shape) -> Work {
        let elementwise = |elements: f64| Work { forward: elements, input_gradient: elements, ..Work::default() };
        match *layer {
            Layer::Linear { in_features, out_features } => Work::product(1, in_features, out_features),
            Layer::Conv2d { in_channels, out_channels, kernel_size, .. } => {
                Work::product(positions(output), in_channels * kernel_size.h * kernel_size.w, out_channels)
            }
            Layer::Lstm { input_size, hidden_size } => {
                let time = positions(output);
                let states = 6.0 * (time * hidden_size) as f64;
                let product = Work::product(time, input_size + hidden_size, 4 * hidden_size);
                Work { forward: product.forward + states, input_gradient: product.input_gradient + states, ..product }
            }
            Layer::Embedding { .. } => {
                let numbers = size(output);
                Work { weight_gradient: numbers, privacy: 4.0 * numbers, ..Work::default() }
            }
            // The gradient goes to one cell of each window.
            Layer::MaxPool2d { kernel_size, .. } => {
                Work { input_gradient: size(output), ..elementwise(size(output) * area(kernel_size)) }
            }
            Layer::AvgPool2d { kernel_size, .. } => elementwise(size(output) * area(kernel_size)),
            Layer::Relu | Layer::GlobalAvgPool2d | Layer::MeanOverTime => elementwise(size(input)),
            Layer::Flatten => Work::default(),
        }
    }

    /// A matrix product over T positions with d inputs and p outputs.
    fn product(t: usize, d: usize, p: usize) -> Work {
        let (time, d, p) = (t as f64, d as f64, p as f64);
        let once = 2.0 * time * p * d;
        let privacy = if t == 1 { 2.0 * (p + d) } else { (4.0 * p * d).min(time * time * (p + d)) };
        Work { forward: once, input_gradient: once, weight_gradient: once, privacy }
    }
}

/// How many of the layer's parameters a step on `examples` examples reads and writes.
fn updated_params(layer: &Layer, input: &ModelInput, examples: usize, mode: Mode) -> f64 {
    match (layer, input, mode) {
        (Layer::Embedding { num_embeddings, embedding_dim }, ModelInput::Tokens { time, .. }, Mode::NonPrivate) => {
            (num_embeddings.min(&(examples * time)) * embedding_dim) as f64
        }
        _ => layer.params().iter().map(|(_, shape, _)| shape.iter().product::<usize>() as f64).sum(),
    }
}

/// Numbers of one example.
fn size(shape: Shape) -> f64 {
    match shape {
        Shape::Features(n) => n as f64,
        Shape::Image { c, h, w } => (c * h * w) as f64,
        Shape::Tokens { time, .. } => time as f64,
        Shape::Sequence { time, width } => (time * width) as f64,
    }
}

/// T of a layer's output.
fn positions(output: Shape) -> usize {
    match output {
        Shape::Image { h, w, .. } => h * w,
        Shape::Sequence { time, .. } => time,
        Shape::Features(_) | Shape::Tokens { .. } => 1,
    }
}

fn area(kernel: Pair) -> f64 {
    (kernel.h * kernel.w) as f64
}

#[cfg(test)]
#[path = "cost_tests.rs"]
mod tests;
