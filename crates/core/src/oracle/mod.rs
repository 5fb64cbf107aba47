//! The float64 oracle: the loss and gradient of one example, by the textbook formulas.
//!
//! This is the reference that every strategy is verified against, so it is written for clarity, shares no code with any
//! of them, and is itself checked by finite differences. Each layer has its formulas in its own file. Parameters and
//! inputs are `f32` numbers widened to `f64`; everything in between is `f64`.
//!
//! Kinks: max-pooling gives a tie to the first position in row-major order; ReLU has gradient 0 at 0. Near a kink, `f32`
//! and `f64` may come out on different sides: see [`Example::margin`].

mod conv;
mod embedding;
mod gradient;
mod kink;
mod linear;
mod loss;
mod lstm;
mod pool;
mod windows;

use std::ops::Range;

use crate::{Dataset, Inputs, Layer, ModelError, ModelSpec, Pair, Params, Shape};

pub use gradient::{Gradient, clip_factor, clipped_sum, sum};
use windows::Windows;

/// A model with its parameters in float64.
pub struct Oracle {
    model: ModelSpec,
    /// Between the layers; one more than there are layers.
    shapes: Vec<Shape>,
    /// In the order of [`ModelSpec::params`].
    pub(crate) params: Vec<Vec<f64>>,
    /// Which of `params` belong to each layer.
    params_of: Vec<Range<usize>>,
}

/// What the oracle says of one example.
#[derive(Clone, Debug)]
pub struct Example {
    /// Its loss.
    pub loss: f64,
    /// The gradient of its loss.
    pub gradient: Gradient,
    /// How near the example comes to a kink at which `f32` might turn the other way than `f64`: the smallest of the
    /// following two, each relative to the root mean square of what enters its layer. Infinity if there is none.
    ///
    /// - `|x|` over the inputs x of ReLUs;
    /// - the gap in a max-pooling window between the maximum and the largest value below it.
    ///
    /// Counted only where the loss has a gradient that could go the wrong way. A ReLU input of exactly 0, or equal
    /// maxima in a window, don't count: they come from equal numbers, and equal numbers are equal in any precision.
    /// Meaningless when the example holds a NaN.
    pub margin: f64,
}

/// What a forward pass keeps for the backward pass.
struct Pass {
    /// The ids, when the input is tokens.
    tokens: Vec<usize>,
    /// What enters each layer, and last what leaves the model. The first is empty when the input is tokens.
    values: Vec<Vec<f64>>,
    saved: Vec<Saved>,
}

/// What a layer keeps besides its input and output.
enum Saved {
    Nothing,
    Origins(Vec<usize>),
    States(lstm::States),
}

impl Oracle {
    /// Fails if the model's layers don't fit together or `params` are not the model's.
    pub fn new(model: &ModelSpec, params: &Params) -> Result<Self, ModelError> {
        let shapes = model.shapes()?;
        let specs = model.params();
        let error = |reason: String| ModelError { model: model.name.clone(), place: "parameters".into(), reason };
        if specs.len() != params.tensors.len() {
            return Err(error(format!("{} tensors given, the model has {}", params.tensors.len(), specs.len())));
        }
        for (spec, tensor) in specs.iter().zip(&params.tensors) {
            if spec.name != tensor.name || spec.shape != tensor.shape {
                let (found, wanted) = ((&tensor.name, &tensor.shape), (&spec.name, &spec.shape));
                let found = format!("`{}` {:?}, the model has `{}` {:?}", found.0, found.1, wanted.0, wanted.1);
                return Err(error(found));
            }
        }
        let mut end = 0;
        let ranges = model.layers.iter().map(|layer| {
            let begin = end;
            end += layer.params().len();
            begin..end
        });
        Ok(Oracle {
            shapes,
            params_of: ranges.collect(),
            params: params.tensors.iter().map(|tensor| widen(&tensor.values)).collect(),
            model: model.clone(),
        })
    }

    /// Loss, gradient and margin of example `index`. Panics if there is none or the data set does not fit the model
    /// ([`Dataset::check_fits`]). A NaN in the example gives a gradient that is not finite.
    pub fn example(&self, dataset: &Dataset, index: usize) -> Example {
        let pass = self.forward(dataset, index);
        let d_outputs = loss::gradient(self.model.loss, pass.outputs(), &dataset.targets, index);
        let (gradient, margin) = self.backward(&pass, d_outputs);
        Example { loss: loss::value(self.model.loss, pass.outputs(), &dataset.targets, index), gradient, margin }
    }

    /// The loss of example `index`; panics as [`Oracle::example`].
    pub fn loss(&self, dataset: &Dataset, index: usize) -> f64 {
        loss::value(self.model.loss, &self.outputs(dataset, index), &dataset.targets, index)
    }

    /// The outputs of the last layer for example `index`; panics as [`Oracle::example`].
    pub fn outputs(&self, dataset: &Dataset, index: usize) -> Vec<f64> {
        self.forward(dataset, index).values.pop().expect("there is an output")
    }

    fn forward(&self, dataset: &Dataset, index: usize) -> Pass {
        let example = index * dataset.example_len()..(index + 1) * dataset.example_len();
        let (input, tokens) = match &dataset.inputs {
            Inputs::F32(values) => (widen(&values[example]), Vec::new()),
            Inputs::Tokens(tokens) => (Vec::new(), tokens[example].iter().map(|token| *token as usize).collect()),
        };
        let mut pass = Pass { tokens, values: vec![input], saved: Vec::new() };
        for (position, layer) in self.model.layers.iter().enumerate() {
            let params: Vec<&[f64]> = self.params[self.params_of[position].clone()].iter().map(Vec::as_slice).collect();
            let x = &pass.values[position];
            let windows = || windows_of(layer, self.shapes[position], self.shapes[position + 1]);
            let mut saved = Saved::Nothing;
            let y = match layer {
                Layer::Linear { .. } => linear::forward(params[0], params[1], x),
                Layer::Conv2d { .. } => conv::forward(&windows(), params[0], params[1], x),
                Layer::MaxPool2d { .. } => {
                    let (y, origins) = pool::max_forward(&windows(), x);
                    saved = Saved::Origins(origins);
                    y
                }
                Layer::AvgPool2d { .. } => pool::avg_forward(&windows(), x),
                Layer::Relu => kink::relu_forward(x),
                Layer::Flatten => x.clone(),
                Layer::GlobalAvgPool2d => pool::global_avg_forward(first_dimension(self.shapes[position + 1]), x),
                Layer::Embedding { embedding_dim, .. } => embedding::forward(params[0], *embedding_dim, &pass.tokens),
                Layer::Lstm { input_size, .. } => {
                    let (y, states) = lstm::forward(&lstm_weights(&params), *input_size, x);
                    saved = Saved::States(states);
                    y
                }
                Layer::MeanOverTime => pool::mean_over_time_forward(first_dimension(self.shapes[position + 1]), x),
            };
            pass.values.push(y);
            pass.saved.push(saved);
        }
        pass
    }

    /// The gradient of the parameters and the margin, from the gradient of the outputs.
    fn backward(&self, pass: &Pass, d_outputs: Vec<f64>) -> (Gradient, f64) {
        let mut gradient: Vec<Vec<f64>> = self.params.iter().map(|tensor| vec![0.0; tensor.len()]).collect();
        let mut margin = f64::INFINITY;
        let mut dy = d_outputs;
        for (position, layer) in self.model.layers.iter().enumerate().rev() {
            let own = self.params_of[position].clone();
            let params: Vec<&[f64]> = self.params[own.clone()].iter().map(Vec::as_slice).collect();
            let d_params = &mut gradient[own];
            let x = &pass.values[position];
            let windows = || windows_of(layer, self.shapes[position], self.shapes[position + 1]);
            let mut nearest_kink = f64::INFINITY;
            dy = match (layer, d_params, &pass.saved[position]) {
                (Layer::Linear { .. }, [d_weight, d_bias], _) => linear::backward(params[0], x, &dy, d_weight, d_bias),
                (Layer::Conv2d { .. }, [d_weight, d_bias], _) => {
                    conv::backward(&windows(), params[0], x, &dy, d_weight, d_bias)
                }
                (Layer::MaxPool2d { .. }, _, Saved::Origins(origins)) => {
                    let dx;
                    (dx, nearest_kink) = pool::max_backward(&windows(), x, origins, &dy);
                    dx
                }
                (Layer::AvgPool2d { .. }, ..) => pool::avg_backward(&windows(), x.len(), &dy),
                (Layer::Relu, ..) => {
                    let dx;
                    (dx, nearest_kink) = kink::relu_backward(x, &dy);
                    dx
                }
                (Layer::Flatten, ..) => dy,
                (Layer::GlobalAvgPool2d, ..) => pool::global_avg_backward(x.len(), &dy),
                (Layer::Embedding { embedding_dim, .. }, [d_weight], _) => {
                    embedding::backward(*embedding_dim, &pass.tokens, &dy, d_weight);
                    Vec::new()
                }
                (Layer::Lstm { input_size, .. }, [input, hidden, bias], Saved::States(states)) => {
                    let d_weights = lstm::Weights { input: &mut input[..], hidden, bias };
                    let y = &pass.values[position + 1];
                    lstm::backward(&lstm_weights(&params), *input_size, x, y, states, &dy, d_weights)
                }
                (Layer::MeanOverTime, ..) => pool::mean_over_time_backward(x.len(), &dy),
                _ => unreachable!("{} has other parameters or kept something else", layer.kind()),
            };
            margin = margin.min(nearest_kink);
        }
        (Gradient(gradient), margin)
    }
}

impl Pass {
    fn outputs(&self) -> &[f64] {
        self.values.last().expect("there is an output")
    }
}

fn windows_of(layer: &Layer, input: Shape, output: Shape) -> Windows {
    match *layer {
        Layer::Conv2d { kernel_size, stride, padding, .. } => Windows::new(input, output, kernel_size, stride, padding),
        Layer::MaxPool2d { kernel_size, stride } | Layer::AvgPool2d { kernel_size, stride } => {
            Windows::new(input, output, kernel_size, stride.unwrap_or(kernel_size), Pair { h: 0, w: 0 })
        }
        _ => unreachable!("{} has no windows", layer.kind()),
    }
}

fn lstm_weights<'a>(params: &[&'a [f64]]) -> lstm::Weights<&'a [f64]> {
    lstm::Weights { input: params[0], hidden: params[1], bias: params[2] }
}

/// Length of the vector that a mean gives.
fn first_dimension(output: Shape) -> usize {
    match output {
        Shape::Features(n) => n,
        _ => unreachable!("means give features"),
    }
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// `sum_i a[i] b[i]`, in eight interleaved partial sums so that the compiler may use SIMD.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// `a += scale * b`.
fn add_scaled(a: &mut [f64], scale: f64, b: &[f64]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a += scale * b;
    }
}

#[cfg(test)]
mod finite_difference_tests;
#[cfg(test)]
mod margin_tests;
#[cfg(test)]
mod sum_tests;
#[cfg(test)]
mod test_layers;
#[cfg(test)]
mod torch_tests;
#[cfg(test)]
mod torch_values;
