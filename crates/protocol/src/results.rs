//! The results file: `DIR/results.json`. Its JSON Schema is committed in `docs/results.schema.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dpsgd_core::{Description, Kernels, Mode, ModelSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Version of this file's format.
pub const SCHEMA_VERSION: u32 = 1;

/// One run of the harness.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// [`SCHEMA_VERSION`].
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
    /// Fresh processes per cell.
    pub processes: usize,
    /// Epochs per process.
    pub epochs: usize,
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
    /// Whether the noise has the right distribution; `null` in non-private mode, which has none.
    pub noise_passed: Option<bool>,
    /// What failed first, with figures; `null` if nothing did.
    pub failure: Option<String>,
}

/// What one fresh process measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProcessRun {
    /// Round of the interleaved order, from 0.
    pub round: usize,
    /// Seconds from spawning the process to its answer to `hello`.
    pub start_s: f64,
    /// Seconds to load model, parameters and data.
    pub load_s: f64,
    /// What of that went into kernels of the contender's own; missing if it makes none at load. A row's first
    /// process, and the first after a run was continued, finds an empty cache and compiles; the others read what it
    /// left. One that compiles may also say how long it took to read them back at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernels: Option<Kernels>,
    /// Seconds of the first step.
    pub first_step_s: f64,
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
    /// Seconds by which the epochs before steady state exceed the steady median, median over processes; `null` if the
    /// times never settled.
    pub warm_up_s: Option<f64>,
    /// Seconds of a process's first step, median over processes.
    pub first_step_s: Option<f64>,
    /// Seconds of a process's first epoch, median over processes.
    pub first_epoch_s: Option<f64>,
    /// Seconds to have kernels of the contender's own: compiled, the median over the processes that compiled; from
    /// the cache, the median over those that did not, or where all did, over what these took to read them back.
    /// Missing if it makes none at load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernels: Option<Kernels>,
    /// Every raw measurement.
    pub processes: Vec<ProcessRun>,
    /// Median over all epochs of all processes.
    pub median_epoch_s: Option<f64>,
    /// 95% bootstrap interval of the median, resampled over processes.
    pub median_ci95_s: Option<[f64; 2]>,
    /// Mean over all epochs, the first included.
    pub mean_epoch_s: Option<f64>,
    /// `examples_per_epoch` over `median_epoch_s`.
    pub examples_per_s: Option<f64>,
    /// Largest over processes.
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
    /// FLOPs of the plain step, in private mode too, times steps per epoch over `median_epoch_s` and the largest
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
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| failed(e.to_string()))?;
        match value.get("schema_version").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(SCHEMA_VERSION) => {}
            Some(version) => {
                let fix = "run the dpsgd-bench that wrote it, or measure again";
                return Err(failed(format!("schema_version = {version}: this build reads {SCHEMA_VERSION}; {fix}")));
            }
            None => return Err(failed("no schema_version: not a results file".into())),
        }
        serde_json::from_value(value).map_err(|e| failed(e.to_string()))
    }

    /// Writes the file whole or not at all: to a neighbour first, synced, then renamed over.
    pub fn save(&self, path: &Path) -> Result<(), ResultsError> {
        let failed = |e: std::io::Error| ResultsError { path: path.display().to_string(), reason: e.to_string() };
        let mut text = serde_json::to_string_pretty(self).expect("results are plain data");
        text.push('\n');
        write_whole(path, text.as_bytes()).map_err(failed)
    }

    /// The JSON Schema of this file.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Results).to_value()
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
