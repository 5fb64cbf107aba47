//! The claims of the 2020 talk on JAX and DP-SGD, measured again: for each, the figures of this run and a verdict that
//! follows from them by a rule that is stated with it.
//!
//! A strategy stands here by its fastest variant. Two are compared by the ratio of their median epoch times, paired by
//! round, with a bootstrap interval; a claim that one is faster holds only where the whole interval says so, at every
//! batch size measured.

use std::collections::BTreeSet;

use dpsgd_core::Mode;
use dpsgd_protocol::results::{Cell, ProcessRun, Results};

use crate::compared::{Compared, middle};
use crate::units;
use crate::view::counts;

/// The convolutional network of the talk.
const CNN: &str = "mnist-cnn";
/// Its feed-forward network.
const FFNN: &str = "ffnn";
/// The same for regression.
const REGRESSION: &str = "ffnn-regression";
/// What the talk compared JAX with.
const RIVALS: [&str; 5] = ["opacus", "pytorch", "backpack", "tensorflow", "tf-privacy"];
/// "About five times" holds from here: 5 less a fifth.
const ABOUT_FIVE: f64 = 4.0;
/// "Differs" holds from a ratio of this.
const DIFFERS: f64 = 1.25;
/// Private training that takes at most this many times as long as plain training is not slow.
const NOT_SLOW: f64 = 2.0;

/// What this run says of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The figures satisfy the rule.
    Holds,
    /// They do not.
    DoesNotHold,
    /// Something that the rule needs is not among the rows.
    NotMeasured,
}

impl Verdict {
    /// As in tables.
    pub fn text(self) -> &'static str {
        match self {
            Verdict::Holds => "holds here",
            Verdict::DoesNotHold => "does not hold here",
            Verdict::NotMeasured => "not measured",
        }
    }

    fn of(holds: bool) -> Self {
        if holds { Verdict::Holds } else { Verdict::DoesNotHold }
    }
}

/// A claim with what was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The talk's claim, and when it counts as holding.
    pub claim: &'static str,
    /// The figures with their intervals, or what is missing.
    pub found: String,
    /// What follows.
    pub verdict: Verdict,
}

/// All claims, in the talk's order.
pub fn claims(results: &Results) -> Vec<Claim> {
    vec![
        closest_competitor(results),
        beats_the_others(results),
        compiler_in_the_mean(results),
        memory_differs(results),
        gpu_differs(results),
        regression_too(results),
        privacy_need_not_be_slow(results),
    ]
}

fn closest_competitor(results: &Results) -> Claim {
    let claim = "1. On the CNN, JAX is about 5 times as fast as Opacus, its closest competitor (holds from 4 times, with \
                 Opacus the fastest of the talk's others)";
    let found = each_batch_size(results, CNN, |batch_size| {
        let jax = best(results, CNN, batch_size, Mode::Private, &["jax"])?;
        let opacus = best(results, CNN, batch_size, Mode::Private, &["opacus"])?;
        let closest = best(results, CNN, batch_size, Mode::Private, &RIVALS)?;
        let ratio = Compared::new(opacus, jax, results.config.seed)?;
        let is_closest = closest.strategy == "opacus";
        let also = if is_closest { String::new() } else { format!("; {} is closer", closest.contender()) };
        Some((format!("{}{also}", ratio.text("as fast")), is_closest && ratio.least() >= ABOUT_FIVE))
    });
    conclude(claim, found, "jax and opacus on mnist-cnn, private")
}

fn beats_the_others(results: &Results) -> Claim {
    let claim = "2. On the FFNN, JAX is the fastest (holds where JAX beats the fastest of the talk's others)";
    conclude(claim, advantage(results, FFNN), "jax and another of the talk on ffnn, private")
}

fn regression_too(results: &Results) -> Claim {
    let claim = "5. That advantage holds for regression as well as for classification (holds where 2 holds on both)";
    let (mut found, classification) = (advantage(results, REGRESSION), advantage(results, FFNN));
    match (found.is_empty(), classification.is_empty()) {
        (false, false) if classification.iter().any(|(_, holds)| !holds) => {
            found.iter_mut().for_each(|(_, holds)| *holds = false);
            found.push(("no advantage on ffnn to begin with".into(), false));
        }
        (false, false) => {}
        _ => found.clear(),
    }
    conclude(claim, found, "jax and another of the talk on ffnn and ffnn-regression, private")
}

/// JAX against the fastest of the others at each batch size.
fn advantage(results: &Results, workload: &str) -> Vec<(String, bool)> {
    each_batch_size(results, workload, |batch_size| {
        let jax = best(results, workload, batch_size, Mode::Private, &["jax"])?;
        let other = best(results, workload, batch_size, Mode::Private, &RIVALS)?;
        let ratio = Compared::new(other, jax, results.config.seed)?;
        Some((format!("{} as {}", ratio.text("as fast"), other.contender()), ratio.least() > 1.0))
    })
}

fn compiler_in_the_mean(results: &Results) -> Claim {
    let claim = "3. JAX's mean epoch is above its median, because its first epoch pays the compiler (holds where the \
                 first epochs are more than half of the excess)";
    let mut found = Vec::new();
    for workload in [CNN, FFNN, REGRESSION] {
        found.extend(each_batch_size(results, workload, |batch_size| {
            let jax = best(results, workload, batch_size, Mode::Private, &["jax"])?;
            // The median of two is their mean.
            let several = jax.processes.iter().all(|process| process.epochs_s.len() > 2);
            let middles = jax.processes.iter().map(middle).collect::<Option<Vec<f64>>>().filter(|_| several)?;
            let means: Vec<f64> = jax.processes.iter().map(mean).collect();
            let ratio = Compared::of_pairs(&means, &middles, results.config.seed)?;
            // Per process: what the mean has above the median, and what the first epoch adds to it.
            let pairs = jax.processes.iter().zip(means.iter().zip(&middles));
            let (excess, first) = pairs.fold((0.0, 0.0), |(excess, first), (process, (mean, middle))| {
                let added = (process.epochs_s[0] - middle) / process.epochs_s.len() as f64;
                (excess + mean - middle, first + added)
            });
            let holds = ratio.least() > 1.0 && first > excess / 2.0;
            let share =
                if excess > 0.0 { format!(", first epochs {:.0}%", 100.0 * first / excess) } else { String::new() };
            Some((format!("{workload} {}{share}", ratio.text("the median")), holds))
        }));
    }
    conclude(claim, found, "jax with three epochs or more, private")
}

fn memory_differs(results: &Results) -> Claim {
    let claim = "4a. Memory use differs between the frameworks (holds where the most is 1.25 times the least or more in \
                 every process)";
    let mut found = Vec::new();
    for workload in [CNN, FFNN] {
        found.extend(each_batch_size(results, workload, |batch_size| {
            let peaks = |cell: &Cell| -> Option<[f64; 2]> {
                let peaks: Vec<f64> =
                    cell.processes.iter().filter_map(|p| p.peak_rss_bytes).map(|b| b as f64).collect();
                let least = peaks.iter().copied().reduce(f64::min)?;
                Some([least, peaks.iter().copied().reduce(f64::max)?])
            };
            let all: Vec<(&Cell, [f64; 2])> = frameworks(results, workload, batch_size)
                .into_iter()
                .filter_map(|cell| Some((cell, peaks(cell)?)))
                .collect();
            let (most, top) = all.iter().max_by(|a, b| a.1[1].total_cmp(&b.1[1]))?;
            let (least, bottom) = all.iter().min_by(|a, b| a.1[0].total_cmp(&b.1[0]))?;
            if most.contender() == least.contender() {
                return None;
            }
            let (low, high) = (top[0] / bottom[1], top[1] / bottom[0]);
            let (most, least) = (most.contender(), least.contender());
            let text = format!("{workload} {most} {} to {} {least}", units::times(low), units::times(high));
            Some((text, low >= DIFFERS))
        }));
    }
    conclude(claim, found, "two of the talk's frameworks on mnist-cnn or ffnn, private")
}

fn gpu_differs(results: &Results) -> Claim {
    let claim = "4b. GPU efficiency differs between the frameworks (holds where the busiest is busy 1.25 times as much of \
                 the time as the idlest, or more)";
    let mut found = Vec::new();
    for workload in [CNN, FFNN] {
        found.extend(each_batch_size(results, workload, |batch_size| {
            let busy = |cell: &&Cell| cell.gpu_utilization.is_some_and(|share| share > 0.0);
            let mut all: Vec<&Cell> = frameworks(results, workload, batch_size).into_iter().filter(busy).collect();
            all.sort_by(|a, b| a.gpu_utilization.unwrap_or(0.0).total_cmp(&b.gpu_utilization.unwrap_or(0.0)));
            let (least, most) = (all.first()?, all.last().filter(|_| all.len() > 1)?);
            let ratio = most.gpu_utilization? / least.gpu_utilization?;
            let (most, least) = (most.contender(), least.contender());
            // A row's first process alone has a utilization: there is nothing to make an interval of.
            let text = format!("{workload} {most} {} {least} (one process each)", units::times(ratio));
            Some((text, ratio >= DIFFERS))
        }));
    }
    conclude(claim, found, "two of the talk's frameworks on a GPU")
}

fn privacy_need_not_be_slow(results: &Results) -> Claim {
    let claim = "6. Private training need not be slow (holds where the fastest private step of all measured takes at most \
                 2 times as long as the fastest plain one of all)";
    let mut found = Vec::new();
    for workload in [CNN, FFNN, REGRESSION] {
        found.extend(each_batch_size(results, workload, |batch_size| {
            let private = best(results, workload, batch_size, Mode::Private, &[])?;
            let plain = best(results, workload, batch_size, Mode::NonPrivate, &[])?;
            let ratio = Compared::new(private, plain, results.config.seed)?;
            let (private, plain) = (private.contender(), plain.contender());
            let text = format!("{workload} {} ({private} over {plain})", ratio.text("as long"));
            Some((text, ratio.most() <= NOT_SLOW))
        }));
    }
    conclude(claim, found, "a contender in both modes on a network of the talk")
}

/// The verdict: every figure must satisfy the rule, and there must be one.
fn conclude(claim: &'static str, found: Vec<(String, bool)>, needs: &str) -> Claim {
    if found.is_empty() {
        return Claim { claim, found: format!("needs {needs}"), verdict: Verdict::NotMeasured };
    }
    let verdict = Verdict::of(found.iter().all(|(_, holds)| *holds));
    let texts: Vec<String> = found.into_iter().map(|(text, _)| text).collect();
    Claim { claim, found: texts.join("; "), verdict }
}

/// The answers of `figure` for the batch sizes at which it has one, each with its batch size before it.
fn each_batch_size(
    results: &Results,
    workload: &str,
    figure: impl Fn(usize) -> Option<(String, bool)>,
) -> Vec<(String, bool)> {
    let of_workload = results.cells.iter().filter(|cell| cell.workload == workload);
    let sizes: BTreeSet<usize> = of_workload.map(|cell| cell.batch_size).collect();
    let labelled = |size: usize| figure(size).map(|(text, holds)| (format!("batch {size}: {text}"), holds));
    sizes.into_iter().filter_map(labelled).collect()
}

/// The fastest row of any of `strategies`, or of all when none is named.
fn best<'r>(
    results: &'r Results,
    workload: &str,
    batch_size: usize,
    mode: Mode,
    strategies: &[&str],
) -> Option<&'r Cell> {
    let wanted = |cell: &&Cell| {
        cell.workload == workload
            && cell.batch_size == batch_size
            && cell.mode == mode
            && counts(cell)
            && (strategies.is_empty() || strategies.contains(&cell.strategy.as_str()))
    };
    let time = |cell: &Cell| cell.median_epoch_s.unwrap_or(f64::INFINITY);
    results.cells.iter().filter(wanted).min_by(|a, b| time(a).total_cmp(&time(b)))
}

/// The fastest private row of each framework of the talk.
fn frameworks<'r>(results: &'r Results, workload: &str, batch_size: usize) -> Vec<&'r Cell> {
    let names = ["jax"].into_iter().chain(RIVALS);
    names.filter_map(|name| best(results, workload, batch_size, Mode::Private, &[name])).collect()
}

fn mean(process: &ProcessRun) -> f64 {
    process.epochs_s.iter().sum::<f64>() / process.epochs_s.len().max(1) as f64
}
