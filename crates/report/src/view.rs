//! One workload of a results file, as the plots and tables want it.

use std::collections::{BTreeMap, BTreeSet};

use dpsgd_core::Mode;
use dpsgd_protocol::results::{Cell, DataKind, Results, Serves, Status};
use dpsgd_stats::LEAST_FOR_INTERVAL;

use crate::compared::Compared;
use crate::palette::{Look, looks};
use crate::units;

/// The cells of one workload.
pub struct View<'a> {
    pub results: &'a Results,
    pub workload: &'a str,
    cells: Vec<&'a Cell>,
    looks: BTreeMap<String, Look>,
}

/// Every workload of `results`, those of the config first and in its order.
pub fn workloads(results: &Results) -> Vec<&str> {
    let named = results.config.workloads.iter().map(String::as_str);
    let mut workloads: Vec<&str> = Vec::new();
    for workload in named.chain(results.cells.iter().map(|cell| cell.workload.as_str())) {
        if !workloads.contains(&workload) {
            workloads.push(workload);
        }
    }
    workloads
}

/// Whether a cell's times may be shown.
pub fn counts(cell: &Cell) -> bool {
    cell.status == Status::Ok && cell.warm_epoch_s.is_some_and(|s| s.is_finite() && s > 0.0)
}

/// Whether a cell's times may be ranked and compared: not those of a contender that is measured a second time, to see what
/// noise does.
pub fn competes(cell: &Cell) -> bool {
    counts(cell) && cell.control_of.is_none()
}

/// The interval of a cell's warm epoch; `None` with fewer than four processes.
pub fn interval(cell: &Cell) -> Option<[f64; 2]> {
    let usable = |[low, high]: &[f64; 2]| low.is_finite() && high.is_finite() && low <= high;
    cell.warm_ci95_s.filter(usable)
}

/// The name of a row: its contender's, and those of the others that are the same program here: `jax:jit+vmap = reweight`,
/// with the strategy said once.
pub fn name(cell: &Cell) -> String {
    let prefix = format!("{}:", cell.strategy);
    let short = |name: &String| name.strip_prefix(&prefix).unwrap_or(name).to_string();
    std::iter::once(cell.contender()).chain(cell.same_program.iter().map(short)).collect::<Vec<_>>().join(" = ")
}

/// The name of a status as people read it.
pub fn status(status: Status) -> String {
    status.name().replace('_', " ")
}

/// The name of a mode as people read it.
pub fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Private => "private",
        Mode::NonPrivate => "non-private",
    }
}

/// Cells of one contender that have no time for one reason.
struct Absent {
    contender: String,
    why: String,
    batch_sizes: BTreeSet<usize>,
    modes: BTreeSet<Mode>,
}

impl<'a> View<'a> {
    pub fn new(results: &'a Results, workload: &'a str) -> Self {
        let cells = results.cells.iter().filter(|cell| cell.workload == workload).collect();
        let names: Vec<String> = results.cells.iter().map(Cell::contender).collect();
        let looks = looks(names.iter().chain(&results.config.contenders).map(String::as_str));
        Self { results, workload, cells, looks }
    }

    pub fn look(&self, contender: &str) -> Look {
        self.looks[contender]
    }

    pub fn synthetic(&self) -> bool {
        self.cells.iter().any(|cell| cell.data == DataKind::Synthetic)
    }

    /// The mode that plots of one mode show: private if there is any such cell.
    pub fn main_mode(&self) -> Mode {
        let non_private = !self.cells.is_empty() && self.cells.iter().all(|cell| cell.mode == Mode::NonPrivate);
        let asked = &self.results.config.modes;
        let only_asked = self.cells.is_empty() && !asked.is_empty() && !asked.contains(&Mode::Private);
        if non_private || only_asked { Mode::NonPrivate } else { Mode::Private }
    }

    pub fn batch_sizes(&self) -> Vec<usize> {
        self.cells.iter().map(|cell| cell.batch_size).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Cells whose times count, fastest first; no controls.
    pub fn timed(&self, mode: Mode, batch_size: usize) -> Vec<&'a Cell> {
        let mut cells: Vec<&Cell> = self.of(mode, batch_size).into_iter().filter(|cell| competes(cell)).collect();
        cells.sort_by(|a, b| a.warm_epoch_s.unwrap_or(0.0).total_cmp(&b.warm_epoch_s.unwrap_or(0.0)));
        cells
    }

    /// The contender that was measured twice, and how many times as long its second measurement took.
    pub fn noise(&self, mode: Mode, batch_size: usize) -> Option<(&'a Cell, Compared)> {
        let cells = self.of(mode, batch_size);
        let control = cells.iter().find(|cell| cell.control_of.is_some() && counts(cell))?;
        let original = control.control_of.as_deref()?;
        let original = cells.iter().copied().find(|cell| competes(cell) && cell.is_of(original))?;
        Some((original, Compared::new(control, original)?))
    }

    /// All cells of a mode and a batch size, in the order of the file.
    pub fn of(&self, mode: Mode, batch_size: usize) -> Vec<&'a Cell> {
        self.cells.iter().copied().filter(|cell| cell.mode == mode && cell.batch_size == batch_size).collect()
    }

    /// The non-private cell of the same contender and batch size.
    pub fn non_private(&self, private: &Cell) -> Option<&'a Cell> {
        let same = |cell: &&Cell| {
            cell.mode == Mode::NonPrivate
                && cell.batch_size == private.batch_size
                && cell.control_of.is_none()
                && cell.is_of(&private.contender())
        };
        self.cells.iter().copied().find(same)
    }

    /// One line per contender, status and reason of the cells of `modes` that have no time, with their batch sizes, and
    /// per contender that the config names but no cell is of.
    pub fn absent(&self, modes: &[Mode]) -> Vec<String> {
        let mut groups: Vec<Absent> = Vec::new();
        for cell in self.cells.iter().filter(|cell| modes.contains(&cell.mode) && !counts(cell)) {
            let (contender, why) = (cell.contender(), why(cell));
            let group = match groups.iter_mut().find(|group| group.contender == contender && group.why == why) {
                Some(group) => group,
                None => {
                    groups.push(Absent { contender, why, batch_sizes: BTreeSet::new(), modes: BTreeSet::new() });
                    groups.last_mut().expect("it was added")
                }
            };
            group.batch_sizes.insert(cell.batch_size);
            group.modes.insert(cell.mode);
        }
        let line = |group: Absent| {
            let mut which = Vec::new();
            if group.modes.len() < modes.len() {
                which.extend(group.modes.into_iter().map(|m| mode(m).to_string()));
            }
            if group.batch_sizes.len() < self.batch_sizes().len() {
                let sizes: Vec<String> = group.batch_sizes.iter().map(usize::to_string).collect();
                which.push(format!("batch {}", sizes.join(", ")));
            }
            let which = if which.is_empty() { String::new() } else { format!(" ({})", which.join(", ")) };
            format!("{}{which}: {}", group.contender, group.why)
        };
        let mut lines: Vec<String> = groups.into_iter().map(line).collect();
        for contender in &self.results.config.contenders {
            if !self.cells.iter().any(|cell| modes.contains(&cell.mode) && cell.is_of(contender)) {
                lines.push(format!("{contender}: not measured"));
            }
        }
        lines
    }

    /// `4,096 examples per epoch`; nothing without cells.
    pub fn examples(&self) -> Option<String> {
        let counts: BTreeSet<usize> = self.cells.iter().map(|cell| cell.examples_per_epoch).collect();
        match (counts.first(), counts.last()) {
            (Some(least), Some(most)) if least == most => Some(format!("{} examples per epoch", units::count(*least))),
            (Some(least), Some(most)) => {
                Some(format!("{} to {} examples per epoch", units::count(*least), units::count(*most)))
            }
            _ => None,
        }
    }

    /// `5 processes × 20 epochs`, as measured, not as asked; `5 processes × 250 to 3,000 epochs, and 3 from the cold × 5
    /// epochs` where some ran alone.
    pub fn replicates(&self) -> String {
        let timed: Vec<&Cell> = self.cells.iter().copied().filter(|cell| counts(cell)).collect();
        let kinds = [("", false), (" from the cold", true)].map(|(kind, cold)| {
            let of = move |cell: &'a Cell| cell.processes.iter().filter(move |p| (p.serves == Serves::Cold) == cold);
            let processes = range(timed.iter().map(|cell| of(cell).count()))?;
            let epochs = range(timed.iter().flat_map(|cell| of(cell).map(|process| process.epochs_s.len())))?;
            let plural = |count: &str, one: &'static str, more: &'static str| if count == "1" { one } else { more };
            let (many, word) = (plural(&processes, "process", "processes"), plural(&epochs, "epoch", "epochs"));
            Some(format!("{processes} {many}{kind} × {epochs} {word}"))
        });
        let kinds: Vec<String> = kinds.into_iter().flatten().collect();
        if kinds.is_empty() { "no epochs".into() } else { kinds.join(", ") }
    }

    /// What the intervals of warm epochs are, and which rows have none.
    pub fn intervals(&self, mode: Mode) -> String {
        let timed: Vec<&Cell> = self.batch_sizes().into_iter().flat_map(|size| self.timed(mode, size)).collect();
        let with = timed.iter().filter(|cell| interval(cell).is_some()).count();
        let mut text = match with {
            0 => return format!("No intervals: fewer than {LEAST_FOR_INTERVAL} processes."),
            _ => "Bands: 95% interval, Student's t on logarithms over processes".to_string(),
        };
        if timed.iter().any(|cell| cell.warm_ci95_pooled) {
            text.push_str(", variances pooled over the rows of a strategy where a row has fewer than 10");
        }
        if with < timed.len() {
            text.push_str(&format!("; none with fewer than {LEAST_FOR_INTERVAL}"));
        }
        text + "."
    }

    /// Processor, threads, device, software and date.
    pub fn machine(&self) -> String {
        let environment = &self.results.environment;
        let config = &self.results.config;
        let mut parts = vec![environment.cpu.clone()];
        let threads = if config.threads == 1 { "thread" } else { "threads" };
        parts.push(format!("{} {threads} of {} processors", config.threads, environment.cpus));
        parts.extend(gpu(self.results));
        parts.push(environment.os.clone());
        parts.push(format!("dpsgd-bench {}", environment.version));
        parts.push(environment.started.get(..10).unwrap_or(&environment.started).to_string());
        parts.retain(|part| !part.trim().is_empty());
        parts.join(", ")
    }
}

/// What a run computed on: `cuda:0 (its GPU, driver 1.2.3)` or `cpu (its processor)`.
pub fn device(results: &Results) -> String {
    gpu(results).unwrap_or_else(|| format!("{} ({})", results.config.device, results.environment.cpu))
}

/// The same, if that is a GPU.
fn gpu(results: &Results) -> Option<String> {
    let (device, environment) = (&results.config.device, &results.environment);
    let gpus = if environment.gpus.is_empty() { "no GPU".into() } else { environment.gpus.join(", ") };
    let driver = environment.gpu_driver.as_ref().map_or_else(String::new, |driver| format!(", driver {driver}"));
    (device != "cpu").then(|| format!("{device} ({gpus}{driver})"))
}

/// A cell's status and the reason of it.
pub fn why(cell: &Cell) -> String {
    let what = if cell.status == Status::Ok { "no epoch times".to_string() } else { status(cell.status) };
    let found = cell.verification.as_ref().and_then(|verification| verification.failure.as_deref());
    match cell.reason.as_deref().or(found) {
        Some(reason) => format!("{what}: {}", reason.split_whitespace().collect::<Vec<_>>().join(" ")),
        None => what,
    }
}

fn range(values: impl Iterator<Item = usize>) -> Option<String> {
    let values: BTreeSet<usize> = values.collect();
    match (values.first()?, values.last()?) {
        (least, most) if least == most => Some(units::count(*least)),
        (least, most) => Some(format!("{} to {}", units::count(*least), units::count(*most))),
    }
}
