//! Median epoch time of every contender and batch size, with its interval.

use crate::axis::Axis;
use crate::charts::{NOTHING, groups, subtitle};
use crate::figure::{Figure, Row, Rows, interval, title};
use crate::scene::Scene;
use crate::units;
use crate::view::{self, View};

struct Median {
    median: f64,
    ci95: Option<[f64; 2]>,
}

pub fn draw(view: &View) -> Scene {
    let mode = view.main_mode();
    let rest = "Fastest first; further left is faster.";
    let mut figure = Figure::new(title(view, "median epoch time", Some(view::mode(mode))), &subtitle(view, rest));
    let groups = groups(view, mode, |cell| {
        let median = cell.median_epoch_s?;
        let ci95 = view::interval(cell);
        let shown = units::time_with_interval(median, ci95);
        let name = cell.contender();
        Some((Row { look: view.look(&name), name, figure: shown }, Median { median, ci95 }))
    });
    if groups.is_empty() {
        figure.note(NOTHING);
    } else {
        let figures = || groups.iter().flat_map(|group| &group.rows).map(|(_, row)| row);
        let values: Vec<f64> = figures().flat_map(|row| row.ci95.into_iter().flatten().chain([row.median])).collect();
        Rows {
            axis: &|from, to| Axis::logarithmic(values.iter().copied(), from, to, 75.0),
            tick: &units::time_tick,
            axis_title: "seconds per epoch, log scale",
            reference: None,
            draw: &|scene, axis, y, row, content: &Median| {
                if let Some(ci95) = content.ci95 {
                    interval(scene, axis, y, ci95, row.look.color);
                }
                row.look.mark(scene, (axis.at(content.median), y), 4.5);
            },
        }
        .draw(&mut figure, &groups);
    }
    let caption = format!(
        "Marks: median over all epochs of {} per contender. {}",
        view.replicates(),
        match view.fewest_processes() {
            Some(1) => "No interval with a single process.",
            Some(2..5) => {
                "Bands: 95% bootstrap interval, resampled over processes; with so few of them it is narrower than that."
            }
            _ => "Bands: 95% bootstrap interval, resampled over processes.",
        }
    );
    figure.finish(&view.absent(&[mode]), &caption, &view.machine())
}
