//! Batches of the sizes that are measured, of different examples throughout.
//!
//! The oracle knows the right update of as many examples as it can go through in half a minute or so. A larger batch is
//! checked by linearity: the sum over it is the sum over its parts, so the worker's step on the whole must be the sum of
//! its steps on parts of [`PART`] examples, a size of batch at which the oracle checks it.

use std::path::Path;
use std::thread;

use dpsgd_core::oracle::{Gradient, Oracle};
use dpsgd_core::{Dataset, DpSgd, Layer, Mode, ModelSpec, Targets, cost};
use serde::{Deserialize, Serialize};

use super::cases::{Plan, noiseless};
use super::pool::{any_example, concatenate, ordinary_example};
use super::sum::{Sum, roundings};
use super::{Case, Needs, Pool};
use crate::prepare::PrepareError;

/// Examples in a part.
pub const PART: usize = 64;
/// Floating-point operations that the oracle may spend on a model: about 20 s of two slow cores.
const BUDGET: f64 = 4e10;

/// A batch too large for the oracle, and its parts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PartsCase {
    /// Shown when it fails.
    pub name: String,
    /// Rows of the gate's data set.
    pub indices: Vec<u32>,
    /// Examples in a part; the last may have fewer.
    pub part: usize,
    /// Hyperparameters of the step on the whole.
    pub dp: DpSgd,
    /// As in [`super::Bounds`].
    pub roundings: f64,
}

/// What to work out.
pub struct Job<'a> {
    /// The model.
    pub model: &'a ModelSpec,
    /// Its oracle.
    pub oracle: &'a Oracle,
    /// The examples of the other cases; those of these come after them.
    pub pool: &'a Pool,
    /// Length of the initial parameters.
    pub length: f64,
    /// Seed of the examples.
    pub seed: u64,
    /// Folder for the updates.
    pub out: &'a Path,
    /// How many examples the oracle may go through, see [`affordable`]; at least [`PART`].
    pub known: usize,
}

/// How many examples of a model the oracle can go through.
pub fn affordable(model: &ModelSpec) -> Result<usize, PrepareError> {
    let flops = cost::plain_step(model, 1).map_err(PrepareError::new)?.flops;
    Ok(((BUDGET / flops) as usize).max(PART))
}

/// What came of it.
pub struct Measured {
    /// The examples.
    pub dataset: Dataset,
    /// Batches that the oracle knows.
    pub cases: Vec<Case>,
    /// Larger ones.
    pub parts: Vec<PartsCase>,
}

impl Job<'_> {
    /// Works out the batches of `sizes`.
    pub fn work_out(&self, sizes: &[usize]) -> Result<Measured, PrepareError> {
        let widest = sizes.iter().copied().max().unwrap_or(1);
        let known = self.known.min(widest);
        let (mut checked, by_parts): (Vec<usize>, Vec<usize>) = sizes.iter().partition(|size| **size <= known);
        if !by_parts.is_empty() {
            checked.push(PART);
        }
        checked.sort_unstable();
        checked.dedup();

        let clip_norm = self.pool.median_norm();
        let mut sums = [Mode::Private, Mode::NonPrivate].map(|mode| (mode, Sum::new(self.model, mode, clip_norm)));
        let (mut examples, mut cases) = (Vec::new(), Vec::new());
        for size in checked {
            self.for_each_example(examples.len()..size, |example, gradient| {
                sums.iter_mut().for_each(|(_, sum)| sum.add(&gradient));
                examples.push(example);
            });
            for (mode, sum) in &sums {
                let plan = Plan {
                    name: name(*mode, size),
                    mode: *mode,
                    clip_norm,
                    indices: self.rows(size),
                    mask: vec![true; size],
                    needs: Needs::Nothing,
                };
                let file = self.out.join(format!("expected-{}-{size}.f64", mode.name()));
                cases.push(plan.expecting(self.model, sum, 0, self.length, &file)?);
            }
        }
        let mut parts = Vec::new();
        for size in by_parts {
            for (position, (mode, _)) in sums.iter().enumerate() {
                // As long an update as that of the largest batch known, if gradients are alike.
                let known = &cases[cases.len() - sums.len() + position];
                let share = match mode {
                    Mode::Private => known.indices.len() as f64 / size as f64,
                    Mode::NonPrivate => 1.0,
                };
                parts.push(PartsCase {
                    name: format!("{}, against its parts of {PART}", name(*mode, size)),
                    indices: self.rows(size),
                    part: PART,
                    dp: noiseless(*mode, clip_norm, known.dp.learning_rate * share),
                    roundings: roundings(self.model, size),
                });
            }
        }
        self.for_each_example(examples.len()..known, |example, _| examples.push(example));
        while examples.len() < widest {
            examples.push(self.unknown_example(&examples[..known], examples.len()));
        }
        Ok(Measured { dataset: concatenate(examples), cases, parts })
    }

    /// The rows of the first `size` examples.
    fn rows(&self, size: usize) -> Vec<u32> {
        let first = self.pool.gradients.len() as u32;
        (first..first + size as u32).collect()
    }

    /// The place of example `number` among all that are drawn from the seed.
    fn place(&self, number: usize) -> u64 {
        (self.pool.gradients.len() + number) as u64
    }

    /// Examples away from every kink, in order, with their gradients, worked out by all processors.
    fn for_each_example(&self, numbers: std::ops::Range<usize>, mut take: impl FnMut(Dataset, Gradient)) {
        let at_once = thread::available_parallelism().map_or(1, usize::from);
        let numbers: Vec<usize> = numbers.collect();
        for numbers in numbers.chunks(at_once) {
            let worked_out: Vec<_> = thread::scope(|scope| {
                let example = |number: usize| {
                    scope.spawn(move || ordinary_example(self.model, self.oracle, self.seed, self.place(number)))
                };
                let threads: Vec<_> = numbers.iter().map(|number| example(*number)).collect();
                threads.into_iter().map(|thread| thread.join().expect("the oracle does not panic")).collect()
            });
            worked_out.into_iter().for_each(|(example, gradient)| take(example, gradient));
        }
    }

    /// An example for which there is no time to ask the oracle. Where there are kinks, its input is that of a known one,
    /// which is away from them, and its target is another.
    fn unknown_example(&self, known: &[Dataset], number: usize) -> Dataset {
        let any = any_example(self.model, self.seed, self.place(number));
        let has_kinks = self.model.layers.iter().any(|layer| matches!(layer, Layer::Relu | Layer::MaxPool2d { .. }));
        if !has_kinks {
            return any;
        }
        let mut example = known[number % known.len()].clone();
        let round = (number / known.len()) as i32;
        match (&mut example.targets, any.targets) {
            (Targets::Class(classes), _) => {
                let outputs = self.model.outputs().expect("the model is valid") as i32;
                classes[0] = (classes[0] + round) % outputs;
            }
            (Targets::Value(values), Targets::Value(others)) => values[0] = others[0],
            (Targets::Value(_), Targets::Class(_)) => unreachable!("one model has one kind of target"),
        }
        example
    }
}

fn name(mode: Mode, size: usize) -> String {
    match mode {
        Mode::Private => format!("a batch of {size} different examples"),
        Mode::NonPrivate => format!("plain SGD, a batch of {size} different examples"),
    }
}
