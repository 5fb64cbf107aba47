//! What privacy costs: the time of a private epoch over that of a non-private one of the same contender.

use dpsgd_core::Mode;
use dpsgd_protocol::results::Cell;
use dpsgd_stats::{Ratio, median, ratio_ci95};

use crate::axis::Axis;
use crate::charts::{heading, subtitle};
use crate::figure::{Figure, Group, Row, Rows, interval, title};
use crate::scene::Scene;
use crate::units;
use crate::view::{View, counts};

/// The ratio is of the same measurements whenever it is drawn: so is its interval.
const SEED: u64 = 0;

pub fn draw(view: &View) -> Scene {
    let rest = "How many times longer a private epoch takes than a plain one of the same contender. Least first.";
    let mut figure = Figure::new(title(view, "private / non-private epoch time", None), &subtitle(view, rest));
    let group = |batch_size| {
        let private = view.timed(Mode::Private, batch_size);
        let mut ratios: Vec<(Ratio, &Cell)> =
            private.into_iter().filter_map(|cell| Some((of_rounds(cell, view.non_private(cell)?)?, cell))).collect();
        ratios.sort_by(|(a, _), (b, _)| a.ratio.total_cmp(&b.ratio));
        let row = |(ratio, cell): (Ratio, &Cell)| {
            let name = cell.contender();
            let shown = match ratio.ci95 {
                Some([low, high]) => {
                    format!("{}  [{}–{}]", units::times(ratio.ratio), units::digits(low), units::digits(high))
                }
                None => units::times(ratio.ratio),
            };
            (Row { look: view.look(&name), name, figure: shown }, ratio)
        };
        Group { heading: heading(view, batch_size), rows: ratios.into_iter().map(row).collect() }
    };
    let groups: Vec<Group<Ratio>> =
        view.batch_sizes().into_iter().map(group).filter(|group| !group.rows.is_empty()).collect();
    if groups.is_empty() {
        figure.note("No contender has a time that counts in both modes.");
    } else {
        let ratios = || groups.iter().flat_map(|group| &group.rows).map(|(_, ratio)| ratio);
        let ends = |ratio: &Ratio| ratio.ci95.into_iter().flatten().chain([ratio.ratio]).collect::<Vec<_>>();
        let values: Vec<f64> = ratios().flat_map(ends).chain([1.0]).collect();
        Rows {
            axis: &|from, to| Axis::logarithmic(values.iter().copied(), from, to, 75.0),
            tick: &|ratio| format!("{}×", units::plain(ratio)),
            axis_title: "private over non-private epoch time, log scale; the line at 1× is no cost",
            reference: Some(1.0),
            draw: &|scene, axis, y, row, ratio: &Ratio| {
                if let Some(ci95) = ratio.ci95 {
                    interval(scene, axis, y, ci95, row.look.color);
                }
                row.look.mark(scene, (axis.at(ratio.ratio), y), 4.5);
            },
        }
        .draw(&mut figure, &groups);
    }
    let rounds = groups.iter().flat_map(|group| &group.rows).map(|(_, ratio)| ratio.pairs);
    let caption = explained(&rounds.collect::<Vec<_>>(), &view.replicates());
    figure.finish(&view.absent(&[Mode::Private, Mode::NonPrivate]), &caption, &view.machine())
}

/// What marks and bands are, by the number of `rounds` that each ratio rests on.
fn explained(rounds: &[usize], replicates: &str) -> String {
    let (fewest, most) = (rounds.iter().copied().min().unwrap_or(0), rounds.iter().copied().max().unwrap_or(0));
    let marks = match most {
        0 => "ratio of the medians over all epochs, as no round has both modes",
        1 => "ratio of the two medians of the only round that has both modes",
        _ => "geometric mean over rounds of the ratio of a round's two medians",
    };
    let mut text = format!("Marks: {marks}; {replicates}. ");
    // Of those that have a band, the one that rests on the least.
    match rounds.iter().copied().filter(|rounds| *rounds > 1).min() {
        None => text.push_str("No interval without two rounds."),
        Some(2..5) => text.push_str(
            "Bands: 95% bootstrap interval, resampled over rounds; with so few of them it is narrower than that.",
        ),
        Some(_) => text.push_str("Bands: 95% bootstrap interval, resampled over rounds."),
    }
    if fewest == 0 && most > 0 {
        text.push_str(" Where no round has both modes: ratio of the medians over all epochs, no band.");
    }
    if most > 1 && rounds.contains(&1) {
        text.push_str(" Where only one round has both modes: the ratio of that round, no band.");
    }
    text
}

/// The ratio of the medians of processes of the same round; of the overall medians if no round has both.
fn of_rounds(private: &Cell, plain: &Cell) -> Option<Ratio> {
    if !counts(plain) {
        return None;
    }
    let of_round = |cell: &Cell, round: usize| {
        let epochs: Vec<f64> =
            cell.processes.iter().filter(|p| p.round == round).flat_map(|p| p.epochs_s.iter().copied()).collect();
        median(&epochs).filter(|s| s.is_finite() && *s > 0.0)
    };
    let mut rounds: Vec<usize> = private.processes.iter().map(|process| process.round).collect();
    rounds.sort_unstable();
    rounds.dedup();
    let pairs: Vec<(f64, f64)> =
        rounds.into_iter().filter_map(|round| Some((of_round(private, round)?, of_round(plain, round)?))).collect();
    let (numerators, denominators): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
    ratio_ci95(&numerators, &denominators, SEED)
        .or_else(|| Some(Ratio { ratio: private.median_epoch_s? / plain.median_epoch_s?, ci95: None, pairs: 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caption_says_what_is_drawn_with_few_rounds_one_and_none() {
        let says = |rounds: &[usize], parts: &[&str], never: &[&str]| {
            let text = explained(rounds, "3 processes × 5 epochs");
            assert!(parts.iter().all(|part| text.contains(part)), "{rounds:?}: {text}");
            assert!(!never.iter().any(|part| text.contains(part)), "{rounds:?}: {text}");
        };
        says(&[5, 8], &["geometric mean", "Bands: 95%"], &["narrower", "Where", "No interval"]);
        says(&[3, 8], &["geometric mean", "Bands: 95%", "narrower than that"], &["Where"]);
        says(&[1, 1], &["the only round", "No interval"], &["Bands", "geometric", "Where"]);
        says(&[0], &["medians over all epochs", "No interval"], &["Bands", "geometric", "Where"]);
        says(&[5, 1, 0], &["Bands", "Where no round", "Where only one round"], &["narrower"]);
    }
}
