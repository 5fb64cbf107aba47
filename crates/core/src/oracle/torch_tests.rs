//! The oracle against float64 values of PyTorch, one small model per layer and loss; see `torch_values.py`.

use super::test_layers::{avg_pool, conv, linear, max_pool};
use super::*;
use crate::{Loss, ModelInput, Targets, Tensor};

/// The formula of inputs and parameters, here and in `torch_values.py`; exact in `f32`.
fn numbers(count: usize, salt: usize, modulus: usize, divisor: f32) -> Vec<f32> {
    (0..count).map(|i| (((37 * i * i + 11 * i + 7 * salt) % modulus) as f32 - (modulus / 2) as f32) / divisor).collect()
}

/// Modulus and divisor of [`numbers`] for parameters without ties.
const FINE: (usize, f32) = (61, 32.0);
/// The same for the whole numbers from -1 to 1, and from -3 to 3.
const THREE: (usize, f32) = (3, 1.0);
const SEVEN: (usize, f32) = (7, 1.0);

struct Case {
    layers: Vec<Layer>,
    input: ModelInput,
    inputs: Inputs,
    loss: Loss,
    targets: Targets,
    params: (usize, f32),
}

impl Case {
    fn run(self) -> Example {
        let model = ModelSpec { name: "test".into(), input: self.input, loss: self.loss, layers: self.layers };
        let example_shape = model.input.dimensions();
        let dataset = Dataset { example_shape, inputs: self.inputs, targets: self.targets };
        dataset.check_fits(&model).unwrap();
        let (modulus, divisor) = self.params;
        let tensors = model.params().into_iter().enumerate().map(|(salt, spec)| Tensor {
            values: numbers(spec.shape.iter().product(), salt, modulus, divisor),
            name: spec.name,
            shape: spec.shape,
        });
        Oracle::new(&model, &Params { tensors: tensors.collect() }).unwrap().example(&dataset, 0)
    }
}

fn assert_matches(found: &Example, (loss, gradient): (f64, &[f64])) {
    assert!((found.loss - loss).abs() <= 1e-12 * loss.abs(), "loss {}, PyTorch {loss}", found.loss);
    let values: Vec<f64> = found.gradient.values().collect();
    assert_eq!(values.len(), gradient.len());
    let reference = Gradient(vec![gradient.to_vec()]);
    assert!(reference.norm() > 0.0);
    let error = Gradient(vec![values.clone()]).relative_error(&reference);
    assert!(error <= 1e-12, "relative error {error}: {values:?}, PyTorch {gradient:?}");
}

fn image(c: usize, h: usize, w: usize, (modulus, divisor): (usize, f32)) -> (ModelInput, Inputs) {
    (ModelInput::Image([c, h, w]), Inputs::F32(numbers(c * h * w, 1, modulus, divisor)))
}

#[test]
fn convolutions_with_stride_and_padding_agree_with_pytorch() {
    let layers =
        vec![conv((2, 3), (3, 2), (2, 1), (1, 2)), conv((3, 2), (2, 2), (1, 2), (0, 0)), Layer::Flatten, linear(12, 3)];
    let (input, inputs) = image(2, 5, 4, FINE);
    let (loss, targets) = (Loss::CrossEntropy, Targets::Class(vec![2]));
    let example = Case { layers, input, inputs, loss, targets, params: FINE }.run();
    assert_matches(&example, torch_values::CONVOLUTION);
}

#[test]
fn equal_maxima_and_relu_at_zero_agree_with_pytorch_and_are_no_near_ties() {
    // Whole pixels and weights: windows with equal maxima of different pixels, ReLU inputs of exactly 0.
    let layers = vec![
        conv((2, 2), (1, 1), (1, 1), (0, 0)),
        Layer::Relu,
        max_pool((3, 2), Some((1, 1))),
        Layer::Flatten,
        linear(20, 2),
    ];
    let (input, inputs) = image(2, 4, 6, SEVEN);
    let (loss, targets) = (Loss::CrossEntropy, Targets::Class(vec![1]));
    let example = Case { layers, input, inputs, loss, targets, params: THREE }.run();
    assert_matches(&example, torch_values::TIES);
    assert!(example.margin > 0.1, "margin {}", example.margin);
}

#[test]
fn average_pooling_and_binary_cross_entropy_agree_with_pytorch() {
    let layers = vec![
        conv((1, 2), (2, 2), (1, 1), (0, 0)),
        avg_pool((2, 3), Some((1, 2))),
        Layer::GlobalAvgPool2d,
        linear(2, 1),
    ];
    let (input, inputs) = image(1, 5, 8, FINE);
    let (loss, targets) = (Loss::BceWithLogits, Targets::Value(vec![1.0]));
    let example = Case { layers, input, inputs, loss, targets, params: FINE }.run();
    assert_matches(&example, torch_values::AVERAGES);
}

#[test]
fn an_embedding_and_an_lstm_agree_with_pytorch() {
    let layers = vec![
        Layer::Embedding { num_embeddings: 5, embedding_dim: 3 },
        Layer::Lstm { input_size: 3, hidden_size: 2 },
        Layer::MeanOverTime,
        linear(2, 2),
    ];
    let input = ModelInput::Tokens { time: 6, vocabulary: 5 };
    let inputs = Inputs::Tokens((0..6).map(|i| i * i % 5).collect());
    let (loss, targets) = (Loss::CrossEntropy, Targets::Class(vec![0]));
    let example = Case { layers, input, inputs, loss, targets, params: FINE }.run();
    assert_matches(&example, torch_values::LSTM);
}

#[test]
fn linear_layers_and_squared_error_agree_with_pytorch() {
    let layers = vec![linear(5, 4), Layer::Relu, linear(4, 1)];
    let inputs = Inputs::F32(numbers(5, 1, FINE.0, FINE.1));
    let (loss, targets) = (Loss::Mse, Targets::Value(vec![0.75]));
    let example = Case { layers, input: ModelInput::Features(5), inputs, loss, targets, params: FINE }.run();
    assert_matches(&example, torch_values::REGRESSION);
}

#[test]
fn a_logit_far_from_zero_agrees_with_pytorch() {
    let inputs = Inputs::F32(numbers(5, 1, FINE.0, 1.0));
    let (loss, targets) = (Loss::BceWithLogits, Targets::Value(vec![0.0]));
    let input = ModelInput::Features(5);
    let example = Case { layers: vec![linear(5, 1)], input, inputs, loss, targets, params: FINE }.run();
    assert_matches(&example, torch_values::LARGE_LOGIT);
}
