//! A session with a worker: the requests that verification, measurement and `runner repeat` all make, and the checks
//! that each makes of the answers.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use dpsgd_core::{Description, Device, DpSgd, Kernels, ModelSpec, Params, Settings};
use dpsgd_protocol::messages::{Reply, Request};
use dpsgd_protocol::results::Status;

use crate::prepare::ScheduleFile;
use crate::worker::{Guard, Launch, Worker, WorkerError};

/// What a worker is to load.
pub struct Job<'a> {
    /// The model.
    pub model: &'a ModelSpec,
    /// File of initial parameters.
    pub params: &'a Path,
    /// File of the data set.
    pub dataset: &'a Path,
    /// The data set's checksum.
    pub data_sha256: &'a str,
    /// Hyperparameters.
    pub dp: DpSgd,
    /// Where and how to run.
    pub settings: &'a Settings,
}

/// What a worker said once it had loaded.
pub struct Loaded {
    /// Seconds.
    pub load_s: f64,
    /// What is running.
    pub description: Description,
    /// What of the time went into kernels of its own.
    pub kernels: Option<Kernels>,
}

/// What a worker said of an epoch, which was a whole one on the batches that it was sent.
pub struct Epoch {
    /// Seconds of each repetition.
    pub epochs_s: Vec<f64>,
    /// Seconds of the first step since load, in the epoch that it was in.
    pub first_step_s: Option<f64>,
    /// Examples left out as not finite, since load.
    pub non_finite_examples: u64,
}

/// Starts a worker and checks that it is the one asked for: `strategy` is the name in the registry.
pub fn start(strategy: &str, launch: &Launch, guard: &Guard, timeout: Duration) -> Result<Worker, WorkerError> {
    let worker = Worker::start(launch, guard, timeout)?;
    let name = &worker.hello().name;
    if name != strategy {
        let program = launch.program.display();
        return Err(failed(format!("{program} calls itself `{name}`, the registry calls it `{strategy}`")));
    }
    Ok(worker)
}

/// Has the worker load `job`. It must run where and as it was asked to, on the data that it was sent.
pub fn load(worker: &mut Worker, job: &Job<'_>, timeout: Duration) -> Result<Loaded, WorkerError> {
    let request = Request::Load {
        model: job.model.clone(),
        params: job.params.to_path_buf(),
        dataset: job.dataset.to_path_buf(),
        dp: job.dp,
        settings: job.settings.clone(),
    };
    match worker.request(&request, timeout)? {
        Reply::Loaded { load_s, data_sha256, description, kernels } => {
            check_description(job.settings, &description)?;
            check_received("data set", job.data_sha256, &data_sha256)?;
            Ok(Loaded { load_s, description, kernels })
        }
        other => Err(unexpected(&request, &other)),
    }
}

/// Has the worker run all batches of `schedule`, which are `work.0` steps on `work.1` examples, `repeat` times: no fewer,
/// and no others.
pub fn epochs(
    worker: &mut Worker,
    schedule: &ScheduleFile,
    work: (u64, u64),
    repeat: u32,
    timeout: Duration,
) -> Result<Epoch, WorkerError> {
    let request = Request::Epoch { schedule: schedule.path.clone(), repeat };
    match worker.request(&request, timeout)? {
        Reply::Epoch { epochs_s, first_step_s, steps, examples, batches_sha256, non_finite_examples } => {
            let times = u64::from(repeat);
            if (steps, examples) != (work.0 * times, work.1 * times) {
                return Err(failed(format!(
                    "{repeat} epochs of {steps} steps and {examples} examples in all: the schedule has {} and {}",
                    work.0, work.1
                )));
            }
            if epochs_s.len() != repeat as usize {
                return Err(failed(format!("{} times for {repeat} epochs", epochs_s.len())));
            }
            check_received("batches", &schedule.sha256, &batches_sha256)?;
            Ok(Epoch { epochs_s, first_step_s, non_finite_examples })
        }
        other => Err(unexpected(&request, &other)),
    }
}

/// The worker's parameters, by way of `file`, which is written anew.
pub fn params(worker: &mut Worker, model: &ModelSpec, file: &Path, timeout: Duration) -> Result<Params, WorkerError> {
    remove_stale(file)?;
    let request = Request::Params { path: file.to_path_buf() };
    match worker.request(&request, timeout)? {
        Reply::Params { .. } => Params::load(file, model).map_err(failed),
        other => Err(unexpected(&request, &other)),
    }
}

/// Removes what an earlier request may have left, which must not be taken for the answer to the next.
fn remove_stale(file: &Path) -> Result<(), WorkerError> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(format!("{}: {error}", file.display()))),
        _ => Ok(()),
    }
}

/// Refuses a worker that runs elsewhere or otherwise than it was asked to: its row would carry a false label.
fn check_description(asked: &Settings, found: &Description) -> Result<(), WorkerError> {
    let device = asked.device.to_string();
    let elsewhere = found.device.split_whitespace().next() != Some(&device);
    // The threads of a GPU's host are the framework's own affair.
    let threads = asked.device == Device::Cpu && found.threads != asked.threads;
    let variant = asked.variant.is_some() && found.variant != asked.variant;
    if elsewhere || threads || variant {
        let (wanted, runs) = (asked.variant.as_deref().unwrap_or("default"), found.variant.as_deref());
        return Err(failed(format!(
            "asked for device {device}, {} threads, variant {wanted}; the worker says it runs on {}, {} threads, \
             variant {}",
            asked.threads,
            found.device,
            found.threads,
            runs.unwrap_or("default")
        )));
    }
    Ok(())
}

/// Refuses a worker that computes on something else than it was sent: it would not do the same work as the others.
fn check_received(what: &str, sent_sha256: &str, received_sha256: &str) -> Result<(), WorkerError> {
    if received_sha256 == sent_sha256 {
        return Ok(());
    }
    Err(failed(format!(
        "other {what} than all contenders were sent: SHA-256 {sent_sha256}; the worker computed on {received_sha256}; \
         see crates/protocol/src/checksum.rs"
    )))
}

/// A reply that does not belong to its request.
pub fn unexpected(request: &Request, reply: &Reply) -> WorkerError {
    failed(format!("answered {request:?} with {reply:?}"))
}

/// What ends a row as [`Status::Failed`], whoever's fault it is.
pub fn failed(reason: impl ToString) -> WorkerError {
    WorkerError::new(Status::Failed, reason.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_answer_is_removed_and_one_that_cant_be_is_an_error() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("answer.safetensors");
        remove_stale(&file).unwrap();
        std::fs::write(&file, "of before").unwrap();
        remove_stale(&file).unwrap();
        assert!(!file.exists());
        // A folder is no file to remove.
        std::fs::create_dir(&file).unwrap();
        let error = remove_stale(&file).unwrap_err();
        assert!(error.status == Status::Failed && error.reason.contains("answer.safetensors"), "{}", error.reason);
    }
}
