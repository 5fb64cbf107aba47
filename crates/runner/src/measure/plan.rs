//! What will be measured, in which order.

use std::fmt;

use dpsgd_core::Mode;
use dpsgd_core::cost;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha12Rng;

use crate::config::{Config, Workload};
use crate::registry::{Contender, Environment, Registry};

/// One cell to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedCell<'a> {
    /// The workload.
    pub workload: &'a Workload,
    /// Examples per step.
    pub batch_size: usize,
    /// Private or plain.
    pub mode: Mode,
    /// The contender.
    pub contender: &'a Contender,
}

impl fmt::Display for PlannedCell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (contender, workload, mode) = (self.contender.name(), &self.workload.name, self.mode.name());
        write!(f, "{workload}, batch {}, {mode}, {contender}", self.batch_size)
    }
}

/// All cells in the order shown: by workload, batch size, mode, contender. A mode that a strategy does not have is no
/// cell.
pub fn cells<'a>(config: &'a Config, registry: &Registry) -> Vec<PlannedCell<'a>> {
    let mut cells = Vec::new();
    for workload in &config.workloads {
        for batch_size in &config.batch_sizes {
            for mode in &config.modes {
                for contender in &config.contenders {
                    let has_mode = registry.entry(&contender.strategy).is_none_or(|entry| entry.modes.contains(mode));
                    if has_mode {
                        cells.push(PlannedCell { workload, batch_size: *batch_size, mode: *mode, contender });
                    }
                }
            }
        }
    }
    cells
}

/// The order of one round: shuffled by the seed for every pair of rounds, and reversed in the second of a pair (ABBA), so
/// that a machine that slows down over time favours nobody.
pub fn order_of_round(cells: usize, seed: u64, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..cells).collect();
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    rng.set_stream(round as u64 / 2);
    order.shuffle(&mut rng);
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// A guess of a plan's seconds, for `--dry-run`, good to a factor of two. Nothing is measured for it: epochs are the plain
/// step's FLOPs at [`ASSUMED_FLOPS`] and [`ASSUMED_STEP_S`] a step, private ones [`ASSUMED_PRIVATE_FACTOR`] times as long;
/// beside them there are a start for every process, and [`ASSUMED_GATE_STARTS`] for the gate of every contender on every
/// workload.
pub fn guess_seconds(cells: &[PlannedCell<'_>], config: &Config, registry: &Registry) -> f64 {
    let start = |contender: &Contender| {
        let environment = registry.entry(&contender.strategy).map_or(Environment::None, |entry| entry.environment);
        assumed_start_s(environment)
    };
    let epochs = (config.processes * config.epochs) as f64;
    let row = |cell: &PlannedCell<'_>| {
        // Without a cap, the size of a full data set of this kind.
        let examples = config.examples.unwrap_or(30_000) as f64;
        let flops = cost::plain_step(&cell.workload.model, 1).map_or(0.0, |cost| cost.flops) * examples;
        let factor = if cell.mode == Mode::Private { ASSUMED_PRIVATE_FACTOR } else { 1.0 };
        let dispatch = examples / cell.batch_size as f64 * ASSUMED_STEP_S;
        let seconds =
            start(cell.contender) * config.processes as f64 + epochs * factor * (flops / ASSUMED_FLOPS + dispatch);
        config.row_limit.map_or(seconds, |limit| seconds.min(limit.as_secs_f64()))
    };
    let gates = config.contenders.iter().map(|contender| ASSUMED_GATE_STARTS * start(contender)).sum::<f64>();
    cells.iter().map(row).sum::<f64>() + gates * config.workloads.len() as f64
}

/// FLOPs per second and thread pair of a framework on small networks; a guess.
const ASSUMED_FLOPS: f64 = 2e10;
/// Private over plain epoch time; a guess between the best and the worst way.
const ASSUMED_PRIVATE_FACTOR: f64 = 3.0;
/// Seconds of one step beside its FLOPs; a guess.
const ASSUMED_STEP_S: f64 = 1e-3;
/// How many starts the verification of a contender on a workload takes as long as: one, and a compiled step for each of its
/// batches' widths; a guess.
const ASSUMED_GATE_STARTS: f64 = 2.0;

/// Seconds to start a process, load into it and compile what it compiles; a guess.
fn assumed_start_s(environment: Environment) -> f64 {
    match environment {
        Environment::None => 0.1,
        Environment::Libtorch => 0.5,
        Environment::Jax => 3.0,
        Environment::Torch => 5.0,
        Environment::Tf => 9.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_visits_every_cell_once() {
        for round in 0..4 {
            let mut order = order_of_round(17, 5, round);
            order.sort_unstable();
            assert_eq!(order, (0..17).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_odd_round_is_the_reverse_of_the_one_before_and_pairs_differ() {
        let mut first = order_of_round(17, 5, 0);
        first.reverse();
        assert_eq!(order_of_round(17, 5, 1), first);
        assert_ne!(order_of_round(17, 5, 2), order_of_round(17, 5, 0));
        assert_ne!(order_of_round(17, 6, 0), order_of_round(17, 5, 0));
    }
}
