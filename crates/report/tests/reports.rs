//! What a run leaves behind, seen from outside.

mod sample;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use dpsgd_core::Mode;
use dpsgd_protocol::results::{DataKind, Results, Status};
use dpsgd_report::{markdown, plots, table};
use sample::{Contender, Sample};

const ENDINGS: [&str; 9] =
    ["median", "median-vs-mean", "epochs", "memory", "utilization", "timeline", "private-ratio", "roofline", "noise"];

/// Those that list the contenders that have no time.
const LISTING: usize = 8;

fn plotted(results: &Results) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    plots(results, dir.path()).expect("plots");
    dir
}

/// One workload and one batch size, where more would only take longer.
fn small() -> Sample {
    Sample { workloads: vec![("mnist-cnn", DataKind::Real, 1.0)], batch_sizes: vec![64], ..Sample::typical() }
}

fn svg(dir: &Path, workload: &str, ending: &str) -> String {
    fs::read_to_string(dir.join(format!("{workload}-{ending}.svg"))).expect("the plot")
}

#[test]
fn files_have_predictable_names_and_nothing_half_written_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("plots/of/this/run");
    let paths = plots(&Sample::typical().results(), &target).unwrap();
    let mut expected: BTreeSet<String> = ["mnist-cnn", "ffnn-regression"]
        .iter()
        .flat_map(|w| ENDINGS.iter().flat_map(move |e| [format!("{w}-{e}.svg"), format!("{w}-{e}.png")]))
        .collect();
    expected.insert("index.html".into());
    let found: BTreeSet<String> =
        fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, expected);
    let returned: BTreeSet<String> =
        paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_string()).collect();
    assert_eq!(returned, expected);
    assert!(paths.last().unwrap().ends_with("index.html"));
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let error = plots(&Sample::typical().results(), &file.join("plots")).unwrap_err().to_string();
    assert!(error.contains("file/plots: "), "{error}");
}

#[test]
fn contenders_that_failed_are_named_with_their_status_in_every_plot_table_and_page() {
    let results = Sample::typical().results();
    let dir = plotted(&results);
    let page = fs::read_to_string(dir.path().join("index.html")).unwrap();
    let texts = ["mnist-cnn", "ffnn-regression"]
        .into_iter()
        .flat_map(|w| ENDINGS[..LISTING].iter().map(|e| svg(dir.path(), w, e)).collect::<Vec<_>>());
    for text in texts.chain([table(&results), markdown(&results), page]) {
        assert!(text.contains("tensorflow: unavailable: no environment"), "{text}");
        assert!(text.contains("mine: disqualified: update of case"), "{text}");
    }
}

#[test]
fn times_of_a_disqualified_contender_are_nowhere() {
    let mut results = small().results();
    let wrong =
        results.cells.iter_mut().find(|cell| cell.contender() == "fused" && cell.mode == Mode::Private).unwrap();
    wrong.status = Status::Disqualified;
    (wrong.warm_epoch_s, wrong.mean_epoch_s) = (Some(0.012_345), Some(0.012_345));
    wrong.warm_ci95_s = Some([0.012_344, 0.012_346]);
    let dir = plotted(&results);
    let figures = ENDINGS.map(|ending| svg(dir.path(), "mnist-cnn", ending)).concat();
    for text in [figures, table(&results), markdown(&results)] {
        assert!(!text.contains("12.3 ms"), "{text}");
        assert!(text.contains("disqualified"));
    }
}

#[test]
fn contenders_of_the_config_without_a_row_are_listed() {
    let mut results = small().results();
    results.cells.retain(|cell| cell.strategy != "naive");
    let dir = plotted(&results);
    assert!(svg(dir.path(), "mnist-cnn", "median").contains("naive: not measured"));
}

#[test]
fn synthetic_data_is_marked_everywhere_and_real_data_nowhere() {
    let results = Sample::typical().results();
    let dir = plotted(&results);
    for ending in ENDINGS {
        assert!(svg(dir.path(), "ffnn-regression", ending).contains("synthetic data"), "{ending}");
        assert!(!svg(dir.path(), "mnist-cnn", ending).contains("synthetic data"), "{ending}");
    }
    for text in [table(&results), markdown(&results)] {
        let headings: Vec<&str> = text.lines().filter(|line| line.contains("batch size")).collect();
        assert_eq!(headings.len(), 8);
        assert_eq!(headings.iter().filter(|line| line.contains("synthetic data")).count(), 4, "{headings:?}");
    }
}

#[test]
fn a_contender_has_one_colour_in_all_plots() {
    let one = Sample { contenders: vec![Contender::new("fused", 0.08, 1.15, 2.0, 60.0)], ..small() };
    let dir = plotted(&one.results());
    let all = plotted(&small().results());
    for ending in ENDINGS {
        assert!(svg(dir.path(), "mnist-cnn", ending).contains("#0072B2"), "{ending}");
        assert!(svg(all.path(), "mnist-cnn", ending).contains("#0072B2"), "{ending}");
    }
}

#[test]
fn the_same_results_give_the_same_files() {
    let results = small().results();
    let (first, second) = (plotted(&results), plotted(&results));
    for entry in fs::read_dir(first.path()).unwrap() {
        let name = entry.unwrap().file_name();
        let same = fs::read(first.path().join(&name)).unwrap() == fs::read(second.path().join(&name)).unwrap();
        assert!(same, "{name:?} differs");
    }
}

#[test]
fn names_that_are_no_file_names_and_text_that_is_no_xml_do_no_harm() {
    let contenders = vec![
        Contender::new("a<b>&\"c\"'\u{1b}[31m", 0.1, 2.0, 0.0, 10.0),
        Contender::failing("d|e\nf", Status::Failed, "panicked at <unknown>\u{0}\nline & two"),
    ];
    let sample = Sample { contenders, workloads: vec![("../my/net", DataKind::Real, 1.0)], ..Sample::typical() };
    let results = sample.results();
    let dir = plotted(&results);
    let text = svg(dir.path(), ".._my_net", "median");
    assert!(text.contains("a&lt;b&gt;&amp;"));
    let page = fs::read_to_string(dir.path().join("index.html")).unwrap();
    for text in [text, page] {
        assert!(!text.contains("<unknown>") && !text.contains("<b>"), "{text}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
    }
    assert!(!table(&results).contains('\u{1b}'));
    assert!(markdown(&results).contains("| d\\|e f |"));
}

#[test]
fn times_of_a_file_made_by_hand_are_drawn_whatever_they_are() {
    let mut results = small().results();
    let extremes = [1e308, -1.0, 0.0, f64::INFINITY, 1e-308, f64::NAN];
    for (i, cell) in results.cells.iter_mut().enumerate() {
        let at = |shift: usize| extremes[(i + shift) % extremes.len()];
        (cell.warm_epoch_s, cell.mean_epoch_s, cell.warm_up_s) = (Some(at(0)), Some(at(1)), Some(at(2)));
        cell.warm_ci95_s = Some([at(3), at(4)]);
        cell.processes.iter_mut().for_each(|process| process.epochs_s.fill(at(5)));
    }
    let dir = plotted(&results);
    assert!(svg(dir.path(), "mnist-cnn", "median").contains("2.78e304 h"));
    for text in [table(&results), markdown(&results)] {
        assert!(text.contains("2.78e304 h") && text.contains("no epoch times"), "{text}");
    }
}

#[test]
fn a_terminal_table_fits_120_columns() {
    let results = Sample { gpu: false, ..Sample::many(25) }.results();
    for text in [table(&results), table(&Sample::typical().results())] {
        for line in text.lines().filter(|line| !line.contains("processes ×")) {
            assert!(line.chars().count() <= 120, "{} columns: {line}", line.chars().count());
        }
    }
}

#[test]
fn a_table_has_the_figures_of_the_file_fastest_first() {
    let results = Sample::typical().results();
    let text = table(&results);
    let rows: Vec<&str> = text.lines().skip_while(|line| !line.starts_with('─')).skip(1).take(9).collect();
    let name = |row: &&str| row.split_whitespace().next().unwrap().to_string();
    let mut cells: Vec<_> = results
        .cells
        .iter()
        .filter(|c| {
            let here = c.workload == "mnist-cnn" && c.batch_size == 64 && c.mode == Mode::Private;
            here && c.status == Status::Ok && c.control_of.is_none()
        })
        .collect();
    cells.sort_by(|a, b| a.warm_epoch_s.unwrap().total_cmp(&b.warm_epoch_s.unwrap()));
    assert_eq!(rows.iter().map(name).collect::<Vec<_>>(), cells.iter().map(|c| c.contender()).collect::<Vec<_>>());
    // Every round has both, so the mean of ratios is the ratio of means.
    let slowest = cells.last().unwrap().warm_epoch_s.unwrap() / cells[0].warm_epoch_s.unwrap();
    assert!(rows[8].contains(&format!("{slowest:.0}×")), "{}", rows[8]);
}

#[test]
fn a_table_says_when_a_warm_up_pays_off() {
    let contenders = vec![
        Contender::new("compiled", 0.1, 1.0, 10.0, 50.0),
        Contender::new("plain", 0.6, 1.0, 0.0, 50.0),
        Contender::new("slow", 5.0, 1.0, 0.0, 50.0),
    ];
    let mut results = Sample { contenders, batch_sizes: vec![64], ..Sample::typical() }.results();
    for cell in &mut results.cells {
        // 10 s are 20 times the half second that an epoch saves.
        (cell.warm_up_s, cell.warm_epoch_s) = match cell.strategy.as_str() {
            "compiled" => (Some(10.0), Some(0.1)),
            "plain" => (Some(0.0), Some(0.6)),
            _ => (Some(0.0), Some(5.0)),
        };
    }
    let expected = "compiled: its warm-up of 10.0 s pays off after 20 epochs at the latest (against plain)";
    assert!(table(&results).contains(expected), "{}", table(&results));
    assert!(!table(&results).contains("plain: its warm-up"));
}

#[test]
fn how_long_kernels_took_to_make_is_below_every_table_and_on_the_page() {
    let mut results = Sample { gpu: true, ..small() }.results();
    let note = "fused: kernels compiled in 3.20 s; from the cache in 11.0 ms, before the first epoch";
    let page = fs::read_to_string(plotted(&results).path().join("index.html")).unwrap();
    let tables = 2 * results.config.batch_sizes.len() * results.config.workloads.len();
    for text in [table(&results), markdown(&results), page] {
        assert_eq!(text.matches(note).count(), tables, "{text}");
        assert_eq!(text.matches("kernels compiled").count(), tables, "{text}");
    }
    results.cells.iter_mut().filter_map(|cell| cell.kernels.as_mut()).for_each(|kernels| kernels.cached_s = None);
    assert!(table(&results).contains("fused: kernels compiled in 3.20 s, before the first epoch"));
    assert!(!table(&small().results()).contains("kernels compiled"));
}

#[test]
fn the_share_of_the_peak_is_in_tables_and_plot_and_the_peak_in_caption_and_page() {
    let results = small().results();
    let dir = plotted(&results);
    let fused = |mode| results.cells.iter().find(|cell| cell.strategy == "fused" && cell.mode == mode).unwrap();
    let percent = |mode| format!("{:.1}%", fused(mode).roofline_fraction.unwrap() * 100.0);
    let (private, plain) = (percent(Mode::Private), percent(Mode::NonPrivate));
    let plot = svg(dir.path(), "mnist-cnn", "roofline");
    assert!(plot.contains(&format!("{private}, plain {plain}")), "{private}, {plain}: {plot}");
    assert!(plot.contains("164 GFLOP/s") && plot.contains("log scale"), "{plot}");
    let page = fs::read_to_string(dir.path().join("index.html")).unwrap();
    assert!(page.contains("164 GFLOP/s in f32 matrix products, 21.0 GB/s from and to memory"), "{page}");
    for text in [table(&results), markdown(&results), page] {
        assert!(text.contains("of peak") && text.contains(&private) && text.contains(&plain), "{private}: {text}");
    }
}

#[test]
fn shares_that_are_all_large_are_on_a_linear_axis() {
    let mut results = small().results();
    results.cells.iter_mut().for_each(|cell| cell.roofline_fraction = cell.warm_epoch_s.map(|_| 0.4));
    let plot = svg(plotted(&results).path(), "mnist-cnn", "roofline");
    assert!(!plot.contains("log scale") && plot.contains("0%") && plot.contains("100%"), "{plot}");
}

#[test]
fn without_a_peak_there_is_no_column_for_it_and_the_plot_says_why() {
    let mut without = small().results();
    without.environment.calibrations.clear();
    without.cells.iter_mut().for_each(|cell| cell.roofline_fraction = None);
    let gpu = Sample { gpu: true, ..small() }.results();
    for (results, why) in [(without, "peak was not measured"), (gpu, "peak of a GPU is not measured")] {
        let dir = plotted(&results);
        assert!(svg(dir.path(), "mnist-cnn", "roofline").contains(why), "{why}");
        let page = fs::read_to_string(dir.path().join("index.html")).unwrap();
        for text in [table(&results), markdown(&results), page] {
            assert!(!text.contains("of peak") && !text.contains("FLOP/s"), "{text}");
        }
    }
}

#[test]
fn a_row_with_a_time_and_no_share_is_listed() {
    let mut results = small().results();
    let private = |cell: &&mut dpsgd_protocol::results::Cell| cell.strategy == "fused" && cell.mode == Mode::Private;
    results.cells.iter_mut().find(private).unwrap().roofline_fraction = Some(f64::NAN);
    let plot = svg(plotted(&results).path(), "mnist-cnn", "roofline");
    assert!(plot.contains("fused (batch 64): no share in the results file"), "{plot}");
}
