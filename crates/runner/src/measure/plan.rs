//! What will be measured, in which order.

use std::fmt;

use dpsgd_core::Mode;
use dpsgd_core::cost;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha12Rng;

use crate::config::{Config, Workload};
use crate::registry::{Contender, Environment, Registry};

/// What the second measurement of the reference contender is called.
const AGAIN: &str = "(again)";

/// One cell to measure: a program on a workload.
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
    /// Names of other contenders that are the same program here.
    pub same_program: Vec<String>,
    /// Whether this is the reference contender once more, to see what noise alone does.
    pub control: bool,
}

impl PlannedCell<'_> {
    /// The variant by which the row is known.
    pub fn variant(&self) -> Option<String> {
        match (&self.contender.variant, self.control) {
            (variant, false) => variant.clone(),
            (None, true) => Some(AGAIN.into()),
            (Some(variant), true) => Some(format!("{variant} {AGAIN}")),
        }
    }

    /// The name by which the row is known.
    pub fn name(&self) -> String {
        if self.control { format!("{} {AGAIN}", self.contender.name()) } else { self.contender.name() }
    }

    /// Whether the two are to be compared, and so are timed in alternation: the price of privacy is a comparison too.
    pub fn is_compared_with(&self, other: &PlannedCell<'_>) -> bool {
        self.workload.name == other.workload.name && self.batch_size == other.batch_size
    }
}

impl fmt::Display for PlannedCell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, workload, mode) = (self.name(), &self.workload.name, self.mode.name());
        write!(f, "{workload}, batch {}, {mode}, {name}", self.batch_size)
    }
}

/// All cells in the order shown: by workload, batch size, mode, contender. A mode that a contender does not have is no
/// cell, a contender that is the same program as another one of the config here is a label of that one's cell, and the
/// reference contender is followed by its control.
pub fn cells<'a>(config: &'a Config, cpu_features: &[String]) -> Vec<PlannedCell<'a>> {
    let mut cells: Vec<PlannedCell<'a>> = Vec::new();
    for workload in &config.workloads {
        for batch_size in &config.batch_sizes {
            for mode in &config.modes {
                let has_mode = |contender: &&Contender| contender.modes().contains(mode);
                let taking_part: Vec<&Contender> = config.contenders.iter().filter(has_mode).collect();
                let program = |contender: &Contender| {
                    let variant = contender.same_program_as(&workload.model, *mode, cpu_features);
                    (contender.strategy.clone(), variant.or_else(|| contender.variant.clone()))
                };
                // The first contender of a program has the row, whether or not the one that gave it its name takes part.
                let first = |of: &Contender| taking_part.iter().copied().find(|other| program(other) == program(of));
                for contender in taking_part.iter().copied().filter(|contender| first(contender) == Some(*contender)) {
                    let is_other = |other: &&&Contender| **other != contender && program(other) == program(contender);
                    let same_program = taking_part.iter().filter(is_other).map(|other| other.name()).collect();
                    let cell = PlannedCell {
                        workload,
                        batch_size: *batch_size,
                        mode: *mode,
                        contender,
                        same_program,
                        control: false,
                    };
                    let names = |name: &String| contender.name() == *name || cell.same_program.contains(name);
                    let control = config.reference.as_ref().filter(|reference| names(reference)).map(|_| PlannedCell {
                        same_program: Vec::new(),
                        control: true,
                        ..cell.clone()
                    });
                    cells.push(cell);
                    cells.extend(control);
                }
            }
        }
    }
    cells
}

/// The cells that are compared with each other, as positions in `cells`, in the order of their first.
pub fn comparisons(cells: &[PlannedCell<'_>]) -> Vec<Vec<usize>> {
    let mut comparisons: Vec<Vec<usize>> = Vec::new();
    for (position, cell) in cells.iter().enumerate() {
        match comparisons.iter_mut().find(|comparison| cells[comparison[0]].is_compared_with(cell)) {
            Some(comparison) => comparison.push(position),
            None => comparisons.push(vec![position]),
        }
    }
    comparisons
}

/// Divides the members of a comparison, each of so many bytes, into groups whose memory together is at most `most`, in as
/// few as come of it in this order. A member that is too large by itself is a group: it may still fit.
pub fn groups(memory: &[u64], most: u64) -> Vec<Vec<usize>> {
    let mut groups: Vec<(Vec<usize>, u64)> = Vec::new();
    for (member, bytes) in memory.iter().enumerate() {
        match groups.last_mut() {
            Some((members, total)) if *total + bytes <= most => {
                members.push(member);
                *total += bytes;
            }
            _ => groups.push((vec![member], *bytes)),
        }
    }
    groups.into_iter().map(|(members, _)| members).collect()
}

/// The order of one round: shuffled by the seed for every pair of rounds, and reversed in the second of a pair (ABBA), so
/// that a machine that slows down over time favours nobody. `stream` tells orders of different things apart.
pub fn order_of_round(things: usize, seed: u64, stream: u64, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..things).collect();
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    rng.set_stream((stream << 32) | (round as u64 / 2));
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
    let row = |cell: &PlannedCell<'_>| {
        // Without a cap, the size of a full data set of this kind.
        let examples = config.examples.unwrap_or(30_000) as f64;
        let flops = cost::plain_step(&cell.workload.model, 1).map_or(0.0, |cost| cost.flops) * examples;
        let factor = if cell.mode == Mode::Private { ASSUMED_PRIVATE_FACTOR } else { 1.0 };
        let dispatch = examples / cell.batch_size as f64 * ASSUMED_STEP_S;
        let epochs = config.epochs as f64 * factor * (flops / ASSUMED_FLOPS + dispatch);
        // Of those that are timed together, two start at a time.
        let (cold, warm) = (start(cell.contender) + epochs, start(cell.contender) / 2.0 + epochs.max(config.seconds));
        let seconds = cold * config.cold_processes as f64 + warm * config.processes as f64;
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
    fn every_round_visits_everything_once() {
        for round in 0..4 {
            let mut order = order_of_round(17, 5, 1, round);
            order.sort_unstable();
            assert_eq!(order, (0..17).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_odd_round_is_the_reverse_of_the_one_before_and_pairs_differ() {
        let mut first = order_of_round(17, 5, 1, 0);
        first.reverse();
        assert_eq!(order_of_round(17, 5, 1, 1), first);
        assert_ne!(order_of_round(17, 5, 1, 2), order_of_round(17, 5, 1, 0));
        assert_ne!(order_of_round(17, 6, 1, 0), order_of_round(17, 5, 1, 0));
        assert_ne!(order_of_round(17, 5, 2, 0), order_of_round(17, 5, 1, 0));
    }

    #[test]
    fn a_group_has_as_many_members_as_memory_allows() {
        assert_eq!(groups(&[1, 1, 5, 5, 5], 100), [vec![0, 1, 2, 3, 4]]);
        assert_eq!(groups(&[1, 1, 5, 5, 5], 12), [vec![0, 1, 2, 3], vec![4]]);
        assert_eq!(groups(&[1, 50, 5], 12), [vec![0], vec![1], vec![2]]);
        assert!(groups(&[], 12).is_empty());
    }
}
