//! How targets stand follows from the rows.

mod sample;

use dpsgd_core::Mode;
use dpsgd_protocol::results::{Cell, DataKind, ProcessRun, Results, Status};
use dpsgd_report::targets::{Bound, Held, Side, Standing, Target, hold, lines, tally};
use sample::{Contender, Sample};

const FUSED: &str = "fused:best";
const JAX: &str = "jax:jit+vmap";

/// A run of one workload in which every epoch of `fused` takes a second and of JAX ten, whatever the mode.
fn run(workload: &'static str, batch_sizes: &[usize], processes: usize) -> Results {
    let mut results = Sample {
        workloads: vec![(workload, DataKind::Real, 1.0)],
        contenders: [FUSED, JAX].map(|name| Contender::new(name, 1.0, 1.0, 0.0, 100.0)).into(),
        batch_sizes: batch_sizes.to_vec(),
        processes,
        cold_processes: 0,
        reference: None,
        ..Sample::typical()
    }
    .results();
    for mode in [Mode::Private, Mode::NonPrivate] {
        take(&mut results, FUSED, mode, &vec![1.0; processes]);
        take(&mut results, JAX, mode, &vec![10.0; processes]);
    }
    results
}

fn rows<'r>(results: &'r mut Results, contender: &str, mode: Mode) -> impl Iterator<Item = &'r mut Cell> {
    results.cells.iter_mut().filter(move |cell| cell.contender() == contender && cell.mode == mode)
}

/// Lets every epoch of each of a row's processes take so many seconds.
fn take(results: &mut Results, contender: &str, mode: Mode, seconds: &[f64]) {
    for cell in rows(results, contender, mode) {
        for (process, seconds) in cell.processes.iter_mut().zip(seconds) {
            process.epochs_s.iter_mut().for_each(|epoch| *epoch = *seconds);
        }
        cell.warm_epoch_s = Some(seconds[0]);
    }
}

fn side(contender: &str, mode: Mode) -> Side {
    Side { contender: contender.into(), mode }
}

/// `fused` at least so many times as fast as JAX, both private.
fn as_fast(workload: &str, times: f64) -> Target {
    Target {
        workloads: vec![workload.into()],
        subject: side(FUSED, Mode::Private),
        against: side(JAX, Mode::Private),
        bound: Bound::AtLeast(times),
    }
}

/// `fused` private at most so many times as long as plain.
fn as_long(workload: &str, times: f64) -> Target {
    Target { against: side(FUSED, Mode::NonPrivate), bound: Bound::AtMost(times), ..as_fast(workload, 1.0) }
}

/// How one target stands on one run of one batch size.
fn held(target: Target, results: &Results) -> (Standing, String) {
    let [Held { standing, text, .. }] = &hold(&[target], &[], std::slice::from_ref(results))[..] else {
        panic!("one batch size")
    };
    (*standing, text.clone())
}

#[test]
fn a_figure_at_its_bound_or_beyond_meets_it_and_one_short_of_it_misses() {
    let mut results = run("ffnn", &[64], 4);
    let fast = |bound: &str| {
        format!("fused:best private is 10.0× [10.0–10.0] as fast as jax:jit+vmap private (at least {bound}×)")
    };
    assert_eq!(held(as_fast("ffnn", 5.0), &results), (Standing::Met, fast("5")));
    assert_eq!(held(as_fast("ffnn", 12.5), &results), (Standing::Missed, fast("12.5")));
    take(&mut results, FUSED, Mode::NonPrivate, &[0.5; 4]);
    let long = |bound: &str| {
        format!("fused:best private takes 2.00× [2.00–2.00] as long as fused:best non_private (at most {bound}×)")
    };
    assert_eq!(held(as_long("ffnn", 2.0), &results), (Standing::Met, long("2")));
    assert_eq!(held(as_long("ffnn", 1.2), &results), (Standing::Missed, long("1.2")));
    // The other way round it is half as long, and half as fast.
    let turned = |target: Target| Target { subject: target.against.clone(), against: target.subject.clone(), ..target };
    assert!(
        held(turned(as_long("ffnn", 1.0)), &results)
            .1
            .contains("takes 0.500× [0.500–0.500] as long as fused:best private")
    );
    assert!(
        held(turned(as_fast("ffnn", 1.0)), &results)
            .1
            .contains("is 0.100× [0.100–0.100] as fast as fused:best private")
    );
}

#[test]
fn the_whole_interval_decides_and_a_bound_within_it_leaves_the_target_open() {
    let mut results = run("ffnn", &[64], 4);
    take(&mut results, JAX, Mode::Private, &[9.0, 11.0, 9.0, 11.0]);
    // The geometric mean is 9.95. Half the difference of the logarithms is 0.1003, the standard error 0.0579, t 3.18.
    let expected = "fused:best private is 9.95× [8.27–12.0] as fast as jax:jit+vmap private (at least 9.9×)";
    assert_eq!(held(as_fast("ffnn", 9.9), &results), (Standing::Inconclusive, expected.into()));
    for (bound, standing) in [(8.2, Standing::Met), (10.0, Standing::Inconclusive), (12.1, Standing::Missed)] {
        assert_eq!(held(as_fast("ffnn", bound), &results).0, standing, "{bound}");
    }
}

#[test]
fn fewer_than_four_pairs_leave_every_target_open() {
    let (standing, text) = held(as_fast("ffnn", 2.0), &run("ffnn", &[64], 3));
    assert_eq!(standing, Standing::Inconclusive);
    assert!(
        text.ends_with("is 10.0× as fast as jax:jit+vmap private (at least 2×; no interval: fewer than 4 processes)")
    );
}

#[test]
fn processes_are_paired_by_round_and_those_without_a_partner_are_left_out() {
    let mut results = run("ffnn", &[64], 3);
    // Each round slows both alike; the rows have their rounds in different orders, and one round each of their own.
    take(&mut results, FUSED, Mode::Private, &[1.0, 4.0, 100.0]);
    take(&mut results, JAX, Mode::Private, &[1000.0, 40.0, 10.0]);
    let renumber = |processes: &mut [ProcessRun], rounds: [usize; 3]| {
        processes.iter_mut().zip(rounds).for_each(|(process, round)| process.round = round);
    };
    rows(&mut results, FUSED, Mode::Private).for_each(|cell| renumber(&mut cell.processes, [0, 1, 2]));
    rows(&mut results, JAX, Mode::Private).for_each(|cell| renumber(&mut cell.processes, [3, 1, 0]));
    let (_, text) = held(as_fast("ffnn", 1.0), &results);
    assert!(text.contains("is 10.0× as fast"), "{text}");
    // No round in common: nothing to compare.
    rows(&mut results, JAX, Mode::Private).for_each(|cell| renumber(&mut cell.processes, [3, 4, 5]));
    let expected = "fused:best private and jax:jit+vmap private have no round with epochs of both";
    assert_eq!(held(as_fast("ffnn", 1.0), &results), (Standing::Failed, expected.into()));
}

#[test]
fn a_row_that_does_not_count_fails_with_its_reason_whatever_its_times() {
    for (status, name) in [
        (Status::Unavailable, "is unavailable"),
        (Status::Failed, "is failed"),
        (Status::Timeout, "is timeout"),
        (Status::OutOfMemory, "is out of memory"),
        (Status::Disqualified, "is disqualified"),
    ] {
        let mut results = run("lstm", &[256], 4);
        for cell in rows(&mut results, JAX, Mode::Private) {
            (cell.status, cell.reason) = (status, Some("no CUDA\ndevice".into()));
        }
        let expected = format!("jax:jit+vmap private {name}: no CUDA device");
        assert_eq!(held(as_fast("lstm", 1.0), &results), (Standing::Failed, expected));
        // It is none of this target's rows.
        assert_eq!(held(as_long("lstm", 1.0), &results).0, Standing::Met);
    }
    let mut results = run("lstm", &[256], 1);
    results.cells.iter_mut().for_each(|cell| cell.processes.iter_mut().for_each(|process| process.epochs_s.clear()));
    results.cells.iter_mut().for_each(|cell| cell.warm_epoch_s = None);
    let both = "fused:best private has no epoch times; jax:jit+vmap private has no epoch times";
    assert_eq!(held(as_fast("lstm", 1.0), &results), (Standing::Failed, both.into()));
}

#[test]
fn a_row_that_is_not_there_is_absent_but_a_failed_one_beside_it_is_told_first() {
    let mut results = run("lstm", &[256], 1);
    results.cells.retain(|cell| cell.strategy != "jax");
    let expected = "no row of jax:jit+vmap private";
    assert_eq!(held(as_fast("lstm", 1.0), &results), (Standing::Absent, expected.into()));
    // Another variant of it is another contender.
    let other = Target { subject: side("fused:tf32", Mode::Private), ..as_fast("lstm", 1.0) };
    let expected = "no row of fused:tf32 private, none of jax:jit+vmap private";
    assert_eq!(held(other, &results), (Standing::Absent, expected.into()));
    rows(&mut results, FUSED, Mode::Private).for_each(|cell| cell.status = Status::Failed);
    assert_eq!(held(as_fast("lstm", 1.0), &results), (Standing::Failed, "fused:best private is failed".into()));
}

#[test]
fn each_batch_size_of_any_run_is_held_and_a_workload_of_none_is_one_line() {
    let (ffnn, mut other, lstm) = (run("ffnn", &[256], 4), run("ffnn", &[64], 4), run("lstm", &[64], 3));
    take(&mut other, JAX, Mode::Private, &[2.0; 4]);
    let both = Target { workloads: vec!["ffnn".into(), "embedding".into()], ..as_fast("ffnn", 5.0) };
    let held = hold(&[both, as_long("lstm", 1.2)], &[], &[ffnn, other, lstm]);
    let expected = [
        "MISSED        ffnn        64  fused:best private is 2.00× [2.00–2.00] as fast as jax:jit+vmap private (at least 5×)",
        "met           ffnn       256  fused:best private is 10.0× [10.0–10.0] as fast as jax:jit+vmap private (at least 5×)",
        "absent        embedding    –  not measured: fused:best private against jax:jit+vmap private (at least 5×)",
        "inconclusive  lstm        64  fused:best private takes 1.00× as long as fused:best non_private (at most 1.2×; no \
         interval: fewer than 4 processes)",
    ];
    assert_eq!(lines(&held), expected);
    assert_eq!(tally(&held), "1 met, 1 missed, 1 inconclusive, 0 failed, 1 absent");
    assert_eq!(held.iter().map(|held| held.batch_size).collect::<Vec<_>>(), [Some(64), Some(256), None, Some(64)]);
}

#[test]
fn a_batch_size_that_is_asked_for_and_not_measured_is_absent() {
    let targets = [as_fast("ffnn", 2.0), as_fast("lstm", 2.0)];
    let held = hold(&targets, &[64, 256], &[run("ffnn", &[256, 16], 4)]);
    let found: Vec<_> = held.iter().map(|held| (held.workload.as_str(), held.batch_size, held.standing)).collect();
    let (met, absent) = (Standing::Met, Standing::Absent);
    let ffnn = [(16, met), (64, absent), (256, met)].map(|(size, standing)| ("ffnn", Some(size), standing));
    let lstm = [64, 256].map(|size| ("lstm", Some(size), absent));
    assert_eq!(found, ffnn.into_iter().chain(lstm).collect::<Vec<_>>());
}
