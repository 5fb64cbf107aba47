//! The verification gate's cases: batches whose right update the float64 oracle knows.
//!
//! A pool of examples is generated for the model; the oracle computes each one's gradient once, and every case is a
//! batch drawn from the pool. The learning rate of a case makes the update 30 times as long as the parameters, so that
//! reading the update off two sets of f32 parameters costs it no accuracy. Examples near a kink (a ReLU's input almost
//! 0, two almost equal maxima), which f32 and float64 may decide differently, are not taken into the pool.

use std::path::{Path, PathBuf};

use dpsgd_core::oracle::{Gradient, Oracle, clipped_sum, sum};
use dpsgd_core::{Dataset, DpSgd, Inputs, Loss, Mode, ModelInput, ModelSpec, Params, Targets};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

use super::{DATASET_FILE, PARAMS_FILE, PrepareError};

/// Ordinary examples in the pool; the all-zero one and, for numeric inputs, one with a NaN follow.
const ORDINARY: usize = 10;
/// Slots of every batch but the batch of one: a JIT compiles two shapes.
const WIDTH: usize = 8;
/// Length of an update in lengths of the parameters.
const UPDATE_LENGTH: f64 = 30.0;
/// Least distance to a kink, relative to the size of what is compared; f32 errors are a tenth of it.
const MIN_MARGIN: f64 = 3e-6;
/// Candidates tried for one place in the pool before the one farthest from a kink is taken.
const CANDIDATES: usize = 12;

/// What a strategy must be able to do for a case to apply to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Needs {
    /// Any strategy.
    Nothing,
    /// A batch in which every slot is masked.
    EmptyBatch,
    /// Leaving out, and counting, an example whose gradient is not finite.
    NonFinite,
}

/// One batch, the step to take on it from the initial parameters, and the right answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    /// Shown when it fails.
    pub name: String,
    /// Rows of the pool.
    pub indices: Vec<u32>,
    /// Which slots count.
    pub mask: Vec<bool>,
    /// Hyperparameters; in private mode without noise.
    pub dp: DpSgd,
    /// What a strategy must support.
    pub needs: Needs,
    /// File of the float64 `theta_0 - theta_1`, all scalars in order; `None` when the parameters must not change.
    pub expected: Option<PathBuf>,
    /// How many examples must be counted as not finite.
    pub non_finite: u64,
}

/// Everything that the gate needs for one model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reference {
    /// The pool.
    pub dataset: PathBuf,
    /// Initial parameters.
    pub params: PathBuf,
    /// The cases.
    pub cases: Vec<Case>,
    /// A step with a noise of about the size of the parameters.
    pub noise: DpSgd,
}

/// Computes and writes it all; see [`super::reference`].
pub(super) fn prepare(model: &ModelSpec, seed: u64, out: &Path) -> Result<Reference, PrepareError> {
    model.validate().map_err(PrepareError::new)?;
    let params = Params::init(model, seed);
    let oracle = Oracle::new(model, &params).map_err(PrepareError::new)?;
    let pool = Pool::generate(model, &oracle, seed);
    let (params_file, dataset_file) = (out.join(PARAMS_FILE), out.join(DATASET_FILE));
    params.save(&params_file).map_err(PrepareError::new)?;
    pool.dataset.save(&dataset_file).map_err(PrepareError::new)?;
    let length = params.values().map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    let mut cases = Vec::new();
    for plan in plans(&pool) {
        let number = cases.len();
        cases.push(plan.work_out(model, &pool, length, &out.join(format!("expected-{number}.f64")))?);
    }
    let clip_norm = pool.median_norm();
    let noise = DpSgd {
        mode: Mode::Private,
        clip_norm,
        noise_multiplier: 1.3,
        learning_rate: EXPECTED_BATCH_SIZE / clip_norm,
        expected_batch_size: EXPECTED_BATCH_SIZE,
    };
    Ok(Reference { dataset: dataset_file, params: params_file, cases, noise })
}

/// Not the number of examples in any batch, so that a strategy that mixes the two up is found out.
const EXPECTED_BATCH_SIZE: f64 = 12.0;

struct Pool {
    dataset: Dataset,
    gradients: Vec<Gradient>,
    zero: u32,
    not_a_number: Option<u32>,
}

impl Pool {
    fn generate(model: &ModelSpec, oracle: &Oracle, seed: u64) -> Self {
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

    fn norms(&self) -> Vec<f64> {
        let mut norms: Vec<f64> = self.gradients[..ORDINARY].iter().map(Gradient::norm).collect();
        norms.sort_by(f64::total_cmp);
        norms
    }

    fn median_norm(&self) -> f64 {
        let norms = self.norms();
        (norms[ORDINARY / 2 - 1] + norms[ORDINARY / 2]) / 2.0
    }
}

/// The first candidate far enough from every kink, or the farthest of [`CANDIDATES`].
fn ordinary_example(model: &ModelSpec, oracle: &Oracle, seed: u64, place: u64) -> (Dataset, Gradient) {
    let mut best: Option<(f64, Dataset, Gradient)> = None;
    for candidate in 0..CANDIDATES as u64 {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        rng.set_stream(1 + place * CANDIDATES as u64 + candidate);
        // Inputs of different sizes give gradients of different norms: some are clipped, some are not.
        let scale = 0.25 * 8.0_f32.powf(place as f32 / (ORDINARY - 1) as f32);
        let dataset = random_example(model, scale, &mut rng);
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

fn concatenate(datasets: Vec<Dataset>) -> Dataset {
    let mut all = datasets.into_iter();
    let mut first = all.next().expect("the pool has examples");
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

struct Plan {
    name: &'static str,
    mode: Mode,
    clip_norm: f64,
    indices: Vec<u32>,
    mask: Vec<bool>,
    needs: Needs,
}

fn plans(pool: &Pool) -> Vec<Plan> {
    use Mode::{NonPrivate, Private};
    let norms = pool.norms();
    let (some_clip, none_clip, all_clip) = (pool.median_norm(), norms[ORDINARY - 1] * 1e3, norms[0] * 1e-3);
    let first: Vec<u32> = (0..WIDTH as u32).collect();
    let spread = vec![0, 9, 2, 7, 4, 5, 8, 3];
    let repeated = vec![9, 9, 9, pool.zero, 4, 4, pool.zero, 0];
    let all = vec![true; WIDTH];
    let some = vec![true, false, true, true, false, true, false, false];
    let none = vec![false; WIDTH];
    let plan = |name, mode, clip_norm, indices: &[u32], mask: &[bool], needs| Plan {
        name,
        mode,
        clip_norm,
        indices: indices.to_vec(),
        mask: mask.to_vec(),
        needs,
    };
    let mut plans = vec![
        plan("some examples clipped", Private, some_clip, &spread, &all, Needs::Nothing),
        plan("no example clipped", Private, none_clip, &first, &all, Needs::Nothing),
        plan("every example clipped", Private, all_clip, &spread, &all, Needs::Nothing),
        plan("a batch of one", Private, some_clip, &[9], &[true], Needs::Nothing),
        plan("repeated and all-zero examples", Private, some_clip, &repeated, &all, Needs::Nothing),
        plan("a padded batch", Private, some_clip, &spread, &some, Needs::Nothing),
        plan("an empty batch", Private, some_clip, &first, &none, Needs::EmptyBatch),
        plan("plain SGD", NonPrivate, some_clip, &spread, &all, Needs::Nothing),
        plan("plain SGD, a batch of one", NonPrivate, some_clip, &[3], &[true], Needs::Nothing),
        plan("plain SGD, repeated and all-zero examples", NonPrivate, some_clip, &repeated, &all, Needs::Nothing),
        plan("plain SGD, a padded batch", NonPrivate, some_clip, &spread, &some, Needs::Nothing),
        plan("plain SGD, an empty batch", NonPrivate, some_clip, &first, &none, Needs::EmptyBatch),
    ];
    if let Some(nan) = pool.not_a_number {
        let indices = [2, nan, 7, 9, nan, 0, 5, 1];
        plans.push(plan("an example with a NaN", Private, some_clip, &indices, &all, Needs::NonFinite));
    }
    plans
}

impl Plan {
    fn work_out(self, model: &ModelSpec, pool: &Pool, params_length: f64, file: &Path) -> Result<Case, PrepareError> {
        let counted = self.indices.iter().zip(&self.mask).filter(|(_, counts)| **counts);
        let gradients: Vec<&Gradient> = counted.map(|(index, _)| &pool.gradients[*index as usize]).collect();
        let (sum, divisor) = match self.mode {
            Mode::NonPrivate => (sum(gradients.iter().copied(), model), gradients.len() as f64),
            Mode::Private => (clipped_sum(gradients.iter().copied(), self.clip_norm, model), EXPECTED_BATCH_SIZE),
        };
        let norm = sum.norm();
        let factor = if norm > 0.0 { UPDATE_LENGTH * params_length.max(1.0) / norm } else { 1.0 };
        let mut expected = None;
        if norm > 0.0 {
            let update: Vec<u8> = sum.values().flat_map(|value| (value * factor).to_le_bytes()).collect();
            std::fs::write(file, update).map_err(|e| PrepareError(format!("{}: {e}", file.display())))?;
            expected = Some(file.to_path_buf());
        }
        let dp = DpSgd {
            mode: self.mode,
            clip_norm: self.clip_norm,
            // Plain SGD must ignore it.
            noise_multiplier: if self.mode == Mode::NonPrivate { 1.3 } else { 0.0 },
            learning_rate: factor * divisor.max(1.0),
            expected_batch_size: EXPECTED_BATCH_SIZE,
        };
        let non_finite = gradients.iter().filter(|gradient| !gradient.is_finite()).count() as u64;
        Ok(Case {
            name: self.name.into(),
            indices: self.indices,
            mask: self.mask,
            dp,
            needs: self.needs,
            expected,
            non_finite,
        })
    }
}

impl Case {
    /// The expected `theta_0 - theta_1`; `None` when the parameters must not change.
    pub fn expected_update(&self) -> std::io::Result<Option<Vec<f64>>> {
        let Some(file) = &self.expected else { return Ok(None) };
        let bytes = std::fs::read(file)?;
        Ok(Some(bytes.as_chunks::<8>().0.iter().map(|chunk| f64::from_le_bytes(*chunk)).collect()))
    }
}
