//! A run: prepare, verify, measure, and keep the results file up to date all the while.
//!
//! A replicate is a process. What is cold, and memory, is measured in fresh processes that run [`alone`]. What is warm is
//! measured in rounds of fresh processes: those that are compared with each other are alive [`together`], and their epochs
//! alternate in short turns, so that a slow second of the machine hits all of them alike.

mod alone;
pub mod bench;
mod checks;
pub mod environment;
mod metered;
pub mod plan;
mod process;
pub mod progress;
mod roofline;
mod rows;
mod together;
mod turns;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use dpsgd_core::{Description, Device, Mode, Settings};
use dpsgd_protocol::results::{
    Cell, DataKind, Environment, ProcessRun, Results, ResultsError, Serves, Timeline, Verification,
};

use crate::calibrate::{CalibrationError, calibrate};
use crate::config::Workload;
use crate::prepare::{self, DATASET_FILE, PARAMS_FILE, PrepareError, PreparedData};
use crate::registry::Contender;
use crate::session::{self, failed};
use crate::verify::Verdict;
use crate::worker::{Allocator, Launch, WorkerError};
use alone::Alone;
use bench::{Bench, cache_variables, cpus, log_file};
use checks::ExpectedEpoch;
use plan::PlannedCell;
use process::Job;
use progress::Progress;
use rows::{ResumeError, Rows};
use turns::Work;

/// A run that could not go on; what it measured is kept.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A folder or file of the run can't be written.
    #[error("{path}: {reason}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What went wrong.
        reason: std::io::Error,
    },
    /// The results file can't be written.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// The run in the folder is not this one.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// Data, parameters or reference values can't be prepared.
    #[error("workload `{workload}`: {error}")]
    Prepare {
        /// The workload.
        workload: String,
        /// Why.
        error: PrepareError,
    },
    /// A contender is not what it was when the run began.
    #[error("contender `{contender}` is now {now}, the rows measured so far used {then}; begin a new run")]
    Changed {
        /// The contender.
        contender: String,
        /// Versions and device as first reported.
        then: String,
        /// Versions and device now.
        now: String,
    },
    /// The user stopped it.
    #[error("stopped; what was measured is in {0}")]
    Interrupted(PathBuf),
}

/// One run in one folder.
pub struct Run<'a> {
    bench: Bench<'a>,
    cells: Vec<PlannedCell<'a>>,
    folder: PathBuf,
    is_new: bool,
    rows: Rows,
    prepared: HashMap<&'a str, PreparedData>,
    verified: HashMap<(&'a str, String, Mode), Verification>,
    /// What contenders said of themselves in the gate, by name.
    described: HashMap<String, Description>,
    /// What an epoch without noise comes to, by the name of a cell's files.
    expected: HashMap<String, ExpectedEpoch>,
    /// Processes started so far.
    started: AtomicUsize,
    began: Instant,
}

/// Where a cell's processes find and leave what they need.
struct CellFiles {
    /// Of all of them, without an ending.
    name: String,
    /// Within the run's folder.
    log: PathBuf,
    folder: PathBuf,
    kernels: PathBuf,
    params: PathBuf,
    dataset: PathBuf,
}

/// Share of the memory that is free which processes that are alive together may take.
const ROOM: f64 = 0.7;

/// Bytes that processes that are alive together may take; without limit where the system does not say what it has.
fn room() -> u64 {
    dpsgd_meter::available_memory().map_or(u64::MAX, |bytes| (bytes as f64 * ROOM) as u64)
}

impl<'a> Run<'a> {
    /// Begins a run in `folder`, or continues the one there.
    pub fn new(bench: Bench<'a>, environment: Environment, folder: &Path, resume: bool) -> Result<Self, RunError> {
        let folder = std::path::absolute(folder).map_err(|reason| RunError::File { path: folder.into(), reason })?;
        let is_new = !folder.exists();
        create(&folder.join("logs"))?;
        create(&folder.join("work"))?;
        let run_config = bench.config.to_run_config();
        let rows = match resume {
            true => Rows::resume(&folder, &environment, &run_config)?,
            false => Rows::begin(&folder, environment, run_config),
        };
        let cells = plan::cells(bench.config, &rows.results().environment.cpu_features);
        Ok(Run {
            bench,
            cells,
            folder,
            is_new,
            rows,
            prepared: HashMap::new(),
            verified: HashMap::new(),
            described: HashMap::new(),
            expected: HashMap::new(),
            started: AtomicUsize::new(0),
            began: Instant::now(),
        })
    }

    /// Prepares, verifies and measures all that is not measured yet.
    pub fn carry_out(mut self) -> Result<Results, RunError> {
        let outcome = self.prepare().and_then(|()| {
            // From here on there is something for --resume to continue.
            self.rows.save(&self.cells)?;
            self.verify()?;
            self.measure()
        });
        // Data and reference values can be made again from the seed; only results and logs are worth keeping.
        let _ = std::fs::remove_dir_all(self.folder.join("work"));
        if matches!(outcome, Err(RunError::Prepare { .. })) {
            // Bad data or a bad batch size: leave nothing behind that was not there. Only empty folders go.
            let _ = std::fs::remove_dir(self.folder.join("logs"));
            if self.is_new {
                let _ = std::fs::remove_dir(&self.folder);
            }
        }
        outcome.map(|()| self.rows.results().clone())
    }

    fn is_pending(&self, cell: &PlannedCell<'_>) -> bool {
        self.missing(cell) > 0
    }

    fn workload_folder(&self, workload: &Workload) -> PathBuf {
        self.folder.join("work").join(&workload.name)
    }

    /// The pending cells of one workload, and of one contender if one is named.
    fn pending(&self, workload: &Workload, contender: Option<&Contender>) -> Vec<PlannedCell<'a>> {
        let wanted = |cell: &&PlannedCell<'a>| {
            cell.workload == workload
                && contender.is_none_or(|contender| cell.contender == contender)
                && self.is_pending(cell)
        };
        self.cells.iter().filter(wanted).cloned().collect()
    }

    fn prepare(&mut self) -> Result<(), RunError> {
        let config = self.bench.config;
        for workload in &config.workloads {
            if self.pending(workload, None).is_empty() {
                continue;
            }
            let out = self.workload_folder(workload);
            create(&out)?;
            let prepared = self.bench.data(workload, config.epochs, &out);
            let prepared = prepared.map_err(|error| RunError::prepare(workload, error))?;
            let kind = if prepared.real { "real" } else { "synthetic" };
            eprintln!("{}: {} examples, {kind}: {}", workload.name, prepared.examples, prepared.source);
            prepared.warnings.iter().for_each(|warning| eprintln!("{}: warning: {warning}", workload.name));
            self.prepared.insert(&workload.name, prepared);
        }
        Ok(())
    }

    fn verify(&mut self) -> Result<(), RunError> {
        let config = self.bench.config;
        let is_pending = |run: &Self, workload, contender| !run.pending(workload, Some(contender)).is_empty();
        let pairs = config.workloads.iter().flat_map(|w| config.contenders.iter().map(move |c| (w, c)));
        let mut progress = Progress::new(pairs.filter(|(w, c)| is_pending(self, w, c)).count() as u64);
        for workload in &config.workloads {
            let log = |contender: &Contender| log_file(&["verify", &workload.name, &contender.name()]);
            let mut ready = Vec::new();
            for contender in &config.contenders {
                if !is_pending(self, workload, contender) {
                    continue;
                }
                // The right answers take longer to compute than it takes to see that nobody will give any.
                match self.bench.launch(contender, self.folder.join(log(contender))) {
                    Ok(launch) => ready.push((contender, launch.log)),
                    Err(error) => self.take_verdict(workload, contender, Err(error), &log(contender), &mut progress)?,
                }
            }
            if ready.is_empty() {
                continue;
            }
            let folder = self.workload_folder(workload).join("reference");
            create(&folder)?;
            let reference = prepare::reference(&workload.model, config.seed, &config.batch_sizes, &folder);
            let reference = reference.map_err(|error| RunError::prepare(workload, error))?;
            progress.now(&format!("verifying {} contenders on {}", ready.len(), workload.name));
            let bench = self.bench;
            bench.verify(workload, &ready, &reference, &folder, |contender, verdict| {
                self.take_verdict(workload, contender, verdict, &log(contender), &mut progress)
            })?;
        }
        progress.finish();
        self.rows.save(&self.cells).map_err(RunError::from)
    }

    fn take_verdict(
        &mut self,
        workload: &'a Workload,
        contender: &'a Contender,
        verdict: Result<Verdict, WorkerError>,
        log: &Path,
        progress: &mut Progress,
    ) -> Result<(), RunError> {
        let line = match &verdict {
            Ok(verdict) => verdict.to_string(),
            Err(error) => error.reason.clone(),
        };
        progress.line(&format!("{}: {}: {line}", workload.name, contender.name()));
        progress.advance(1);
        let cells = self.pending(workload, Some(contender));
        // There is none if no worker started.
        let log = self.folder.join(log).exists().then(|| log.to_path_buf());
        match verdict {
            Err(error) if error.interrupted => return Err(self.interrupted()),
            Err(error) => {
                for cell in cells {
                    let row = self.row(&cell);
                    rows::end(row, &error);
                    row.log.clone_from(&log);
                }
            }
            Ok(verdict) => {
                for cell in &cells {
                    if let Some(error) = verdict.unchecked_at(cell.batch_size) {
                        let row = self.row(cell);
                        rows::end(row, error);
                        row.log.clone_from(&log);
                    }
                }
                let now = verdict.description;
                if let Err(then) = self.rows.describe(now.clone()) {
                    return Err(RunError::changed(contender, &then, &now));
                }
                self.described.insert(contender.name(), now);
                for (mode, verification) in verdict.modes {
                    for cell in cells.iter().filter(|cell| cell.mode == mode && !verification.passed) {
                        let row = self.row(cell);
                        rows::disqualify(row, verification.clone());
                        row.log.clone_from(&log);
                    }
                    self.verified.insert((&workload.name, contender.name(), mode), verification);
                }
            }
        }
        Ok(())
    }

    /// Measures what is missing: first every row's processes that run alone, which also say how much memory it takes, then
    /// rounds in which the rows that are compared are alive together.
    fn measure(&mut self) -> Result<(), RunError> {
        let (config, cells) = (self.bench.config, self.cells.clone());
        let missing: usize = cells.iter().map(|cell| self.missing(cell)).sum();
        let mut progress = Progress::new(missing as u64);
        if missing > 0 {
            self.empty_kernel_caches()?;
            self.calibrate(&mut progress)?;
        }
        for round in 0..config.cold_processes {
            for position in plan::order_of_round(cells.len(), config.seed, 0, round) {
                let cell = &cells[position];
                if self.is_pending(cell) && !self.rows.has(cell, Serves::Cold, round) && !cell.control {
                    progress.now(&format!("alone, {} of {}: {cell}", round + 1, config.cold_processes));
                    self.measure_alone(cell, round, &mut progress)?;
                }
            }
        }
        let comparisons = plan::comparisons(&cells);
        for round in 0..config.processes {
            for number in plan::order_of_round(comparisons.len(), config.seed, 1, round) {
                let is_missing =
                    |cell: &&PlannedCell<'a>| self.is_pending(cell) && !self.rows.has(cell, Serves::Warm, round);
                let members: Vec<PlannedCell<'a>> =
                    comparisons[number].iter().map(|position| &cells[*position]).filter(is_missing).cloned().collect();
                let memory: Vec<u64> = members.iter().map(|cell| self.rows.memory(cell)).collect();
                for group in plan::groups(&memory, room()) {
                    let group: Vec<PlannedCell<'a>> = group.iter().map(|member| members[*member].clone()).collect();
                    let (of, rounds) = (&group[0], config.processes);
                    let size = group.len();
                    progress.now(&format!(
                        "round {} of {rounds}: {}, batch {}: {size} processes in turns",
                        round + 1,
                        of.workload.name,
                        of.batch_size
                    ));
                    let stream = 2 + number as u64 * 2_000 + round as u64;
                    self.measure_together(&group, round, stream, &mut progress)?;
                }
            }
        }
        if missing > 0 {
            self.calibrate(&mut progress)?;
        }
        progress.finish();
        Ok(())
    }

    /// Removes what a run that was killed may have left: the first process of each row in this run is to find nothing.
    fn empty_kernel_caches(&self) -> Result<(), RunError> {
        for workload in &self.bench.config.workloads {
            let caches = self.kernel_caches(workload);
            match std::fs::remove_dir_all(&caches) {
                Err(reason) if reason.kind() != ErrorKind::NotFound => {
                    return Err(RunError::File { path: caches, reason });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The folder of the caches of machine code, one for each row of a workload.
    fn kernel_caches(&self, workload: &Workload) -> PathBuf {
        self.workload_folder(workload).join("kernels")
    }

    /// Measures the machine's peak. Done before the first process and after the last, because the machine may be slower
    /// for a while; the larger counts.
    fn calibrate(&mut self, progress: &mut Progress) -> Result<(), RunError> {
        let config = self.bench.config;
        if config.device != Device::Cpu {
            return Ok(());
        }
        progress.now("measuring the machine's peak");
        match calibrate(&cpus(config.threads), config.threads, self.bench.guard) {
            Ok(calibration) => {
                let (flops, bytes) = (calibration.flops_per_s / 1e9, calibration.bytes_per_s / 1e9);
                progress.line(&format!("the machine's peak: {flops:.1} GFLOP/s, {bytes:.1} GB/s"));
                self.rows.add_calibration(calibration);
            }
            Err(CalibrationError::Interrupted) => return Err(self.interrupted()),
            Err(CalibrationError::Failed(reason)) => progress.line(&format!(
                "warning: the machine's peak was not measured ({reason}): rows get no roofline_fraction from it"
            )),
        }
        self.rows.save(&self.cells).map_err(RunError::from)
    }

    /// What a process of `cell` is to do, and how to start it.
    fn job<'j>(
        &'j self,
        cell: &'j PlannedCell<'a>,
        files: &'j CellFiles,
        settings: &'j Settings,
        (serves, round): (Serves, usize),
    ) -> Result<(Job<'j>, Launch), WorkerError> {
        let config = self.bench.config;
        let mut launch = self.bench.launch(cell.contender, self.folder.join(&files.log))?;
        if serves == Serves::Cold {
            launch.allocator = Allocator::Default;
        }
        launch.env.extend(cache_variables(&files.kernels).map_err(failed)?);
        let prepared = &self.prepared[cell.workload.name.as_str()];
        let processes = (config.processes + config.cold_processes) as u32;
        let job = Job {
            strategy: &cell.contender.strategy,
            load: session::Job {
                model: &cell.workload.model,
                params: &files.params,
                dataset: &files.dataset,
                data_sha256: &prepared.data_sha256,
                dp: config.dp(cell.mode, cell.batch_size),
                settings,
            },
            schedules: &prepared.schedules[&cell.batch_size],
            work: prepared.work(cell.batch_size),
            round,
            serves,
            position: self.started.fetch_add(1, Ordering::Relaxed),
            timeout: config.timeout,
            limit: config.row_limit.map(|limit| limit / processes),
            described: self.described.get(&cell.contender.name()),
            expected: self.expected.get(&files.name).cloned(),
            answers: files
                .folder
                .join(format!("after-{}-{round}.safetensors", cell.name().replace([':', ' ', '/'], "-"))),
        };
        Ok((job, launch))
    }

    fn measure_alone(&mut self, cell: &PlannedCell<'a>, round: usize, progress: &mut Progress) -> Result<(), RunError> {
        let (files, settings) = (self.files(cell), self.bench.settings(cell.contender));
        let measured = self
            .job(cell, &files, &settings, (Serves::Cold, round))
            .and_then(|(job, launch)| alone::measure(job, self.bench.config.epochs, &launch, self.bench.guard));
        let measured = measured.map(|Alone { run, timeline, expected }| {
            if let Some(expected) = expected {
                self.expected.insert(files.name.clone(), expected);
            }
            (run, Some(timeline))
        });
        self.take_process(cell, measured, &files.log, progress)?;
        self.rows.save(&self.cells).map_err(RunError::from)
    }

    fn measure_together(
        &mut self,
        group: &[PlannedCell<'a>],
        round: usize,
        stream: u64,
        progress: &mut Progress,
    ) -> Result<(), RunError> {
        let config = self.bench.config;
        let of_cell = |cell: &PlannedCell<'a>| (self.files(cell), self.bench.settings(cell.contender));
        let given: Vec<(CellFiles, Settings)> = group.iter().map(of_cell).collect();
        let jobs: Vec<Result<(Job<'_>, Launch), WorkerError>> = group
            .iter()
            .zip(&given)
            .map(|(cell, (files, settings))| self.job(cell, files, settings, (Serves::Warm, round)))
            .collect();
        let how = together::Round {
            work: Work { seconds: config.seconds, epochs: config.epochs },
            seed: config.seed,
            stream,
            run_began: self.began,
        };
        let (mut ready, mut outcomes) = (Vec::new(), Vec::new());
        for (member, job) in jobs.into_iter().enumerate() {
            match job {
                Ok(job) => ready.push((member, job)),
                Err(error) => outcomes.push((member, Err(error))),
            }
        }
        let (members, jobs): (Vec<usize>, Vec<(Job<'_>, Launch)>) = ready.into_iter().unzip();
        outcomes.extend(members.into_iter().zip(together::measure(jobs, &how, self.bench.guard)));
        outcomes.sort_by_key(|(member, _)| *member);
        // All or nothing: processes that were not alive together are no pairs.
        if outcomes.iter().any(|(_, outcome)| outcome.as_ref().is_err_and(|error| error.interrupted)) {
            return Err(self.interrupted());
        }
        for (member, measured) in outcomes {
            let log = given[member].0.log.clone();
            self.take_process(&group[member], measured.map(|run| (run, None)), &log, progress)?;
        }
        self.rows.save(&self.cells).map_err(RunError::from)
    }

    fn take_process(
        &mut self,
        cell: &PlannedCell<'a>,
        measured: Result<(ProcessRun, Option<Timeline>), WorkerError>,
        log: &Path,
        progress: &mut Progress,
    ) -> Result<(), RunError> {
        if measured.as_ref().is_err_and(|error| error.interrupted) {
            return Err(self.interrupted());
        }
        progress.advance(1);
        let key = (cell.workload.name.as_str(), cell.contender.name(), cell.mode);
        let verification = self.verified.get(&key).cloned();
        let row = self.row(cell);
        row.log = Some(log.to_path_buf());
        row.verification = verification;
        match measured {
            Ok(measured) => rows::add_process(row, measured),
            Err(error) => {
                rows::end(row, &error);
                progress.line(&format!("{cell}: {}", error.reason));
            }
        }
        Ok(())
    }

    /// The files of a cell's processes.
    fn files(&self, cell: &PlannedCell<'a>) -> CellFiles {
        let folder = self.workload_folder(cell.workload);
        let (batch_size, contender) = (cell.batch_size.to_string(), cell.contender.name());
        let log = log_file(&[&cell.workload.name, &batch_size, cell.mode.name(), &contender]);
        let name = log.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        CellFiles {
            log,
            kernels: self.kernel_caches(cell.workload).join(&name),
            params: folder.join(PARAMS_FILE),
            dataset: folder.join(DATASET_FILE),
            folder,
            name,
        }
    }

    /// How many processes of `cell` are still to be measured.
    fn missing(&self, cell: &PlannedCell<'_>) -> usize {
        let config = self.bench.config;
        let cold = if cell.control { 0 } else { config.cold_processes };
        let of = |serves, wanted| (0..wanted).filter(|round| !self.rows.has(cell, serves, *round)).count();
        if self.rows.is_out(cell) { 0 } else { of(Serves::Cold, cold) + of(Serves::Warm, config.processes) }
    }

    fn row(&mut self, cell: &PlannedCell<'a>) -> &mut Cell {
        let prepared = &self.prepared[cell.workload.name.as_str()];
        let data = if prepared.real { DataKind::Real } else { DataKind::Synthetic };
        let (_, examples_per_epoch) = prepared.work(cell.batch_size);
        self.rows.row(cell, data, examples_per_epoch as usize)
    }

    fn interrupted(&self) -> RunError {
        RunError::Interrupted(self.folder.clone())
    }
}

fn create(folder: &Path) -> Result<(), RunError> {
    std::fs::create_dir_all(folder).map_err(|reason| RunError::File { path: folder.into(), reason })
}

impl RunError {
    fn prepare(workload: &Workload, error: PrepareError) -> Self {
        RunError::Prepare { workload: workload.name.clone(), error }
    }

    fn changed(contender: &Contender, then: &Description, now: &Description) -> Self {
        let show = |description: &Description| format!("{:?} on {}", description.versions, description.device);
        RunError::Changed { contender: contender.name(), then: show(then), now: show(now) }
    }
}
