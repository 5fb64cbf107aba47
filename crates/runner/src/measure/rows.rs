//! The results file as it grows: one row per cell, written after every process.

use std::path::{Path, PathBuf};

use dpsgd_core::Description;
use dpsgd_protocol::results::{
    Calibration, Cell, DataKind, Environment, ProcessRun, Results, ResultsError, RunConfig, SCHEMA_VERSION, Serves,
    Status, Timeline, Verification,
};

use super::plan::PlannedCell;
use super::roofline;
use crate::out::RESULTS_FILE;
use crate::worker::WorkerError;

/// What a process takes of which nothing is known yet, in bytes.
const ASSUMED_BYTES: u64 = 1 << 30;

/// The rows of a run and the file they are kept in.
pub struct Rows {
    file: PathBuf,
    results: Results,
}

/// A run that can't be continued here.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The file can't be read.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// It is a run of something else.
    #[error("{path}: --resume: {what} was {then}, now it is {now}; use the same, or begin a new run")]
    Differs {
        /// The results file.
        path: String,
        /// What differs.
        what: &'static str,
        /// In the file.
        then: String,
        /// In this run.
        now: String,
    },
}

impl Rows {
    /// No rows yet.
    pub fn begin(folder: &Path, environment: Environment, config: RunConfig) -> Self {
        let results = Results { schema_version: SCHEMA_VERSION, environment, config, cells: Vec::new() };
        Rows { file: folder.join(RESULTS_FILE), results }
    }

    /// The rows of an earlier run of the same config on the same machine. Rows that did not end `ok` are measured anew.
    pub fn resume(folder: &Path, environment: &Environment, config: &RunConfig) -> Result<Self, ResumeError> {
        let file = folder.join(RESULTS_FILE);
        let mut results = Results::load(&file)?;
        let differs = |what, then: &dyn std::fmt::Debug, now: &dyn std::fmt::Debug| {
            let path = file.display().to_string();
            ResumeError::Differs { path, what, then: format!("{then:?}"), now: format!("{now:?}") }
        };
        if results.config != *config {
            let (then, now) = (serde_json::json!(results.config), serde_json::json!(config));
            let key = then.as_object().into_iter().flatten().find(|(key, value)| now[key.as_str()] != **value);
            let (key, value) = key.expect("two configs that differ do so in a key");
            let path = file.display().to_string();
            let show = |value: &serde_json::Value| {
                let text = value.to_string();
                if text.chars().count() <= 120 { text } else { text.chars().take(120).collect::<String>() + "..." }
            };
            let (then, now) = (format!("{key} = {}", show(value)), format!("{key} = {}", show(&now[key.as_str()])));
            return Err(ResumeError::Differs { path, what: "the config", then, now });
        }
        let (then, now) = (&results.environment, environment);
        let (before, after) = ((&then.version, &then.commit), (&now.version, &now.commit));
        if before != after {
            return Err(differs("the version of dpsgd-bench", &before, &after));
        }
        if (&then.cpu, then.cpus) != (&now.cpu, now.cpus) {
            return Err(differs("the processor", &(&then.cpu, then.cpus), &(&now.cpu, now.cpus)));
        }
        if (&then.gpus, &then.gpu_driver) != (&now.gpus, &now.gpu_driver) {
            return Err(differs("the GPU", &(&then.gpus, &then.gpu_driver), &(&now.gpus, &now.gpu_driver)));
        }
        results.cells.retain(|cell| cell.status == Status::Ok);
        Ok(Rows { file, results })
    }

    /// The rows.
    pub fn results(&self) -> &Results {
        &self.results
    }

    /// Whether a process of `cell` that serves this has been measured in `round`.
    pub fn has(&self, cell: &PlannedCell<'_>, serves: Serves, round: usize) -> bool {
        let is_it = |process: &ProcessRun| process.serves == serves && process.round == round;
        self.find(cell).is_some_and(|position| self.results.cells[position].processes.iter().any(is_it))
    }

    /// Bytes that a process of `cell` takes: the most that any did, or else a guess.
    pub fn memory(&self, cell: &PlannedCell<'_>) -> u64 {
        let original = PlannedCell { control: false, ..cell.clone() };
        let peak = |position: usize| self.results.cells[position].peak_rss_bytes;
        self.find(&original).and_then(peak).unwrap_or(ASSUMED_BYTES)
    }

    /// Whether `cell` ended otherwise than `ok`.
    pub fn is_out(&self, cell: &PlannedCell<'_>) -> bool {
        self.find(cell).is_some_and(|position| self.results.cells[position].status != Status::Ok)
    }

    /// Remembers what a contender said of itself. The error is the description it had earlier in this run.
    pub fn describe(&mut self, description: Description) -> Result<(), Box<Description>> {
        let same = |known: &&Description| known.name == description.name && known.variant == description.variant;
        let contenders = &mut self.results.environment.contenders;
        match contenders.iter().find(same) {
            Some(known) if *known != description => Err(Box::new(known.clone())),
            Some(_) => Ok(()),
            None => {
                contenders.push(description);
                Ok(())
            }
        }
    }

    /// Remembers what the machine could do, beside what it could at other times of this run.
    pub fn add_calibration(&mut self, calibration: Calibration) {
        self.results.environment.calibrations.push(calibration);
    }

    /// The row of `cell`, made if there is none.
    pub fn row(&mut self, cell: &PlannedCell<'_>, data: DataKind, examples_per_epoch: usize) -> &mut Cell {
        let position = self.find(cell).unwrap_or_else(|| {
            let row = empty_row(cell, data, examples_per_epoch, &self.results.config);
            self.results.cells.push(row);
            self.results.cells.len() - 1
        });
        &mut self.results.cells[position]
    }

    /// Puts the rows in the order of `cells`, fills what follows from their processes and from the machine's peak, and writes
    /// the file.
    pub fn save(&mut self, cells: &[PlannedCell<'_>]) -> Result<(), ResultsError> {
        let place = |row: &Cell| cells.iter().position(|cell| is_row_of(row, cell)).unwrap_or(cells.len());
        self.results.cells.sort_by_key(place);
        dpsgd_report::figures::fill(&mut self.results);
        roofline::fill(&mut self.results);
        self.results.save(&self.file)
    }

    fn find(&self, cell: &PlannedCell<'_>) -> Option<usize> {
        self.results.cells.iter().position(|row| is_row_of(row, cell))
    }
}

/// Adds a measured process to its row; the first timeline is kept.
pub fn add_process(row: &mut Cell, (run, timeline): (ProcessRun, Option<Timeline>)) {
    row.processes.push(run);
    row.timeline = row.timeline.take().or(timeline);
}

/// Ends a row with a worker's failure; what was measured before stays in the file.
pub fn end(row: &mut Cell, error: &WorkerError) {
    row.status = error.status;
    row.reason = Some(error.reason.clone());
}

/// Ends the row of a contender whose step is not the right step.
pub fn disqualify(row: &mut Cell, verification: Verification) {
    row.status = Status::Disqualified;
    row.reason = verification.failure.clone();
    row.verification = Some(verification);
}

fn is_row_of(row: &Cell, cell: &PlannedCell<'_>) -> bool {
    row.workload == cell.workload.name
        && row.batch_size == cell.batch_size
        && row.mode == cell.mode
        && row.strategy == cell.contender.strategy
        && row.variant == cell.variant()
}

fn empty_row(cell: &PlannedCell<'_>, data: DataKind, examples_per_epoch: usize, config: &RunConfig) -> Cell {
    Cell {
        workload: cell.workload.name.clone(),
        data,
        batch_size: cell.batch_size,
        mode: cell.mode,
        strategy: cell.contender.strategy.clone(),
        variant: cell.variant(),
        same_program: cell.same_program.clone(),
        control_of: cell.control.then(|| cell.contender.name()),
        device: config.device.clone(),
        threads: cell.contender.threads(config.threads),
        status: Status::Ok,
        reason: None,
        log: None,
        verification: None,
        examples_per_epoch,
        warm_epoch_s: None,
        warm_ci95_s: None,
        warm_ci95_pooled: false,
        settled: None,
        warm_up_s: None,
        first_step_s: None,
        first_epoch_s: None,
        kernels: None,
        processes: Vec::new(),
        median_epoch_s: None,
        mean_epoch_s: None,
        examples_per_s: None,
        peak_rss_bytes: None,
        cpu_utilization: None,
        gpu_peak_bytes: None,
        gpu_utilization: None,
        energy_j: None,
        gpu_power_w: None,
        timeline: None,
        roofline_fraction: None,
        warnings: Vec::new(),
    }
}
