//! Steps of generated models against the float64 oracle: any window, stride and padding, layers in odd places, any number
//! of threads, any batch.

mod generated;
mod steps_against_oracle;

use dpsgd_conformance::synthetic;
use dpsgd_core::{BatchRef, Layer, Load, Mode, ModelInput, ModelSpec, Pair, Params, Strategy};
use generated::models::{image_model, model, token_model, vector_model};
use steps_against_oracle::{away_from_kinks, error_of_step, gradients, load, variants};

const TOLERANCE: f64 = 1e-5;

fn job(model: &ModelSpec, examples: usize) -> Load {
    let mut job = synthetic::job(model, examples, Mode::Private, None);
    job.params = Params::init(model, 3);
    job
}

/// Every variant, private and plain: none clipped, some, all; a batch of one, repeated examples, padding.
fn check(models: impl Iterator<Item = ModelSpec>) {
    for model in models {
        model.validate().unwrap_or_else(|error| panic!("{error}: {model:?}"));
        let job = job(&model, 12);
        let gradients = gradients(&job);
        let chosen: Vec<u32> = away_from_kinks(&job).take(4).collect();
        let [a, b, c, d] = chosen[..] else { panic!("{}: too few examples away from kinks", model.name) };
        let mut norms: Vec<f64> = chosen.iter().map(|example| gradients[*example as usize].norm()).collect();
        norms.sort_by(f64::total_cmp);
        let median = norms[2].max(1e-3);
        for variant in variants(&job) {
            let mut strategy = load(&job, variant, 1);
            for (mode, clip_norm) in [
                (Mode::Private, median * 1e3),
                (Mode::Private, median),
                (Mode::Private, median * 1e-3),
                (Mode::NonPrivate, 1.0),
            ] {
                for (indices, mask) in [
                    (vec![a, b, c, d], vec![true; 4]),
                    (vec![d], vec![true]),
                    (vec![a, a, d, a], vec![true; 4]),
                    (vec![b, c, d, a], vec![false, true, true, false]),
                ] {
                    let batch = BatchRef { indices: &indices, mask: &mask };
                    let error = error_of_step(&mut strategy, &job, &gradients, (mode, clip_norm), &batch);
                    assert!(
                        error <= TOLERANCE,
                        "{variant}, {mode:?}, C = {clip_norm}, {batch:?}: {error:e}: {model:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn steps_of_generated_image_models_match_the_oracle() {
    check((0..80).map(|seed| image_model(seed, false)));
}

#[test]
fn steps_of_generated_models_with_gaps_match_the_oracle() {
    check((0..80).map(|seed| image_model(seed, true)));
}

#[test]
fn pixels_between_the_windows_of_a_pool_have_no_gradient() {
    let pair = |n| Pair { h: n, w: n };
    for is_max in [true, false] {
        let (kernel_size, stride) = (pair(1), Some(pair(3)));
        let pool = match is_max {
            true => Layer::MaxPool2d { kernel_size, stride },
            false => Layer::AvgPool2d { kernel_size, stride },
        };
        let mut model = model("pool with gaps".into(), ModelInput::Image([1, 5, 5]));
        model.layers = vec![convolution(pair(1), pair(1), pair(0)), pool, Layer::Flatten];
        check([model].into_iter());
    }
}

#[test]
fn a_convolution_with_one_window_is_normed_over_that_window() {
    let pair = |n| Pair { h: n, w: n };
    for (kernel, stride, padding) in [(5, 1, 1), (2, 2, 0), (3, 3, 1)] {
        let mut model = model(format!("one window of {kernel}"), ModelInput::Image([1, 3, 3]));
        model.layers = vec![convolution(pair(kernel), pair(stride), pair(padding)), Layer::Flatten];
        check([model].into_iter());
    }
}

#[test]
fn a_relu_before_the_loss_masks_its_gradient() {
    check([2, 9, 17, 40].into_iter().map(|out_features| {
        let mut model = model(format!("ReLU last, {out_features}"), ModelInput::Features(11));
        let first = Layer::Linear { in_features: 11, out_features: 12 };
        let last = Layer::Linear { in_features: 12, out_features };
        model.layers = vec![first, last, Layer::Relu];
        model
    }));
}

/// From one channel to three.
fn convolution(kernel_size: Pair, stride: Pair, padding: Pair) -> Layer {
    Layer::Conv2d { in_channels: 1, out_channels: 3, kernel_size, stride, padding }
}

#[test]
fn steps_of_generated_vector_models_match_the_oracle() {
    check((0..20).map(vector_model));
}

#[test]
fn steps_of_generated_token_models_match_the_oracle() {
    check((0..30).map(token_model));
}

/// Small models of every kind.
fn one_of_each() -> [ModelSpec; 4] {
    let [mut images, mut others] = [0, 0];
    let with = |kind: &str, seed: &mut u64, make: &dyn Fn(u64) -> ModelSpec| loop {
        let model = make(*seed);
        *seed += 1;
        if model.layers.iter().any(|layer| layer.kind() == kind) {
            return model;
        }
    };
    [
        with("conv2d", &mut images, &|seed| image_model(seed, false)),
        with("max_pool2d", &mut images, &|seed| image_model(seed, false)),
        with("relu", &mut others, &vector_model),
        with("lstm", &mut others, &token_model),
    ]
}

#[test]
fn any_number_of_threads_gives_the_sum_of_the_same_batch() {
    for model in one_of_each() {
        let job = job(&model, 6);
        let gradients = gradients(&job);
        let clip_norm = gradients[0].norm().max(1e-3);
        for variant in variants(&job) {
            for threads in [1, 2, 3, 9] {
                let mut strategy = load(&job, variant, threads);
                // More threads than examples, examples twice, padding in front, within and behind.
                for (indices, mask) in [
                    (vec![3], vec![true]),
                    (vec![0, 1, 2, 3, 4, 5], vec![true; 6]),
                    (vec![5, 5, 0, 1, 1, 2, 4], vec![false, true, true, false, true, true, false]),
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
}

#[test]
fn batches_larger_than_a_block_are_summed_over_blocks() {
    for model in one_of_each() {
        let job = job(&model, 7);
        let gradients = gradients(&job);
        let clip_norm = gradients[0].norm().max(1e-3);
        for variant in variants(&job) {
            for threads in [1, 2] {
                let mut strategy = load(&job, variant, threads);
                let block = strategy.plan().block;
                for count in [block - 1, block, block + 1, 2 * block * threads + 3] {
                    let indices: Vec<u32> = (0..count as u32).map(|slot| slot * 5 % 7).collect();
                    let mask: Vec<bool> = (0..count).map(|slot| slot % 11 != 3).collect();
                    let batch = BatchRef { indices: &indices, mask: &mask };
                    for mode in [Mode::Private, Mode::NonPrivate] {
                        let error = error_of_step(&mut strategy, &job, &gradients, (mode, clip_norm), &batch);
                        let name = &model.name;
                        assert!(
                            error <= TOLERANCE,
                            "{name}, {variant}, {threads} threads, {count} examples: {error:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn runs_with_as_many_threads_are_the_same_bit_by_bit() {
    for model in one_of_each() {
        let mut job = job(&model, 40);
        job.dp.noise_multiplier = 0.7;
        job.dp.learning_rate = 1e-3;
        for threads in [1, 2, 3] {
            let run = || {
                let mut strategy = load(&job, "best", threads);
                for step in 0..6 {
                    let indices: Vec<u32> = (0..30).map(|slot| (slot * 7 + step) % 40).collect();
                    strategy.step(&BatchRef { indices: &indices, mask: &[true; 30] }).expect("a step");
                }
                bits(&strategy.params().expect("parameters"))
            };
            let first = run();
            (0..3).for_each(|_| assert!(run() == first, "{}, {threads} threads", model.name));
        }
    }
}

#[test]
fn the_noise_is_the_same_for_any_number_of_threads() {
    for model in one_of_each() {
        let mut job = job(&model, 2);
        job.dp.noise_multiplier = 1.0;
        let noise = |threads: usize| {
            let mut strategy = load(&job, "best", threads);
            for _ in 0..3 {
                strategy.step(&BatchRef { indices: &[0, 1], mask: &[false, false] }).expect("a step");
            }
            bits(&strategy.params().expect("parameters"))
        };
        let alone = noise(1);
        assert!(alone != bits(&job.params), "{}: no noise", model.name);
        for threads in [2, 3, 5, 8] {
            assert!(noise(threads) == alone, "{}, {threads} threads", model.name);
        }
    }
}

fn bits(params: &Params) -> Vec<u32> {
    params.values().map(f32::to_bits).collect()
}

/// For Miri and valgrind, under which the others would take hours: `ci/memcheck`.
#[test]
fn a_small_step_of_portable_code() {
    let mut images = model("small images".into(), ModelInput::Image([1, 5, 6]));
    let (three, one) = (Pair { h: 3, w: 3 }, Pair { h: 1, w: 1 });
    let pool = Layer::MaxPool2d { kernel_size: Pair { h: 2, w: 2 }, stride: Some(one) };
    images.layers = vec![convolution(three, one, one), Layer::Relu, pool, Layer::Flatten];
    images.layers.push(Layer::Linear { in_features: 60, out_features: 3 });
    let mut tokens = model("small sequences".into(), ModelInput::Tokens { time: 3, vocabulary: 4 });
    tokens.layers = vec![
        Layer::Embedding { num_embeddings: 4, embedding_dim: 3 },
        Layer::Lstm { input_size: 3, hidden_size: 5 },
        Layer::MeanOverTime,
        Layer::Linear { in_features: 5, out_features: 2 },
    ];
    // Two linear layers, large enough for two threads to divide them by outputs.
    let mut pair = model("small pair".into(), ModelInput::Features(40));
    pair.layers = vec![
        Layer::Linear { in_features: 40, out_features: 32 },
        Layer::Relu,
        Layer::Linear { in_features: 32, out_features: 2 },
    ];
    assert!(load(&job(&pair, 3), "portable", 2).plan().most_by_outputs(2) >= 3);
    for model in [images, tokens, pair] {
        let job = job(&model, 3);
        let gradients = gradients(&job);
        let mut strategy = load(&job, "portable", 2);
        for mode in [Mode::Private, Mode::NonPrivate] {
            let batch = BatchRef { indices: &[0, 1, 2], mask: &[true, false, true] };
            let error = error_of_step(&mut strategy, &job, &gradients, (mode, 0.1), &batch);
            assert!(error <= TOLERANCE, "{}, {mode:?}: {error:e}", model.name);
        }
    }
}

fn averaged_embedding(vocabulary: usize) -> ModelSpec {
    ModelSpec {
        name: "averaged".into(),
        input: ModelInput::Tokens { time: 6, vocabulary },
        loss: dpsgd_core::Loss::CrossEntropy,
        layers: vec![
            Layer::Embedding { num_embeddings: vocabulary, embedding_dim: 5 },
            Layer::MeanOverTime,
            Layer::Linear { in_features: 5, out_features: 3 },
        ],
    }
}

#[test]
fn an_averaged_embedding_takes_batches_of_any_size() {
    // A vocabulary smaller than the number of threads, too.
    for vocabulary in [2, 20] {
        let job = job(&averaged_embedding(vocabulary), 12);
        let gradients = gradients(&job);
        // Of a thread's examples 1,024 at a time leave gradients that wait for their rows.
        for (counted, threads) in [(1, 3), (2, 3), (1024, 1), (1025, 1), (2048, 2), (2049, 2), (3073, 3)] {
            let indices: Vec<u32> = (0..counted + 3).map(|slot| slot % 12).collect();
            let mask: Vec<bool> = (0..counted + 3).map(|slot| slot < counted).collect();
            let batch = BatchRef { indices: &indices, mask: &mask };
            let empty = BatchRef { indices: &indices, mask: &vec![false; mask.len()] };
            for variant in variants(&job) {
                let mut strategy = load(&job, variant, threads);
                // A step must leave sums of zero to the next one.
                for (case, batch) in [
                    ((Mode::NonPrivate, 1.0), &batch),
                    ((Mode::Private, 0.1), &batch),
                    ((Mode::Private, 0.1), &empty),
                    ((Mode::NonPrivate, 1.0), &batch),
                    ((Mode::Private, 10.0), &batch),
                ] {
                    let error = error_of_step(&mut strategy, &job, &gradients, case, batch);
                    let what = || format!("{variant}, {case:?}, {counted} on {threads} threads of {vocabulary} rows");
                    assert!(error <= TOLERANCE, "{}: {error:e}", what());
                }
            }
        }
    }
}

#[test]
fn an_example_with_a_token_whose_row_is_nan_contributes_nothing() {
    let mut job = job(&averaged_embedding(20), 12);
    let token = 7;
    job.params.tensors[0].values[token * 5..][..5].fill(f32::NAN);
    let dpsgd_core::Inputs::Tokens(tokens) = &job.dataset.inputs else { unreachable!("tokens") };
    let has_it = |example: &u32| tokens[*example as usize * 6..][..6].contains(&(token as i32));
    let (with, without): (Vec<u32>, Vec<u32>) = (0..12).partition(has_it);
    assert!(!with.is_empty() && !without.is_empty());
    let step = |variant: &str, threads: usize, indices: &[u32]| {
        let mut strategy = load(&job, variant, threads);
        strategy.step(&BatchRef { indices, mask: &vec![true; indices.len()] }).unwrap();
        (strategy.params().unwrap(), strategy.non_finite_examples().unwrap())
    };
    for variant in variants(&job) {
        for threads in [1, 2] {
            let all: Vec<u32> = (0..12).collect();
            let (found, left_out) = step(variant, threads, &all);
            let (expected, none) = step(variant, threads, &without);
            assert_eq!((left_out, none), (with.len() as u64, 0), "{variant}");
            for (i, (found, expected)) in found.values().zip(expected.values()).enumerate() {
                let is_poisoned = (token * 5..(token + 1) * 5).contains(&i);
                assert_eq!(found.is_nan(), is_poisoned, "{variant}, number {i}");
                assert!(is_poisoned || (found - expected).abs() <= 1e-5, "{variant}, number {i}: {found}, {expected}");
            }
            // Nothing but examples that are left out.
            let (found, left_out) = step(variant, threads, &with);
            assert_eq!(left_out, with.len() as u64);
            let same = found.values().zip(job.params.values()).all(|(a, b)| a == b || a.is_nan() && b.is_nan());
            assert!(same, "{variant}: nothing moves");
        }
    }
}
