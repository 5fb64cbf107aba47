//! Where the text of every plot is: inside the picture, and not on top of other text.

#[path = "../tests/sample/mod.rs"]
pub(crate) mod sample;

use dpsgd_core::Mode;
use dpsgd_protocol::results::{Results, Status};
use sample::{Contender, Sample};

use crate::charts::CHARTS;
use crate::scene::{Mark, Scene};
use crate::view::{View, workloads};

fn samples() -> Vec<(&'static str, Results)> {
    let failing = |i: usize| {
        let reason = "a long reason, with <tags> & 'quotes', that does not fit on one line of any plot ".repeat(3);
        Contender::failing(&format!("failing-{i}:{}", "variant".repeat(i)), Status::Timeout, &reason)
    };
    let fused = || Contender::new("fused", 0.08, 1.15, 0.0, 60.0);
    let mut odd = Sample::typical().results();
    for (i, cell) in odd.cells.iter_mut().enumerate() {
        let times = &mut cell.processes;
        match i % 7 {
            0 => times.iter_mut().for_each(|process| process.epochs_s.fill(f64::NAN)),
            1 => times.clear(),
            2 => (cell.warm_epoch_s, cell.mean_epoch_s, cell.warm_ci95_s) = (Some(f64::NAN), None, None),
            3 => cell.warm_ci95_s = Some([f64::NAN, f64::INFINITY]),
            4 => (cell.peak_rss_bytes, cell.warm_up_s, cell.first_step_s) = (None, None, Some(f64::INFINITY)),
            5 => times.iter_mut().for_each(|process| process.epochs_s.fill(0.0)),
            _ => cell.mean_epoch_s = Some(0.0),
        }
    }
    let mut extreme = Sample::typical().results();
    let extremes = [1e308, 5e-324, -1.0, 0.0, f64::INFINITY, f64::NEG_INFINITY, 1e-300, 3.0];
    for (i, cell) in extreme.cells.iter_mut().enumerate() {
        let at = |shift: usize| extremes[(i + shift) % extremes.len()];
        let positive = [1e308, 5e-324, 1e-12, 1.0, 1e17];
        cell.warm_epoch_s = Some(positive[i % positive.len()]);
        (cell.mean_epoch_s, cell.warm_ci95_s) = (Some(at(0)), Some([at(1), at(2)]));
        (cell.warm_up_s, cell.first_step_s, cell.cpu_utilization) = (Some(at(3)), Some(at(4)), Some(at(5)));
        cell.peak_rss_bytes = Some(if i % 2 == 0 { u64::MAX } else { 0 });
        for process in &mut cell.processes {
            process.epochs_s.iter_mut().enumerate().for_each(|(epoch, time)| *time = at(epoch));
        }
    }
    let mut no_cells = Sample::typical().results();
    no_cells.cells.clear();
    vec![
        ("typical", Sample::typical().results()),
        ("twenty-five", Sample::many(25).results()),
        ("gpu, one batch size", Sample { gpu: true, batch_sizes: vec![256], ..Sample::typical() }.results()),
        ("one of everything", {
            let modes = vec![Mode::Private];
            let contenders = vec![fused()];
            Sample { contenders, batch_sizes: vec![64], modes, processes: 1, epochs: 1, ..Sample::typical() }.results()
        }),
        ("a hundred epochs", Sample { epochs: 100, processes: 2, ..Sample::typical() }.results()),
        ("all failed", Sample { contenders: (0..20).map(failing).collect(), ..Sample::typical() }.results()),
        ("non-private only", Sample { modes: vec![Mode::NonPrivate], ..Sample::typical() }.results()),
        ("equal times", {
            let contenders = (0..8).map(|i| Contender { name: format!("same-{i}"), ..fused() }).collect();
            Sample { contenders, ..Sample::typical() }.results()
        }),
        ("version 1", {
            let mut results = Sample::version_1();
            crate::figures::fill(&mut results);
            results
        }),
        ("one program under several names", {
            let same = vec![("jax:jit+vmap", "jax:reweight"), ("naive", "a-name-of-another-strategy:with-a-variant")];
            Sample { same, ..Sample::typical() }.results()
        }),
        ("odd figures", odd),
        ("extreme figures", extreme),
        ("no cells", no_cells),
    ]
}

fn scenes() -> impl Iterator<Item = (String, Scene)> {
    samples().into_iter().flat_map(|(name, results)| {
        let drawn: Vec<(String, Scene)> = workloads(&results)
            .into_iter()
            .flat_map(|workload| {
                let view = View::new(&results, workload);
                CHARTS.map(|chart| (format!("{name}: {workload}-{}", chart.name), (chart.draw)(&view)))
            })
            .collect();
        drawn
    })
}

#[test]
fn no_text_lies_on_another() {
    for (name, scene) in scenes() {
        let boxes: Vec<([f64; 4], &str)> = scene.texts().map(|text| (text.bounds(), text.text.as_str())).collect();
        for (i, (a, first)) in boxes.iter().enumerate() {
            for (b, second) in &boxes[i + 1..] {
                let apart = a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1];
                assert!(apart, "{name}: {first:?} at {a:?} overlaps {second:?} at {b:?}");
            }
        }
    }
}

#[test]
fn everything_is_inside_the_picture() {
    for (name, scene) in scenes() {
        for text in scene.texts() {
            let [left, top, right, bottom] = text.bounds();
            let inside = left >= 0.0 && top >= 0.0 && right <= scene.width && bottom <= scene.height;
            assert!(inside, "{name}: {:?} at {:?}", text.text, text.bounds());
        }
        for mark in &scene.marks {
            let points = match mark {
                Mark::Line { points, .. } | Mark::Area { points, .. } => points.clone(),
                Mark::Disc { at, .. } => vec![*at],
                Mark::Text(text) => vec![text.at],
            };
            for (x, y) in points {
                let inside = (0.0..=scene.width).contains(&x) && (0.0..=scene.height).contains(&y);
                assert!(inside, "{name}: {mark:?} in {} x {}", scene.width, scene.height);
            }
        }
    }
}

#[test]
fn every_axis_says_its_unit_and_every_log_axis_that_it_is_one() {
    for (name, scene) in scenes().filter(|(name, _)| name.starts_with("typical") || name.starts_with("gpu")) {
        let says = |what: &str| scene.texts().any(|text| text.text.contains(what));
        let expected = match name.rsplit('-').next().unwrap() {
            "memory" => "iB",
            "utilization" => "100%: all are busy",
            "timeline" => "share of the process's time",
            "epochs" => "time of an epoch, log scale",
            "ratio" | "noise" => "log scale",
            "roofline" => "share of the machine's peak",
            _ => "seconds per epoch, log scale",
        };
        assert!(says(expected), "{name} does not say {expected:?}");
    }
}
