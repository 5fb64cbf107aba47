//! Figures of finished runs against targets: for each, whether it is met, missed, or was not measured.
//!
//! A target compares two rows of one workload and batch size within one run, by the ratio of their warm epochs, paired by
//! round. Its interval decides: a target is met if all of it is within the bound, missed if none is, else inconclusive.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use dpsgd_core::Mode;
use dpsgd_protocol::results::{Cell, Results, Status};

use crate::claims::Verdict;
use crate::compared::Compared;
use crate::figures::filled;
use crate::units;
use crate::view::{counts, why};

/// What a contender is to reach.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The workloads on which it is to reach it, by name.
    pub workloads: Vec<String>,
    /// Who is to reach it.
    pub subject: Side,
    /// What it is compared with.
    pub against: Side,
    /// By how much.
    pub bound: Bound,
}

/// A contender in a mode: one row of each workload and batch size.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// `strategy` or `strategy:variant`.
    pub contender: String,
    /// Private or plain.
    pub mode: Mode,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.contender, self.mode.name())
    }
}

/// A limit of a ratio of epoch times; positive and finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// At least so many times as fast.
    AtLeast(f64),
    /// At most so many times as long.
    AtMost(f64),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtLeast(times) => write!(f, "at least {}×", units::plain(*times)),
            Bound::AtMost(times) => write!(f, "at most {}×", units::plain(*times)),
        }
    }
}

/// How a target stands on a workload in a batch size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All of the interval is within the bound.
    Met,
    /// None of it is.
    Missed,
    /// Some of it is, or there are fewer than four pairs, and so no interval.
    Inconclusive,
    /// There are rows, but one has no time that counts.
    Failed,
    /// A row that it needs is not there.
    Absent,
}

impl Standing {
    /// As at the begin of a line: what was missed must not be overlooked.
    pub fn text(self) -> &'static str {
        match self {
            Standing::Met => "met",
            Standing::Missed => "MISSED",
            Standing::Inconclusive => "inconclusive",
            Standing::Failed => "failed",
            Standing::Absent => "absent",
        }
    }
}

/// A target held against the rows of one workload and batch size.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// How it stands.
    pub standing: Standing,
    /// The workload.
    pub workload: String,
    /// Examples per step; `None` if no run has the workload.
    pub batch_size: Option<usize>,
    /// The figure with its interval and the bound, or what is wrong.
    pub text: String,
}

/// Holds each target against `runs`: on each of its workloads, in each of these batch sizes and in all others that a run
/// has rows of. At most one of them may have rows of a workload in a batch size.
pub fn hold(targets: &[Target], batch_sizes: &[usize], runs: &[Results]) -> Vec<Held> {
    let runs: Vec<Cow<'_, Results>> = runs.iter().map(filled).collect();
    let hold = |target: &Target, name: &String| target.hold_on(name, batch_sizes, &runs);
    targets.iter().flat_map(|target| target.workloads.iter().flat_map(move |name| hold(target, name))).collect()
}

/// One aligned line for each.
pub fn lines(held: &[Held]) -> Vec<String> {
    let size = |held: &Held| held.batch_size.map_or("–".into(), |size| size.to_string());
    let names = held.iter().map(|held| held.workload.chars().count()).max().unwrap_or(0);
    let sizes = held.iter().map(|held| size(held).chars().count()).max().unwrap_or(0);
    let line = |held: &Held| {
        let (standing, workload) = (held.standing.text(), &held.workload);
        format!("{standing:<12}  {workload:<names$}  {:>sizes$}  {}", size(held), held.text)
    };
    held.iter().map(line).collect()
}

/// `9 met, 1 missed, 4 inconclusive, 2 failed, 3 absent`.
pub fn tally(held: &[Held]) -> String {
    let count = |standing: Standing| held.iter().filter(|held| held.standing == standing).count();
    let all = [Standing::Met, Standing::Missed, Standing::Inconclusive, Standing::Failed, Standing::Absent];
    let counts = all.map(|standing| format!("{} {}", count(standing), standing.text().to_lowercase()));
    counts.join(", ")
}

impl Target {
    fn hold_on(&self, workload: &str, batch_sizes: &[usize], runs: &[Cow<'_, Results>]) -> Vec<Held> {
        let cells = runs.iter().flat_map(|run| &run.cells).filter(|cell| cell.workload == workload);
        let sizes: BTreeSet<usize> = cells.map(|cell| cell.batch_size).chain(batch_sizes.iter().copied()).collect();
        let held = |batch_size: Option<usize>, (standing, text): (Standing, String)| Held {
            standing,
            workload: workload.to_string(),
            batch_size,
            text,
        };
        if sizes.is_empty() {
            let text = format!("not measured: {} against {} ({})", self.subject, self.against, self.bound);
            return vec![held(None, (Standing::Absent, text))];
        }
        sizes.into_iter().map(|size| held(Some(size), self.hold_in(workload, size, runs))).collect()
    }

    /// How it stands on a workload in a batch size that a run has rows of, and the text beside that.
    fn hold_in(&self, workload: &str, batch_size: usize, runs: &[Cow<'_, Results>]) -> (Standing, String) {
        let here = |cell: &&Cell| cell.workload == workload && cell.batch_size == batch_size;
        // Times of two runs are never compared.
        let run = runs.iter().find(|run| run.cells.iter().any(|cell| here(&cell)));
        let row = |side: &Side| {
            let wanted = |cell: &&Cell| here(cell) && cell.mode == side.mode && cell.is_of(&side.contender);
            run.and_then(|run| run.cells.iter().find(wanted))
        };
        let sides = [&self.subject, &self.against].map(|side| (side, row(side)));
        let failed: Vec<String> = sides.iter().filter_map(|(side, row)| failure(side, (*row)?)).collect();
        if !failed.is_empty() {
            return (Standing::Failed, failed.join("; "));
        }
        let [(_, Some(subject)), (_, Some(against))] = sides else {
            let absent = sides.iter().filter(|(_, row)| row.is_none()).map(|(side, _)| side.to_string());
            return (Standing::Absent, format!("no row of {}", absent.collect::<Vec<_>>().join(", none of ")));
        };
        self.compare(subject, against)
    }

    /// How it stands by two rows that count.
    fn compare(&self, subject: &Cell, against: &Cell) -> (Standing, String) {
        let compared = match self.bound {
            Bound::AtLeast(_) => Compared::new(against, subject),
            Bound::AtMost(_) => Compared::new(subject, against),
        };
        let Some(compared) = compared else {
            let text = format!("{} and {} have no round with epochs of both", self.subject, self.against);
            return (Standing::Failed, text);
        };
        let (verdict, is, what) = match self.bound {
            Bound::AtLeast(times) => (compared.at_least(times), "is", "as fast"),
            Bound::AtMost(times) => (compared.at_most(times), "takes", "as long"),
        };
        let standing = match verdict {
            Verdict::Holds => Standing::Met,
            Verdict::DoesNotHold => Standing::Missed,
            Verdict::Inconclusive | Verdict::NotMeasured => Standing::Inconclusive,
        };
        let (figure, bound) = (compared.figure(), self.bound);
        let why = compared.no_interval().map_or_else(String::new, |why| format!("; {why}"));
        (standing, format!("{} {is} {figure} {what} as {} ({bound}{why})", self.subject, self.against))
    }
}

/// Why a row's times do not count, if they don't.
fn failure(side: &Side, row: &Cell) -> Option<String> {
    let verb = if row.status == Status::Ok { "has" } else { "is" };
    (!counts(row)).then(|| format!("{side} {verb} {}", why(row)))
}
