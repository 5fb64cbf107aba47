//! Share of the machine's peak: how far a contender is from what its FLOPs would take at the least.

use dpsgd_core::Mode;
use dpsgd_protocol::results::{Cell, Environment};

use crate::axis::Axis;
use crate::charts::{NOTHING, groups, subtitle};
use crate::figure::{Figure, Row, Rows, title};
use crate::scene::Scene;
use crate::units;
use crate::view::{self, View, counts};

/// Where the smallest share is below this, the axis is logarithmic.
const LEAST_LINEAR: f64 = 0.1;

struct Shares {
    share: f64,
    /// That of plain SGD in the plot of private steps.
    plain: Option<f64>,
}

pub fn draw(view: &View) -> Scene {
    let mode = view.main_mode();
    let private = mode == Mode::Private;
    let rest = match private {
        true => "FLOPs of a plain step over time and peak; clipping and noise are no work here. Highest first.",
        false => "FLOPs of a step over time and peak. Highest first.",
    };
    let what = "share of the machine's peak";
    let mut figure = Figure::new(title(view, what, Some(view::mode(mode))), &subtitle(view, rest));
    let groups = groups(view, mode, |cell| {
        let share = share(cell)?;
        let plain = private.then(|| view.non_private(cell).filter(|cell| counts(cell)).and_then(self::share)).flatten();
        let shown = match plain {
            Some(plain) => format!("{}, plain {}", units::percent(share), units::percent(plain)),
            None => units::percent(share),
        };
        let name = view::name(cell);
        Some((Row { look: view.look(&cell.contender()), name, figure: shown }, Shares { share, plain }))
    });
    let shares = || groups.iter().flat_map(|group| &group.rows).map(|(_, shares)| shares);
    let values: Vec<f64> = shares().flat_map(|shares| [shares.share].into_iter().chain(shares.plain)).collect();
    let mut absent = view.absent(&[mode]);
    if values.is_empty() {
        let timed = view.batch_sizes().into_iter().any(|size| !view.timed(mode, size).is_empty());
        figure.note(if timed { why_none(view) } else { NOTHING });
    } else {
        let logarithmic = values.iter().copied().fold(1.0, f64::min) < LEAST_LINEAR;
        let with_peak = || values.iter().copied().chain([1.0]);
        Rows {
            axis: &|from, to| match logarithmic {
                true => Axis::logarithmic(with_peak(), from, to, 75.0),
                false => Axis::from_zero(with_peak(), 0.01, from, to, 75.0),
            },
            tick: &|share| format!("{}%", units::plain(share * 100.0)),
            axis_title: match logarithmic {
                true => "share of the machine's peak, log scale; the line at 100% is the peak",
                false => "share of the machine's peak; the line at 100% is the peak",
            },
            reference: Some(1.0),
            draw: &|scene, axis, y, row, shares: &Shares| {
                let at = axis.at(shares.share);
                if let Some(plain) = shares.plain.map(|plain| axis.at(plain)) {
                    scene.line(&[(at, y), (plain, y)], row.look.color, 2.0);
                    scene.line(&[(plain, y - 7.5), (plain, y + 7.5)], row.look.color, 2.5);
                }
                row.look.mark(scene, (at, y), 4.2);
            },
        }
        .draw(&mut figure, &groups);
        absent.extend(without_share(view, mode));
    }
    let with_plain = shares().any(|shares| shares.plain.is_some());
    figure.finish(&absent, &caption(&view.results.environment, with_plain, &view.replicates()), &view.machine())
}

/// A row's share, if it can be drawn.
fn share(cell: &Cell) -> Option<f64> {
    cell.roofline_fraction.filter(|share| share.is_finite() && *share > 0.0)
}

/// Rows that have a time and no share.
fn without_share(view: &View, mode: Mode) -> Vec<String> {
    let timed = view.batch_sizes().into_iter().flat_map(|size| view.timed(mode, size));
    timed
        .filter(|cell| share(cell).is_none())
        .map(|cell| format!("{} (batch {}): no share in the results file", cell.contender(), cell.batch_size))
        .collect()
}

fn why_none(view: &View) -> &'static str {
    match view.results.config.device.as_str() {
        "cpu" => "The machine's peak was not measured.",
        _ => "The peak of a GPU is not measured, so there is no share of it.",
    }
}

/// What the marks are, and what the peak is.
fn caption(environment: &Environment, with_plain: bool, replicates: &str) -> String {
    let marks = match with_plain {
        true => "Marks: private; bars: plain SGD by the same contender",
        false => "Marks: share at the warm epoch time",
    };
    let mut text = format!("{marks}; {replicates}.");
    let (Some(peak), [first, ..]) = (environment.peak_flops_per_s(), &environment.calibrations[..]) else {
        return text;
    };
    let best = environment.calibrations.iter().find(|one| one.flops_per_s == peak).unwrap_or(first);
    let peak = units::per_second(peak, "FLOP/s");
    let products = match best.threads {
        1 => format!("f32 matrix products of size {} on one thread", best.matrix_size),
        threads => format!("f32 matrix products of size {}, one on each of {threads} threads", best.matrix_size),
    };
    let when = match environment.calibrations.len() {
        1 => "measured within the run".to_string(),
        2 => "the larger of two measurements within the run".to_string(),
        times => format!("the largest of {times} measurements within the run"),
    };
    text.push_str(&format!(" The peak, {peak}, is that of {products}; {when}."));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout_tests::sample::Sample;

    #[test]
    fn the_caption_says_what_the_peak_was_and_how_it_was_measured() {
        let mut environment = Sample::typical().results().environment;
        let text = caption(&environment, true, "3 processes × 5 epochs");
        for part in ["plain SGD", "164 GFLOP/s", "size 768", "2 threads", "larger of two measurements", "3 processes"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        environment.calibrations.truncate(1);
        environment.calibrations[0].threads = 1;
        let text = caption(&environment, false, "3 processes × 5 epochs");
        for part in ["share at the warm", "150 GFLOP/s", "on one thread", "measured within the run"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        environment.calibrations.clear();
        assert_eq!(caption(&environment, true, "no epochs").matches("peak").count(), 0);
    }
}
