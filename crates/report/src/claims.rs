//! The claims of the 2020 talk on JAX and DP-SGD, measured again: for each, the figures of this run and a verdict that
//! follows from them by a rule that is stated with it.
//!
//! A strategy stands here by its fastest variant, chosen by rounds that do not judge it ([`crate::fastest`]). Two are
//! compared by the ratio of their warm epochs, paired by round, with Student's interval on logarithms. A claim holds only
//! where the whole interval says so, at every batch size measured; it does not hold where a whole interval says the
//! opposite; and all else, for want of processes too, is inconclusive.

use std::collections::BTreeSet;

use dpsgd_core::Mode;
use dpsgd_protocol::results::{Cell, ProcessRun, Results};
use dpsgd_stats::{mean, median};

use crate::compared::Compared;
use crate::fastest::judge;
use crate::figures::{cold, filled};
use crate::units;
use crate::view::competes;

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
    /// All of the interval satisfies the rule.
    Holds,
    /// All of it violates the rule.
    DoesNotHold,
    /// The interval has both, or there is none.
    Inconclusive,
    /// Something that the rule needs is not among the rows.
    NotMeasured,
}

impl Verdict {
    /// As in tables.
    pub fn text(self) -> &'static str {
        match self {
            Verdict::Holds => "holds here",
            Verdict::DoesNotHold => "does not hold here",
            Verdict::Inconclusive => "inconclusive",
            Verdict::NotMeasured => "not measured",
        }
    }

    /// Of a rule that has to hold in each of several ways: one that does not is enough.
    pub(crate) fn all(verdicts: impl IntoIterator<Item = Verdict>) -> Self {
        let worst = |verdict: &Verdict| match verdict {
            Verdict::Holds => 0,
            Verdict::Inconclusive => 1,
            Verdict::NotMeasured => 2,
            Verdict::DoesNotHold => 3,
        };
        verdicts.into_iter().max_by_key(worst).unwrap_or(Verdict::NotMeasured)
    }

    /// Of a figure that each of several processes has, from the least and the most of them.
    fn of_range([least, most]: [f64; 2], processes: usize, satisfies: impl Fn(f64) -> bool) -> Self {
        match (processes > 1, satisfies(least), satisfies(most)) {
            (true, true, true) => Verdict::Holds,
            (true, false, false) => Verdict::DoesNotHold,
            _ => Verdict::Inconclusive,
        }
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
    let results = &*filled(results);
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

/// What was found at a batch size, and what follows from it.
type Found = (String, Verdict);

fn closest_competitor(results: &Results) -> Claim {
    let claim = "1. On the CNN, JAX is about 5 times as fast as Opacus, its closest competitor (holds from 4 times, with \
                 Opacus the fastest of the talk's others)";
    let found = each_batch_size(results, CNN, |batch_size| {
        let rows = |names: &[&str]| rows(results, CNN, batch_size, Mode::Private, names);
        let others: Vec<&str> = RIVALS.into_iter().filter(|name| *name != "opacus").collect();
        let opacus = rows(&["opacus"]);
        let judged = judge(&opacus, &rows(&["jax"]))?;
        let (mut text, mut verdict) = (judged.compared.text("as fast"), judged.compared.at_least(ABOUT_FIVE));
        if let Some(rivals) = judge(&rows(&others), &opacus) {
            let closest = rivals.compared.at_least(1.0);
            verdict = Verdict::all([verdict, closest]);
            let of =
                format!("{} {} over {}", rivals.slow.contender(), rivals.compared.figure(), rivals.fast.contender());
            match closest {
                Verdict::Holds => {}
                Verdict::DoesNotHold => text.push_str(&format!("; {} is closer ({of})", rivals.slow.contender())),
                _ => text.push_str(&format!("; which is closest is open ({of})")),
            }
        }
        Some((text, verdict))
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
    if found.is_empty() || classification.is_empty() {
        found.clear();
    } else {
        match Verdict::all(classification.iter().map(|(_, verdict)| *verdict)) {
            Verdict::Holds => {}
            verdict @ Verdict::DoesNotHold => found.push(("no advantage on ffnn to begin with".into(), verdict)),
            verdict => found.push(("whether there is one on ffnn is open".into(), verdict)),
        }
    }
    conclude(claim, found, "jax and another of the talk on ffnn and ffnn-regression, private")
}

/// JAX against the fastest of the others at each batch size.
fn advantage(results: &Results, workload: &str) -> Vec<Found> {
    each_batch_size(results, workload, |batch_size| {
        let rows = |names: &[&str]| rows(results, workload, batch_size, Mode::Private, names);
        let judged = judge(&rows(&RIVALS), &rows(&["jax"]))?;
        let text = judged.compared.text(&format!("as fast as {}", judged.slow.contender()));
        Some((text, judged.compared.above(1.0)))
    })
}

fn compiler_in_the_mean(results: &Results) -> Claim {
    let claim = "3. JAX's mean epoch is above its median, over all epochs of a process that runs from the cold, because its \
                 first epoch pays the compiler (holds where the first epoch is more than half of the excess in every process)";
    let mut found = Vec::new();
    for workload in [CNN, FFNN, REGRESSION] {
        found.extend(each_batch_size(results, workload, |batch_size| {
            let jax = fastest(rows(results, workload, batch_size, Mode::Private, &["jax"]))?;
            let processes: Vec<&ProcessRun> = cold(jax).collect();
            // The median of two is their mean.
            let several = processes.iter().all(|process| process.epochs_s.len() > 2);
            let of = |figure: fn(&[f64]) -> Option<f64>| {
                processes.iter().map(|process| figure(&process.epochs_s)).collect::<Option<Vec<f64>>>()
            };
            let (means, middles) = (of(mean)?, of(median).filter(|_| several)?);
            let ratio = Compared::of_pairs(&means, &middles)?;
            // What the first epoch adds to the mean, over what the mean has above the median.
            let share = |((process, mean), middle): ((&&ProcessRun, &f64), &f64)| {
                (process.epochs_s[0] - middle) / process.epochs_s.len() as f64 / (mean - middle)
            };
            let shares: Vec<f64> = processes.iter().zip(&means).zip(&middles).map(share).collect();
            let range = range(&shares)?;
            let mut text = format!("{workload} {}", ratio.text("the median"));
            if means.iter().zip(&middles).all(|(mean, middle)| mean > middle) {
                text.push_str(&format!(", first epochs {:.0}% to {:.0}%", 100.0 * range[0], 100.0 * range[1]));
            }
            let first = Verdict::of_range(range, shares.len(), |share| share > 0.5);
            let above = ratio.above(1.0);
            Some((text, if above == Verdict::DoesNotHold { above } else { Verdict::all([above, first]) }))
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
                range(&cold(cell).filter_map(|p| p.peak_rss_bytes).map(|b| b as f64).collect::<Vec<_>>())
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
            let ratios = [top[0] / bottom[1], top[1] / bottom[0]];
            let processes = cold(most).count().min(cold(least).count());
            let (low, high) = (units::times(ratios[0]), units::times(ratios[1]));
            let text = format!("{workload} {} {low} to {high} {}", most.contender(), least.contender());
            Some((text, Verdict::of_range(ratios, processes, |ratio| ratio >= DIFFERS)))
        }));
    }
    conclude(claim, found, "two of the talk's frameworks on mnist-cnn or ffnn, private")
}

fn gpu_differs(results: &Results) -> Claim {
    let claim = "4b. GPU efficiency differs between the frameworks (holds where the busiest is busy 1.25 times as much of \
                 the time as the idlest, or more, in several processes)";
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
            let text = format!("{workload} {most} {} {least} (one process each: no interval)", units::times(ratio));
            Some((text, Verdict::Inconclusive))
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
            let rows = |mode| rows(results, workload, batch_size, mode, &[]);
            let judged = judge(&rows(Mode::Private), &rows(Mode::NonPrivate))?;
            let (private, plain) = (judged.slow.contender(), judged.fast.contender());
            let text = format!("{workload} {}", judged.compared.text(&format!("as long, {private} over {plain}")));
            Some((text, judged.compared.at_most(NOT_SLOW)))
        }));
    }
    conclude(claim, found, "a contender in both modes on a network of the talk")
}

/// The verdict over all that was found; not measured if that is nothing.
fn conclude(claim: &'static str, found: Vec<Found>, needs: &str) -> Claim {
    if found.is_empty() {
        return Claim { claim, found: format!("needs {needs}"), verdict: Verdict::NotMeasured };
    }
    let verdict = Verdict::all(found.iter().map(|(_, verdict)| *verdict));
    let texts: Vec<String> = found.into_iter().map(|(text, _)| text).collect();
    Claim { claim, found: texts.join("; "), verdict }
}

/// The answers of `figure` for the batch sizes at which it has one, each with its batch size before it.
fn each_batch_size(results: &Results, workload: &str, figure: impl Fn(usize) -> Option<Found>) -> Vec<Found> {
    let of_workload = results.cells.iter().filter(|cell| cell.workload == workload);
    let sizes: BTreeSet<usize> = of_workload.map(|cell| cell.batch_size).collect();
    let labelled = |size: usize| figure(size).map(|(text, verdict)| (format!("batch {size}: {text}"), verdict));
    sizes.into_iter().filter_map(labelled).collect()
}

/// The rows of any of `strategies` that compete, or of all when none is named.
fn rows<'r>(results: &'r Results, workload: &str, batch_size: usize, mode: Mode, strategies: &[&str]) -> Vec<&'r Cell> {
    let wanted = |cell: &&Cell| {
        cell.workload == workload
            && cell.batch_size == batch_size
            && cell.mode == mode
            && competes(cell)
            && (strategies.is_empty() || strategies.contains(&cell.strategy.as_str()))
    };
    results.cells.iter().filter(wanted).collect()
}

/// The row with the shortest warm epoch.
fn fastest(rows: Vec<&Cell>) -> Option<&Cell> {
    let time = |cell: &Cell| cell.warm_epoch_s.unwrap_or(f64::INFINITY);
    rows.into_iter().min_by(|a, b| time(a).total_cmp(&time(b)))
}

/// The fastest private row of each framework of the talk.
fn frameworks<'r>(results: &'r Results, workload: &str, batch_size: usize) -> Vec<&'r Cell> {
    let names = ["jax"].into_iter().chain(RIVALS);
    names.filter_map(|name| fastest(rows(results, workload, batch_size, Mode::Private, &[name]))).collect()
}

/// The least and the most; `None` of nothing, or with a NaN.
fn range(values: &[f64]) -> Option<[f64; 2]> {
    Some([dpsgd_stats::quantile(values, 0.0)?, dpsgd_stats::quantile(values, 1.0)?])
}
