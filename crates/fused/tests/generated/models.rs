//! Generated models: layers in any order that fits.

use dpsgd_core::{Layer, Loss, ModelInput, ModelSpec, Pair, Shape};

use super::Random;

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

/// A model without layers.
pub fn model(name: String, input: ModelInput) -> ModelSpec {
    ModelSpec { name, input, loss: Loss::CrossEntropy, layers: Vec::new() }
}

/// Convolutions, pools and ReLU in any order, then perhaps linear layers. `gaps`: whether pools may leave out pixels
/// between their windows, and convolutions with a single window pixels around it.
pub fn image_model(seed: u64, gaps: bool) -> ModelSpec {
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
pub fn vector_model(seed: u64) -> ModelSpec {
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
pub fn token_model(seed: u64) -> ModelSpec {
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
