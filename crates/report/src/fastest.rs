//! The fastest of several rows, judged by rounds that did not choose it.
//!
//! The least of several figures is less than what the contender behind it takes: what was lucky in a round is chosen for
//! it. So where two groups of rows are compared by their fastest, the rounds that choose are not those that judge:
//!
//! - With eight rounds or more, the even ones choose and the odd ones judge. Each half then has the four pairs that an
//!   interval needs.
//! - With fewer, each round is judged by the choice of all others. Halves of five rounds would leave two to judge, and
//!   no interval. No round judges a choice that it had a part in, so the mean over rounds is free of that luck, and where
//!   one row is the fastest by far, all choose it and the ratio is the plain one.

use std::collections::{BTreeMap, BTreeSet};

use dpsgd_protocol::results::Cell;

use crate::compared::{Compared, of_rounds};

/// From this many rounds on they are divided into halves.
const ROUNDS_FOR_HALVES: usize = 8;

/// Two groups of rows compared by the fastest of each.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged<'r> {
    /// The slow group's fastest over the fast group's, in the rounds that judge.
    pub compared: Compared,
    /// The row of the slow group that was chosen, most often if the choices differ.
    pub slow: &'r Cell,
    /// That of the fast group.
    pub fast: &'r Cell,
}

/// A group's rows, with the figure of each round.
struct Group<'r>(Vec<(&'r Cell, BTreeMap<usize, f64>)>);

impl<'r> Group<'r> {
    fn new(rows: &[&'r Cell]) -> Self {
        Self(rows.iter().map(|row| (*row, of_rounds(row))).collect())
    }

    fn rounds(&self) -> BTreeSet<usize> {
        self.0.iter().flat_map(|(_, figures)| figures.keys().copied()).collect()
    }

    /// The row whose figures have the least mean logarithm over the rounds that choose; the first of several.
    fn choose(&self, chooses: impl Fn(usize) -> bool) -> Option<usize> {
        let mean = |figures: &BTreeMap<usize, f64>| {
            let logs: Vec<f64> = figures.iter().filter(|(round, _)| chooses(**round)).map(|(_, s)| s.ln()).collect();
            dpsgd_stats::mean(&logs)
        };
        let means = self.0.iter().enumerate().filter_map(|(i, (_, figures))| Some((i, mean(figures)?)));
        means.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i)
    }
}

/// The fastest of `slow` over the fastest of `fast`; `None` if a group is empty, or no round has both.
pub fn judge<'r>(slow: &[&'r Cell], fast: &[&'r Cell]) -> Option<Judged<'r>> {
    let (slow, fast) = (Group::new(slow), Group::new(fast));
    let rounds: Vec<usize> = slow.rounds().intersection(&fast.rounds()).copied().collect();
    let place: BTreeMap<usize, usize> = rounds.iter().enumerate().map(|(place, round)| (*round, place)).collect();
    let halves = rounds.len() >= ROUNDS_FOR_HALVES;
    let judges = |place: usize| !halves || place % 2 == 1;
    let mut differences = Vec::new();
    let mut chosen: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for round in rounds.iter().filter(|round| judges(place[round])) {
        let chooses = |other: usize| match place.get(&other) {
            Some(place) if halves => place % 2 == 0,
            // A single round has no other to choose for it; it has no interval either.
            Some(_) => other != *round || rounds.len() == 1,
            None => false,
        };
        let (Some(a), Some(b)) = (slow.choose(chooses), fast.choose(chooses)) else { continue };
        let (Some(slow), Some(fast)) = (slow.0[a].1.get(round), fast.0[b].1.get(round)) else { continue };
        differences.push(slow.ln() - fast.ln());
        *chosen.entry((a, b)).or_default() += 1;
    }
    let compared = Compared::of_differences(&differences)?;
    // The first of several that were chosen as often.
    let (a, b) = chosen.iter().rev().max_by_key(|(_, times)| **times).map(|(pair, _)| *pair)?;
    Some(Judged { compared, slow: slow.0[a].0, fast: fast.0[b].0 })
}

/// How the rounds chose and judged, for the reader.
pub const HOW: &str = "a framework stands by its fastest variant, which is chosen by other rounds than those that judge it: \
                       the even ones where there are eight or more, else for each round all others";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout_tests::sample::{Contender, Sample};

    /// Rows of one batch size whose processes took these seconds, round by round.
    fn rows(seconds: &[&[f64]]) -> Vec<Cell> {
        let names = (0..seconds.len()).map(|i| Contender::new(&format!("c{i}"), 1.0, 1.0, 0.0, 100.0));
        let sample = Sample { contenders: names.collect(), batch_sizes: vec![64], ..Sample::typical() };
        let mut cells = sample.results().cells;
        cells.truncate(seconds.len());
        for (cell, seconds) in cells.iter_mut().zip(seconds) {
            let process = cell.processes.iter().find(|process| process.serves == dpsgd_protocol::results::Serves::Warm);
            let process = process.unwrap().clone();
            let made = seconds.iter().enumerate().map(|(round, s)| {
                let epochs_s = vec![*s; 5];
                dpsgd_protocol::results::ProcessRun { round, epochs_s, warm_from: Some(0), ..process.clone() }
            });
            cell.processes = made.collect();
        }
        cells
    }

    #[test]
    fn eight_rounds_choose_by_even_ones_and_judge_by_odd_ones() {
        // The first is lucky in the even rounds, and three times as slow in the odd ones.
        let lucky: Vec<f64> = (0..8).map(|round| if round % 2 == 0 { 1.0 } else { 3.0 }).collect();
        let rows = rows(&[&lucky, &[1.5; 8], &[6.0; 8]]);
        let judged = judge(&[&rows[2]], &[&rows[0], &rows[1]]).unwrap();
        assert_eq!(judged.fast.contender(), "c0");
        assert!((judged.compared.ratio() - 2.0).abs() < 1e-12 && judged.compared.estimate().count == 4);
    }

    #[test]
    fn five_rounds_are_each_judged_by_the_choice_of_the_others() {
        // Round 0 alone would choose c0; the four others choose c1 for it, and c1 also for themselves.
        let rows = rows(&[&[0.1, 4.0, 4.0, 4.0, 4.0], &[2.0; 5], &[6.0; 5]]);
        let judged = judge(&[&rows[2]], &[&rows[0], &rows[1]]).unwrap();
        assert_eq!(judged.compared.estimate().count, 5);
        // c0's mean logarithm with round 0: (ln 0.1 + 3 ln 4) / 4 = 0.46 < ln 2: it is chosen where round 0 chooses.
        let expected = (3.0_f64.ln() + 4.0 * 1.5_f64.ln()) / 5.0;
        assert!((judged.compared.ratio().ln() - expected).abs() < 1e-12, "{judged:?}");
    }

    #[test]
    fn noise_alone_is_no_advantage_however_many_variants_there_are() {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(9);
        let (mut sum, runs) = (0.0, 300);
        for _ in 0..runs {
            let mut draw = || (0..5).map(|_| (0.1 * (rng.random::<f64>() - 0.5)).exp()).collect::<Vec<f64>>();
            let figures: Vec<Vec<f64>> = (0..6).map(|_| draw()).collect();
            let rows = rows(&figures.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let all: Vec<&Cell> = rows.iter().collect();
            sum += judge(&all[..1], &all[1..]).unwrap().compared.ratio().ln();
        }
        // SD of a mean of five differences is 0.018; of 300 of them 0.001. The least of five would be 0.015 below.
        assert!((sum / f64::from(runs)).abs() < 0.004, "{}", sum / f64::from(runs));
    }

    #[test]
    fn one_round_has_a_figure_and_no_interval_and_none_has_nothing() {
        let rows = rows(&[&[1.0], &[2.0], &[]]);
        let judged = judge(&[&rows[1]], &[&rows[0]]).unwrap();
        assert_eq!((judged.compared.ratio(), judged.compared.ci95()), (2.0, None));
        assert_eq!(judge(&[&rows[2]], &[&rows[0]]), None);
        assert_eq!(judge(&[], &[&rows[0]]), None);
    }
}
