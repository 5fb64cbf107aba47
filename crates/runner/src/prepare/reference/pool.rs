//! The examples that the gate's batches are drawn from.

use dpsgd_core::oracle::{Gradient, Oracle};
use dpsgd_core::{Dataset, Inputs, Loss, ModelInput, ModelSpec, Targets};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// Ordinary examples in the pool; the all-zero one and, for numeric inputs, one with a NaN follow.
pub const ORDINARY: usize = 10;
/// Least distance to a kink, relative to the size of what is compared; f32 errors are a tenth of it.
pub const MIN_MARGIN: f64 = 3e-6;
/// Candidates tried for one place in the pool before the one farthest from a kink is taken. A network of a million
/// ReLUs may have none far enough.
const CANDIDATES: usize = 12;

/// The examples and their gradients at the initial parameters.
pub struct Pool {
    /// The examples.
    pub dataset: Dataset,
    /// The gradient of each.
    pub gradients: Vec<Gradient>,
    /// The example whose numbers are all 0.
    pub zero: u32,
    /// The example whose numbers are NaN; token ids can't be.
    pub not_a_number: Option<u32>,
}

impl Pool {
    /// Generates the examples of `model` from a seed.
    pub fn generate(model: &ModelSpec, oracle: &Oracle, seed: u64) -> Self {
        let mut places: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..ORDINARY as u64)
                .map(|place| scope.spawn(move || ordinary_example(model, oracle, seed, place)))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("the oracle does not panic")).collect()
        });
        places.push(with_gradient(oracle, constant_example(model, 0.0)));
        let zero = ORDINARY as u32;
        let mut not_a_number = None;
        if !matches!(model.input, ModelInput::Tokens { .. }) {
            not_a_number = Some(places.len() as u32);
            places.push(with_gradient(oracle, constant_example(model, f32::NAN)));
        }
        let (datasets, gradients): (Vec<_>, Vec<_>) = places.into_iter().unzip();
        Pool { dataset: concatenate(datasets), gradients, zero, not_a_number }
    }

    /// Norms of the ordinary examples' gradients, ascending.
    pub fn norms(&self) -> Vec<f64> {
        let mut norms: Vec<f64> = self.gradients[..ORDINARY].iter().map(Gradient::norm).collect();
        norms.sort_by(f64::total_cmp);
        norms
    }

    /// The norm that half of them exceed.
    pub fn median_norm(&self) -> f64 {
        let norms = self.norms();
        (norms[ORDINARY / 2 - 1] + norms[ORDINARY / 2]) / 2.0
    }
}

/// The first candidate far enough from every kink, or the farthest of [`CANDIDATES`].
pub fn ordinary_example(model: &ModelSpec, oracle: &Oracle, seed: u64, place: u64) -> (Dataset, Gradient) {
    let mut best: Option<(f64, Dataset, Gradient)> = None;
    for candidate in 0..CANDIDATES as u64 {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        rng.set_stream(1 + place * CANDIDATES as u64 + candidate);
        let dataset = random_example(model, scale(place), &mut rng);
        let example = oracle.example(&dataset, 0);
        if best.as_ref().is_none_or(|(margin, ..)| example.margin > *margin) {
            best = Some((example.margin, dataset, example.gradient));
        }
        if example.margin >= MIN_MARGIN {
            break;
        }
    }
    let (_, dataset, gradient) = best.expect("there is at least one candidate");
    (dataset, gradient)
}

/// Size of the inputs of the example at `place`: different sizes give gradients of different norms, and some are clipped,
/// some are not.
fn scale(place: u64) -> f32 {
    0.25 * 8.0_f32.powf((place % ORDINARY as u64) as f32 / (ORDINARY - 1) as f32)
}

/// The example at `place`, however near it is to a kink.
pub fn any_example(model: &ModelSpec, seed: u64, place: u64) -> Dataset {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    rng.set_stream(1 + place * CANDIDATES as u64);
    random_example(model, scale(place), &mut rng)
}

fn with_gradient(oracle: &Oracle, dataset: Dataset) -> (Dataset, Gradient) {
    let gradient = oracle.example(&dataset, 0).gradient;
    (dataset, gradient)
}

fn random_example(model: &ModelSpec, scale: f32, rng: &mut impl Rng) -> Dataset {
    let mut dataset = constant_example(model, 0.0);
    match (&mut dataset.inputs, &model.input) {
        (Inputs::F32(values), _) => {
            values.fill_with(|| scale * rng.sample::<f32, _>(rand_distr::StandardNormal));
        }
        (Inputs::Tokens(tokens), ModelInput::Tokens { vocabulary, .. }) => {
            // Half of the tokens come from a few, so that an example repeats some.
            let few = (*vocabulary).min(20);
            tokens.fill_with(|| {
                let below = if rng.random() { few } else { *vocabulary };
                rng.random_range(0..below) as i32
            });
        }
        (Inputs::Tokens(_), _) => unreachable!("tokens belong to a token input"),
    }
    match &mut dataset.targets {
        Targets::Class(classes) => {
            let outputs = model.outputs().expect("the model is valid");
            classes[0] = rng.random_range(0..outputs) as i32;
        }
        Targets::Value(values) if model.loss == Loss::BceWithLogits => values[0] = f32::from(rng.random::<bool>()),
        Targets::Value(values) => values[0] = rng.sample(rand_distr::StandardNormal),
    }
    dataset
}

/// One example whose numbers are all `value`, or whose tokens are all 0; its target is 0.
fn constant_example(model: &ModelSpec, value: f32) -> Dataset {
    let example_shape = model.input.dimensions();
    let count = example_shape.iter().product();
    let inputs = match model.input {
        ModelInput::Tokens { .. } => Inputs::Tokens(vec![0; count]),
        _ => Inputs::F32(vec![value; count]),
    };
    let targets = match model.loss {
        Loss::CrossEntropy => Targets::Class(vec![0]),
        Loss::BceWithLogits | Loss::Mse => Targets::Value(vec![0.0]),
    };
    Dataset { example_shape, inputs, targets }
}

/// All of `datasets`, one after the other; there must be one.
pub fn concatenate(datasets: impl IntoIterator<Item = Dataset>) -> Dataset {
    let mut all = datasets.into_iter();
    let mut first = all.next().expect("there are examples");
    for next in all {
        match (&mut first.inputs, next.inputs) {
            (Inputs::F32(values), Inputs::F32(more)) => values.extend(more),
            (Inputs::Tokens(tokens), Inputs::Tokens(more)) => tokens.extend(more),
            _ => unreachable!("one model has one kind of input"),
        }
        match (&mut first.targets, next.targets) {
            (Targets::Class(classes), Targets::Class(more)) => classes.extend(more),
            (Targets::Value(values), Targets::Value(more)) => values.extend(more),
            _ => unreachable!("one model has one kind of target"),
        }
    }
    first
}
