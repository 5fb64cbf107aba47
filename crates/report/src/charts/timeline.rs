//! Utilization and memory over the life of a process.

use dpsgd_protocol::results::{Cell, Timeline};

use crate::axis::Axis;
use crate::charts::{NOTHING, groups, subtitle};
use crate::figure::{Figure, Group, Row, Rows, title};
use crate::scene::{Point, Scene};
use crate::units;
use crate::view::{self, View};

/// Height of a row's highest figure.
const HEIGHT: f64 = 16.0;

/// What one row shows.
struct Curve {
    /// Share of the process's time, and share of the largest figure.
    points: Vec<Point>,
    /// From where to where epochs were timed.
    timed: (f64, f64),
}

/// One figure over time.
struct Kind<'a> {
    of: &'a dyn Fn(&Timeline) -> Option<Vec<f64>>,
    /// What a row's full height is; `None` for the largest figure of all.
    full: Option<f64>,
    shown: &'a dyn Fn(&Cell, f64) -> String,
    title: &'a str,
}

pub fn draw(view: &View) -> Scene {
    let mode = view.main_mode();
    let rest = "From left to right: the life of a contender's first process, which took the time at the right; beside it the mean.";
    let mut figure = Figure::new(title(view, "use over time", Some(view::mode(mode))), &subtitle(view, rest));
    let percent = |share: Option<f64>| share.map_or_else(String::new, |share| format!(", {}", units::percent(share)));
    let gpu = Kind {
        of: &|timeline| filled(&timeline.gpu_utilization),
        full: Some(1.0),
        shown: &|cell, length| format!("{}{}", units::time(length), percent(cell.gpu_utilization)),
        title: "GPU utilization; full height: always busy",
    };
    let gpu_memory = Kind {
        of: &|timeline| filled(&timeline.gpu_bytes.iter().map(|bytes| *bytes as f64).collect::<Vec<_>>()),
        full: None,
        shown: &|cell, _| units::bytes(cell.gpu_peak_bytes),
        title: "GPU memory; full height: the most of all contenders",
    };
    let cpu = Kind {
        of: &|timeline| filled(&timeline.cpu_utilization),
        full: Some(1.0),
        shown: &|cell, length| format!("{}{}", units::time(length), percent(cell.cpu_utilization)),
        title: "CPU utilization; full height: all threads busy",
    };
    let memory = Kind {
        of: &|timeline| filled(&timeline.rss_bytes.iter().map(|bytes| *bytes as f64).collect::<Vec<_>>()),
        full: None,
        shown: &|cell, _| units::bytes(cell.peak_rss_bytes),
        title: "resident memory; full height: the most of all contenders",
    };
    let drawn = [gpu, gpu_memory, cpu, memory].map(|kind| kind.draw(view, &mut figure));
    if !drawn.contains(&true) {
        let timed = view.batch_sizes().into_iter().any(|size| !view.timed(mode, size).is_empty());
        figure.note(if timed { "The results file has no use over time." } else { NOTHING });
    }
    let mut caption = String::from(
        "Looked at from outside, every fifth of a second or less often. Solid: timed epochs; faint before: loading model and \
         data",
    );
    caption.push_str(if drawn[0] || drawn[1] { "; faint after: epochs for the GPU's meters." } else { "." });
    figure.finish(&view.absent(&[mode]), &caption, &view.machine())
}

fn filled(figures: &[f64]) -> Option<Vec<f64>> {
    (!figures.is_empty() && figures.iter().all(|figure| figure.is_finite() && *figure >= 0.0)).then(|| figures.to_vec())
}

impl Kind<'_> {
    /// Draws it; whether any contender has it.
    fn draw(&self, view: &View, figure: &mut Figure) -> bool {
        let mode = view.main_mode();
        let timed = view.batch_sizes().into_iter().flat_map(|size| view.timed(mode, size));
        let all = timed.filter_map(|cell| (self.of)(cell.timeline.as_ref()?)).flatten();
        let full = self.full.unwrap_or_else(|| all.fold(0.0, f64::max)).max(f64::MIN_POSITIVE);
        let groups: Vec<Group<Curve>> = groups(view, mode, |cell| {
            let timeline = cell.timeline.as_ref()?;
            let length = timeline.at_s.last().copied().filter(|length| length.is_finite() && *length > 0.0)?;
            let figures = (self.of)(timeline).filter(|figures| figures.len() == timeline.at_s.len())?;
            let points = timeline.at_s.iter().zip(figures).map(|(at, figure)| (at / length, figure / full));
            let timed = (timeline.loaded_at_s / length, timeline.timed_until_s / length);
            let name = cell.contender();
            let row = Row { look: view.look(&name), name, figure: (self.shown)(cell, length) };
            Some((row, Curve { points: points.collect(), timed }))
        });
        if groups.is_empty() {
            return false;
        }
        Rows {
            axis: &|from, to| Axis::from_zero([1.0 / 1.04], 0.01, from, to, 75.0),
            tick: &|share| format!("{}%", units::plain(share * 100.0)),
            axis_title: &format!("share of the process's time. {}", self.title),
            reference: None,
            draw: &|scene, axis, y, row, curve: &Curve| {
                let place = |(at, height): Point| (axis.at(at), y + HEIGHT / 2.0 - height.clamp(0.0, 1.0) * HEIGHT);
                let mut area = |points: Vec<Point>, alpha: f64| {
                    let (Some(first), Some(last)) = (points.first().copied(), points.last().copied()) else { return };
                    let ends = [(first.0, 0.0), (last.0, 0.0)];
                    let outline = [ends[0]].into_iter().chain(points).chain([ends[1]]).map(place);
                    scene.area(&outline.collect::<Vec<_>>(), row.look.color.faint(alpha));
                };
                area(curve.points.clone(), 0.35);
                area(between(&curve.points, curve.timed), 1.0);
            },
        }
        .draw(figure, &groups);
        true
    }
}

/// The part of a line through `points` (ascending) from `from` to `to`.
fn between(points: &[Point], (from, to): (f64, f64)) -> Vec<Point> {
    let mut part = Vec::new();
    for pair in points.windows(2) {
        let ((a, x), (b, y)) = (pair[0], pair[1]);
        let (start, end) = (a.max(from), b.min(to));
        if start > end {
            continue;
        }
        let at = |place: f64| if b > a { x + (y - x) * (place - a) / (b - a) } else { y };
        for point in [(start, at(start)), (end, at(end))] {
            if part.last() != Some(&point) {
                part.push(point);
            }
        }
    }
    part
}

#[cfg(test)]
mod tests {
    use super::between;

    #[test]
    fn a_part_of_a_line_begins_and_ends_on_the_line() {
        let line = [(0.0, 0.0), (1.0, 2.0), (3.0, 0.0)];
        assert_eq!(between(&line, (0.5, 2.0)), [(0.5, 1.0), (1.0, 2.0), (2.0, 1.0)]);
        assert_eq!(between(&line, (0.0, 3.0)), line);
        assert!(between(&line, (4.0, 5.0)).is_empty());
        assert!(between(&line[..1], (0.0, 1.0)).is_empty());
    }
}
