//! Steps of generated models against the float64 oracle: any window, stride and padding, layers in odd places, any number
//! of threads, any batch.

mod generated;
mod steps_against_oracle;

use dpsgd_conformance::synthetic;
use dpsgd_core::{BatchRef, Layer, Load, Loss, Mode, ModelInput, ModelSpec, Pair, Params, Shape, Strategy};
use generated::Random;
use steps_against_oracle::{away_from_kinks, error_of_step, gradients, load, variants};

const TOLERANCE: f64 = 1e-5;

fn pair(random: &mut Random, from: usize, to: usize) -> Pair {
    Pair { h: random.within(from..to), w: random.within(from..to) }
}

/// Adds a layer if it fits; says whether it did.
fn push(model: &mut ModelSpec, layer: Layer) -> bool {
    model.layers.push(layer);
    // The loss is right only in the end: look at the shapes alone.
    let fits = shape(model).is_some();
    if !fits {
        model.layers.pop();
    }
    fits
}

/// What the last layer gives, if the layers fit together.
fn shape(model: &ModelSpec) -> Option<Shape> {
    let mut shape = model.input.shape();
    for layer in &model.layers {
        shape = layer.output(shape).ok()?;
    }
    Some(shape)
}

/// A linear layer, and its loss, for a model that ends in features.
fn head(random: &mut Random, model: &mut ModelSpec) {
    let Some(Shape::Features(in_features)) = shape(model) else { panic!("{model:?} doesn't end in features") };
    let out_features = if random.once_in(2) { 1 } else { random.within(2..40) };
    model.loss = match (out_features, random.once_in(2)) {
        (1, true) => Loss::Mse,
        (1, false) => Loss::BceWithLogits,
        _ => Loss::CrossEntropy,
    };
    model.layers.push(Layer::Linear { in_features, out_features });
}

fn model(name: String, input: ModelInput) -> ModelSpec {
    ModelSpec { name, input, loss: Loss::CrossEntropy, layers: Vec::new() }
}

/// Convolutions, pools and ReLU in any order, then perhaps linear layers. `gaps`: whether pools may leave out pixels
/// between their windows, and convolutions with a single window pixels around it.
fn image_model(seed: u64, gaps: bool) -> ModelSpec {
    let mut random = Random::new(seed);
    let channels = random.within(1..5);
    let input = ModelInput::Image([channels, random.within(1..12), random.within(1..12)]);
    let mut model = model(format!("images {seed}"), input);
    let random = &mut random;
    let mut trained = 0;
    for _ in 0..random.within(1..7) {
        let Some(Shape::Image { c: in_channels, h, w }) = shape(&model) else { unreachable!("still an image") };
        let pool_size = pair(random, 1, 4);
        let mut stride = pair(random, 1, 5);
        if !gaps {
            stride = Pair { h: stride.h.min(pool_size.h), w: stride.w.min(pool_size.w) };
        }
        let pool_stride = random.once_in(2).then_some(stride);
        let layer = match random.below(6) {
            0 => Layer::Relu,
            1 => Layer::MaxPool2d { kernel_size: pool_size, stride: pool_stride },
            2 => Layer::AvgPool2d { kernel_size: pool_size, stride: pool_stride },
            _ => Layer::Conv2d {
                in_channels,
                out_channels: if random.once_in(4) { random.within(14..40) } else { random.within(1..9) },
                // Small, any, or as large as the image.
                kernel_size: if random.once_in(5) { Pair { h, w } } else { pair(random, 1, 6) },
                stride: if random.once_in(2) { Pair { h: 1, w: 1 } } else { pair(random, 1, 5) },
                padding: if random.once_in(2) { Pair { h: 0, w: 0 } } else { pair(random, 0, 6) },
            },
        };
        let is_trained = matches!(layer, Layer::Conv2d { .. });
        if !gaps && is_a_window_unlike_its_image(&layer, shape(&model)) {
            continue;
        }
        if push(&mut model, layer) && is_trained {
            trained += 1;
        }
    }
    model.layers.push(if random.once_in(3) { Layer::GlobalAvgPool2d } else { Layer::Flatten });
    if random.once_in(3) {
        model.layers.push(Layer::Relu);
    }
    // Now and then the images go into the loss as they are.
    let ends_here = matches!(shape(&model), Some(Shape::Features(2..)))
        && !matches!(model.layers.last(), Some(Layer::Relu))
        && trained > 0;
    if !(ends_here && random.once_in(3)) {
        if random.once_in(2) {
            head(random, &mut model);
            model.layers.push(Layer::Relu);
        }
        head(random, &mut model);
    }
    model
}

/// Whether a convolution has one window that isn't just the image.
fn is_a_window_unlike_its_image(layer: &Layer, input: Option<Shape>) -> bool {
    let (Some(Shape::Image { h, w, .. }), Layer::Conv2d { kernel_size, padding, .. }) = (input, layer) else {
        return false;
    };
    let output = input.and_then(|input| layer.output(input).ok());
    let is_image = *kernel_size == Pair { h, w } && *padding == Pair { h: 0, w: 0 };
    matches!(output, Some(Shape::Image { h: 1, w: 1, .. })) && !is_image
}

/// Linear layers and ReLU.
fn vector_model(seed: u64) -> ModelSpec {
    let mut random = Random::new(seed);
    let mut model = model(format!("vectors {seed}"), ModelInput::Features(random.within(1..80)));
    for _ in 0..random.below(4) {
        let Some(Shape::Features(in_features)) = shape(&model) else { unreachable!("features") };
        if random.once_in(4) {
            model.layers.push(Layer::Relu);
        }
        model.layers.push(Layer::Linear { in_features, out_features: random.within(1..80) });
        if random.once_in(2) {
            model.layers.push(Layer::Relu);
        }
    }
    head(&mut random, &mut model);
    model
}

/// An embedding of few tokens, so that they repeat, then LSTMs or none.
fn token_model(seed: u64) -> ModelSpec {
    let mut random = Random::new(seed);
    let (time, vocabulary) = (random.within(1..11), random.within(1..30));
    let mut model = model(format!("tokens {seed}"), ModelInput::Tokens { time, vocabulary });
    let mut width = random.within(1..41);
    model.layers.push(Layer::Embedding { num_embeddings: vocabulary, embedding_dim: width });
    for _ in 0..random.below(3) {
        if random.once_in(4) {
            push(&mut model, Layer::Relu);
        }
        let hidden_size = random.within(1..41);
        model.layers.push(Layer::Lstm { input_size: width, hidden_size });
        width = hidden_size;
    }
    if random.once_in(4) {
        push(&mut model, Layer::Relu);
    }
    model.layers.push(Layer::MeanOverTime);
    if random.once_in(4) {
        model.layers.push(Layer::Relu);
    }
    head(&mut random, &mut model);
    model
}

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
    for model in [images, tokens] {
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
