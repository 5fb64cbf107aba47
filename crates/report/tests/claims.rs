//! What the report says of the talk's claims follows from the rows, in both directions.

mod sample;

use dpsgd_core::Mode;
use dpsgd_protocol::results::{DataKind, Results, Status};
use dpsgd_report::{Claim, Verdict, claims, markdown, plots, table};
use sample::{Contender, Sample};

/// A run of the talk's networks with JAX and Opacus at these seconds for a private epoch, and TensorFlow far behind.
fn run(jax_s: f64, opacus_s: f64) -> Results {
    let contender =
        |name: &str, seconds: f64, warm_up: f64, rss| Contender::new(name, seconds / 3.0, 3.0, warm_up, rss);
    Sample {
        workloads: ["mnist-cnn", "ffnn", "ffnn-regression"].map(|name| (name, DataKind::Real, 1.0)).to_vec(),
        contenders: vec![
            contender("jax:jit+vmap", jax_s, 3.0, 500.0),
            contender("jax:neither", 40.0 * jax_s, 0.0, 500.0),
            contender("opacus:hooks", 1.5 * opacus_s, 0.0, 900.0),
            contender("opacus:ghost", opacus_s, 0.0, 800.0),
            contender("tensorflow:xla+vmap", 20.0 * opacus_s, 9.0, 700.0),
        ],
        modes: vec![Mode::Private, Mode::NonPrivate],
        ..Sample::typical()
    }
    .results()
}

fn claim(results: &Results, number: &str) -> Claim {
    let found = claims(results).into_iter().find(|claim| claim.claim.starts_with(number));
    found.unwrap_or_else(|| panic!("no claim {number}"))
}

#[test]
fn a_run_as_in_the_talk_confirms_its_speeds() {
    let results = run(0.2, 1.0);
    for number in ["1.", "2.", "5."] {
        let claim = claim(&results, number);
        assert_eq!(claim.verdict, Verdict::Holds, "{claim:?}");
        assert!(claim.found.contains("batch 64: ") && claim.found.contains("batch 256: "), "{claim:?}");
    }
    // 1.0 over 0.2, of the fastest variants.
    let ratio = claim(&results, "1.").found.split("batch 64: ").nth(1).unwrap().split('×').next().unwrap().to_string();
    assert!((4.8..5.2).contains(&ratio.parse::<f64>().unwrap()), "{ratio}");
}

#[test]
fn a_run_in_which_jax_is_slower_refutes_them() {
    let results = run(1.0, 0.5);
    for number in ["1.", "2.", "5."] {
        assert_eq!(claim(&results, number).verdict, Verdict::DoesNotHold, "{number}");
    }
    assert!(claim(&results, "2.").found.contains("as opacus:ghost"), "{:?}", claim(&results, "2."));
}

#[test]
fn faster_is_not_five_times_as_fast() {
    let results = run(0.5, 1.0);
    assert_eq!(claim(&results, "1.").verdict, Verdict::DoesNotHold);
    assert_eq!(claim(&results, "2.").verdict, Verdict::Holds);
}

#[test]
fn a_competitor_closer_than_opacus_refutes_that_opacus_is_the_closest() {
    let mut results = run(0.2, 1.0);
    for cell in results.cells.iter_mut().filter(|cell| cell.strategy == "tensorflow") {
        cell.processes.iter_mut().for_each(|p| p.epochs_s.iter_mut().for_each(|s| *s = 0.5));
        cell.warm_epoch_s = Some(0.1);
    }
    let claim = claim(&results, "1.");
    assert_eq!(claim.verdict, Verdict::DoesNotHold);
    assert!(claim.found.contains("tensorflow:xla+vmap is closer"), "{claim:?}");
}

#[test]
fn an_advantage_on_one_batch_size_only_does_not_hold() {
    let mut results = run(0.2, 1.0);
    for cell in results.cells.iter_mut().filter(|cell| cell.strategy == "jax" && cell.batch_size == 256) {
        cell.processes.iter_mut().for_each(|p| p.epochs_s.iter_mut().for_each(|s| *s *= 50.0));
        cell.warm_epoch_s = cell.warm_epoch_s.map(|s| s * 50.0);
    }
    assert_eq!(claim(&results, "2.").verdict, Verdict::DoesNotHold);
}

#[test]
fn the_compiler_shows_in_the_mean_only_where_first_epochs_are_longer() {
    assert_eq!(claim(&run(0.2, 1.0), "3.").verdict, Verdict::Holds);
    let mut flat = run(0.2, 1.0);
    for cell in flat.cells.iter_mut().filter(|cell| cell.strategy == "jax") {
        for process in &mut cell.processes {
            process.epochs_s[0] = process.epochs_s[1];
        }
    }
    assert_eq!(claim(&flat, "3.").verdict, Verdict::DoesNotHold);
    for epochs in [2, 1] {
        for process in flat.cells.iter_mut().flat_map(|cell| &mut cell.processes) {
            process.epochs_s.truncate(epochs);
        }
        let verdict = claim(&flat, "3.").verdict;
        assert_eq!(verdict, Verdict::NotMeasured, "the mean of {epochs} is their median");
    }
}

#[test]
fn memory_that_is_the_same_refutes_that_it_differs() {
    assert_eq!(claim(&run(0.2, 1.0), "4a").verdict, Verdict::Holds);
    let mut same = run(0.2, 1.0);
    for process in same.cells.iter_mut().flat_map(|cell| &mut cell.processes) {
        process.peak_rss_bytes = Some(500 << 20);
    }
    assert_eq!(claim(&same, "4a").verdict, Verdict::DoesNotHold);
}

#[test]
fn gpu_efficiency_of_one_process_each_is_shown_and_not_judged() {
    let mut results = run(0.2, 1.0);
    assert_eq!(claim(&results, "4b").verdict, Verdict::NotMeasured);
    for cell in &mut results.cells {
        cell.gpu_utilization = Some(if cell.strategy == "jax" { 0.9 } else { 0.3 });
    }
    // One process each has been watched: a figure without an interval.
    let found = claim(&results, "4b");
    assert_eq!(found.verdict, Verdict::Inconclusive);
    assert!(found.found.contains("3.00×") && found.found.contains("no interval"), "{found:?}");
}

#[test]
fn privacy_is_slow_where_the_best_private_step_takes_three_times_as_long_as_the_best_plain_one() {
    let slow = claim(&run(0.2, 1.0), "6.");
    assert_eq!(slow.verdict, Verdict::DoesNotHold, "{slow:?}");
    let mut fast = run(0.2, 1.0);
    for cell in fast.cells.iter_mut().filter(|cell| cell.mode == Mode::NonPrivate) {
        cell.processes.iter_mut().for_each(|p| p.epochs_s.iter_mut().for_each(|s| *s *= 2.0));
        cell.warm_epoch_s = cell.warm_epoch_s.map(|s| s * 2.0);
    }
    assert_eq!(claim(&fast, "6.").verdict, Verdict::Holds);
}

#[test]
fn without_jax_its_claims_are_not_measured_whatever_the_others_did() {
    let mut results = run(0.2, 1.0);
    for cell in results.cells.iter_mut().filter(|cell| cell.strategy == "jax") {
        cell.status = Status::Unavailable;
    }
    for number in ["1.", "2.", "3.", "5."] {
        let claim = claim(&results, number);
        assert_eq!(claim.verdict, Verdict::NotMeasured);
        assert!(claim.found.starts_with("needs jax"), "{claim:?}");
    }
}

/// The same run with a number of processes.
fn of_processes(results: &Results, processes: usize) -> Results {
    let mut results = results.clone();
    for cell in &mut results.cells {
        cell.processes.retain(|process| process.round < processes);
    }
    results
}

#[test]
fn three_processes_decide_nothing_and_four_do() {
    let results = run(0.2, 1.0);
    for number in ["1.", "2.", "3.", "5.", "6."] {
        let three = claim(&of_processes(&results, 3), number);
        assert_eq!(three.verdict, Verdict::Inconclusive, "{three:?}");
        assert!(three.found.contains("(no interval: fewer than 4 processes)"), "{three:?}");
        assert_ne!(claim(&of_processes(&results, 4), number).verdict, Verdict::Inconclusive, "{number}");
    }
}

#[test]
fn a_claim_whose_interval_has_its_threshold_is_inconclusive() {
    let mut results = run(0.25, 1.0);
    // About four times, give or take a third from round to round.
    for process in results.cells.iter_mut().filter(|cell| cell.strategy == "jax").flat_map(|cell| &mut cell.processes) {
        let factor = [0.75, 1.33, 1.0, 0.8, 1.25][process.round];
        process.epochs_s.iter_mut().for_each(|s| *s *= factor);
    }
    let found = claim(&results, "1.");
    assert_eq!(found.verdict, Verdict::Inconclusive, "{found:?}");
    assert_eq!(claim(&results, "2.").verdict, Verdict::Holds);
}

#[test]
fn a_second_measurement_is_no_contender() {
    let mut results = run(0.2, 1.0);
    for cell in results.cells.iter_mut().filter(|cell| cell.contender() == "opacus:ghost") {
        cell.control_of = Some("opacus:hooks".into());
        cell.processes.iter_mut().for_each(|p| p.epochs_s.iter_mut().for_each(|s| *s = 1e-6));
        cell.warm_epoch_s = Some(1e-6);
    }
    assert_eq!(claim(&results, "2.").verdict, Verdict::Holds);
    assert!(claim(&results, "2.").found.contains("as opacus:hooks"), "{:?}", claim(&results, "2."));
}

#[test]
fn a_run_of_version_1_has_figures_and_no_verdict() {
    let results = Sample::version_1();
    let verdicts: Vec<Verdict> = claims(&results).iter().map(|claim| claim.verdict).collect();
    assert!(verdicts.contains(&Verdict::Inconclusive), "{verdicts:?}");
    assert!(claims(&results)[0].found.contains("as fast (no interval"), "{:?}", claims(&results)[0]);
}

#[test]
fn every_report_ends_with_all_claims() {
    let results = run(0.2, 1.0);
    let folder = tempfile::tempdir().unwrap();
    plots(&results, folder.path()).unwrap();
    let page = std::fs::read_to_string(folder.path().join("index.html")).unwrap();
    for text in [table(&results), markdown(&results), page] {
        let end = &text[text.find("The claims of the 2020 talk, in this run").unwrap()..];
        for number in ["1. ", "2. ", "3. ", "4a. ", "4b. ", "5. ", "6. "] {
            assert!(end.contains(number), "{number}{end}");
        }
        assert!(end.contains("holds here") && end.contains("does not hold here") && end.contains("not measured"));
    }
}
