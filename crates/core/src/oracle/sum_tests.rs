use super::test_layers::linear;
use super::*;
use crate::{Loss, ModelInput, Targets};

/// One weight of two numbers and one bias.
fn model() -> ModelSpec {
    let (name, input) = ("test".into(), ModelInput::Features(2));
    ModelSpec { name, input, loss: Loss::Mse, layers: vec![linear(2, 1)] }
}

fn gradient(a: f64, b: f64, bias: f64) -> Gradient {
    Gradient(vec![vec![a, b], vec![bias]])
}

#[test]
fn a_gradient_is_clipped_by_its_norm_over_all_parameters_together() {
    // |(2, 3, 6)| = 7, so C = 3.5 halves it; |(0, 0.6, 0.8)| = 1 stays.
    let sum = clipped_sum([gradient(2.0, 3.0, 6.0), gradient(0.0, 0.6, 0.8)], 3.5, &model());
    assert_eq!(sum, gradient(1.0, 2.1, 3.8));
    assert_eq!(clip_factor(7.0, 3.5), 0.5);
    assert_eq!(clip_factor(3.5, 3.5), 1.0);
}

#[test]
fn a_zero_gradient_and_an_empty_batch_are_legal() {
    let zero = Gradient::zeros(&model());
    assert_eq!(zero, gradient(0.0, 0.0, 0.0));
    assert_eq!(clipped_sum([&zero, &zero], 1.0, &model()), zero);
    assert_eq!(clipped_sum(Vec::<Gradient>::new(), 1.0, &model()), zero);
    assert_eq!(sum(Vec::<Gradient>::new(), &model()), zero);
}

#[test]
fn a_gradient_that_is_not_finite_contributes_nothing_to_the_private_sum_and_spoils_the_plain_one() {
    let whole = gradient(1.0, 0.0, 0.0);
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let gradients = [whole.clone(), gradient(0.0, 5.0, bad)];
        assert!(!gradients[1].is_finite());
        assert_eq!(clipped_sum(&gradients, 10.0, &model()), whole);
        assert!(!sum(&gradients, &model()).is_finite());
    }
}

#[test]
fn the_relative_error_is_that_of_the_whole_gradient() {
    let reference = gradient(2.0, 3.0, 6.0);
    assert!((gradient(2.0, 3.0, 6.7).relative_error(&reference) - 0.7 / 7.0).abs() < 1e-12);
    assert_eq!(reference.relative_error(&reference), 0.0);
    let zero = Gradient::zeros(&model());
    assert_eq!(zero.relative_error(&zero), 0.0);
    assert_eq!(reference.relative_error(&zero), f64::INFINITY);
    assert_eq!(zero.relative_error(&reference), 1.0);
    assert!(gradient(f64::NAN, 0.0, 0.0).relative_error(&reference).is_nan());
}

#[test]
fn a_nan_or_an_infinity_in_an_example_gives_a_gradient_that_is_not_finite_for_every_model_of_numbers() {
    for name in ["logreg", "ffnn", "ffnn-regression", "mnist-cnn", "cifar10-cnn"] {
        let model = ModelSpec::built_in(name).unwrap();
        let oracle = Oracle::new(&model, &Params::init(&model, 1)).unwrap();
        let example_shape = model.input.dimensions();
        let count = example_shape.iter().product::<usize>();
        for bad in [f32::NAN, f32::INFINITY] {
            let mut values = vec![0.5; count];
            values[count / 2] = bad;
            let targets = match model.loss {
                Loss::CrossEntropy => Targets::Class(vec![1]),
                _ => Targets::Value(vec![1.0]),
            };
            let dataset = Dataset { example_shape: example_shape.clone(), inputs: Inputs::F32(values), targets };
            assert!(!oracle.example(&dataset, 0).gradient.is_finite(), "{name} with {bad}");
        }
    }
}

#[test]
fn params_that_are_not_the_models_are_refused_with_both_shapes() {
    let other = ModelSpec { input: ModelInput::Features(3), layers: vec![linear(3, 1)], ..model() };
    let error = Oracle::new(&model(), &Params::init(&other, 0)).err().unwrap().to_string();
    assert_eq!(error, "model `test`: parameters: `0.weight` [1, 3], the model has `0.weight` [1, 2]");
    let error = Oracle::new(&model(), &Params::default()).err().unwrap().to_string();
    assert_eq!(error, "model `test`: parameters: 0 tensors given, the model has 2");
}

#[test]
fn a_network_whose_logits_overflow_an_exponential_still_has_its_limit_as_loss_and_gradient() {
    let logits = ModelSpec { loss: Loss::CrossEntropy, layers: vec![linear(2, 2)], ..model() };
    let mut params = Params::init(&logits, 0);
    params.tensors[0].values = vec![1000.0, 0.0, 0.0, 0.0];
    params.tensors[1].values = vec![0.0, 0.0];
    let dataset =
        Dataset { example_shape: vec![2], inputs: Inputs::F32(vec![1.0, 1.0]), targets: Targets::Class(vec![1]) };
    let example = Oracle::new(&logits, &params).unwrap().example(&dataset, 0);
    assert_eq!(example.loss, 1000.0);
    assert_eq!(example.gradient.0, vec![vec![1.0, 1.0, -1.0, -1.0], vec![1.0, -1.0]]);
}
