//! Steps of two linear layers, which threads may divide by outputs, against the float64 oracle.

mod generated;
mod steps_against_oracle;

use dpsgd_conformance::synthetic;
use dpsgd_core::{BatchRef, Inputs, Layer, Load, Loss, Mode, ModelInput, ModelSpec, Params, Strategy};
use dpsgd_fused::plan::{Methods, Plan};
use generated::Random;
use steps_against_oracle::{error_of_step, gradients, load, variants};

const TOLERANCE: f64 = 1e-5;

/// Two linear layers of any sizes, with and without ReLUs.
fn two_layers(seed: u64) -> ModelSpec {
    let mut random = Random::new(seed);
    let (inputs, hidden) = (random.within(1..120), random.within(17..150));
    let outputs = if random.once_in(3) { 1 } else { random.within(2..36) };
    let mut model = generated::models::model(format!("two layers {seed}"), ModelInput::Features(inputs));
    model.layers.push(Layer::Linear { in_features: inputs, out_features: hidden });
    if !random.once_in(4) {
        model.layers.push(Layer::Relu);
    }
    model.layers.push(Layer::Linear { in_features: hidden, out_features: outputs });
    if random.once_in(4) {
        model.layers.push(Layer::Relu);
    }
    model.loss = match (outputs, random.once_in(2)) {
        (1, true) => Loss::Mse,
        (1, false) => Loss::BceWithLogits,
        _ => Loss::CrossEntropy,
    };
    model
}

fn job(model: &ModelSpec, examples: usize) -> Load {
    synthetic::job(model, examples, Mode::Private, None)
}

#[test]
fn steps_of_two_layers_match_the_oracle_on_any_number_of_threads() {
    let mut divided = 0;
    for seed in 0..12 {
        let model = two_layers(seed);
        let job = job(&model, 9);
        let gradients = gradients(&job);
        let clip_norm = gradients[0].norm().max(1e-3);
        for variant in variants(&job) {
            for threads in [1, 2, 3, 5] {
                let mut strategy = load(&job, variant, threads);
                divided += usize::from(strategy.plan().most_by_outputs(threads) >= 7);
                for (indices, mask) in [
                    (vec![3], vec![true]),
                    (vec![0, 1, 2, 3, 4, 5, 8], vec![true; 7]),
                    (vec![5, 5, 0, 1, 1, 2, 4], vec![false, true, true, false, true, true, false]),
                    (vec![0, 1], vec![false, false]),
                ] {
                    for mode in [Mode::Private, Mode::NonPrivate] {
                        let batch = BatchRef { indices: &indices, mask: &mask };
                        let error = error_of_step(&mut strategy, &job, &gradients, (mode, clip_norm), &batch);
                        let name = &model.name;
                        assert!(error <= TOLERANCE, "{name}, {variant}, {threads} threads, {mode:?}: {error:e}");
                    }
                }
            }
        }
    }
    assert!(divided > 50, "{divided} of these divide by outputs");
}

#[test]
fn batches_of_several_rounds_are_summed_over_them() {
    let model = ModelSpec::built_in("ffnn").unwrap();
    let job = job(&model, 7);
    let gradients = gradients(&job);
    let clip_norm = gradients[0].norm();
    for threads in [2, 3] {
        let mut strategy = load(&job, "best", threads);
        let most = strategy.plan().most_by_outputs(threads);
        // The last two are on both sides of where the division changes.
        for count in [255, 256, 257, 300, most, most + 1] {
            let indices: Vec<u32> = (0..count as u32).map(|slot| slot * 5 % 7).collect();
            let batch = BatchRef { indices: &indices, mask: &vec![true; count] };
            for mode in [Mode::Private, Mode::NonPrivate] {
                let error = error_of_step(&mut strategy, &job, &gradients, (mode, clip_norm), &batch);
                assert!(error <= TOLERANCE, "{threads} threads, {count} examples: {error:e}");
            }
        }
    }
}

#[test]
fn a_batch_is_divided_by_outputs_only_where_that_is_less_work() {
    let two_layers = |inputs, hidden, outputs| {
        let mut model = generated::models::model("two layers".to_string(), ModelInput::Features(inputs));
        model.layers.push(Layer::Linear { in_features: inputs, out_features: hidden });
        model.layers.push(Layer::Relu);
        model.layers.push(Layer::Linear { in_features: hidden, out_features: outputs });
        model.loss = Loss::CrossEntropy;
        Plan::new(&model, Methods::default()).expect("a valid model")
    };
    assert!(two_layers(104, 50, 2).most_by_outputs(2) >= 64);
    // Every thread would read all the outputs, and take the softmax of all examples.
    for threads in [2, 3, 4] {
        assert_eq!(two_layers(104, 64, 1000).most_by_outputs(threads), 0, "{threads} threads");
    }
    // Fewer panels than threads.
    assert_eq!(two_layers(104, 16, 2).most_by_outputs(2), 0);
    assert_eq!(two_layers(104, 32, 2).most_by_outputs(3), 0);
}

/// The parameters after some steps with noise on these examples.
fn after(job: &Load, variant: &str, threads: usize, indices: &[u32]) -> (Vec<u32>, Params, u64) {
    let mut strategy = load(job, variant, threads);
    for _ in 0..3 {
        strategy.step(&BatchRef { indices, mask: &vec![true; indices.len()] }).expect("a step");
    }
    let params = strategy.params().expect("parameters");
    let bits = params.tensors.iter().flat_map(|tensor| tensor.values.iter().map(|value| value.to_bits())).collect();
    (bits, params, strategy.non_finite_examples().expect("a count"))
}

#[test]
fn an_example_that_is_not_finite_contributes_nothing_and_is_counted() {
    // The last are numbers whose squares, or those of what comes of them, take more digits than an f32 has.
    for (name, large) in [("ffnn", 1e30), ("ffnn-regression", 1e16)] {
        let model = ModelSpec::built_in(name).unwrap();
        let mut job = job(&model, 40);
        job.dp.learning_rate = 1e-2;
        let Inputs::F32(values) = &mut job.dataset.inputs else { unreachable!("features") };
        let inputs = values.len() / 40;
        values[3 * inputs + 5] = f32::NAN;
        values[17 * inputs + 50] = f32::INFINITY;
        values[20 * inputs + 1] = large;
        let all: Vec<u32> = (0..40).collect();
        let without: Vec<u32> = (0..40).filter(|example| ![3, 17].contains(example)).collect();
        for variant in variants(&job) {
            for threads in [2, 3] {
                assert!(load(&job, variant, threads).plan().most_by_outputs(threads) >= 40);
                let (_, found, left_out) = after(&job, variant, threads, &all);
                let (_, expected, none) = after(&job, variant, threads, &without);
                assert_eq!((left_out, none), (6, 0), "{name}, {variant}, {threads} threads");
                for (found, expected) in found.tensors.iter().zip(&expected.tensors) {
                    for (found, expected) in found.values.iter().zip(&expected.values) {
                        assert!((found - expected).abs() <= 1e-5, "{name}, {variant}: {found}, not {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn runs_are_the_same_bit_by_bit_and_noise_is_that_of_one_thread() {
    let model = ModelSpec::built_in("ffnn").unwrap();
    let mut job = job(&model, 300);
    job.dp.noise_multiplier = 0.7;
    job.dp.learning_rate = 1e-2;
    job.dp.expected_batch_size = 300.0;
    let all: Vec<u32> = (0..300).collect();
    let (_, alone, _) = after(&job, "best", 1, &all);
    for threads in [2, 3, 5] {
        let (bits, params, _) = after(&job, "best", threads, &all);
        (0..5).for_each(|_| assert!(after(&job, "best", threads, &all).0 == bits, "{threads} threads"));
        for (found, expected) in params.tensors.iter().zip(&alone.tensors) {
            for (found, expected) in found.values.iter().zip(&expected.values) {
                assert!((found - expected).abs() <= 1e-6, "{threads} threads: {found}, not {expected}");
            }
        }
    }
}
