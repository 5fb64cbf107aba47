//! What every contender of a workload is given: data, initial parameters, batches, and the gate's cases with their
//! expected updates.
//!
//! Preparing can take hundreds of megabytes (a whole data set, float64 gradients of a million parameters), so it runs
//! in a process of its own: this executable again, with the hidden subcommand [`SUBCOMMAND`]. The runner that supervises
//! workers stays small, and files are all that passes between them.

mod data;
mod reference;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use dpsgd_core::ModelSpec;
use dpsgd_protocol::checksum;
use dpsgd_protocol::schedule::Schedule;
use serde::{Deserialize, Serialize};

pub use data::{DataJob, PreparedData};
pub use reference::{Bounds, Case, EpochCase, Needs, PartsCase, Reference};

/// The hidden subcommand that carries out one [`Job`] from stdin.
pub const SUBCOMMAND: &str = "__prepare";

/// File of initial parameters within a job's folder.
pub const PARAMS_FILE: &str = "params.safetensors";
/// Data file within a job's folder.
pub const DATASET_FILE: &str = "dataset.safetensors";

/// A file of batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleFile {
    /// The file.
    pub path: PathBuf,
    /// The checksum that a worker which ran these batches reports.
    pub sha256: String,
}

impl ScheduleFile {
    fn save(schedule: &Schedule, path: PathBuf) -> Result<Self, PrepareError> {
        schedule.save(&path).map_err(PrepareError::new)?;
        Ok(ScheduleFile { path, sha256: checksum::of_batches(schedule.batches()) })
    }
}

#[derive(Debug, Serialize, Deserialize)]
enum Job {
    Data(DataJob),
    Reference { model: ModelSpec, seed: u64, batch_sizes: Vec<usize>, out: PathBuf },
}

/// A preparation that failed: one line, naming the file or key and the fix.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PrepareError(String);

impl PrepareError {
    fn new(error: impl ToString) -> Self {
        PrepareError(error.to_string())
    }
}

/// Writes the data set, the initial parameters and the batches of every epoch into the job's folder.
pub fn data(job: DataJob) -> Result<PreparedData, PrepareError> {
    in_own_process(&Job::Data(job))
}

/// Writes the verification gate's cases for `model`, batches of all `batch_sizes` among them, into the folder `out`, which
/// must exist.
pub fn reference(model: &ModelSpec, seed: u64, batch_sizes: &[usize], out: &Path) -> Result<Reference, PrepareError> {
    let (model, batch_sizes, out) = (model.clone(), batch_sizes.to_vec(), out.to_path_buf());
    in_own_process(&Job::Reference { model, seed, batch_sizes, out })
}

fn in_own_process<Answer: for<'a> Deserialize<'a>>(job: &Job) -> Result<Answer, PrepareError> {
    let executable = std::env::current_exe().map_err(PrepareError::new)?;
    let mut child = Command::new(executable)
        .arg(SUBCOMMAND)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(PrepareError::new)?;
    let job = serde_json::to_vec(job).expect("a job is plain data");
    // A child that died before reading says why on stderr, which is read below.
    let _ = child.stdin.take().expect("stdin is piped").write_all(&job);
    let output = child.wait_with_output().map_err(PrepareError::new)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let reason = said.lines().last().unwrap_or("no message");
        return Err(PrepareError(format!("preparing ({}): {reason}", output.status)));
    }
    serde_json::from_slice(&output.stdout).map_err(PrepareError::new)
}

/// The whole of the hidden subcommand.
pub fn main() -> ExitCode {
    match carry_out() {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn carry_out() -> Result<String, PrepareError> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(PrepareError::new)?;
    let answer = match serde_json::from_str(&text).map_err(PrepareError::new)? {
        Job::Data(job) => serde_json::to_string(&data::prepare(&job)?),
        Job::Reference { model, seed, batch_sizes, out } => {
            serde_json::to_string(&reference::prepare(&model, seed, &batch_sizes, &out)?)
        }
    };
    Ok(answer.expect("an answer is plain data"))
}
