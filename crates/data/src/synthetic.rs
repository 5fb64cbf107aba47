//! Made-up examples that a model can learn, for any [`ModelSpec`].
//!
//! Timing needs only the shapes, but a network fed with pure noise saturates or stalls, and a step that does nothing
//! useful can't be told from one that is wrong by looking at the loss. So the input depends on the target:
//!
//! - Features: standard normal noise plus the class's own mean, of length about 3.
//! - Images: standard normal noise plus the class's own smooth pattern, a sum of a few low-frequency waves per channel.
//! - Tokens: a quarter of the words come from the class's own share of the vocabulary, the others from all of it, with
//!   frequencies that fall as 1/rank, as in text. With a vocabulary above [16](MIN_VOCABULARY_FOR_SPECIALS), 0 to 3 are
//!   kept for padding (at the front; reviews fill half of the sequence or more), start, unknown and unused.
//!
//! For regression the target is standard normal, one pattern is scaled by it, and the share of one half of the words
//! follows it.
//!
//! Example i is the same whatever the number of examples, so a capped set is a prefix of the full one.

use std::f64::consts::TAU;

use dpsgd_core::{Dataset, Inputs, Loss, ModelError, ModelInput, ModelSpec, Targets};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use rand_distr::StandardNormal;

/// Vocabularies smaller than this have no special tokens.
pub const MIN_VOCABULARY_FOR_SPECIALS: usize = 16;
/// Length of a class's mean, in units of the noise.
const SEPARATION: f64 = 3.0;
/// Waves per channel of a pattern.
const WAVES: usize = 4;
/// How many of the words tell the class.
const TELLING: f64 = 0.25;

/// What an input is made from.
#[derive(Clone, Copy)]
enum Target {
    Class(usize),
    Value(f64),
}

/// `count` examples of the model's input, with targets for its loss. The same arguments give the same examples.
///
/// # Errors
/// If the model's layers don't fit together.
pub fn generate(model: &ModelSpec, count: usize, seed: u64) -> Result<Dataset, ModelError> {
    let classes = match model.loss {
        Loss::CrossEntropy => model.outputs()?,
        Loss::BceWithLogits => 2,
        Loss::Mse => 1,
    };
    let targets: Vec<Target> = {
        let mut rng = stream(seed, 1);
        let draw = |_| match model.loss {
            Loss::Mse => Target::Value(rng.sample(StandardNormal)),
            _ => Target::Class(rng.random_range(0..classes)),
        };
        (0..count).map(draw).collect()
    };
    let inputs = match model.input {
        ModelInput::Features(features) => Inputs::F32(numbers(&means(classes, features, seed), &targets, seed)),
        ModelInput::Image(shape) => Inputs::F32(numbers(&patterns(classes, shape, seed), &targets, seed)),
        ModelInput::Tokens { time, vocabulary } => Inputs::Tokens(texts(time, vocabulary, classes, &targets, seed)),
    };
    let targets = match model.loss {
        Loss::CrossEntropy => Targets::Class(targets.iter().map(|target| target.number() as i32).collect()),
        Loss::BceWithLogits | Loss::Mse => Targets::Value(targets.iter().map(|t| t.number() as f32).collect()),
    };
    Ok(Dataset { example_shape: model.input.dimensions(), inputs, targets })
}

impl Target {
    fn number(self) -> f64 {
        match self {
            Target::Class(class) => class as f64,
            Target::Value(value) => value,
        }
    }
}

/// Independent generators from one seed: 0 for what the classes look like, 1 for targets, 2 for inputs.
fn stream(seed: u64, stream: u64) -> ChaCha12Rng {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// For each class a random direction, scaled to [`SEPARATION`].
fn means(classes: usize, features: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut rng = stream(seed, 0);
    let mean = |_| {
        let direction: Vec<f64> = (0..features).map(|_| rng.sample(StandardNormal)).collect();
        let length = direction.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        direction.iter().map(|x| (x * SEPARATION / length) as f32).collect()
    };
    (0..classes).map(mean).collect()
}

/// For each class a smooth image with values around 1.
fn patterns(classes: usize, [channels, height, width]: [usize; 3], seed: u64) -> Vec<Vec<f32>> {
    let mut rng = stream(seed, 0);
    let mut pattern = |_| {
        let mut pixels = Vec::with_capacity(channels * height * width);
        for _ in 0..channels {
            let waves: Vec<[f64; 3]> = (0..WAVES)
                .map(|_| [rng.random_range(0.0..4.0), rng.random_range(0.0..4.0), rng.random_range(0.0..TAU)])
                .collect();
            for y in 0..height {
                for x in 0..width {
                    let (y, x) = (y as f64 / height as f64, x as f64 / width as f64);
                    let value: f64 = waves.iter().map(|[v, u, phase]| (TAU * (v * y + u * x) + phase).cos()).sum();
                    pixels.push((value / (WAVES as f64 / 2.0).sqrt()) as f32);
                }
            }
        }
        pixels
    };
    (0..classes).map(&mut pattern).collect()
}

/// Noise around the class's pattern, or around the target times the only pattern.
fn numbers(patterns: &[Vec<f32>], targets: &[Target], seed: u64) -> Vec<f32> {
    let mut rng = stream(seed, 2);
    let mut values = Vec::with_capacity(targets.len() * patterns[0].len());
    for target in targets {
        let (pattern, scale) = match *target {
            Target::Class(class) => (&patterns[class], 1.0),
            Target::Value(value) => (&patterns[0], value as f32),
        };
        values.extend(pattern.iter().map(|mean| mean * scale + rng.sample::<f32, _>(StandardNormal)));
    }
    values
}

fn texts(time: usize, vocabulary: usize, classes: usize, targets: &[Target], seed: u64) -> Vec<i32> {
    let mut rng = stream(seed, 2);
    let specials = if vocabulary < MIN_VOCABULARY_FOR_SPECIALS { 0 } else { 4 };
    let words = (vocabulary - specials).max(1);
    // A value's words are of two kinds; more kinds than words would leave some empty.
    let kinds = classes.max(2).min(words);
    let mut tokens = Vec::with_capacity(targets.len() * time);
    for target in targets {
        let length = if specials > 0 { rng.random_range(time.div_ceil(2)..=time) } else { time };
        tokens.extend(std::iter::repeat_n(0, time - length));
        for position in 0..length {
            if specials > 0 && position == 0 {
                tokens.push(1);
                continue;
            }
            // Log-uniform ranks: a word's frequency falls as 1/rank.
            let rank = ((words as f64).powf(rng.random::<f64>()) as usize - 1).min(words - 1);
            let kind = match *target {
                Target::Class(class) => (rng.random::<f64>() < TELLING).then_some(class % kinds),
                Target::Value(value) => Some(usize::from(rng.random::<f64>() < 1.0 / (1.0 + (-value).exp())) % kinds),
            };
            // The words of kind k are those with rank k modulo the number of kinds.
            let rank = match kind {
                Some(kind) if rank / kinds * kinds + kind < words => rank / kinds * kinds + kind,
                Some(kind) => kind,
                None => rank,
            };
            tokens.push((specials + rank) as i32);
        }
    }
    tokens
}
