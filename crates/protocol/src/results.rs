//! The results file: `DIR/results.json`. Its JSON Schema is committed in `docs/results.schema.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dpsgd_core::{Description, Kernels, Mode, ModelSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Version of this file's format.
pub const SCHEMA_VERSION: u32 = 2;
/// The oldest version that can be read.
const OLDEST_VERSION: u64 = 1;

/// One run of the harness.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// [`SCHEMA_VERSION`] of the build that wrote it.
    pub schema_version: u32,
    /// The machine and the software.
    pub environment: Environment,
    /// What was asked for.
    pub config: RunConfig,
    /// One row per workload, batch size, mode, strategy and variant. Failed rows are rows too.
    pub cells: Vec<Cell>,
}

/// The machine and the software of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// When the run began, UTC, RFC 3339.
    pub started: String,
    /// Version of dpsgd-bench.
    pub version: String,
    /// Commit of the checkout, with `-dirty` if it was changed; `null` outside a checkout.
    pub commit: Option<String>,
    /// Operating system and kernel.
    pub os: String,
    /// Processor model.
    pub cpu: String,
    /// Logical processors that the run could use.
    pub cpus: usize,
    /// Instruction sets that matter to kernels, such as `avx512f`.
    pub cpu_features: Vec<String>,
    /// The logical processors that contenders were confined to, as the system numbers them.
    #[serde(default)]
    pub cpu_ids: Vec<usize>,
    /// What sets these processors' clocks, such as `performance`; `null` where the system does not say, as in a virtual
    /// machine.
    #[serde(default)]
    pub governor: Option<String>,
    /// Whether clocks may be raised above the nominal one; `null` where the system does not say.
    #[serde(default)]
    pub turbo: Option<bool>,
    /// Processors' worth of time that the control group allows; `null` for no limit.
    #[serde(default)]
    pub cpu_quota: Option<f64>,
    /// The variables that workers were given out of the user's environment, all but those that say whose it is.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// GPUs, by name.
    pub gpus: Vec<String>,
    /// Version of the GPUs' driver; `null` without one.
    #[serde(default)]
    pub gpu_driver: Option<String>,
    /// What each contender reported of itself.
    pub contenders: Vec<Description>,
    /// What the machine could do at most: measured before the first timed process and after the last, and again when the
    /// run is continued. Empty if that failed, on a GPU, and in files of before there was such a thing.
    #[serde(default)]
    pub calibrations: Vec<Calibration>,
}

impl Environment {
    /// The largest f32 operations per second of all calibrations; what else ran on the machine can only have made them
    /// smaller. `None` without a calibration.
    pub fn peak_flops_per_s(&self) -> Option<f64> {
        largest(self.calibrations.iter().map(|calibration| calibration.flops_per_s))
    }

    /// The largest bytes per second of all calibrations; `None` without one.
    pub fn peak_bytes_per_s(&self) -> Option<f64> {
        largest(self.calibrations.iter().map(|calibration| calibration.bytes_per_s))
    }
}

/// The largest of the figures that are positive and finite.
fn largest(figures: impl Iterator<Item = f64>) -> Option<f64> {
    figures.filter(|figure| figure.is_finite() && *figure > 0.0).max_by(f64::total_cmp)
}

/// What the threads of a run, on its processors, did at most when there was nothing else for them to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// When, UTC, RFC 3339.
    pub taken: String,
    /// Threads that worked at the same time, each with data of its own: as many as every contender gets.
    pub threads: usize,
    /// f32 operations per second of square matrix products, one per thread; the sum over threads, best of several
    /// repetitions. A multiplication and an addition count as one each.
    pub flops_per_s: f64,
    /// Rows and columns of the matrices with which that was reached, the best of several sizes.
    pub matrix_size: usize,
    /// Bytes per second between memory and processor: STREAM's triad `a = b + s c` in f32, twelve bytes for each number;
    /// the sum over threads, best of several repetitions.
    pub bytes_per_s: f64,
    /// Bytes of the triad's arrays together, of all threads: several times what the last-level caches hold.
    pub triad_bytes: u64,
}

/// What a run was asked to do, after the command line was applied to the config file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Workload names, in the order shown.
    pub workloads: Vec<String>,
    /// The model of each workload.
    pub models: Vec<ModelSpec>,
    /// The data set of each workload, by name.
    pub datasets: Vec<String>,
    /// The user's folder of full data sets.
    pub data: Option<PathBuf>,
    /// Contenders `strategy` or `strategy:variant`, in the order shown.
    pub contenders: Vec<String>,
    /// Batch sizes.
    pub batch_sizes: Vec<usize>,
    /// Private, plain or both.
    pub modes: Vec<Mode>,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Threads of every contender; a row whose contender has a limit of its own may have fewer.
    pub threads: usize,
    /// Fresh processes per cell whose warm epochs are timed, in alternation with those of the other contenders.
    pub processes: usize,
    /// Fresh processes per cell that run alone, for what is cold and for memory.
    #[serde(default)]
    pub cold_processes: usize,
    /// Epochs of a process that runs alone, and the fewest of one that does not.
    pub epochs: usize,
    /// Seconds of warm epochs, at least, of a process that is timed in alternation.
    #[serde(default)]
    pub seconds: f64,
    /// The contender that is measured twice, under two names, in every comparison; `null` for none.
    #[serde(default)]
    pub reference: Option<String>,
    /// At most this many examples per epoch; `null` for the whole data set.
    pub examples: Option<usize>,
    /// `sequential` or `shuffle`.
    pub schedule: String,
    /// Seed of initial parameters, synthetic data, schedules and the order of measurement; not of the noise.
    pub seed: u64,
    /// C.
    pub clip_norm: f64,
    /// sigma.
    pub noise_multiplier: f64,
    /// eta.
    pub learning_rate: f64,
    /// Seconds that one request to a worker may take.
    pub timeout_s: f64,
    /// Seconds that all processes of one row may take together; `null` for no limit.
    #[serde(default)]
    pub row_limit_s: Option<f64>,
}

/// Whether a data set is the real one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataKind {
    /// The published data, or a sample of it.
    Real,
    /// Generated, of the same shape.
    Synthetic,
}

/// How a cell ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Verified and measured.
    Ok,
    /// What it needs is missing, or the strategy can't do it.
    Unavailable,
    /// The worker crashed, answered garbage or reported a failure.
    Failed,
    /// A request took longer than allowed.
    Timeout,
    /// Memory ran out.
    OutOfMemory,
    /// The step is not the right step: its times don't count.
    Disqualified,
}

impl Status {
    /// The name used in results files, such as `out_of_memory`.
    pub fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Unavailable => "unavailable",
            Status::Failed => "failed",
            Status::Timeout => "timeout",
            Status::OutOfMemory => "out_of_memory",
            Status::Disqualified => "disqualified",
        }
    }
}

/// What the verification gate found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// Whether every check passed.
    pub passed: bool,
    /// The largest relative L2 error of an update against the float64 oracle; `null` if none could be computed.
    pub max_relative_error: Option<f64>,
    /// The largest error of an update, over all parameters or in one tensor, as a share of what rounding explains; above 1
    /// the update is wrong. `null` if none could be computed, and in files of before there was such a bound.
    #[serde(default)]
    pub error_over_allowed: Option<f64>,
    /// Whether the noise has the right distribution; `null` in non-private mode, which has none.
    pub noise_passed: Option<bool>,
    /// What failed first, with figures; `null` if nothing did.
    pub failure: Option<String>,
}

/// What the epochs of a process count for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Serves {
    /// It ran alone, from the cold: start, load, first step, first epoch, warm-up, the mean and the median over all
    /// epochs, memory.
    Cold,
    /// Its epochs were timed in alternation with those of the contenders that it is compared with: the warm epoch.
    Warm,
    /// Both, in files of before there were two kinds.
    #[default]
    Both,
}

/// The stretches in which a process was timed while the others of its comparison slept; lists of equal length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Turns {
    /// Seconds from `environment.started` to the begin of each.
    pub at_s: Vec<f64>,
    /// Epochs in each; they follow one another in `epochs_s`, after those that no turn has.
    pub epochs: Vec<usize>,
    /// The machine's load average over a minute, at the begin of each.
    pub load_average: Vec<f64>,
    /// Share of the processors' time that other machines on the same hardware took since the turn before, 0 to 1.
    pub steal: Vec<f64>,
}

/// What was checked of a process once its epochs had been timed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Checked {
    /// L2 distance of its parameters from the initial ones.
    pub moved: f64,
    /// The least and the most that so many steps can explain; `null` in plain mode, where nothing bounds a gradient.
    pub moved_bounds: Option<[f64; 2]>,
    /// Relative L2 difference between what one more epoch without noise did to the initial parameters and what it is
    /// meant to do; `null` if that was not checked.
    pub epoch_error: Option<f64>,
    /// By how much the worker's clock and the runner's differ over a second or more of epochs, as a share; `null` if that
    /// was not checked.
    pub clock_error: Option<f64>,
}

/// What one fresh process measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProcessRun {
    /// Round, from 0: warm processes of one round and one comparison are alive together. Cold ones count by themselves.
    pub round: usize,
    /// What its epochs count for.
    #[serde(default)]
    pub serves: Serves,
    /// When it was started, UTC, RFC 3339; empty in files of before.
    #[serde(default)]
    pub started: String,
    /// Which process of the run it was, in the order of their starts, from 0.
    #[serde(default)]
    pub position: usize,
    /// The machine's load average over a minute when it was started.
    #[serde(default)]
    pub load_average: Option<f64>,
    /// Share of the processors' time that other machines on the same hardware took while its epochs ran, 0 to 1.
    #[serde(default)]
    pub steal: Option<f64>,
    /// Index of the first epoch in steady state; `null` if its times never settled.
    #[serde(default)]
    pub warm_from: Option<usize>,
    /// When its epochs were timed, for a warm process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<Turns>,
    /// Share of one processor that it used while others were timed; `null` for a cold one.
    #[serde(default)]
    pub idle_cpu: Option<f64>,
    /// What was checked of it at its end; `null` in files of before, and if it was capped.
    #[serde(default)]
    pub checked: Option<Checked>,
    /// Seconds from spawning the process to its answer to `hello`.
    pub start_s: f64,
    /// Seconds to load model, parameters and data.
    pub load_s: f64,
    /// What of that went into kernels of the contender's own; missing if it makes none at load. A row's first
    /// process, and the first after a run was continued, finds an empty cache and compiles; the others read what it
    /// left. One that compiles may also say how long it took to read them back at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernels: Option<Kernels>,
    /// Seconds of the first step; `null` where an epoch is one program.
    pub first_step_s: Option<f64>,
    /// Seconds of every epoch, the first included.
    pub epochs_s: Vec<f64>,
    /// Peak resident bytes (`VmHWM`) of the worker.
    pub peak_rss_bytes: Option<u64>,
    /// CPU time over wall time and threads while epochs ran; 1 is all threads busy.
    pub cpu_utilization: Option<f64>,
    /// Peak GPU bytes of the process, or of the device above its level before the worker where NVML hides processes.
    pub gpu_peak_bytes: Option<u64>,
    /// Mean share of time in which the GPU was busy in the metered window, 0 to 1.
    pub gpu_utilization: Option<f64>,
    /// GPU energy per epoch in joules, in the metered window.
    pub energy_j: Option<f64>,
    /// The GPU in detail; `null` without one.
    #[serde(default)]
    pub gpu: Option<GpuUse>,
    /// Examples left out for a NaN or an infinity in their gradient.
    pub non_finite_examples: u64,
    /// Whether the row's time limit ended it before all its epochs; those that were whole are kept.
    #[serde(default)]
    pub capped: bool,
}

/// What a process did to the GPU, by NVML.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GpuUse {
    /// Peak bytes of the process, as the driver accounts for it; `null` where NVML hides processes, as in a container.
    pub process_peak_bytes: Option<u64>,
    /// Peak bytes in use on the device above its level before the worker, whoever used them.
    pub device_peak_bytes: Option<u64>,
    /// The window that utilization, power and energy are of; `null` if this process had none.
    pub window: Option<GpuWindow>,
}

/// Further epochs, after the timed ones and without a pause, long enough for a GPU's counters to tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GpuWindow {
    /// How long it was, in seconds.
    pub seconds: f64,
    /// How many epochs ran in it.
    pub epochs: usize,
    /// Mean watts.
    pub power_w: Option<f64>,
    /// Why the driver held the clocks down, and in which share of the looks, 0 to 1.
    pub throttled: BTreeMap<String, f64>,
}

/// What a process used over time, look by look; lists of equal length, those of a GPU empty without one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timeline {
    /// Seconds since the worker's answer to `hello`.
    pub at_s: Vec<f64>,
    /// When model, parameters and data were loaded, and the epochs began.
    pub loaded_at_s: f64,
    /// When the timed epochs were over; what follows is for the GPU's meter.
    pub timed_until_s: f64,
    /// Resident bytes of the process and its descendants.
    pub rss_bytes: Vec<u64>,
    /// CPU time over wall time and threads since the look before; 0 at the first.
    pub cpu_utilization: Vec<f64>,
    /// Bytes on the GPU, as in `gpu_peak_bytes`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpu_bytes: Vec<u64>,
    /// Share of time in which the GPU was busy, 0 to 1, over the driver's sampling period.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpu_utilization: Vec<f64>,
    /// Watts of the GPU.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpu_power_w: Vec<f64>,
}

/// One row: a contender on a workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Workload name.
    pub workload: String,
    /// Whether its data is real.
    pub data: DataKind,
    /// Examples per step.
    pub batch_size: usize,
    /// Private or plain.
    pub mode: Mode,
    /// Strategy name.
    pub strategy: String,
    /// Variant of the strategy.
    pub variant: Option<String>,
    /// Other contenders that are the same program here, and whose row this is too.
    #[serde(default)]
    pub same_program: Vec<String>,
    /// The contender of which this is a second measurement under another name: what the two differ by is noise.
    #[serde(default)]
    pub control_of: Option<String>,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Threads given to it.
    pub threads: usize,
    /// How the cell ended.
    pub status: Status,
    /// Why, if not `ok`; names what would fix it.
    pub reason: Option<String>,
    /// The worker's stderr, relative to the results file; `null` if no worker started.
    pub log: Option<PathBuf>,
    /// What the verification gate found; `null` if it did not get that far.
    pub verification: Option<Verification>,
    /// Examples in one epoch.
    pub examples_per_epoch: usize,
    /// Seconds of a warm epoch: the geometric mean over processes of the median of each one's epochs from its steady state
    /// on (all but its first, where it has none); warm processes, or where there is none, all.
    #[serde(default)]
    pub warm_epoch_s: Option<f64>,
    /// 95% interval of it, by Student's t on logarithms; `null` with fewer than four processes.
    #[serde(default)]
    pub warm_ci95_s: Option<[f64; 2]>,
    /// Whether the variance behind the interval is pooled over the rows of the same strategy, as the row has fewer than
    /// ten processes.
    #[serde(default)]
    pub warm_ci95_pooled: bool,
    /// How many of its processes settled, and how many it has; `null` without a process.
    #[serde(default)]
    pub settled: Option<[usize; 2]>,
    /// Seconds by which the epochs before steady state exceed the process's figure, summed; median over the cold
    /// processes that settled; `null` if none did.
    pub warm_up_s: Option<f64>,
    /// Seconds of a process's first step, median over cold processes.
    pub first_step_s: Option<f64>,
    /// Seconds of a process's first epoch, median over cold processes.
    pub first_epoch_s: Option<f64>,
    /// Seconds to have kernels of the contender's own: compiled, the median over the processes that compiled; from
    /// the cache, the median over those that did not, or where all did, over what these took to read them back.
    /// Missing if it makes none at load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernels: Option<Kernels>,
    /// Every raw measurement.
    pub processes: Vec<ProcessRun>,
    /// Median over all epochs of all cold processes, the first included, as in the talk.
    pub median_epoch_s: Option<f64>,
    /// Mean over the same, as in the talk.
    pub mean_epoch_s: Option<f64>,
    /// `examples_per_epoch` over `warm_epoch_s`.
    pub examples_per_s: Option<f64>,
    /// Largest over cold processes, which have the allocator's own settings.
    pub peak_rss_bytes: Option<u64>,
    /// Median over processes.
    pub cpu_utilization: Option<f64>,
    /// Largest over processes.
    pub gpu_peak_bytes: Option<u64>,
    /// Median over processes.
    pub gpu_utilization: Option<f64>,
    /// Joules per epoch, median over processes.
    pub energy_j: Option<f64>,
    /// Watts of the GPU, median over processes.
    #[serde(default)]
    pub gpu_power_w: Option<f64>,
    /// Use over time of the row's first process; `null` if it did not get that far.
    #[serde(default)]
    pub timeline: Option<Timeline>,
    /// FLOPs of the plain step, in private mode too, times steps per epoch over `warm_epoch_s` and the largest
    /// `flops_per_s` of `environment.calibrations`; `null` without a calibration, and on a GPU.
    pub roofline_fraction: Option<f64>,
    /// What a reader should know before trusting the figure: spread, outliers, drift.
    pub warnings: Vec<String>,
}

impl Cell {
    /// `strategy` or `strategy:variant`: the name under which the contender is shown.
    pub fn contender(&self) -> String {
        contender_name(&self.strategy, self.variant.as_deref())
    }

    /// Whether this is the row of the contender of this name, be it as the same program under another name.
    pub fn is_of(&self, contender: &str) -> bool {
        self.contender() == contender || self.same_program.iter().any(|name| name == contender)
    }
}

/// `strategy` or `strategy:variant`.
pub fn contender_name(strategy: &str, variant: Option<&str>) -> String {
    match variant {
        Some(variant) => format!("{strategy}:{variant}"),
        None => strategy.to_string(),
    }
}

/// A results file that can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ResultsError {
    /// The file.
    pub path: String,
    /// What went wrong and what to do.
    pub reason: String,
}

impl Results {
    /// Reads a results file; another schema version is named before anything else is judged.
    pub fn load(path: &Path) -> Result<Self, ResultsError> {
        let failed = |reason: String| ResultsError { path: path.display().to_string(), reason };
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        let mut value: serde_json::Value = serde_json::from_str(&text).map_err(|e| failed(e.to_string()))?;
        match value.get("schema_version").and_then(serde_json::Value::as_u64) {
            Some(version) if (OLDEST_VERSION..=u64::from(SCHEMA_VERSION)).contains(&version) => {
                if version == 1 {
                    leave_out_what_version_1_had(&mut value);
                }
            }
            Some(version) => {
                let (reads, fix) = (SCHEMA_VERSION, "run the dpsgd-bench that wrote it, or measure again");
                let reason = format!("schema_version = {version}: this build reads {OLDEST_VERSION} to {reads}; {fix}");
                return Err(failed(reason));
            }
            None => return Err(failed("no schema_version: not a results file".into())),
        }
        serde_json::from_value(value).map_err(|e| failed(e.to_string()))
    }

    /// Writes the file whole or not at all: to a neighbour first, synced, then renamed over.
    pub fn save(&self, path: &Path) -> Result<(), ResultsError> {
        let failed = |e: std::io::Error| ResultsError { path: path.display().to_string(), reason: e.to_string() };
        let mut text = numbers_in_lines(&serde_json::to_string_pretty(self).expect("results are plain data"));
        text.push('\n');
        write_whole(path, text.as_bytes()).map_err(failed)
    }

    /// The JSON Schema of this file.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Results).to_value()
    }
}

/// Pretty JSON with every list of numbers in one line: there may be a million times of epochs in a file.
fn numbers_in_lines(pretty: &str) -> String {
    let mut text = String::with_capacity(pretty.len());
    let mut rest = pretty;
    while let Some(position) = rest.find(['[', '"']) {
        let (before, from) = rest.split_at(position);
        text.push_str(before);
        let is_of_numbers = |c: char| c.is_ascii_digit() || c.is_ascii_whitespace() || "+-.eE,".contains(c);
        rest = match from.strip_prefix('"') {
            // A string is as it is, up to the quotation mark that ends it.
            Some(string) => {
                let mut escaped = false;
                let closes = |c: char| {
                    let closes = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    closes
                };
                let (string, rest) = from.split_at(1 + string.find(closes).expect("a string ends") + 1);
                text.push_str(string);
                rest
            }
            None => {
                text.push('[');
                let list = &from[1..];
                match list.find(|c: char| !is_of_numbers(c)) {
                    Some(length) if list[length..].starts_with(']') => {
                        let numbers: Vec<&str> = list[..length].split(',').map(str::trim).collect();
                        text.push_str(&numbers.join(", "));
                        &list[length..]
                    }
                    _ => list,
                }
            }
        };
    }
    text + rest
}

/// The interval of version 1 resampled epochs as if a first one were any other, and was far too narrow over processes:
/// nothing shows it any more.
fn leave_out_what_version_1_had(results: &mut serde_json::Value) {
    let cells = results.get_mut("cells").and_then(serde_json::Value::as_array_mut);
    for cell in cells.into_iter().flatten().filter_map(serde_json::Value::as_object_mut) {
        cell.remove("median_ci95_s");
    }
}

/// Writes a file whole or not at all, by way of a neighbour `<name>.partial`; what was there stays if it fails, and
/// nothing else is left.
pub fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let write = || {
        let mut file = std::fs::File::create(&partial)?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    write().inspect_err(|_| drop(std::fs::remove_file(&partial)))?;
    // The new name is on the disk when the folder is. The file is written: a file system that can't sync folders is no
    // reason to end a run.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let _ = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers_are_one_line_and_nothing_else_is_changed() {
        let value = serde_json::json!({
            "a": [1.5e-7, -2, 3], "b": [[1, 2], [3]], "c": ["[1,\n 2]", "\\\"[", "x"], "d": [], "e": [null, 1], "f": [{"g": 1}]
        });
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        let shown = numbers_in_lines(&pretty);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert!(shown.contains("\"a\": [1.5e-7, -2, 3]") && shown.contains("    [1, 2],"), "{shown}");
        assert!(shown.lines().count() < pretty.lines().count());
    }

    #[test]
    fn a_write_that_fails_leaves_what_was_there_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("results.json");
        write_whole(&path, b"first").unwrap();
        write_whole(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        // A folder of that name can't be replaced by a file.
        let folder = scratch.path().join("folder.json");
        std::fs::create_dir(&folder).unwrap();
        write_whole(&folder, b"third").unwrap_err();
        let mut left: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["folder.json", "results.json"]);
    }
}
