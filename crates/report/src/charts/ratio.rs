//! What privacy costs: the time of a private epoch over that of a non-private one of the same contender.

use dpsgd_core::Mode;
use dpsgd_protocol::results::Cell;
use dpsgd_stats::LEAST_FOR_INTERVAL;

use crate::axis::Axis;
use crate::charts::{heading, subtitle};
use crate::compared::Compared;
use crate::figure::{Figure, Group, Row, Rows, interval, title};
use crate::scene::Scene;
use crate::units;
use crate::view::{self, View, counts};

pub fn draw(view: &View) -> Scene {
    let rest = "How many times longer a private epoch takes than a plain one of the same contender. Least first.";
    let mut figure = Figure::new(title(view, "private / non-private epoch time", None), &subtitle(view, rest));
    let both = |cell| {
        let plain = view.non_private(cell).filter(|plain| counts(plain))?;
        Some((Compared::new(cell, plain)?, cell))
    };
    let group = |batch_size| {
        let mut ratios: Vec<(Compared, &Cell)> =
            view.timed(Mode::Private, batch_size).into_iter().filter_map(both).collect();
        ratios.sort_by(|(a, _), (b, _)| a.ratio().total_cmp(&b.ratio()));
        let row = |(compared, cell): (Compared, &Cell)| {
            let look = view.look(&cell.contender());
            (Row { look, name: view::name(cell), figure: compared.figure() }, compared)
        };
        Group { heading: heading(view, batch_size), rows: ratios.into_iter().map(row).collect() }
    };
    let groups: Vec<Group<Compared>> =
        view.batch_sizes().into_iter().map(group).filter(|group| !group.rows.is_empty()).collect();
    if groups.is_empty() {
        figure.note("No contender has a time that counts in both modes.");
    } else {
        draw_rows(&mut figure, &groups, "private over non-private epoch time, log scale; the line at 1× is no cost");
    }
    let caption = format!(
        "Marks: ratio of warm epochs, paired by round; {}. {}",
        view.replicates(),
        bands(groups.iter().flat_map(|group| &group.rows).map(|(_, compared)| compared))
    );
    figure.finish(&view.absent(&[Mode::Private, Mode::NonPrivate]), &caption, &view.machine())
}

/// Draws ratios about a line at 1.
pub fn draw_rows(figure: &mut Figure, groups: &[Group<Compared>], axis_title: &str) {
    let all = || groups.iter().flat_map(|group| &group.rows).map(|(_, compared)| compared);
    let ends =
        |compared: &Compared| compared.ci95().into_iter().flatten().chain([compared.ratio()]).collect::<Vec<_>>();
    let values: Vec<f64> = all().flat_map(ends).chain([1.0]).collect();
    Rows {
        axis: &|from, to| Axis::logarithmic(values.iter().copied(), from, to, 75.0),
        tick: &|ratio| format!("{}×", units::plain(ratio)),
        axis_title,
        reference: Some(1.0),
        draw: &|scene, axis, y, row, compared: &Compared| {
            if let Some(ci95) = compared.ci95() {
                interval(scene, axis, y, ci95, row.look.color);
            }
            row.look.mark(scene, (axis.at(compared.ratio()), y), 4.5);
        },
    }
    .draw(figure, groups);
}

/// What the bands of ratios are, and which have none.
pub fn bands<'a>(ratios: impl Iterator<Item = &'a Compared>) -> String {
    let (with, without): (Vec<&Compared>, Vec<&Compared>) = ratios.partition(|compared| compared.ci95().is_some());
    match (with.len(), without.len()) {
        (0, _) => format!("No intervals: fewer than {LEAST_FOR_INTERVAL} rounds."),
        (_, 0) => "Bands: 95% interval, Student's t on logarithms over rounds.".into(),
        _ => format!(
            "Bands: 95% interval, Student's t on logarithms over rounds; none with fewer than {LEAST_FOR_INTERVAL} of them."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caption_says_which_ratios_have_no_band() {
        let ratio = |rounds: usize| Compared::of_pairs(&vec![2.0; rounds], &vec![1.0; rounds]).unwrap();
        let says = |rounds: &[usize]| bands(rounds.iter().map(|n| ratio(*n)).collect::<Vec<_>>().iter());
        assert_eq!(says(&[5, 8]), "Bands: 95% interval, Student's t on logarithms over rounds.");
        assert!(says(&[5, 3]).ends_with("none with fewer than 4 of them."));
        assert_eq!(says(&[3, 1]), "No intervals: fewer than 4 rounds.");
        assert_eq!(says(&[]), "No intervals: fewer than 4 rounds.");
    }
}
