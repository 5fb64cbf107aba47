//! Tables for a terminal and for a document. The page's tables are made of the same [`Sheet`]s.

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, TableStyle};
use dpsgd_core::Mode;
use dpsgd_protocol::results::{Cell, Results};
use dpsgd_stats::break_even;

use crate::claims::{Claim, claims};
use crate::render::printable;
use crate::units;
use crate::view::{self, View, counts, interval, why};

/// Columns that a terminal is taken to have.
const COLUMNS: usize = 120;
/// Names are shortened where a table would be wider than a terminal, but never below this, the width of their heading.
const SHORTEST_NAME: usize = 9;

/// All that there is to say of one workload, mode and batch size.
pub struct Sheet {
    pub workload: String,
    /// Mode, batch size, examples, `synthetic data`.
    pub facts: Vec<String>,
    pub header: Vec<&'static str>,
    /// The contender, then its figures; one that has no time has its status in the place of the median.
    pub rows: Vec<Vec<String>>,
    /// Contenders without a time, and why.
    pub absent: Vec<(String, String)>,
    /// Contenders, and what to know before trusting their figures or paying for their warm-up.
    pub notes: Vec<(String, String)>,
}

/// A warm-up of fewer steady epochs than this is not worth a note.
const NOTED_WARM_UP: f64 = 1.0;

/// Every sheet of a workload: private first, small batches first.
pub fn sheets(view: &View) -> Vec<Sheet> {
    let modes = [Mode::Private, Mode::NonPrivate];
    let keys = modes.into_iter().flat_map(|mode| view.batch_sizes().into_iter().map(move |size| (mode, size)));
    keys.filter(|(mode, size)| !view.of(*mode, *size).is_empty()).map(|(mode, size)| sheet(view, mode, size)).collect()
}

fn sheet(view: &View, mode: Mode, batch_size: usize) -> Sheet {
    let timed = view.timed(mode, batch_size);
    let rest: Vec<&Cell> = view.of(mode, batch_size).into_iter().filter(|cell| !counts(cell)).collect();
    let gpu = timed.iter().any(|cell| cell.gpu_peak_bytes.is_some());
    let energy = timed.iter().any(|cell| cell.energy_j.is_some());
    let roofline = timed.iter().any(|cell| cell.roofline_fraction.is_some());
    let mut header =
        vec!["contender", "median [95% CI]", "vs best", "mean", "/example", "warm-up", "1st step", "peak RSS"];
    header.push("CPU");
    for (head, present) in [("GPU mem", gpu), ("GPU", gpu), ("energy", energy), ("of peak", roofline)] {
        if present {
            header.push(head);
        }
    }
    header.push("max err");
    let fastest = timed.first().and_then(|cell| cell.median_epoch_s);
    let percent = |share: Option<f64>| match share {
        Some(share) if share.is_finite() => format!("{:.0}%", share * 100.0),
        _ => "–".into(),
    };
    let figures = |cell: &&Cell| {
        let median = cell.median_epoch_s;
        let ratio = median.zip(fastest).map(|(median, fastest)| units::times(median / fastest));
        let mut row = vec![
            cell.contender(),
            median.map_or_else(|| "–".into(), |median| units::time_with_interval(median, interval(cell))),
            ratio.unwrap_or_else(|| "–".into()),
            units::time(cell.mean_epoch_s),
            units::time(median.map(|s| s / cell.examples_per_epoch.max(1) as f64)),
            cell.warm_up_s.map_or_else(|| "unsettled".into(), units::time),
            units::time(cell.first_step_s),
            units::bytes(cell.peak_rss_bytes),
            percent(cell.cpu_utilization),
        ];
        if gpu {
            row.push(units::bytes(cell.gpu_peak_bytes));
            row.push(percent(cell.gpu_utilization));
        }
        if energy {
            row.push(cell.energy_j.map_or_else(|| "–".into(), |joules| format!("{} J", units::digits(joules))));
        }
        if roofline {
            row.push(
                cell.roofline_fraction.filter(|share| share.is_finite()).map_or_else(|| "–".into(), units::percent),
            );
        }
        row.push(error(cell));
        row
    };
    let mut rows: Vec<Vec<String>> = timed.iter().map(figures).collect();
    for cell in &rest {
        let mut row = vec![String::new(); header.len()];
        row[0] = cell.contender();
        row[1] = why(cell).split(':').next().unwrap_or_default().to_string();
        row[header.len() - 1] = error(cell);
        rows.push(row);
    }
    let mut facts = vec![view::mode(mode).to_string(), format!("batch size {batch_size}")];
    facts.extend(view.examples());
    if view.synthetic() {
        facts.push("synthetic data".into());
    }
    let warnings =
        timed.iter().flat_map(|cell| cell.warnings.iter().map(|warning| (cell.contender(), warning.clone())));
    let kernels = timed.iter().filter_map(|cell| Some((cell.contender(), kernels(cell)?)));
    let pay_offs = timed.iter().filter_map(|cell| Some((cell.contender(), pay_off(cell, &timed)?)));
    Sheet {
        workload: view.workload.to_string(),
        facts,
        header,
        rows,
        absent: rest.iter().map(|cell| (cell.contender(), why(cell))).collect(),
        notes: warnings.chain(kernels).chain(pay_offs).collect(),
    }
}

/// After how many epochs a long warm-up is made up for, against the contender for which that takes longest among those
/// that are slower once warm.
fn pay_off(cell: &Cell, timed: &[&Cell]) -> Option<String> {
    let (warm_up, epoch) = (cell.warm_up_s?, cell.median_epoch_s?);
    if warm_up < NOTED_WARM_UP * epoch {
        return None;
    }
    let against = |other: &&Cell| {
        let epochs = break_even(warm_up, epoch, other.warm_up_s?, other.median_epoch_s?)?;
        (epochs > 0.0).then(|| (epochs, other.contender()))
    };
    let (epochs, other) = timed.iter().filter_map(against).max_by(|a, b| a.0.total_cmp(&b.0))?;
    let warm_up = units::time(warm_up);
    let epochs = if epochs == 1.0 { "1 epoch".into() } else { format!("{} epochs", units::plain(epochs)) };
    Some(format!("its warm-up of {warm_up} pays off after {epochs} at the latest (against {other})"))
}

/// How long a load took to have kernels of the contender's own.
fn kernels(cell: &Cell) -> Option<String> {
    let made = cell.kernels?;
    let compiled = made.compile_s.map(|seconds| format!("compiled in {}", units::time(seconds)));
    let cached = made.cached_s.map(|seconds| format!("from the cache in {}", units::time(seconds)));
    let ways: Vec<String> = compiled.into_iter().chain(cached).collect();
    (!ways.is_empty()).then(|| format!("kernels {}, before the first epoch", ways.join("; ")))
}

/// The largest relative error against the oracle; `–` if it was not checked.
fn error(cell: &Cell) -> String {
    match cell.verification.as_ref().and_then(|verification| verification.max_relative_error) {
        Some(error) => format!("{error:.1e}"),
        None => "–".into(),
    }
}

/// One table per workload, mode and batch size, fastest contender first, no wider than 120 columns unless a figure is.
/// Contenders without a time follow, with the reason below the table. Plain text without control sequences.
pub fn table(results: &Results) -> String {
    let mut text = String::new();
    for workload in view::workloads(results) {
        let view = View::new(results, workload);
        let sheets = sheets(&view);
        if sheets.is_empty() {
            text.push_str(&format!("{workload}: not measured\n\n"));
        }
        for sheet in sheets {
            text.push_str(&format!("{}: {}\n", sheet.workload, sheet.facts.join(", ")));
            text.push_str(&grid(&sheet));
            for (contender, note) in sheet.absent.iter().chain(&sheet.notes) {
                text.push_str(&indented(&format!("{contender}: {note}")));
            }
            text.push('\n');
        }
        text.push_str(&format!("{}. {}.\n\n", view.replicates(), view.machine()));
    }
    text.push_str("The claims of the 2020 talk, in this run:\n");
    for Claim { claim, found, verdict } in claims(results) {
        text.push_str(&indented(claim));
        text.push_str(&indented(&format!("   {}: {found}", verdict.text())));
    }
    printable_lines(&text)
}

fn grid(sheet: &Sheet) -> String {
    let style = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
    let mut table = comfy_table::Table::new();
    table.load_style(style).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(sheet.header.iter().copied());
    let widest = |column: usize| {
        let cells = sheet.rows.iter().map(|row| row[column].chars().count());
        cells.chain([sheet.header[column].chars().count()]).max().unwrap_or(0)
    };
    let figures: usize = (1..sheet.header.len()).map(|column| widest(column) + 2).sum();
    let room = COLUMNS.saturating_sub(figures + 1).max(SHORTEST_NAME);
    for row in &sheet.rows {
        let name = shorten(&row[0], room);
        table.add_row(std::iter::once(&name).chain(&row[1..]).map(|cell| comfy_table::Cell::new(printable(cell))));
    }
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        column.set_cell_alignment(if i == 0 { CellAlignment::Left } else { CellAlignment::Right });
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_string()).collect();
    lines.join("\n") + "\n"
}

/// A name of at most `room` characters, its middle left out if need be.
fn shorten(name: &str, room: usize) -> String {
    let chars: Vec<char> = name.chars().collect();
    if chars.len() <= room {
        return name.to_string();
    }
    let tail = (room - 1) / 2;
    let (head, tail) = (&chars[..room - 1 - tail], &chars[chars.len() - tail..]);
    format!("{}…{}", head.iter().collect::<String>(), tail.iter().collect::<String>())
}

/// A note in lines of the terminal's width, the second and later ones further in.
fn indented(note: &str) -> String {
    let mut lines = vec![String::from(" ")];
    for word in note.split_whitespace() {
        let line = lines.last_mut().expect("there is one");
        if line.chars().count() + 1 + word.chars().count() > COLUMNS && line.trim() != "" {
            lines.push(format!("    {word}"));
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n") + "\n"
}

fn printable_lines(text: &str) -> String {
    text.lines().map(|line| printable(line) + "\n").collect()
}

/// The same tables in Markdown, with full names.
pub fn markdown(results: &Results) -> String {
    let mut text = String::new();
    for workload in view::workloads(results) {
        let view = View::new(results, workload);
        text.push_str(&format!("## {workload}\n\n"));
        let sheets = sheets(&view);
        if sheets.is_empty() {
            text.push_str("Not measured.\n\n");
        }
        for sheet in sheets {
            text.push_str(&format!("**{}**\n\n", sheet.facts.join(", ")));
            text.push_str(&markdown_row(sheet.header.iter().copied()));
            text.push_str("|---|");
            text.push_str(&"---:|".repeat(sheet.header.len() - 1));
            text.push('\n');
            for row in &sheet.rows {
                text.push_str(&markdown_row(row.iter().map(String::as_str)));
            }
            text.push('\n');
            for (contender, note) in sheet.absent.iter().chain(&sheet.notes) {
                text.push_str(&format!("- {}: {}\n", markdown_text(contender), markdown_text(note)));
            }
            if !sheet.absent.is_empty() || !sheet.notes.is_empty() {
                text.push('\n');
            }
        }
        text.push_str(&format!("{}. {}.\n\n", view.replicates(), markdown_text(&view.machine())));
    }
    text.push_str("## The claims of the 2020 talk, in this run\n\n");
    text.push_str(&markdown_row(["claim", "found", "verdict"].into_iter()));
    text.push_str("|---|---|---|\n");
    for Claim { claim, found, verdict } in claims(results) {
        text.push_str(&markdown_row([claim, found.as_str(), verdict.text()].into_iter()));
    }
    text
}

fn markdown_row<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let cells: Vec<String> = cells.map(markdown_text).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// Text that can stand in a table of Markdown.
fn markdown_text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in printable(text).chars() {
        if "\\`*_|<>".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
