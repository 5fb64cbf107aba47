//! The gate's test of the noise: its distribution, in every tensor, fresh at every step and for every seed.
//!
//! [`draw`] asks a worker for noise; what it brings back, in units of the noise's standard deviation
//! `sigma C eta / B`, must be independent standard normals, which [`Drawn::fault`] judges without the worker. Each of its
//! tests gives an upper bound on the probability that right noise looks as odd ([`tails`]), valid for any number of
//! parameters. A bound below that test's share of [`FALSE_ALARMS`] is a fault.

mod draw;
#[cfg(test)]
mod simulation;
mod tails;

use std::collections::BTreeSet;

use dpsgd_stats::ks_normal;
use tails::Chains;

use super::Gate;
use crate::worker::WorkerError;

/// Of right contenders, the share that the noise tests together may call wrong.
pub const FALSE_ALARMS: f64 = 1e-6;
/// Numbers wanted of steps in a row. A sigma 5% too small or too large is then found by the variance of all in 999 of
/// 1,000 gates: at 20,000 the bound on the tail is below 1e-8, a test's share, from 1 - 0.060 and 1 + 0.063 times the
/// variance on, and 0.95^2 and 1.05^2 are four and three and a half standard deviations beyond.
const NUMBERS: usize = 20_000;
/// Numbers wanted where steps are not too many for a slow worker.
const NUMBERS_IN_FEW_STEPS: usize = 40_000;
/// Steps above which [`NUMBERS`] are enough.
const FEW_STEPS: usize = 8_000;
/// Steps at least: as many as are compared with each other.
const MIN_STEPS: usize = LAGS + 1;
/// Numbers kept of one step: a step of a large model has more than the tests need.
const SAMPLES_PER_STEP: usize = 25_000;

/// Distances in steps at which noise is compared with earlier noise.
const LAGS: usize = 8;
/// Numbers that are compared at once when single pairs of steps are looked at: equal ones are then beyond chance.
const COMPARED: usize = 100;
/// How far, at most, two f32 parameters blur one number that is read off them.
const BLUR: f64 = 5e-5;

/// The noise of a worker, standardized.
struct Drawn {
    /// For each parameter tensor, over all steps in a row.
    tensors: Vec<Moments>,
    /// A sample of the scalars of each step.
    steps: Steps,
    /// Numbers that must not repeat each other.
    unrepeated: Unrepeated,
    /// The first steps under two seeds, and twice without one, as when it is timed.
    seeds: [Vec<f64>; 4],
    /// Of whole epochs, over the square root of their steps.
    epochs: Moments,
    /// Of steps in which no example counts; `None` for a worker that can't take one.
    empty: Option<Moments>,
}

/// Numbers of steps in a row, `width` of each step.
struct Steps {
    width: usize,
    numbers: Vec<f64>,
}

/// Numbers, and how close two absolute values must be to count as the same.
struct Unrepeated {
    numbers: Vec<f64>,
    same: f64,
}

/// Sums over numbers that must be standard normal.
struct Moments {
    /// What has this noise.
    name: String,
    count: f64,
    sum: f64,
    sum_of_squares: f64,
    unchanged: f64,
}

/// What is wrong with the noise of the gate's worker, if anything.
pub(super) fn check(gate: &mut Gate<'_>) -> Result<Option<String>, WorkerError> {
    Ok(draw::draw(gate)?.fault(FALSE_ALARMS))
}

/// How many steps in a row a model of so many parameters is asked for.
fn steps_wanted(parameters: usize) -> usize {
    let enough = NUMBERS.div_ceil(parameters);
    let better = NUMBERS_IN_FEW_STEPS.div_ceil(parameters);
    enough.max(better.min(FEW_STEPS)).max(MIN_STEPS)
}

/// The results of tests that share one rate of false alarms.
#[derive(Default)]
struct Tests {
    count: usize,
    /// Bounds on the probability, and what to say, of those that were improbable at all.
    improbable: Vec<(f64, String)>,
}

impl Tests {
    /// Above this, no test is ever called failed.
    const NEVER_A_FAULT: f64 = 0.01;

    fn add(&mut self, p: f64, what: impl FnOnce() -> String) {
        self.count += 1;
        if p < Self::NEVER_A_FAULT {
            self.improbable.push((p, what()));
        }
    }

    /// The first whose bound is below its share of `false_alarms`.
    fn fault(self, false_alarms: f64) -> Option<String> {
        let share = false_alarms / self.count as f64;
        let (p, what) = self.improbable.into_iter().find(|(p, _)| *p < share)?;
        Some(format!("{what} (p < {p:.1e})"))
    }
}

impl Drawn {
    /// The first fault; of right noise there is one in at most the share `false_alarms` of gates. Half of that is for
    /// the many comparisons of single pairs of steps.
    fn fault(&self, false_alarms: f64) -> Option<String> {
        self.tests().fault(false_alarms / 2.0).or_else(|| self.tests_of_pairs().fault(false_alarms / 2.0))
    }

    fn tests(&self) -> Tests {
        let mut tests = Tests::default();
        self.tensors.iter().for_each(|moments| moments.test(&mut tests));
        self.unrepeated.test(&mut tests);
        self.test_seeds(&mut tests);
        for lag in 1..=LAGS {
            let later = self.steps.count() - lag;
            let p = tails::products(self.steps.products(lag, 0..later), &self.steps.chains(lag, later));
            tests.add(p, || format!("noise is correlated with the noise {lag} steps before"));
        }
        let mut all = Moments::new("all parameters");
        self.tensors.iter().for_each(|moments| all.add_moments(moments));
        all.test(&mut tests);
        self.test_shape(&mut tests);
        self.epochs.test(&mut tests);
        self.empty.iter().for_each(|moments| moments.test(&mut tests));
        tests
    }

    /// Noise that was used before must not come back after 1 to [`LAGS`] steps, in any pair of steps; where steps have few
    /// numbers, in any few pairs in a row.
    fn tests_of_pairs(&self) -> Tests {
        let mut tests = Tests::default();
        let together = COMPARED.div_ceil(self.steps.width);
        for lag in 1..=LAGS {
            let pairs = self.steps.count() - lag;
            for begin in (0..pairs).step_by(together) {
                let end = pairs.min(begin + together);
                let p = tails::products(self.steps.products(lag, begin..end), &self.steps.chains(lag, end - begin));
                let (first, last) = (begin + lag, end - 1 + lag);
                tests.add(p, || match together {
                    1 => format!("noise of steps {begin} and {first} is correlated"),
                    _ => format!("noise of steps {first} to {last} is correlated with that {lag} steps before"),
                });
            }
        }
        tests
    }

    fn test_seeds(&self, tests: &mut Tests) {
        for (position, first) in self.seeds.iter().enumerate() {
            for second in &self.seeds[position + 1..] {
                let sum = first.iter().zip(second).map(|(a, b)| a * b).sum();
                let p = tails::products(sum, &[Chains { length: 2, count: first.len() }]);
                tests.add(p, || "noise of two seeds is correlated".into());
            }
        }
    }

    fn test_shape(&self, tests: &mut Tests) {
        let mut numbers = self.steps.numbers.clone();
        let count = numbers.len() as f64;
        let distance = ks_normal(&mut numbers, 0.0, 1.0).statistic;
        // The density of the normal distribution is below 0.4, so a number that is off by BLUR is off by that much.
        let p = tails::kolmogorov_smirnov((distance - 0.4 * BLUR).max(0.0), count);
        tests.add(p, || {
            format!("noise is not N(0, (sigma C eta / B)^2): Kolmogorov-Smirnov D = {distance:.4} of {count} numbers")
        });
    }
}

impl Steps {
    fn count(&self) -> usize {
        self.numbers.len() / self.width
    }

    /// The sum of the products of each step of `earlier` with the step `lag` later.
    fn products(&self, lag: usize, earlier: std::ops::Range<usize>) -> f64 {
        let (begin, end) = (earlier.start * self.width, earlier.end * self.width);
        let later = &self.numbers[begin + lag * self.width..end + lag * self.width];
        self.numbers[begin..end].iter().zip(later).map(|(a, b)| a * b).sum()
    }

    /// The chains that so many pairs in a row of steps `lag` apart make, for all numbers of a step: step k is in the chain
    /// of all steps that differ from it by a multiple of `lag`.
    fn chains(&self, lag: usize, pairs: usize) -> [Chains; 2] {
        let steps = pairs + lag;
        let (length, longer) = (steps / lag, steps % lag);
        [
            Chains { length: length + 1, count: longer * self.width },
            Chains { length, count: (lag - longer) * self.width },
        ]
    }
}

impl Unrepeated {
    /// A number is a repetition if its absolute value is within `same` of an earlier one's. Whatever the earlier ones
    /// are, the probability of that is at most their number times `2 same` times the largest density of |z|.
    fn test(&self, tests: &mut Tests) {
        let density = (2.0 / std::f64::consts::PI).sqrt();
        let count = self.numbers.len();
        let expected = density * self.same * (count * count) as f64;
        // The bits of numbers that are not negative are in the order of the numbers.
        let mut sizes = BTreeSet::new();
        let mut repeated = 0;
        for size in self.numbers.iter().map(|number| number.abs()) {
            let near = (size - self.same).max(0.0).to_bits()..=(size + self.same).to_bits();
            repeated += usize::from(size.is_nan() || sizes.range(near).next().is_some());
            sizes.insert(size.to_bits());
        }
        tests.add(tails::at_least(repeated as f64, expected), || {
            format!("of {count} numbers of noise {repeated} repeat an earlier one up to its sign")
        });
    }
}

impl Moments {
    fn new(name: &str) -> Self {
        Moments { name: name.to_string(), count: 0.0, sum: 0.0, sum_of_squares: 0.0, unchanged: 0.0 }
    }

    fn add(&mut self, noise: &[f64]) {
        self.count += noise.len() as f64;
        self.sum += noise.iter().sum::<f64>();
        self.sum_of_squares += noise.iter().map(|value| value * value).sum::<f64>();
        self.unchanged += noise.iter().filter(|value| **value == 0.0).count() as f64;
    }

    fn add_moments(&mut self, other: &Moments) {
        self.count += other.count;
        self.sum += other.sum;
        self.sum_of_squares += other.sum_of_squares;
        self.unchanged += other.unchanged;
    }

    fn test(&self, tests: &mut Tests) {
        let Moments { name, count, sum, sum_of_squares, unchanged } = self;
        // A draw below BLUR may be rounded to no change; the density is below 0.4.
        tests.add(tails::at_least(*unchanged, 0.8 * BLUR * count), || {
            format!("{unchanged} of {count} scalars of {name} got no noise")
        });
        let moments = || {
            let spread = (sum_of_squares / count).sqrt();
            let mean = sum / count;
            format!(
                "noise of {name} has mean {mean:.4} and standard deviation {spread:.4} in units of sigma C eta / B, over \
                 {count} numbers"
            )
        };
        tests.add(tails::normal(sum / count.sqrt()), moments);
        tests.add(tails::chi_square(*sum_of_squares, *count), moments);
    }
}
