//! Two rows compared: the ratio of their epoch times, paired by round.

use dpsgd_protocol::results::{Cell, ProcessRun};
use dpsgd_stats::{Ratio, median, ratio_ci95};

use crate::units;

/// A ratio of times, with its interval if there is one.
pub struct Compared(Ratio);

impl Compared {
    /// `slow` over `fast`, by their median epochs in the rounds that both have.
    pub fn new(slow: &Cell, fast: &Cell, seed: u64) -> Option<Self> {
        let of_round = |round: usize| fast.processes.iter().find(|process| process.round == round);
        let pairs =
            slow.processes.iter().filter_map(|process| Some((middle(process)?, middle(of_round(process.round)?)?)));
        let (slow, fast): (Vec<f64>, Vec<f64>) = pairs.unzip();
        Self::of_pairs(&slow, &fast, seed)
    }

    /// `a` over `b`, each with the other's figure of the same round.
    pub fn of_pairs(a: &[f64], b: &[f64], seed: u64) -> Option<Self> {
        ratio_ci95(a, b, seed).map(Compared)
    }

    /// The figure itself.
    pub fn ratio(&self) -> f64 {
        self.0.ratio
    }

    /// What the ratio is at least; the figure itself where there is no interval.
    pub fn least(&self) -> f64 {
        self.0.ci95.map_or(self.0.ratio, |[low, _]| low)
    }

    /// What it is at most.
    pub fn most(&self) -> f64 {
        self.0.ci95.map_or(self.0.ratio, |[_, high]| high)
    }

    /// `5.1× [4.8×, 5.3×]`, or `5.1×` where there is no interval.
    pub fn figure(&self) -> String {
        let ratio = units::times(self.0.ratio);
        match self.0.ci95 {
            Some([low, high]) => format!("{ratio} [{}, {}]", units::times(low), units::times(high)),
            None => ratio,
        }
    }

    /// `5.1× [4.8×, 5.3×] as fast`.
    pub fn text(&self, what: &str) -> String {
        let remark = if self.0.ci95.is_none() { " (one process: no interval)" } else { "" };
        format!("{} {what}{remark}", self.figure())
    }
}

/// The median epoch of a process.
pub fn middle(process: &ProcessRun) -> Option<f64> {
    median(&process.epochs_s)
}
