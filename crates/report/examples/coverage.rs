//! How far the figures of runs can be trusted, from the runs themselves:
//! `cargo run --release -p dpsgd-report --example coverage -- RESULTS.json [SECOND.json]` prints a report in Markdown.
//!
//! - Coverage: rounds of the first run are drawn with replacement, whole, so that what they share stays together; its
//!   intervals are made of five and of ten drawn rounds, exactly as a run's are; and counted is how often they hold the
//!   truth, which here is the geometric mean over all rounds of the run. Drawing from few rounds repeats them: of five
//!   rounds even normal numbers reach no more than 90 to 92%, of ten 93 to 94%, of twenty 94 to 95%. So the same is done
//!   with normal numbers in place of the run's, and a run for this should have twenty rounds.
//! - A/A: of all pairs of measurements of one program, how many have an interval that leaves out 1.
//! - Two runs: of how many rows the difference of the log ratios to the reference contender is within its own interval.
//! - Noise: how much log ratios to the reference contender scatter between rounds.

use std::collections::BTreeMap;
use std::path::Path;

use dpsgd_protocol::results::{Cell, ProcessRun, Results, Serves, Status};
use dpsgd_stats::{Estimate, Pool, median, process_figure, steady_state, t_975};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Simulated runs per number of processes.
const SIMULATED: usize = 2000;

fn main() {
    let files: Vec<String> = std::env::args().skip(1).collect();
    let runs: Result<Vec<Results>, _> = files.iter().map(|file| Results::load(Path::new(file))).collect();
    let text = match runs {
        Ok(runs) if (1..=2).contains(&runs.len()) => report(&files, &runs.iter().map(rows).collect::<Vec<_>>()),
        Ok(_) => exit("usage: coverage RESULTS.json [SECOND.json]"),
        Err(error) => exit(&error.to_string()),
    };
    println!("{text}");
}

fn exit(reason: &str) -> ! {
    eprintln!("{reason}");
    std::process::exit(2);
}

/// A measured row: its figures by round.
#[derive(Clone, Debug)]
struct Row {
    /// Workload and batch size: rows of one comparison were alive together, both modes.
    comparison: (String, usize),
    /// Mode and contender.
    name: (&'static str, String),
    strategy: String,
    /// The contender of which this is a second measurement.
    control_of: Option<String>,
    /// Whether it is the row of the reference contender in private mode, or the mode that there is.
    reference: bool,
    /// ln of the median warm epoch of each round's process.
    logs: BTreeMap<usize, f64>,
}

/// The rows of a run that count.
fn rows(results: &Results) -> Vec<Row> {
    let reference = results.config.reference.as_ref().or(results.config.contenders.first());
    let log = |process: &ProcessRun| {
        let warm_from = process.warm_from.or_else(|| steady_state(&process.epochs_s));
        let figure = process_figure(&process.epochs_s, warm_from).filter(|s| s.is_finite() && *s > 0.0)?;
        Some((process.round, figure.ln()))
    };
    let row = |cell: &Cell| Row {
        comparison: (cell.workload.clone(), cell.batch_size),
        name: (cell.mode.name(), cell.contender()),
        strategy: cell.strategy.clone(),
        control_of: cell.control_of.clone(),
        reference: cell.control_of.is_none() && reference.is_some_and(|reference| cell.is_of(reference)),
        logs: cell.processes.iter().filter(|process| process.serves != Serves::Cold).filter_map(log).collect(),
    };
    results.cells.iter().filter(|cell| cell.status == Status::Ok).map(row).filter(|row| !row.logs.is_empty()).collect()
}

/// Differences of two rows' logarithms over the rounds of both.
fn differences(a: &Row, b: &Row) -> Vec<f64> {
    a.logs.iter().filter_map(|(round, log)| Some(log - b.logs.get(round)?)).collect()
}

/// The reference contender's row in a row's comparison and mode.
fn reference<'r>(rows: &'r [Row], row: &Row) -> Option<&'r Row> {
    let same = |other: &&Row| other.reference && other.comparison == row.comparison && other.name.0 == row.name.0;
    rows.iter().find(same).filter(|reference| reference.name != row.name && row.control_of.is_none())
}

/// Shares of intervals that hold the truth.
#[derive(Clone, Copy, Debug, Default)]
struct Coverage {
    rows: f64,
    ratios: f64,
    counted: usize,
}

/// How often intervals of `processes` rounds drawn with replacement hold the truth, of rows and of ratios to the
/// reference. The rounds of each comparison are drawn once for all of its rows.
fn coverage(rows: &[Row], processes: usize, simulated: usize) -> Coverage {
    let rounds: BTreeMap<&(String, usize), Vec<usize>> =
        rows.iter().map(|row| (&row.comparison, row.logs.keys().copied().collect::<Vec<_>>())).collect();
    // Rows that lack a round of their comparison have no whole rounds to draw.
    let whole: Vec<&Row> = rows.iter().filter(|row| row.logs.keys().eq(rounds[&row.comparison].iter())).collect();
    let mean = |logs: &[f64]| logs.iter().sum::<f64>() / logs.len() as f64;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let ([mut held, mut made], mut of_ratios) = ([0_usize; 2], [0_usize; 2]);
    for _ in 0..simulated {
        let drawn: BTreeMap<&(String, usize), Vec<usize>> = rounds
            .iter()
            .map(|(of, rounds)| (*of, (0..processes).map(|_| rounds[rng.random_range(0..rounds.len())]).collect()))
            .collect();
        let take = |row: &Row| drawn[&row.comparison].iter().map(|round| row.logs[round]).collect::<Vec<f64>>();
        let samples: Vec<Vec<f64>> = whole.iter().map(|row| take(row)).collect();
        let mut of_kind: BTreeMap<&str, Vec<Vec<f64>>> = BTreeMap::new();
        for (row, sample) in whole.iter().zip(&samples) {
            of_kind.entry(&row.strategy).or_default().push(sample.iter().map(|log| log.exp()).collect());
        }
        let pools: BTreeMap<&str, Pool> = of_kind
            .into_iter()
            .filter_map(|(kind, rows)| Some((kind, Pool::of(rows.iter().map(Vec::as_slice))?)))
            .collect();
        for (row, sample) in whole.iter().zip(&samples) {
            let pool = pools.get(row.strategy.as_str()).filter(|_| processes < 10);
            let truth = mean(&row.logs.values().copied().collect::<Vec<_>>()).exp();
            if let Some([low, high]) = Estimate::of_logs(sample, pool).and_then(|estimate| estimate.ci95) {
                (held, made) = (held + usize::from((low..=high).contains(&truth)), made + 1);
            }
            let Some(reference) = reference(rows, row).filter(|other| other.logs.keys().eq(row.logs.keys())) else {
                continue;
            };
            let truth = mean(&differences(row, reference)).exp();
            let pairs: Vec<f64> = sample.iter().zip(take(reference)).map(|(a, b)| a - b).collect();
            if let Some([low, high]) = Estimate::of_logs(&pairs, None).and_then(|estimate| estimate.ci95) {
                of_ratios[0] += usize::from((low..=high).contains(&truth));
                of_ratios[1] += 1;
            }
        }
    }
    let share = |held: usize, of: usize| held as f64 / of.max(1) as f64;
    Coverage { rows: share(held, made), ratios: share(of_ratios[0], of_ratios[1]), counted: whole.len() }
}

/// Of pairs of measurements of one program: how many have an interval, of how many it leaves out 1, and each one's text.
fn same_program(rows: &[Row]) -> (usize, usize, Vec<String>) {
    let (mut pairs, mut excluded, mut lines) = (0, 0, Vec::new());
    for control in rows.iter().filter(|row| row.control_of.is_some()) {
        let original = rows.iter().find(|row| {
            let same = row.comparison == control.comparison && row.name.0 == control.name.0;
            same && Some(&row.name.1) == control.control_of.as_ref()
        });
        let Some(found) = original.and_then(|original| Estimate::of_logs(&differences(control, original), None)) else {
            continue;
        };
        let Some([low, high]) = found.ci95 else { continue };
        pairs += 1;
        let outside = !(low..=high).contains(&1.0);
        excluded += usize::from(outside);
        let (workload, batch) = &control.comparison;
        lines.push(format!(
            "| {workload} | {batch} | {} | {:.3} [{low:.3}, {high:.3}] | {} |",
            control.name.0,
            found.value,
            if outside { "leaves out 1" } else { "has 1" }
        ));
    }
    (pairs, excluded, lines)
}

/// A row's log ratio to the reference in two runs: the difference, its standard error and degrees of freedom (Welch,
/// "The generalization of 'Student's' problem when several different population variances are involved", 1947).
fn between(first: &Estimate, second: &Estimate) -> Option<(f64, f64, f64)> {
    let (a, b) = (first.standard_error?.powi(2), second.standard_error?.powi(2));
    let degrees = (a + b).powi(2) / (a * a / first.degrees + b * b / second.degrees);
    Some((second.value.ln() - first.value.ln(), (a + b).sqrt(), degrees))
}

/// Each common row's difference between two runs, and whether it is within its interval.
fn two_runs(first: &[Row], second: &[Row]) -> Vec<(String, f64, f64, bool)> {
    let ratio = |rows: &[Row], row: &Row| Estimate::of_logs(&differences(row, reference(rows, row)?), None);
    let compare = |row: &Row| {
        let again = second.iter().find(|other| other.comparison == row.comparison && other.name == row.name)?;
        let (difference, error, degrees) = between(&ratio(first, row)?, &ratio(second, again)?)?;
        let reach = t_975(degrees) * error;
        let name = format!("{} {} {} {}", row.comparison.0, row.comparison.1, row.name.0, row.name.1);
        Some((name, difference, reach, difference.abs() <= reach))
    };
    first.iter().filter_map(compare).collect()
}

/// SD of the log ratio to the reference over rounds, of each row that has three rounds with it or more.
fn noise(rows: &[Row]) -> Vec<(String, f64)> {
    let of_row = |row: &Row| {
        let logs = differences(row, reference(rows, row)?);
        let mean = dpsgd_stats::mean(&logs).filter(|_| logs.len() >= 3)?;
        let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (logs.len() - 1) as f64;
        let name = format!("{} {} {} {}", row.comparison.0, row.comparison.1, row.name.0, row.name.1);
        Some((name, variance.sqrt()))
    };
    rows.iter().filter_map(of_row).collect()
}

/// The same rows with normal numbers of the same spread in the place of their logarithms.
fn normal(rows: &[Row], seed: u64) -> Vec<Row> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut bell = || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
    let like = |row: &Row| Row { logs: row.logs.keys().map(|round| (*round, 0.1 * bell())).collect(), ..row.clone() };
    rows.iter().map(like).collect()
}

fn report(files: &[String], runs: &[Vec<Row>]) -> String {
    let rows = &runs[0];
    let mut text = format!("# How far these figures can be trusted\n\nOf `{}`.\n\n## Coverage\n\n", files[0]);
    text.push_str("Share of 95% intervals that hold the truth; rounds drawn with replacement, whole.\n\n");
    text.push_str("| processes | warm epoch | ratio to the reference | rows |\n|---:|---:|---:|---:|\n");
    let mut line = |what: String, Coverage { rows, ratios, counted }: Coverage| {
        text.push_str(&format!("| {what} | {:.1}% | {:.1}% | {counted} |\n", 100.0 * rows, 100.0 * ratios));
    };
    for processes in [5, 10] {
        line(processes.to_string(), coverage(rows, processes, SIMULATED));
    }
    // Drawing from a few rounds repeats them, which costs coverage even where all assumptions hold: this says how much.
    for processes in [5, 10] {
        line(
            format!("{processes}, normal numbers in their place"),
            coverage(&normal(rows, 2), processes, SIMULATED / 4),
        );
    }
    for (file, rows) in files.iter().zip(runs) {
        let (pairs, excluded, lines) = same_program(rows);
        text.push_str(&format!(
            "\n## The same program twice, `{file}`\n\n{excluded} of {pairs} intervals leave out 1.\n\n"
        ));
        if !lines.is_empty() {
            text.push_str("| workload | batch | mode | ratio | interval |\n|---|---:|---|---:|---|\n");
            text.push_str(&(lines.join("\n") + "\n"));
        }
        let noise = noise(rows);
        let middle = median(&noise.iter().map(|(_, sd)| *sd).collect::<Vec<_>>());
        let middle = middle.map_or("no row has three rounds with it".into(), |sd| format!("{sd:.4}, median over rows"));
        let title = "SD of the log ratio to the reference contender between rounds";
        text.push_str(&format!("\n## {title}, `{file}`\n\n{middle} ({} rows).\n", noise.len()));
        let mut worst = noise;
        worst.sort_by(|a, b| b.1.total_cmp(&a.1));
        let worst = worst.iter().take(5).map(|(name, sd)| format!("{name}: {sd:.3}")).collect::<Vec<_>>();
        text.push_str(&format!("The largest: {}.\n", worst.join("; ")));
    }
    if let [first, second] = runs {
        let found = two_runs(first, second);
        let within = found.iter().filter(|(.., within)| *within).count();
        let share = 100.0 * within as f64 / found.len().max(1) as f64;
        text.push_str(&format!(
            "\n## Two runs: `{}` and `{}`\n\n{within} of {} rows ({share:.1}%) ",
            files[0],
            files[1],
            found.len()
        ));
        text.push_str(
            "differ in their log ratio to the reference by less than the 95% interval of that difference.\n\n",
        );
        text.push_str("| outside | difference of logarithms | 95% reach |\n|---|---:|---:|\n");
        for (name, difference, reach, _) in found.iter().filter(|(.., within)| !within) {
            text.push_str(&format!("| {name} | {difference:+.3} | {reach:.3} |\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A made-up run whose rows' logarithms are known: those of contender i are i, and scatter by `spread` by themselves
    /// and ten times as much with their round. The first is the reference, the second its control.
    fn made_up(seed: u64, rounds: usize, contenders: usize, spread: f64) -> Vec<Row> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut bell = || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        let mut rows = Vec::new();
        for comparison in 0..8 {
            let shared: Vec<f64> = (0..rounds).map(|_| 10.0 * spread * bell()).collect();
            for i in 0..contenders {
                let level = if i == 1 { 0.0 } else { i as f64 };
                rows.push(Row {
                    comparison: (format!("w{comparison}"), 64),
                    name: ("private", format!("c{i}")),
                    strategy: format!("s{}", i % 3),
                    control_of: (i == 1).then(|| "c0".into()),
                    reference: i == 0,
                    logs: shared.iter().enumerate().map(|(round, s)| (round, level + s + spread * bell())).collect(),
                });
            }
        }
        rows
    }

    #[test]
    fn coverage_of_normal_logarithms_is_nineteen_of_twenty_for_five_and_ten() {
        // Of thirty rounds the truth is nearly that of the distribution; drawing from them is drawing from it.
        let rows = made_up(1, 30, 6, 0.02);
        for processes in [5, 10] {
            let found = coverage(&rows, processes, 200);
            assert_eq!(found.counted, 48);
            assert!((0.92..0.98).contains(&found.rows) && (0.92..0.98).contains(&found.ratios), "{found:?}");
        }
    }

    #[test]
    fn rounds_of_which_one_in_four_is_four_times_as_long_are_not_covered() {
        let mut rows = made_up(2, 8, 3, 0.001);
        for row in rows.iter_mut().filter(|row| !row.reference) {
            row.logs.iter_mut().filter(|(round, _)| *round % 4 == 0).for_each(|(_, log)| *log += 4.0_f64.ln());
        }
        let found = coverage(&rows, 5, 200);
        assert!(found.ratios < 0.90, "{found:?}");
    }

    #[test]
    fn one_in_twenty_pairs_of_the_same_program_leaves_out_1_and_all_do_where_it_is_not_the_same() {
        let count = |shift: f64| {
            (0..40).fold((0, 0), |(pairs, excluded), seed| {
                let mut rows = made_up(seed, 5, 3, 0.02);
                let controls = rows.iter_mut().filter(|row| row.control_of.is_some());
                controls.for_each(|row| row.logs.values_mut().for_each(|log| *log += shift));
                let (more, outside, lines) = same_program(&rows);
                assert_eq!(lines.len(), more);
                (pairs + more, excluded + outside)
            })
        };
        let (pairs, excluded) = count(0.0);
        assert_eq!(pairs, 320);
        assert!((4..=30).contains(&excluded), "{excluded}");
        assert_eq!(count(1.0), (320, 320));
    }

    #[test]
    fn two_runs_of_one_truth_agree_nineteen_times_of_twenty_and_a_shift_shows() {
        let (first, mut second) = (made_up(3, 5, 12, 0.02), made_up(4, 5, 12, 0.02));
        let within = |second: &[Row]| {
            let found = two_runs(&first, second);
            // All but the reference and its control.
            assert_eq!(found.len(), 80);
            found.iter().filter(|(.., within)| *within).count()
        };
        assert!(within(&second) >= 70, "{}", within(&second));
        second
            .iter_mut()
            .filter(|row| !row.reference)
            .for_each(|row| row.logs.values_mut().for_each(|log| *log += 0.5));
        assert_eq!(within(&second), 0);
    }

    #[test]
    fn what_a_round_shares_is_no_noise_of_a_ratio() {
        let found = noise(&made_up(5, 40, 6, 0.03));
        let middle = median(&found.iter().map(|(_, sd)| *sd).collect::<Vec<_>>()).unwrap();
        // Two rows scatter by 0.03 each: sqrt(2) of that.
        assert!((0.037..0.048).contains(&middle), "{middle}");
    }

    #[test]
    fn the_report_says_all_of_it() {
        let runs = [made_up(6, 6, 4, 0.02), made_up(7, 6, 4, 0.02)];
        let text = report(&["one.json".into(), "two.json".into()], &runs);
        for part in ["| 5 | ", "| 10 | ", " of 8 intervals leave out 1", "median over rows (16 rows)", " of 16 rows ("]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
