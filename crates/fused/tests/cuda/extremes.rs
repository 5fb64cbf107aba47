//! Huge, tiny and zero numbers, and clip norms from 1e-6 to more than any norm, on the emulator: norms must be right also
//! where an f32 can't hold their squares.

use dpsgd_conformance::synthetic;
use dpsgd_core::{BatchRef, Inputs, Layer, Load, Loss, Mode, ModelInput, ModelSpec, Pair, Strategy, Targets};

use crate::emulator::{Emulated, Settings, is_available, with};
use crate::steps_against_oracle::{error_of_step, gradients};

const TOLERANCE: f64 = 1e-5;

/// Whole examples, then chunks by every method.
const WAYS: [(bool, &str); 3] = [(true, "best"), (false, "kept"), (false, "ghost")];

fn conv(in_channels: usize, out_channels: usize, size: usize) -> Layer {
    let pair = |n| Pair { h: n, w: n };
    Layer::Conv2d { in_channels, out_channels, kernel_size: pair(size), stride: pair(1), padding: pair(0) }
}

fn linear(in_features: usize, out_features: usize) -> Layer {
    Layer::Linear { in_features, out_features }
}

fn model(name: &str, input: ModelInput, loss: Loss, layers: Vec<Layer>) -> ModelSpec {
    ModelSpec { name: name.into(), input, loss, layers }
}

fn models() -> [ModelSpec; 2] {
    use Layer::{Flatten, Relu};
    let pool = Layer::MaxPool2d { kernel_size: Pair { h: 2, w: 2 }, stride: None };
    let convolutions = vec![conv(2, 5, 3), Relu, pool, conv(5, 20, 2), Relu, Flatten, linear(80, 3)];
    let two = vec![linear(7, 18), Relu, linear(18, 3)];
    [
        model("two layers", ModelInput::Features(7), Loss::CrossEntropy, two),
        model("convolutions", ModelInput::Image([2, 8, 8]), Loss::CrossEntropy, convolutions),
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

/// The job's strategy, each way.
fn each_way(job: &Load, mut of: impl FnMut(&mut Emulated, &str)) {
    for (resident, variant) in WAYS {
        let mut job = job.clone();
        job.settings.variant = Some(variant.into());
        let mut strategy = with(Settings { resident, ..Settings::new() }, || Emulated::load(job).expect("loads"));
        of(&mut strategy, variant);
    }
}

fn check(job: &Load, clip_norms: &[f64], non_finite: bool) {
    let gradients = gradients(job);
    each_way(job, |strategy, variant| {
        for clip_norm in clip_norms {
            for indices in [&[0, 1, 2, 3, 4][..], &[2], &[0, 1, 3, 4]] {
                let before = strategy.non_finite_examples().expect("a number");
                let mask = vec![true; indices.len()];
                let batch = BatchRef { indices, mask: &mask };
                let error = error_of_step(strategy, job, &gradients, (Mode::Private, *clip_norm), &batch);
                let name = &job.model.name;
                assert!(error <= TOLERANCE, "{name}, {variant}, C = {clip_norm:e}, examples {indices:?}: {error:e}");
                let counted = strategy.non_finite_examples().expect("a number") - before;
                assert_eq!(counted, u64::from(non_finite && indices.contains(&2)), "{name}, {variant}: {indices:?}");
            }
        }
    });
}

#[test]
fn examples_of_any_size_are_clipped_by_their_true_norm() {
    if !is_available() {
        return;
    }
    for size in [0.0, 1e-30, 1e-18, 1e-9, 1e9, 1e18, 1e30] {
        for model in models() {
            println!("{}: {size:e}", model.name);
            let job = job(&model, |example| example.iter_mut().for_each(|value| *value *= size));
            check(&job, &[1e-6, 1e-3, 1.0, 1e3, 1e6, 1e300], false);
        }
    }
}

#[test]
fn an_example_that_is_not_finite_contributes_nothing_and_is_counted() {
    if !is_available() {
        return;
    }
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for model in models() {
            let length = job(&model, |_| ()).dataset.example_len();
            for place in [0, length / 2, length - 1] {
                println!("{}: {poison} at {place}", model.name);
                check(&job(&model, |example| example[place] = poison), &[1e-3, 1.0, 1e300], true);
            }
        }
    }
}

/// Gradients of a loss whose squares vanish in an f32, times inputs that make them large again.
#[test]
fn norms_with_vanishing_squares_are_not_lost() {
    if !is_available() {
        return;
    }
    let image = vec![conv(1, 1, 1), Layer::Flatten, linear(2, 1)];
    for (input, layers) in
        [(ModelInput::Features(1), vec![linear(1, 1), linear(1, 1)]), (ModelInput::Image([1, 1, 2]), image)]
    {
        let mut job = job(&model("vanishing squares", input, Loss::BceWithLogits, layers), |_| ());
        let Inputs::F32(values) = &mut job.dataset.inputs else { unreachable!("numbers") };
        values.fill(1e19);
        job.dataset.targets = Targets::Value(vec![0.0; 5]);
        for (tensor, value) in job.params.tensors.iter_mut().zip([1e-19, 0.0, 1e-10, -32.0]) {
            tensor.values.fill(value);
        }
        assert!(gradients(&job)[2].norm() > 1e-5);
        check(&job, &[1e-6, 1e-3], false);
    }
}

#[test]
fn an_infinite_number_in_a_plain_step_stays_where_it_is() {
    if !is_available() {
        return;
    }
    let model = model("linear", ModelInput::Features(700), Loss::Mse, vec![linear(700, 1)]);
    let mut job = job(&model, |example| example[5] = 3e38);
    job.params.tensors[0].values[5] = 0.0;
    job.params.tensors[1].values[0] = 10.0;
    job.dp.mode = Mode::NonPrivate;
    job.dp.learning_rate = 1.0;
    let gradient = &gradients(&job)[2].0[0];
    each_way(&job, |strategy, variant| {
        strategy.step(&BatchRef { indices: &[2], mask: &[true] }).expect("a step");
        let after = strategy.params().expect("parameters");
        for (i, value) in after.tensors[0].values.iter().enumerate().filter(|(i, _)| *i != 5) {
            let expected = f64::from(job.params.tensors[0].values[i]) - gradient[i];
            let error = (f64::from(*value) - expected).abs();
            assert!(error <= 1e-5 * (1.0 + expected.abs()), "{variant}, weight {i}: {value} instead of {expected}");
        }
    });
}

/// Two positions whose gradients nearly cancel, while what is left is thousands of clip norms long.
#[test]
fn positions_that_cancel_do_not_hide_a_gradient_from_clipping() {
    if !is_available() {
        return;
    }
    let layers = vec![conv(16, 16, 1), Layer::Flatten, linear(32, 1)];
    let model = model("cancelling", ModelInput::Image([16, 1, 2]), Loss::Mse, layers);
    let mut job = synthetic::job(&model, 1, Mode::Private, None);
    job.params.tensors.iter_mut().for_each(|tensor| tensor.values.fill(0.0));
    // Features are channel by channel, two pixels each.
    let weights = &mut job.params.tensors[2].values;
    weights.iter_mut().enumerate().for_each(|(i, weight)| *weight = if i % 2 == 0 { 1.0 } else { -1.0 });
    let Inputs::F32(values) = &mut job.dataset.inputs else { panic!("an image is numbers") };
    for (i, value) in values.iter_mut().enumerate() {
        let (channel, pixel) = (i / 2, i % 2);
        let near = 1.0 + if channel % 2 == 0 { 1.0 } else { -1.0 } / 8192.0;
        *value = (1 << 20) as f32 * if pixel == 0 { 1.0 } else { near };
    }
    job.dataset.targets = Targets::Value(vec![-0.5]);
    each_way(&job, |strategy, variant| {
        strategy.step(&BatchRef { indices: &[0], mask: &[true] }).expect("a step");
        let after = strategy.params().expect("parameters");
        let moved = job.params.values().zip(after.values()).map(|(before, after)| f64::from(before - after).powi(2));
        let norm = moved.sum::<f64>().sqrt();
        assert!(norm <= 1.001, "{variant}: moved by {norm}, clipped to 1");
    });
}

/// An average over so many tokens that the clip factor, divided by their number, is no normal f32 and has few digits.
#[test]
fn small_factors_of_averaged_embeddings_keep_their_digits() {
    if !is_available() {
        return;
    }
    const TIME: usize = 2048;
    let input = ModelInput::Tokens { time: TIME, vocabulary: TIME };
    let embedding = Layer::Embedding { num_embeddings: TIME, embedding_dim: 1 };
    let model = model("average", input, Loss::Mse, vec![embedding, Layer::MeanOverTime, linear(1, 1)]);
    let mut job = synthetic::job(&model, 1, Mode::Private, None);
    job.dataset.inputs = Inputs::Tokens((0..TIME as i32).collect());
    job.dataset.targets = Targets::Value(vec![-3.7e36]);
    job.params.tensors[0].values.fill(1e-3);
    job.params.tensors[1].values.fill(40.0);
    let gradients = gradients(&job);
    let largest_error = |fault| {
        let load = || Emulated::load(job.clone()).expect("loads");
        let mut strategy = with(Settings { fault, ..Settings::new() }, load);
        let errors = [0.13, 0.15, 0.17, 0.19, 0.21, 0.23].map(|clip_norm| {
            let batch = BatchRef { indices: &[0], mask: &[true] };
            error_of_step(&mut strategy, &job, &gradients, (Mode::Private, clip_norm), &batch)
        });
        assert_eq!(strategy.non_finite_examples().expect("a number"), 0);
        errors.into_iter().fold(0.0, f64::max)
    };
    let divided = ("fmaf(factor, row, *sum)", "fmaf(factor / (float)L::TIME, gradient, *sum)");
    let (right, wrong) = (largest_error(None), largest_error(Some(divided)));
    assert!(right <= 1e-6 && wrong > 2e-6, "{right:e}, with a divided factor {wrong:e}");
}
