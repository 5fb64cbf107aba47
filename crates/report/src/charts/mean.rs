//! Median against mean epoch time: what a first epoch that compiles does to a mean.

use crate::axis::Axis;
use crate::charts::{NOTHING, groups, subtitle};
use crate::figure::{Figure, Row, Rows, title};
use crate::scene::Scene;
use crate::units;
use crate::view::{self, View};

struct Pair {
    median: f64,
    mean: f64,
}

pub fn draw(view: &View) -> Scene {
    let mode = view.main_mode();
    let rest = "Mark: median; bar: mean, the first epoch included. A long line between them is a long warm-up.";
    let title = title(view, "median against mean epoch time", Some(view::mode(mode)));
    let mut figure = Figure::new(title, &subtitle(view, rest));
    let groups = groups(view, mode, |cell| {
        let median = cell.median_epoch_s?;
        let mean = cell.mean_epoch_s.filter(|mean| mean.is_finite() && *mean > 0.0)?;
        let name = cell.contender();
        let shown = format!("mean {}, {} the median", units::time(mean), units::times(mean / median));
        Some((Row { look: view.look(&name), name, figure: shown }, Pair { median, mean }))
    });
    if groups.is_empty() {
        figure.note(NOTHING);
    } else {
        let pairs = || groups.iter().flat_map(|group| &group.rows).map(|(_, pair)| pair);
        let values: Vec<f64> = pairs().flat_map(|pair| [pair.median, pair.mean]).collect();
        Rows {
            axis: &|from, to| Axis::logarithmic(values.iter().copied(), from, to, 75.0),
            tick: &units::time_tick,
            axis_title: "seconds per epoch, log scale",
            reference: None,
            draw: &|scene, axis, y, row, pair: &Pair| {
                let (median, mean) = (axis.at(pair.median), axis.at(pair.mean));
                scene.line(&[(median, y), (mean, y)], row.look.color, 2.0);
                scene.line(&[(mean, y - 7.5), (mean, y + 7.5)], row.look.color, 2.5);
                row.look.mark(scene, (median, y), 4.2);
            },
        }
        .draw(&mut figure, &groups);
    }
    let caption = format!("Median and mean over all epochs of {} per contender.", view.replicates());
    figure.finish(&view.absent(&[mode]), &caption, &view.machine())
}
