use super::test_layers::{conv, linear, max_pool};
use super::*;
use crate::{Loss, ModelInput, Targets, Tensor};

/// The only example of a model of one output and squared error, from its input and its parameters.
fn example(input: ModelInput, layers: Vec<Layer>, params: &[&[f32]], values: &[f32], target: f32) -> Example {
    let model = ModelSpec { name: "test".into(), input, loss: Loss::Mse, layers };
    let tensors = model.params().into_iter().zip(params);
    let tensors = tensors.map(|(spec, values)| Tensor { name: spec.name, shape: spec.shape, values: values.to_vec() });
    let dataset = Dataset {
        example_shape: model.input.dimensions(),
        inputs: Inputs::F32(values.to_vec()),
        targets: Targets::Value(vec![target]),
    };
    Oracle::new(&model, &Params { tensors: tensors.collect() }).unwrap().example(&dataset, 0)
}

/// x through an identity layer and a ReLU, then summed.
fn through_relu(x: [f32; 2], target: f32) -> Example {
    let layers = vec![linear(2, 2), Layer::Relu, linear(2, 1)];
    example(ModelInput::Features(2), layers, &[&[1.0, 0.0, 0.0, 1.0], &[0.0, 0.0], &[1.0, 1.0], &[0.0]], &x, target)
}

/// A 2x2 image through a 1x1 identity convolution and a maximum.
fn through_max([a, b, c, d]: [f32; 4], target: f32) -> Example {
    let layers = vec![conv((1, 1), (1, 1), (1, 1), (0, 0)), max_pool((2, 2), None), Layer::Flatten, linear(1, 1)];
    let params: [&[f32]; 4] = [&[1.0], &[0.0], &[1.0], &[0.0]];
    example(ModelInput::Image([1, 2, 2]), layers, &params, &[a, b, c, d], target)
}

#[test]
fn the_margin_of_a_relu_is_its_input_over_the_layers_root_mean_square() {
    let rms = ((9.0f64 + 0.0625) / 2.0).sqrt();
    assert_eq!(through_relu([3.0, 0.25], 9.0).margin, 0.25 / rms);
    assert_eq!(through_relu([3.0, -0.25], 9.0).margin, 0.25 / rms);
}

#[test]
fn a_relu_at_exactly_zero_has_gradient_zero_and_no_margin() {
    let at_zero = through_relu([3.0, 0.0], 9.0);
    assert_eq!(at_zero.margin, 3.0 / 4.5f64.sqrt());
    // d loss / d y = 2 (3 - 9) = -12, to the first unit only: dW = [-36, 0, 0, 0].
    assert_eq!(at_zero.gradient.0[0], [-36.0, 0.0, 0.0, 0.0]);
    assert_eq!(through_relu([0.0, 0.0], 9.0).margin, f64::INFINITY);
}

#[test]
fn a_kink_that_no_gradient_reaches_is_no_kink() {
    assert_eq!(through_relu([3.0, 0.25], 3.25).margin, f64::INFINITY);
    assert_eq!(through_max([3.0, 2.5, 1.0, 0.0], 3.0).margin, f64::INFINITY);
}

#[test]
fn the_margin_of_a_maximum_is_the_gap_below_it_over_the_layers_root_mean_square() {
    let rms = ((9.0f64 + 6.25 + 1.0) / 4.0).sqrt();
    assert_eq!(through_max([1.0, 2.5, 3.0, 0.0], 9.0).margin, 0.5 / rms);
}

#[test]
fn equal_maxima_are_no_near_tie_but_the_value_below_them_may_be() {
    let rms = ((9.0f64 + 9.0 + 6.25 + 1.0) / 4.0).sqrt();
    assert_eq!(through_max([3.0, 1.0, 3.0, 2.5], 9.0).margin, 0.5 / rms);
    assert_eq!(through_max([2.0; 4], 9.0).margin, f64::INFINITY);
    assert_eq!(through_max([0.0; 4], 9.0).margin, f64::INFINITY);
}

#[test]
fn the_gradient_of_equal_maxima_goes_to_the_first_in_row_major_order() {
    // The sums of two channels are 1, 5, 5, 5; the weights' gradient shows which pixels got it: those of (4, 1).
    let layers = vec![conv((2, 1), (1, 1), (1, 1), (0, 0)), max_pool((2, 2), None), Layer::Flatten, linear(1, 1)];
    let pixels = [1.0, 4.0, 3.0, 2.0, 0.0, 1.0, 2.0, 3.0];
    let params: [&[f32]; 4] = [&[1.0, 1.0], &[0.0], &[1.0], &[0.0]];
    let found = example(ModelInput::Image([2, 2, 2]), layers, &params, &pixels, 4.5);
    assert_eq!(found.gradient.0[0], [4.0, 1.0]);
}

#[test]
fn a_model_without_kinks_has_an_infinite_margin() {
    let smooth = example(ModelInput::Features(1), vec![linear(1, 1)], &[&[2.0], &[1.0]], &[3.0], 0.0);
    assert_eq!(smooth.margin, f64::INFINITY);
    assert_eq!((smooth.loss, smooth.gradient.0), (49.0, vec![vec![42.0], vec![14.0]]));
}

#[test]
fn a_nan_passes_through_relu_and_wins_a_maximum() {
    assert!(through_relu([f32::NAN, 1.0], 9.0).loss.is_nan());
    assert!(through_max([1.0, f32::NAN, 2.0, 0.0], 9.0).loss.is_nan());
}
