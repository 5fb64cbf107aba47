//! Every layer's and every loss's gradient against central differences of the loss in float64.

use super::test_layers::{avg_pool, conv, linear, max_pool};
use super::*;
use crate::{Loss, ModelInput, Targets};

/// Step of the differences: the error of a central difference is about h^2 = 1e-10 from truncation and
/// 1e-16 / h = 1e-11 from rounding, for numbers around 1.
const STEP: f64 = 1e-5;

/// Numbers in (-1, 1) without a pattern: no two are alike.
fn scattered(count: usize) -> Vec<f32> {
    (0..count).map(|i| (1.7 * i as f32 * i as f32 + 0.9 * i as f32 + 0.4).sin()).collect()
}

/// Two examples for `model`.
fn two_examples(model: &ModelSpec) -> Dataset {
    let example_shape = model.input.dimensions();
    let count = 2 * example_shape.iter().product::<usize>();
    Dataset {
        inputs: match model.input {
            // Repeats tokens within an example as soon as there are three.
            ModelInput::Tokens { vocabulary, .. } => {
                Inputs::Tokens((0..count).map(|i| (i * i % vocabulary) as i32).collect())
            }
            _ => Inputs::F32(scattered(count)),
        },
        example_shape,
        targets: match model.loss {
            Loss::CrossEntropy => Targets::Class(vec![1, 0]),
            Loss::BceWithLogits => Targets::Value(vec![1.0, 0.0]),
            Loss::Mse => Targets::Value(vec![0.75, -1.5]),
        },
    }
}

/// `model` with the first initial parameters for which a step of the differences crosses no kink in either example.
fn away_from_kinks(model: &ModelSpec, dataset: &Dataset) -> Oracle {
    let oracles = (0..100).map(|seed| Oracle::new(model, &Params::init(model, seed)).unwrap());
    let far = |oracle: &Oracle| (0..2).all(|index| oracle.example(dataset, index).margin > 100.0 * STEP);
    oracles.into_iter().find(far).expect("some seed is not too near a kink")
}

/// Asserts that the gradient of both examples is that of central differences, in every tensor.
fn check(input: ModelInput, layers: Vec<Layer>, loss: Loss) {
    let model = ModelSpec { name: "test".into(), input, loss, layers };
    let dataset = two_examples(&model);
    dataset.check_fits(&model).unwrap();
    let mut oracle = away_from_kinks(&model, &dataset);
    for index in 0..2 {
        let Example { loss, gradient, .. } = oracle.example(&dataset, index);
        assert_eq!(loss, oracle.loss(&dataset, index));
        for (tensor, spec) in model.params().iter().enumerate() {
            let mut differences = Vec::new();
            for position in 0..oracle.params[tensor].len() {
                let centre = oracle.params[tensor][position];
                let mut loss_at = |value| {
                    oracle.params[tensor][position] = value;
                    oracle.loss(&dataset, index)
                };
                differences.push((loss_at(centre + STEP) - loss_at(centre - STEP)) / (2.0 * STEP));
                oracle.params[tensor][position] = centre;
            }
            let differences = Gradient(vec![differences]);
            let found = Gradient(vec![gradient.0[tensor].clone()]);
            let size = gradient.norm().max(differences.norm());
            assert!(size > 1e-4, "{:?}: nothing to compare", model.layers);
            let mut error = found.clone();
            error.add_scaled(&differences, -1.0);
            assert!(
                error.norm() <= 1e-6 * found.norm().max(1e-3 * size),
                "{:?}: tensor {}: {:?} but differences give {:?}",
                model.layers,
                spec.name,
                found.0,
                differences.0
            );
        }
    }
}

#[test]
fn linear_layers_and_every_loss_agree_with_differences() {
    for loss in [Loss::Mse, Loss::BceWithLogits] {
        check(ModelInput::Features(1), vec![linear(1, 1)], loss);
        check(ModelInput::Features(11), vec![linear(11, 3), linear(3, 1)], loss);
    }
    check(ModelInput::Features(1), vec![linear(1, 2)], Loss::CrossEntropy);
    check(ModelInput::Features(19), vec![linear(19, 9), linear(9, 5)], Loss::CrossEntropy);
}

#[test]
fn relu_agrees_with_differences_on_vectors_images_and_sequences() {
    check(ModelInput::Features(5), vec![linear(5, 7), Layer::Relu, linear(7, 3)], Loss::CrossEntropy);
    let on_image = vec![conv((1, 2), (2, 2), (1, 1), (0, 0)), Layer::Relu, Layer::Flatten, linear(12, 3)];
    check(ModelInput::Image([1, 4, 3]), on_image, Loss::CrossEntropy);
    let embedding = Layer::Embedding { num_embeddings: 6, embedding_dim: 3 };
    let on_sequence = vec![embedding, Layer::Relu, Layer::MeanOverTime, linear(3, 2)];
    check(ModelInput::Tokens { time: 4, vocabulary: 6 }, on_sequence, Loss::CrossEntropy);
}

#[test]
fn convolutions_agree_with_differences_for_every_kernel_stride_and_padding() {
    let kernels = [(1, 1), (3, 3), (2, 3), (5, 1)];
    let strides = [(1, 1), (2, 2), (3, 1)];
    // Padding wider than the kernel gives windows that see nothing of the image.
    let paddings = [(0, 0), (1, 1), (0, 2), (3, 1)];
    for kernel in kernels {
        for stride in strides {
            for padding in paddings {
                // A first layer that mixes pixels tests the second one's input gradient.
                let layers = vec![
                    conv((2, 3), (2, 2), (1, 1), (0, 0)),
                    conv((3, 2), kernel, stride, padding),
                    Layer::GlobalAvgPool2d,
                ];
                check(ModelInput::Image([2, 6, 5]), layers, Loss::CrossEntropy);
            }
        }
    }
}

#[test]
fn a_convolution_of_every_position_differently_weighted_agrees_with_differences() {
    let layers = vec![
        conv((2, 3), (3, 2), (2, 1), (1, 0)),
        conv((3, 2), (2, 3), (1, 2), (1, 2)),
        Layer::Flatten,
        linear(2 * 5 * 3, 3),
    ];
    check(ModelInput::Image([2, 7, 5]), layers, Loss::CrossEntropy);
    let one_pixel = vec![conv((1, 2), (1, 1), (1, 1), (0, 0)), conv((2, 2), (3, 3), (1, 1), (1, 1)), Layer::Flatten];
    check(ModelInput::Image([1, 1, 1]), one_pixel, Loss::CrossEntropy);
}

#[test]
fn pooling_agrees_with_differences_for_every_window_and_stride() {
    // 7x5: most of these windows overlap, leave gaps or miss the edge.
    let windows = [
        ((2, 2), None, 6),
        ((2, 2), Some((1, 1)), 24),
        ((3, 2), Some((2, 1)), 12),
        ((1, 3), Some((3, 2)), 6),
        ((1, 1), Some((2, 2)), 12),
        ((7, 5), None, 1),
    ];
    for (kernel, stride, positions) in windows {
        for pool in [max_pool(kernel, stride), avg_pool(kernel, stride)] {
            let first = conv((1, 2), (3, 3), (1, 1), (1, 1));
            let layers = vec![first, pool, Layer::Flatten, linear(2 * positions, 2)];
            check(ModelInput::Image([1, 7, 5]), layers, Loss::CrossEntropy);
        }
    }
}

#[test]
fn global_average_pooling_agrees_with_differences() {
    for image in [[2, 3, 5], [2, 1, 1]] {
        let layers = vec![conv((2, 3), (1, 1), (1, 1), (0, 0)), Layer::GlobalAvgPool2d, linear(3, 2)];
        check(ModelInput::Image(image), layers, Loss::CrossEntropy);
    }
}

#[test]
fn embeddings_agree_with_differences_also_when_tokens_repeat() {
    // i^2 mod 5 repeats within six tokens and leaves rows untouched; time 1 is a lookup.
    for time in [1, 6] {
        let embedding = Layer::Embedding { num_embeddings: 5, embedding_dim: 3 };
        let layers = vec![embedding, Layer::MeanOverTime, linear(3, 2)];
        check(ModelInput::Tokens { time, vocabulary: 5 }, layers, Loss::CrossEntropy);
    }
}

#[test]
fn an_lstm_agrees_with_differences_for_one_step_and_many() {
    for (time, width, hidden) in [(1, 3, 2), (2, 1, 1), (7, 3, 4)] {
        let layers = vec![
            Layer::Embedding { num_embeddings: 5, embedding_dim: width },
            Layer::Lstm { input_size: width, hidden_size: hidden },
            Layer::MeanOverTime,
            linear(hidden, 2),
        ];
        check(ModelInput::Tokens { time, vocabulary: 5 }, layers, Loss::CrossEntropy);
    }
}

#[test]
fn an_lstm_on_an_lstm_agrees_with_differences_where_each_step_has_its_own_gradient() {
    let layers = vec![
        Layer::Embedding { num_embeddings: 4, embedding_dim: 2 },
        Layer::Lstm { input_size: 2, hidden_size: 3 },
        Layer::Relu,
        Layer::Lstm { input_size: 3, hidden_size: 2 },
        Layer::MeanOverTime,
        linear(2, 1),
    ];
    check(ModelInput::Tokens { time: 5, vocabulary: 4 }, layers, Loss::Mse);
}

#[test]
fn a_whole_convolutional_network_agrees_with_differences() {
    let layers = vec![
        conv((2, 3), (3, 3), (2, 2), (1, 1)),
        Layer::Relu,
        max_pool((2, 2), Some((1, 1))),
        conv((3, 4), (2, 2), (1, 1), (0, 0)),
        Layer::Relu,
        avg_pool((2, 1), Some((1, 1))),
        Layer::Flatten,
        linear(16, 5),
        Layer::Relu,
        linear(5, 3),
    ];
    check(ModelInput::Image([2, 9, 7]), layers, Loss::CrossEntropy);
}
