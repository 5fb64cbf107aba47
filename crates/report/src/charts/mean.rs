//! Median against mean epoch time, the talk's two figures, beside the warm one: what a first epoch that compiles does to a
//! mean.

use crate::axis::Axis;
use crate::charts::{NOTHING, groups, subtitle};
use crate::figure::{Figure, Row, Rows, title};
use crate::scene::{INK, Scene};
use crate::units;
use crate::view::{self, View};

struct Figures {
    warm: f64,
    median: f64,
    mean: f64,
}

pub fn draw(view: &View) -> Scene {
    let mode = view.main_mode();
    let rest =
        "Mark: median; bar: mean, over all epochs from the cold; dot: warm epoch. A long line is a long warm-up.";
    let title = title(view, "median against mean epoch time", Some(view::mode(mode)));
    let mut figure = Figure::new(title, &subtitle(view, rest));
    let groups = groups(view, mode, |cell| {
        let usable = |s: &f64| s.is_finite() && *s > 0.0;
        let warm = cell.warm_epoch_s?;
        let median = cell.median_epoch_s.filter(usable)?;
        let mean = cell.mean_epoch_s.filter(usable)?;
        let name = cell.contender();
        let shown = format!("mean {}, {} the median", units::time(mean), units::times(mean / median));
        Some((Row { look: view.look(&name), name, figure: shown }, Figures { warm, median, mean }))
    });
    if groups.is_empty() {
        figure.note(NOTHING);
    } else {
        let figures = || groups.iter().flat_map(|group| &group.rows).map(|(_, row)| row);
        let values: Vec<f64> = figures().flat_map(|row| [row.warm, row.median, row.mean]).collect();
        Rows {
            axis: &|from, to| Axis::logarithmic(values.iter().copied(), from, to, 75.0),
            tick: &units::time_tick,
            axis_title: "seconds per epoch, log scale",
            reference: None,
            draw: &|scene, axis, y, row, figures: &Figures| {
                let (median, mean) = (axis.at(figures.median), axis.at(figures.mean));
                scene.line(&[(median, y), (mean, y)], row.look.color, 2.0);
                scene.line(&[(mean, y - 7.5), (mean, y + 7.5)], row.look.color, 2.5);
                row.look.mark(scene, (median, y), 4.2);
                scene.disc((axis.at(figures.warm), y), 2.0, INK);
            },
        }
        .draw(&mut figure, &groups);
    }
    let caption = format!(
        "Median and mean over all epochs of the processes that ran alone, the first included, as in the talk: they have no \
         interval. Black dots: the warm epoch. {} per contender.",
        view.replicates()
    );
    figure.finish(&view.absent(&[mode]), &caption, &view.machine())
}
