//! Warm epoch time of every contender and batch size, with its interval.

use crate::axis::Axis;
use crate::charts::{NOTHING, groups, subtitle};
use crate::figure::{Figure, Row, Rows, interval, title};
use crate::scene::Scene;
use crate::units;
use crate::view::{self, View};

struct Warm {
    seconds: f64,
    ci95: Option<[f64; 2]>,
}

pub fn draw(view: &View) -> Scene {
    let mode = view.main_mode();
    let rest = "Fastest first; further left is faster.";
    let mut figure = Figure::new(title(view, "warm epoch time", Some(view::mode(mode))), &subtitle(view, rest));
    let groups = groups(view, mode, |cell| {
        let seconds = cell.warm_epoch_s?;
        let ci95 = view::interval(cell);
        let shown = units::time_with_interval(seconds, ci95);
        let name = view::name(cell);
        Some((Row { look: view.look(&cell.contender()), name, figure: shown }, Warm { seconds, ci95 }))
    });
    if groups.is_empty() {
        figure.note(NOTHING);
    } else {
        let figures = || groups.iter().flat_map(|group| &group.rows).map(|(_, row)| row);
        let values: Vec<f64> = figures().flat_map(|row| row.ci95.into_iter().flatten().chain([row.seconds])).collect();
        Rows {
            axis: &|from, to| Axis::logarithmic(values.iter().copied(), from, to, 75.0),
            tick: &units::time_tick,
            axis_title: "seconds per epoch, log scale",
            reference: None,
            draw: &|scene, axis, y, row, content: &Warm| {
                if let Some(ci95) = content.ci95 {
                    interval(scene, axis, y, ci95, row.look.color);
                }
                row.look.mark(scene, (axis.at(content.seconds), y), 4.5);
            },
        }
        .draw(&mut figure, &groups);
    }
    let caption = format!(
        "Marks: geometric mean over processes of each one's median epoch in steady state; {}. {}",
        view.replicates(),
        view.intervals(mode)
    );
    figure.finish(&view.absent(&[mode]), &caption, &view.machine())
}
