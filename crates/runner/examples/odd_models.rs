//! Writes the odd small models on which nobody right may be disqualified, and the config that verifies them all:
//! `cargo run -p runner --example odd_models -- bench-configs`. The same seed gives the same files.

use std::fmt::Write as _;
use std::path::Path;

use dpsgd_core::oracle::Oracle;
use dpsgd_core::{Dataset, Inputs, Layer, Loss, ModelInput, ModelSpec, Pair, Params, Shape, Targets};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use rand_distr::StandardNormal;

/// Models drawn at random, beside those made by hand.
const RANDOM: u64 = 20;
/// The seed of the parameters, as in the config.
const SEED: u64 = 1;

fn main() {
    let folder = std::env::args().nth(1).expect("usage: odd_models FOLDER");
    let folder = Path::new(&folder);
    let models: Vec<ModelSpec> = by_hand().into_iter().chain((1..=RANDOM).map(random_model)).collect();
    let out = folder.join("models/odd");
    std::fs::create_dir_all(&out).unwrap();
    for model in &models {
        std::fs::write(out.join(format!("{}.toml", model.name)), text(model)).unwrap();
    }
    std::fs::write(folder.join("odd.toml"), config(&models)).unwrap();
}

/// The smallest of each kind.
fn by_hand() -> Vec<ModelSpec> {
    let linear = |in_features, out_features| Layer::Linear { in_features, out_features };
    let model = |name: &str, input, loss, layers| ModelSpec { name: name.into(), input, loss, layers };
    let tokens = |time, vocabulary| ModelInput::Tokens { time, vocabulary };
    vec![
        model("odd-two-parameters", ModelInput::Features(1), Loss::Mse, vec![linear(1, 1)]),
        model("odd-two-words", tokens(3, 2), Loss::BceWithLogits, {
            let embedding = Layer::Embedding { num_embeddings: 2, embedding_dim: 1 };
            vec![embedding, Layer::MeanOverTime, linear(1, 1)]
        }),
        model("odd-one-step-of-time", tokens(1, 2), Loss::CrossEntropy, {
            let embedding = Layer::Embedding { num_embeddings: 2, embedding_dim: 1 };
            vec![embedding, Layer::Lstm { input_size: 1, hidden_size: 1 }, Layer::MeanOverTime, linear(1, 2)]
        }),
        model("odd-one-pixel", ModelInput::Image([1, 1, 1]), Loss::Mse, {
            let (kernel_size, stride) = (pair(1, 1), pair(1, 1));
            let conv = Layer::Conv2d { in_channels: 1, out_channels: 1, kernel_size, stride, padding: pair(0, 0) };
            vec![conv, Layer::Flatten]
        }),
    ]
}

fn pair(h: usize, w: usize) -> Pair {
    Pair { h, w }
}

/// The first model of this number whose examples nearly all have a gradient.
fn random_model(number: u64) -> ModelSpec {
    let mut rng = ChaCha12Rng::seed_from_u64(number);
    loop {
        let mut model = match number % 3 {
            0 => token_model(&mut rng),
            1 => image_model(&mut rng),
            _ => vector_model(&mut rng),
        };
        model.name = format!("odd-{number:02}");
        if model.validate().is_ok() && is_alive(&model, &mut rng) {
            return model;
        }
    }
}

/// Whether it learns: behind ReLUs that are off, no example has a gradient, and there would be nothing to verify.
fn is_alive(model: &ModelSpec, rng: &mut ChaCha12Rng) -> bool {
    let oracle = Oracle::new(model, &Params::init(model, SEED)).unwrap();
    let moved = (0..40).filter(|_| oracle.example(&example(model, rng), 0).gradient.norm() > 1e-3);
    moved.count() > 36
}

fn example(model: &ModelSpec, rng: &mut ChaCha12Rng) -> Dataset {
    let example_shape = model.input.dimensions();
    let count = example_shape.iter().product();
    let inputs = match model.input {
        ModelInput::Tokens { vocabulary, .. } => {
            Inputs::Tokens((0..count).map(|_| rng.random_range(0..vocabulary) as i32).collect())
        }
        _ => Inputs::F32((0..count).map(|_| rng.sample(StandardNormal)).collect()),
    };
    let targets = match model.loss {
        Loss::CrossEntropy => Targets::Class(vec![rng.random_range(0..model.outputs().unwrap()) as i32]),
        Loss::BceWithLogits => Targets::Value(vec![f32::from(rng.random::<bool>())]),
        Loss::Mse => Targets::Value(vec![rng.sample(StandardNormal)]),
    };
    Dataset { example_shape, inputs, targets }
}

fn shape(model: &ModelSpec) -> Shape {
    model.layers.iter().fold(model.input.shape(), |shape, layer| layer.output(shape).expect("layers that fit"))
}

/// Adds a layer if it fits.
fn push(model: &mut ModelSpec, layer: Layer) {
    if layer.output(shape(model)).is_ok() {
        model.layers.push(layer);
    }
}

fn empty(input: ModelInput) -> ModelSpec {
    ModelSpec { name: "new".into(), input, loss: Loss::CrossEntropy, layers: Vec::new() }
}

/// A linear layer and a loss that go with each other.
fn end(mut model: ModelSpec, rng: &mut ChaCha12Rng) -> ModelSpec {
    let Shape::Features(in_features) = shape(&model) else { unreachable!("features are left") };
    let out_features = rng.random_range(1..5);
    model.loss = match (out_features, rng.random::<bool>()) {
        (1, true) => Loss::Mse,
        (1, false) => Loss::BceWithLogits,
        _ => Loss::CrossEntropy,
    };
    model.layers.push(Layer::Linear { in_features, out_features });
    model
}

fn vector_model(rng: &mut ChaCha12Rng) -> ModelSpec {
    let mut width = rng.random_range(1..12);
    let mut model = empty(ModelInput::Features(width));
    for _ in 0..rng.random_range(0..4) {
        let out_features = rng.random_range(1..20);
        model.layers.push(Layer::Linear { in_features: width, out_features });
        width = out_features;
        if rng.random() {
            model.layers.push(Layer::Relu);
        }
    }
    end(model, rng)
}

fn token_model(rng: &mut ChaCha12Rng) -> ModelSpec {
    let (time, vocabulary) = (rng.random_range(1..9), rng.random_range(2..12));
    let mut model = empty(ModelInput::Tokens { time, vocabulary });
    let mut width = rng.random_range(1..9);
    model.layers.push(Layer::Embedding { num_embeddings: vocabulary, embedding_dim: width });
    for _ in 0..rng.random_range(0..3) {
        let hidden_size = rng.random_range(1..9);
        model.layers.push(Layer::Lstm { input_size: width, hidden_size });
        width = hidden_size;
    }
    model.layers.push(Layer::MeanOverTime);
    end(model, rng)
}

fn image_model(rng: &mut ChaCha12Rng) -> ModelSpec {
    let sizes = [rng.random_range(1..4), rng.random_range(2..10), rng.random_range(2..10)];
    let mut model = empty(ModelInput::Image(sizes));
    for _ in 0..rng.random_range(1..6) {
        let Shape::Image { c: in_channels, .. } = shape(&model) else { unreachable!("still an image") };
        let mut any = |from: usize, to: usize| pair(rng.random_range(from..to), rng.random_range(from..to));
        let (kernel_size, stride, padding) = (any(1, 5), any(1, 4), any(0, 3));
        let windows = any(1, 4);
        let pool_stride = rng.random::<bool>().then_some(stride);
        let layer = match rng.random_range(0..6) {
            0 => Layer::MaxPool2d { kernel_size: windows, stride: pool_stride },
            1 => Layer::AvgPool2d { kernel_size: windows, stride: pool_stride },
            2 => Layer::Relu,
            _ => Layer::Conv2d { in_channels, out_channels: rng.random_range(1..7), kernel_size, stride, padding },
        };
        push(&mut model, layer);
    }
    model.layers.push(if rng.random_range(0..3) == 0 { Layer::GlobalAvgPool2d } else { Layer::Flatten });
    end(model, rng)
}

/// A model file.
fn text(model: &ModelSpec) -> String {
    let mut text = format!(
        "# Written by crates/runner/examples/odd_models.rs: an odd model for the gate.\nname = {:?}\n",
        model.name
    );
    writeln!(text, "input = {}\nloss = {}\n\nlayers = [", inline(&model.input), inline(&model.loss)).unwrap();
    model.layers.iter().for_each(|layer| writeln!(text, "    {},", layer_text(layer)).unwrap());
    text + "]\n"
}

/// A layer of a model file, its kind first.
fn layer_text(layer: &Layer) -> String {
    let text = inline(layer);
    let kind = format!("kind = \"{}\"", layer.kind());
    let rest = text.replacen(&kind, "", 1).replace("{ ,", "{").replace(", ,", ",").replace(",  }", " }");
    let keys = rest.trim_start_matches('{').trim_end_matches('}').trim();
    if keys.is_empty() { format!("{{ {kind} }}") } else { format!("{{ {kind}, {keys} }}") }
}

/// A value of a TOML file, on one line.
fn inline(value: &impl serde::Serialize) -> String {
    toml::Value::try_from(value).expect("a model is plain data").to_string()
}

/// Every contender of default.toml on every odd model.
fn config(models: &[ModelSpec]) -> String {
    let names: Vec<String> = models.iter().map(|model| format!("{:?}", model.name)).collect();
    let mut text = format!(
        "# Odd small models, on which no right contender may be disqualified: `runner verify --config bench-configs/odd.toml`.\n\
         # Written by `cargo run -p runner --example odd_models -- bench-configs`.\n\
         workloads = [\n    {},\n]\n\
         strategies = [\n    \"fused:best\",\n    \"jax:jit+vmap\",\n    \"jax:jit+vmap+im2col\",\n    \
         \"jax:jit+vmap+reweight\",\n    \"opacus:hooks\",\n    \"opacus:ghost\",\n    \"torch-func:eager\",\n    \
         \"tensorflow:xla+vmap\",\n    \"tensorflow:vmap\",\n    \"naive\",\n    \"batched\",\n]\n\
         batch_sizes = [16]\nmodes = [\"private\", \"non_private\"]\nprocesses = 1\nepochs = 1\nexamples = 64\n\
         schedule = \"shuffle\"\nseed = {SEED}\ntimeout_s = 120\n\n\
         [dp]\nclip_norm = 1.0\nnoise_multiplier = 1.1\nlearning_rate = 0.1\n",
        names.join(",\n    ")
    );
    for model in models {
        let name = &model.name;
        write!(text, "\n[[workload]]\nname = {name:?}\nmodel = \"models/odd/{name}.toml\"\ndataset = \"synthetic\"\n")
            .unwrap();
    }
    text
}
