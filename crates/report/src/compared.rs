//! Two rows compared: the one ratio of this project, paired by round.

use std::collections::BTreeMap;

use dpsgd_protocol::results::{Cell, Serves};
use dpsgd_stats::{Estimate, LEAST_FOR_INTERVAL};

use crate::claims::Verdict;
use crate::figures::figure;
use crate::units;

/// A ratio of warm epoch times, with its interval if there is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared(Estimate);

impl Compared {
    /// `slow` over `fast`, by the median warm epochs of the processes that were alive in the same round; `None` if no round
    /// has both.
    pub fn new(slow: &Cell, fast: &Cell) -> Option<Self> {
        let (slow, fast) = (of_rounds(slow), of_rounds(fast));
        let pairs = slow.iter().filter_map(|(round, slow)| Some((*slow, *fast.get(round)?)));
        let (slow, fast): (Vec<f64>, Vec<f64>) = pairs.unzip();
        Self::of_pairs(&slow, &fast)
    }

    /// `a` over `b`, each with its neighbour of the other.
    pub fn of_pairs(a: &[f64], b: &[f64]) -> Option<Self> {
        Estimate::of_ratio(a, b).map(Compared)
    }

    /// exp of the mean of differences of logarithms.
    pub fn of_differences(differences: &[f64]) -> Option<Self> {
        Estimate::of_logs(differences, None).map(Compared)
    }

    /// The figure itself.
    pub fn ratio(&self) -> f64 {
        self.0.value
    }

    /// Its 95% interval; `None` with fewer than four pairs.
    pub fn ci95(&self) -> Option<[f64; 2]> {
        self.0.ci95
    }

    /// The estimate with its standard error.
    pub fn estimate(&self) -> Estimate {
        self.0
    }

    /// Whether the ratio is at least `bound`: by the whole interval, or it is inconclusive.
    pub fn at_least(&self, bound: f64) -> Verdict {
        self.verdict(|end| end >= bound)
    }

    /// Whether it is at most `bound`.
    pub fn at_most(&self, bound: f64) -> Verdict {
        self.verdict(|end| end <= bound)
    }

    /// Whether it is above `bound`.
    pub fn above(&self, bound: f64) -> Verdict {
        self.verdict(|end| end > bound)
    }

    fn verdict(&self, satisfies: impl Fn(f64) -> bool) -> Verdict {
        match self.0.ci95.map(|ends| ends.map(&satisfies)) {
            Some([true, true]) => Verdict::Holds,
            Some([false, false]) => Verdict::DoesNotHold,
            _ => Verdict::Inconclusive,
        }
    }

    /// `5.1× [4.8–5.3]`, or `5.1×` where there is no interval.
    pub fn figure(&self) -> String {
        // Beyond, an interval would be wider than the rest of a table.
        let long = self.0.value >= 1e5;
        let digits = |ratio: f64| if long { format!("{ratio:.1e}") } else { units::digits(ratio) };
        match self.0.ci95 {
            Some([low, high]) => format!("{}× [{}–{}]", digits(self.0.value), digits(low), digits(high)),
            None => format!("{}×", digits(self.0.value)),
        }
    }

    /// `5.1× [4.8–5.3] as fast`.
    pub fn text(&self, what: &str) -> String {
        match self.no_interval() {
            Some(why) => format!("{} {what} ({why})", self.figure()),
            None => format!("{} {what}", self.figure()),
        }
    }

    /// Why there is no interval.
    pub fn no_interval(&self) -> Option<String> {
        let none = self.0.ci95.is_none();
        none.then(|| format!("no interval: fewer than {LEAST_FOR_INTERVAL} processes"))
    }
}

/// The figure of each of a row's warm processes, in seconds, by its round. Processes that ran alone are nobody's neighbours.
pub fn of_rounds(cell: &Cell) -> BTreeMap<usize, f64> {
    let warm = cell.processes.iter().filter(|process| process.serves != Serves::Cold);
    warm.filter_map(|process| Some((process.round, figure(process)?))).collect()
}
