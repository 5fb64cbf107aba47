//! Figures of rows follow from the raw epochs of their processes, and what is shown from them.

mod sample;

use dpsgd_core::Mode;
use dpsgd_protocol::results::{Cell, Results, Serves};
use dpsgd_report::figures::fill;
use dpsgd_report::{markdown, table};
use sample::{Contender, Sample};

/// One row of five warm processes at these seconds and three cold ones that begin with two slow epochs.
fn one_row(warm_s: [f64; 5]) -> Results {
    let contenders = vec![Contender::new("one", 1.0, 1.0, 0.0, 100.0)];
    let modes = vec![Mode::Private];
    let sample =
        Sample { contenders, modes, batch_sizes: vec![64], cold_processes: 3, reference: None, ..Sample::typical() };
    let mut results = sample.results();
    results.cells.truncate(1);
    for process in &mut results.cells[0].processes {
        let peak = if process.serves == Serves::Cold { 100 + process.round as u64 } else { 900 };
        (process.warm_from, process.peak_rss_bytes) = (None, Some(peak));
        process.epochs_s = match process.serves {
            Serves::Cold => vec![9.0, 5.0, 2.0, 2.0, 2.0, 2.0, 2.0],
            _ => [&[50.0][..], &[warm_s[process.round]; 20]].concat(),
        };
    }
    fill(&mut results);
    results
}

fn close(found: Option<f64>, expected: f64) {
    assert!(found.is_some_and(|found| (found / expected - 1.0).abs() < 1e-9), "{found:?}, expected {expected}");
}

#[test]
fn warm_figures_are_of_warm_processes_and_cold_ones_of_those_that_ran_alone() {
    let results = one_row([1.0, 1.1, 0.9, 1.2, 0.8]);
    let cell = &results.cells[0];
    let logs = [1.0_f64, 1.1, 0.9, 1.2, 0.8].map(f64::ln);
    let mean = logs.iter().sum::<f64>() / 5.0;
    close(cell.warm_epoch_s, mean.exp());
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / 4.0;
    // The t of four degrees of freedom: the only row of its kind has no other to lend it any.
    let reach = 2.776_445 * (variance / 5.0).sqrt();
    let [low, high] = cell.warm_ci95_s.unwrap().map(f64::ln);
    assert!((low - mean + reach).abs() < 1e-6 && (high - mean - reach).abs() < 1e-6 && !cell.warm_ci95_pooled);
    close(cell.examples_per_s, 4096.0 / mean.exp());
    // 7 + 3 seconds beyond what warm epochs of a cold process take.
    close(cell.warm_up_s, 10.0);
    close(cell.first_epoch_s, 9.0);
    close(cell.median_epoch_s, 2.0);
    close(cell.mean_epoch_s, 24.0 / 7.0);
    assert_eq!((cell.peak_rss_bytes, cell.settled), (Some(102), Some([8, 8])));
    assert!(cell.processes.iter().all(|p| p.warm_from == Some(if p.serves == Serves::Cold { 2 } else { 1 })));
}

#[test]
fn filling_again_changes_nothing() {
    let once = Sample::typical().results();
    let mut twice = once.clone();
    fill(&mut twice);
    let figures = |cell: &Cell| (cell.warm_epoch_s, cell.warm_ci95_s, cell.settled, cell.warm_up_s, cell.mean_epoch_s);
    assert!(once.cells.iter().map(figures).eq(twice.cells.iter().map(figures)));
}

#[test]
fn rows_of_a_strategy_with_few_processes_share_their_variance_and_ten_need_none() {
    let pooled = |processes: usize| {
        let results = Sample { processes, ..Sample::typical() }.results();
        let of = |cell: &&Cell| cell.strategy == "jax" && cell.warm_epoch_s.is_some();
        results
            .cells
            .iter()
            .filter(of)
            .map(|cell| (cell.warm_ci95_pooled, cell.warm_ci95_s.is_some()))
            .collect::<Vec<_>>()
    };
    assert!(pooled(5).iter().all(|cell| *cell == (true, true)));
    assert!(pooled(10).iter().all(|cell| *cell == (false, true)));
    assert!(pooled(3).iter().all(|cell| *cell == (false, false)));
}

#[test]
fn a_process_of_one_epoch_that_never_settles_or_is_missing_is_warned_of() {
    let mut results = one_row([1.0; 5]);
    let cell = &mut results.cells[0];
    cell.processes.retain(|process| process.serves == Serves::Cold || process.round < 4);
    for process in cell.processes.iter_mut().filter(|process| process.serves == Serves::Warm) {
        (process.warm_from, process.idle_cpu, process.steal) = (None, Some(0.3), Some(0.2));
        process.epochs_s.truncate(1);
    }
    fill(&mut results);
    let warnings = results.cells[0].warnings.join("\n");
    for part in [
        "4 of 5 processes measured",
        "4 of 4 processes have a single epoch",
        "never settled",
        "up to 30% of a processor while others were timed",
        "up to 20% of the processors' time",
    ] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
}

#[test]
fn a_contender_measured_twice_is_said_over_every_table_and_ranked_in_none() {
    let results = Sample::typical().results();
    for text in [table(&results), markdown(&results)] {
        assert_eq!(text.matches("noise floor: fused measured twice: ").count(), 8, "{text}");
        assert!(!text.contains("fused:again"), "{text}");
    }
    let mut results = results;
    let same = |cell: &&mut Cell| cell.strategy == "fused";
    for process in results.cells.iter_mut().filter(same).flat_map(|cell| &mut cell.processes) {
        process.epochs_s.fill(if process.round == 0 { 1.0 } else { 2.0 });
    }
    let text = table(&results);
    assert!(text.contains("fused measured twice: 1.00× [1.00–1.00]"), "{text}");
}

#[test]
fn one_program_under_two_names_is_one_row_with_both() {
    let same = vec![("jax:jit+vmap", "jax:reweight")];
    let text = table(&Sample { same, ..Sample::typical() }.results());
    assert_eq!(text.lines().filter(|line| line.starts_with("jax:jit+vmap = reweight ")).count(), 8, "{text}");
    assert!(!text.contains("jax:reweight"), "{text}");
}

#[test]
fn a_file_of_version_1_has_warm_figures_and_says_why_there_is_no_interval() {
    let text = table(&Sample::version_1());
    let fused = text.lines().find(|line| line.starts_with("fused ")).unwrap();
    assert!(fused.contains(" ms ") && !fused.contains('['), "{fused}");
    assert!(text.contains("no interval: fewer than 4 processes"), "{text}");
}
