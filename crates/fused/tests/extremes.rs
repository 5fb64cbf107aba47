//! Examples with huge, tiny, zero and non-finite numbers, and clip norms from 1e-6 to more than any norm, against the
//! float64 oracle: an example's norm must be right also where an f32 can't hold its square.

mod steps_against_oracle;

use dpsgd_conformance::synthetic;
use dpsgd_core::{BatchRef, Inputs, Layer, Load, Loss, Mode, ModelInput, ModelSpec, Pair, Strategy, Targets};
use steps_against_oracle::{error_of_step, gradients, load, variants};

const TOLERANCE: f64 = 1e-5;
const CLIP_NORMS: [f64; 6] = [1e-6, 1e-3, 1.0, 1e3, 1e6, 1e300];

fn model(name: &str, input: ModelInput, loss: Loss, layers: Vec<Layer>) -> ModelSpec {
    ModelSpec { name: name.into(), input, loss, layers }
}

fn linear(in_features: usize, out_features: usize) -> Layer {
    Layer::Linear { in_features, out_features }
}

fn conv(in_channels: usize, out_channels: usize, size: usize) -> Layer {
    let pair = |n| Pair { h: n, w: n };
    Layer::Conv2d { in_channels, out_channels, kernel_size: pair(size), stride: pair(1), padding: pair(0) }
}

fn max_pool(size: usize) -> Layer {
    Layer::MaxPool2d { kernel_size: Pair { h: size, w: size }, stride: None }
}

/// One for each way to get at a norm: rank one; rank one in two layers, which two threads divide by outputs; kept or ghost.
fn models() -> [ModelSpec; 3] {
    use Layer::{Flatten, Relu};
    use Loss::CrossEntropy;
    let convolutions = vec![conv(2, 5, 3), Relu, max_pool(2), conv(5, 20, 2), Relu, Flatten, linear(80, 3)];
    [
        model("linear", ModelInput::Features(19), CrossEntropy, vec![linear(19, 4)]),
        model("two layers", ModelInput::Features(40), CrossEntropy, vec![linear(40, 34), Relu, linear(34, 3)]),
        model("convolutions", ModelInput::Image([2, 8, 8]), CrossEntropy, convolutions),
    ]
}

/// Five examples, of which `change` gets the inputs of number 2.
fn job(model: &ModelSpec, change: impl FnOnce(&mut [f32])) -> Load {
    let mut job = synthetic::job(model, 5, Mode::Private, None);
    let length = job.dataset.example_len();
    let Inputs::F32(values) = &mut job.dataset.inputs else { panic!("tokens have no size") };
    change(&mut values[2 * length..3 * length]);
    job
}

/// Private steps on all five examples, on the changed one, and on all others, in every variant, on one thread and on two.
fn check(job: &Load, clip_norms: &[f64], non_finite: bool) {
    let gradients = gradients(job);
    assert_eq!(!gradients[2].is_finite(), non_finite, "{}: {:?}", job.model.name, gradients[2]);
    if job.model.name == "two layers" {
        assert!(load(job, "best", 2).plan().most_by_outputs(2) >= 5);
    }
    let threads = |variant| [(variant, 1), (variant, 2)];
    for (variant, threads) in variants(job).into_iter().flat_map(threads) {
        let mut strategy = load(job, variant, threads);
        for clip_norm in clip_norms {
            for indices in [&[0, 1, 2, 3, 4][..], &[2], &[0, 1, 3, 4]] {
                let before = strategy.non_finite_examples().expect("a number");
                let mask = vec![true; indices.len()];
                let batch = BatchRef { indices, mask: &mask };
                let error = error_of_step(&mut strategy, job, &gradients, (Mode::Private, *clip_norm), &batch);
                let name = &job.model.name;
                let name = format!("{name}, {variant}, {threads} threads");
                assert!(error <= TOLERANCE, "{name}, C = {clip_norm:e}, examples {indices:?}: {error:e}");
                let counted = strategy.non_finite_examples().expect("a number") - before;
                assert_eq!(counted, u64::from(non_finite && indices.contains(&2)), "{name}: {indices:?}");
            }
        }
    }
}

#[test]
fn examples_of_any_size_are_clipped_by_their_true_norm() {
    for size in [0.0, 1e-30, 1e-18, 1e-9, 1e9, 1e18, 1e30] {
        for model in models() {
            println!("{}: {size:e}", model.name);
            let job = job(&model, |example| example.iter_mut().for_each(|value| *value *= size));
            check(&job, &CLIP_NORMS, false);
        }
    }
}

#[test]
fn one_huge_number_among_ordinary_ones_is_clipped_by_its_true_norm() {
    for size in [1e18, -1e18, 1e30, -1e30] {
        for model in models() {
            println!("{}: {size:e}", model.name);
            check(&job(&model, |example| example[3] = size), &CLIP_NORMS, false);
        }
    }
}

#[test]
fn an_example_that_is_not_finite_contributes_nothing_and_is_counted() {
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for model in models() {
            let length = synthetic::job(&model, 1, Mode::Private, None).dataset.example_len();
            for place in [0, length / 2, length - 1] {
                println!("{}: {poison} at {place}", model.name);
                check(&job(&model, |example| example[place] = poison), &[1e-3, 1.0, 1e300], true);
            }
        }
    }
}

#[test]
fn a_nan_that_is_pooled_first_is_not_lost() {
    let layers = vec![max_pool(2), Layer::Flatten, linear(4, 3)];
    let model = model("pool first", ModelInput::Image([1, 4, 4]), Loss::CrossEntropy, layers);
    for place in 0..16 {
        println!("NaN at {place}");
        check(&job(&model, |example| example[place] = f32::NAN), &[1.0], true);
    }
}

/// The gradients of a loss whose squares vanish in an f32, times inputs that make them large again; what the other layer
/// gives to the norm is too small to matter, and large enough to be noticed.
fn vanishing_squares(images: bool) -> Load {
    let (input, first) = match images {
        // Two positions, so that the gradient has to be kept, or its norm taken by Gram matrices.
        true => (ModelInput::Image([1, 1, 2]), vec![conv(1, 1, 1), Layer::Flatten, linear(2, 1)]),
        false => (ModelInput::Features(1), vec![linear(1, 1), linear(1, 1)]),
    };
    let mut job =
        synthetic::job(&model("vanishing squares", input, Loss::BceWithLogits, first), 5, Mode::Private, None);
    let Inputs::F32(values) = &mut job.dataset.inputs else { unreachable!("features") };
    values.fill(1e19);
    job.dataset.targets = Targets::Value(vec![0.0; 5]);
    for (tensor, value) in job.params.tensors.iter_mut().zip([1e-19, 0.0, 1e-10, -32.0]) {
        tensor.values.fill(value);
    }
    job
}

#[test]
fn rank_one_norms_with_vanishing_squares_are_not_lost() {
    let job = vanishing_squares(false);
    let norm = gradients(&job)[2].norm();
    assert!(norm > 1e-5, "{norm:e}");
    check(&job, &[1e-6, 1e-3], false);
}

#[test]
fn norms_over_positions_with_vanishing_squares_are_not_lost() {
    let job = vanishing_squares(true);
    let norm = gradients(&job)[2].norm();
    assert!(norm > 1e-5, "{norm:e}");
    check(&job, &[1e-6, 1e-3], false);
}

#[test]
fn a_gradient_beyond_f32_is_clipped_right_or_counted() {
    let images = vec![conv(1, 2, 2), Layer::GlobalAvgPool2d, linear(2, 1)];
    for model in [
        model("linear", ModelInput::Features(5), Loss::Mse, vec![linear(5, 1)]),
        model("convolution", ModelInput::Image([1, 4, 4]), Loss::Mse, images),
    ] {
        let job = job(&model, |example| example.iter_mut().for_each(|value| *value *= 1e25));
        assert!(gradients(&job)[2].is_finite() && gradients(&job)[2].norm() > 1e39);
        check_clipped_or_counted(&job, 1.0);
    }
}

#[test]
fn an_example_whose_clip_factor_is_no_normal_f32_is_clipped_right_or_counted() {
    for model in models() {
        let job = job(&model, |example| example.iter_mut().for_each(|value| *value *= 1e35));
        check_clipped_or_counted(&job, 1e-6);
    }
}

/// Four examples, of which the one at row 2 is extreme: all right, or that one left out and counted.
fn check_clipped_or_counted(job: &Load, clip_norm: f64) {
    let gradients = gradients(job);
    let mut without = gradients.clone();
    without[2] = dpsgd_core::oracle::Gradient::zeros(&job.model);
    for variant in variants(job) {
        let mut strategy = load(job, variant, 1);
        let batch = BatchRef { indices: &[0, 1, 2, 3], mask: &[true; 4] };
        let with = error_of_step(&mut strategy, job, &gradients, (Mode::Private, clip_norm), &batch);
        let counted = strategy.non_finite_examples().expect("a number");
        let left_out = error_of_step(&mut strategy, job, &without, (Mode::Private, clip_norm), &batch);
        let right = with <= TOLERANCE && counted == 0 || left_out <= TOLERANCE && counted == 1;
        assert!(right, "{}, {variant}: errors {with:e}, {left_out:e}, {counted} counted", job.model.name);
    }
}

#[test]
fn an_infinite_number_in_a_plain_step_stays_where_it_is() {
    let model = model("linear", ModelInput::Features(700), Loss::Mse, vec![linear(700, 1)]);
    let mut job = job(&model, |example| example[5] = 3e38);
    job.params.tensors[0].values[5] = 0.0;
    job.params.tensors[1].values[0] = 10.0;
    job.dp.mode = Mode::NonPrivate;
    job.dp.learning_rate = 1.0;
    let gradient = &gradients(&job)[2].0[0];
    for variant in variants(&job) {
        let mut strategy = load(&job, variant, 1);
        strategy.step(&BatchRef { indices: &[2], mask: &[true] }).expect("a step");
        let after = strategy.params().expect("parameters");
        for (i, value) in after.tensors[0].values.iter().enumerate().filter(|(i, _)| *i != 5) {
            let expected = f64::from(job.params.tensors[0].values[i]) - gradient[i];
            let error = (f64::from(*value) - expected).abs();
            assert!(error <= 1e-5 * (1.0 + expected.abs()), "{variant}, weight {i}: {value} instead of {expected}");
        }
    }
}

/// Two positions whose gradients nearly cancel: both Gram matrices round to the same number everywhere, and a norm made of
/// them to 0, while what is left of the gradient is thousands of clip norms long.
#[test]
fn positions_that_cancel_do_not_hide_a_gradient_from_clipping() {
    let size = 1 << 20;
    let input = ModelInput::Image([16, 1, 2]);
    let model = model("cancelling", input, Loss::Mse, vec![conv(16, 16, 1), Layer::Flatten, linear(32, 1)]);
    let mut job = synthetic::job(&model, 1, Mode::Private, None);
    for tensor in &mut job.params.tensors {
        tensor.values.fill(0.0);
    }
    // Features are channel by channel, two pixels each.
    let linear = &mut job.params.tensors[2].values;
    linear.iter_mut().enumerate().for_each(|(i, weight)| *weight = if i % 2 == 0 { 1.0 } else { -1.0 });
    let Inputs::F32(values) = &mut job.dataset.inputs else { panic!("an image is numbers") };
    for (i, value) in values.iter_mut().enumerate() {
        let (channel, pixel) = (i / 2, i % 2);
        let near = 1.0 + if channel % 2 == 0 { 1.0 } else { -1.0 } / 8192.0;
        *value = size as f32 * if pixel == 0 { 1.0 } else { near };
    }
    let Targets::Value(targets) = &mut job.dataset.targets else { panic!("a number to predict") };
    targets[0] = -0.5;
    for variant in variants(&job) {
        let mut strategy = load(&job, variant, 1);
        strategy.step(&BatchRef { indices: &[0], mask: &[true] }).expect("a step");
        let after = strategy.params().expect("parameters");
        let moved = job.params.values().zip(after.values()).map(|(before, after)| f64::from(before - after).powi(2));
        let norm = moved.sum::<f64>().sqrt();
        assert!(norm <= 1.001, "{variant}: moved by {norm}, clipped to 1");
    }
}
