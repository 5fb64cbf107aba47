//! Tables for a terminal and for a document. The page's tables are made of the same [`Sheet`]s.

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, TableStyle};
use dpsgd_core::Mode;
use dpsgd_protocol::results::{Cell, ProcessRun, Results};
use dpsgd_stats::break_even;

use crate::claims::{Claim, claims};
use crate::compared::Compared;
use crate::fastest;
use crate::figures::{cold, filled, settled, warm_up};
use crate::render::printable;
use crate::units;
use crate::view::{self, View, counts, interval, name, why};

/// Columns that a terminal is taken to have.
const COLUMNS: usize = 120;
/// Names are shortened where a table would be wider than a terminal, but never below this, the width of their heading.
const SHORTEST_NAME: usize = 9;
/// Columns are left out before a name is shortened to less than this.
const LEAST_NAME: usize = 24;

/// All that there is to say of one workload, mode and batch size.
pub struct Sheet {
    pub workload: String,
    /// Mode, batch size, examples, `synthetic data`.
    pub facts: Vec<String>,
    /// What two measurements of one program differ by; empty if none was measured twice.
    pub noise: String,
    pub warm: Grid,
    /// Figures of processes that ran alone, with their range.
    pub cold: Grid,
    /// Contenders without a time, and why; the last rows of `warm`.
    pub absent: Vec<(String, String)>,
    /// Contenders, and what to know before trusting their figures or paying for their warm-up.
    pub notes: Vec<(String, String)>,
}

/// A table: a contender in each row, then its figures.
pub struct Grid {
    pub header: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

/// A warm-up of fewer steady epochs than this is not worth a note.
const NOTED_WARM_UP: f64 = 1.0;

/// Columns that a terminal's table goes without where it would be too wide, in this order: documents and the page have them.
const LEAST_NEEDED: [&str; 6] = ["/example", "1st step", "energy", "max err", "CPU", "of peak"];

/// Every sheet of a workload: private first, small batches first.
pub fn sheets(view: &View) -> Vec<Sheet> {
    let modes = [Mode::Private, Mode::NonPrivate];
    let keys = modes.into_iter().flat_map(|mode| view.batch_sizes().into_iter().map(move |size| (mode, size)));
    keys.filter(|(mode, size)| !view.of(*mode, *size).is_empty()).map(|(mode, size)| sheet(view, mode, size)).collect()
}

fn sheet(view: &View, mode: Mode, batch_size: usize) -> Sheet {
    let timed = view.timed(mode, batch_size);
    let rest: Vec<&Cell> = view.of(mode, batch_size).into_iter().filter(|cell| !counts(cell)).collect();
    let mut facts = vec![view::mode(mode).to_string(), format!("batch size {batch_size}")];
    facts.extend(view.examples());
    if view.synthetic() {
        facts.push("synthetic data".into());
    }
    let warnings = timed.iter().flat_map(|cell| cell.warnings.iter().map(|warning| (name(cell), warning.clone())));
    let kernels = timed.iter().filter_map(|cell| Some((name(cell), kernels(cell)?)));
    let pay_offs = timed.iter().filter_map(|cell| Some((name(cell), pay_off(cell, &timed)?)));
    Sheet {
        workload: view.workload.to_string(),
        facts,
        noise: noise(view, mode, batch_size).unwrap_or_default(),
        warm: warm_grid(&timed, &rest),
        cold: cold_grid(&timed),
        absent: rest.iter().map(|cell| (name(cell), why(cell))).collect(),
        notes: warnings.chain(kernels).chain(pay_offs).collect(),
    }
}

/// The noise floor in words.
pub fn noise(view: &View, mode: Mode, batch_size: usize) -> Option<String> {
    let (original, compared) = view.noise(mode, batch_size)?;
    let meaning = match compared.ci95() {
        Some([low, high]) if low <= 1.0 && 1.0 <= high => {
            let reach = (high - 1.0).max(1.0 - low);
            format!("differences below {} are noise here", units::percent(reach))
        }
        Some(_) => "the interval leaves out 1, as one in twenty does by chance: don't trust smaller differences".into(),
        None => "no interval: fewer than 4 processes".into(),
    };
    Some(format!("noise floor: {} measured twice: {}: {meaning}", original.contender(), compared.figure()))
}

fn percent(share: Option<f64>) -> String {
    match share {
        Some(share) if share.is_finite() => format!("{:.0}%", share * 100.0),
        _ => "–".into(),
    }
}

/// The figures of each row whose time counts, fastest first; those that have none have their status in its place.
fn warm_grid(timed: &[&Cell], rest: &[&Cell]) -> Grid {
    let gpu = timed.iter().any(|cell| cell.gpu_peak_bytes.is_some());
    let energy = timed.iter().any(|cell| cell.energy_j.is_some());
    let roofline = timed.iter().any(|cell| cell.roofline_fraction.is_some());
    let mut header = vec!["contender", "warm epoch [95% CI]", "vs best [CI]", "mean (talk)", "/example", "warm-up"];
    header.extend(["1st step", "start", "peak RSS", "CPU"]);
    for (head, present) in [("GPU mem", gpu), ("GPU", gpu), ("energy", energy), ("of peak", roofline)] {
        if present {
            header.push(head);
        }
    }
    header.push("max err");
    let figures = |(place, cell): (usize, &&Cell)| {
        let warm = cell.warm_epoch_s;
        let ratio = match place {
            0 => "1×".into(),
            _ => Compared::new(cell, timed[0]).map_or_else(|| "–".into(), |compared| compared.figure()),
        };
        let [settled, all] = settled(cold(cell));
        let mut row = vec![
            name(cell),
            warm.map_or_else(|| "–".into(), |warm| units::time_with_interval(warm, interval(cell))),
            ratio,
            units::time(cell.mean_epoch_s),
            units::time(warm.map(|s| s / cell.examples_per_epoch.max(1) as f64)),
            match cell.warm_up_s {
                Some(seconds) => format!("{} {settled}/{all}", units::time(seconds)),
                None => format!("unsettled {settled}/{all}"),
            },
            units::time(cell.first_step_s),
            units::time(dpsgd_stats::median(&cold(cell).map(|process| process.start_s).collect::<Vec<_>>())),
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
    let mut rows: Vec<Vec<String>> = timed.iter().enumerate().map(figures).collect();
    for cell in rest {
        let mut row = vec![String::new(); header.len()];
        row[0] = name(cell);
        row[1] = why(cell).split(':').next().unwrap_or_default().to_string();
        row[header.len() - 1] = error(cell);
        rows.push(row);
    }
    Grid { header, rows }
}

/// Median and range over the processes that ran alone of all that is paid once.
fn cold_grid(timed: &[&Cell]) -> Grid {
    let header = vec!["from the cold", "processes", "start", "load", "1st step", "1st epoch", "warm-up", "peak RSS"];
    let rows = timed.iter().map(|cell| {
        let of = |figure: &dyn Fn(&ProcessRun) -> Option<f64>| {
            let figures: Vec<f64> = cold(cell).filter_map(figure).filter(|figure| figure.is_finite()).collect();
            let at = |q: f64| dpsgd_stats::quantile(&figures, q);
            at(0.5).map(|middle| (middle, at(0.0).zip(at(1.0)).map(|(least, most)| [least, most])))
        };
        let time = |figure: &dyn Fn(&ProcessRun) -> Option<f64>| match of(figure) {
            Some((middle, range)) => units::time_with_interval(middle, range),
            None => "–".into(),
        };
        let peak = of(&|process| process.peak_rss_bytes.map(|bytes| bytes as f64));
        let bytes = |bytes: f64| units::bytes(bytes as u64);
        vec![
            name(cell),
            cold(cell).count().to_string(),
            time(&|process| Some(process.start_s)),
            time(&|process| Some(process.load_s)),
            time(&|process| process.first_step_s),
            time(&|process| process.epochs_s.first().copied()),
            time(&warm_up),
            match peak {
                Some((middle, Some([least, most]))) => format!("{} [{}–{}]", bytes(middle), bytes(least), bytes(most)),
                _ => "–".into(),
            },
        ]
    });
    Grid { header, rows: rows.collect() }
}

/// What the brackets of a cold grid are.
pub const COLD: &str = "Median over processes that ran alone [least–most].";
/// What the columns of a warm grid are.
pub const WARM: &str = "warm epoch: geometric mean over processes of each one's median epoch in steady state; vs best: ratio \
                        of neighbours in time; mean (talk): over all epochs from the cold, the first included; warm-up: \
                        what the epochs before steady state cost, and how many processes settled.";

/// After how many epochs a long warm-up is made up for, against the contender for which that takes longest among those
/// that are slower once warm.
fn pay_off(cell: &Cell, timed: &[&Cell]) -> Option<String> {
    let (warm_up, epoch) = (cell.warm_up_s?, cell.warm_epoch_s?);
    if warm_up < NOTED_WARM_UP * epoch {
        return None;
    }
    let against = |other: &&Cell| {
        let epochs = break_even(warm_up, epoch, other.warm_up_s?, other.warm_epoch_s?)?;
        (epochs > 0.0).then(|| (epochs, name(other)))
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
    let results = &*filled(results);
    let mut text = String::new();
    for workload in view::workloads(results) {
        let view = View::new(results, workload);
        let sheets = sheets(&view);
        if sheets.is_empty() {
            text.push_str(&format!("{workload}: not measured\n\n"));
        }
        for sheet in sheets {
            text.push_str(&format!("{}: {}\n", sheet.workload, sheet.facts.join(", ")));
            if !sheet.noise.is_empty() {
                text.push_str(&indented(&sheet.noise));
            }
            text.push_str(&grid(&sheet.warm));
            for (contender, note) in sheet.absent.iter().chain(&sheet.notes) {
                text.push_str(&indented(&format!("{contender}: {note}")));
            }
            text.push('\n');
        }
        text.push_str(&format!("{}. {}.\n\n", view.replicates(), view.machine()));
    }
    text.push_str(&indented(WARM));
    text.push_str("\nThe claims of the 2020 talk, in this run:\n");
    text.push_str(&indented(&format!("({})", fastest::HOW)));
    for Claim { claim, found, verdict } in claims(results) {
        text.push_str(&indented(claim));
        text.push_str(&indented(&format!("   {}: {found}", verdict.text())));
    }
    printable_lines(&text)
}

fn grid(grid: &Grid) -> String {
    let style = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
    let mut table = comfy_table::Table::new();
    table.load_style(style).set_content_arrangement(ContentArrangement::Disabled);
    let widest = |column: usize| {
        let cells = grid.rows.iter().map(|row| row[column].chars().count());
        cells.chain([grid.header[column].chars().count()]).max().unwrap_or(0)
    };
    let mut columns: Vec<usize> = (1..grid.header.len()).collect();
    let width = |columns: &[usize]| columns.iter().map(|column| widest(*column) + 2).sum::<usize>();
    let wanted = widest(0).clamp(SHORTEST_NAME, LEAST_NAME);
    let mut left_out = Vec::new();
    for name in LEAST_NEEDED {
        if width(&columns) + wanted < COLUMNS {
            break;
        }
        if columns.iter().any(|column| grid.header[*column] == name) {
            columns.retain(|column| grid.header[*column] != name);
            left_out.push(name);
        }
    }
    let room = COLUMNS.saturating_sub(width(&columns) + 1).max(SHORTEST_NAME);
    table.set_header(std::iter::once(grid.header[0]).chain(columns.iter().map(|column| grid.header[*column])));
    for row in &grid.rows {
        let name = shorten(&row[0], room);
        let cells = std::iter::once(&name).chain(columns.iter().map(|column| &row[*column]));
        table.add_row(cells.map(|cell| comfy_table::Cell::new(printable(cell))));
    }
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        column.set_cell_alignment(if i == 0 { CellAlignment::Left } else { CellAlignment::Right });
    }
    let mut lines: Vec<String> = table.lines().map(|line| line.trim_end().to_string()).collect();
    if !left_out.is_empty() {
        lines.push(format!("  (for want of width without: {}; index.html has them)", left_out.join(", ")));
    }
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
    let results = &*filled(results);
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
            if !sheet.noise.is_empty() {
                text.push_str(&format!("{}\n\n", markdown_text(&sheet.noise)));
            }
            text.push_str(&markdown_grid(&sheet.warm));
            if !sheet.cold.rows.is_empty() {
                text.push_str(&markdown_grid(&sheet.cold));
                text.push_str(&format!("{COLD}\n\n"));
            }
            for (contender, note) in sheet.absent.iter().chain(&sheet.notes) {
                text.push_str(&format!("- {}: {}\n", markdown_text(contender), markdown_text(note)));
            }
            if !sheet.absent.is_empty() || !sheet.notes.is_empty() {
                text.push('\n');
            }
        }
        text.push_str(&format!("{}. {}.\n\n", view.replicates(), markdown_text(&view.machine())));
    }
    text.push_str(&format!("{}\n\n", markdown_text(WARM)));
    text.push_str("## The claims of the 2020 talk, in this run\n\n");
    text.push_str(&format!("({})\n\n", markdown_text(fastest::HOW)));
    text.push_str(&markdown_row(["claim", "found", "verdict"].into_iter()));
    text.push_str("|---|---|---|\n");
    for Claim { claim, found, verdict } in claims(results) {
        text.push_str(&markdown_row([claim, found.as_str(), verdict.text()].into_iter()));
    }
    text
}

fn markdown_grid(grid: &Grid) -> String {
    let mut text = markdown_row(grid.header.iter().copied());
    text.push_str("|---|");
    text.push_str(&"---:|".repeat(grid.header.len() - 1));
    text.push('\n');
    for row in &grid.rows {
        text.push_str(&markdown_row(row.iter().map(String::as_str)));
    }
    text + "\n"
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
