//! One fresh process of one cell: started, loaded, timed epoch by epoch within its limit, checked in the end.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use dpsgd_core::Description;
use dpsgd_meter::Load;
use dpsgd_protocol::results::{Checked, ProcessRun, Serves, Status};
use jiff::Timestamp;

use super::checks::{self, ExpectedEpoch};
use super::environment::utc;
use crate::prepare::ScheduleFile;
use crate::session::{self, failed};
use crate::worker::{Guard, Launch, Worker, WorkerError};

/// What a request may take beside its epochs before the worker's clock is called wrong: reading the schedule, a slow
/// scheduler. Rough, because a request may be as short as an epoch; `checks::watch` is the strict one.
const OVERHEAD_S: f64 = 0.5;
/// The steps of an epoch are not taken once more by single requests if that takes longer than this.
const LONGEST_CHECK_S: f64 = 30.0;

/// What one process is to do.
pub struct Job<'a> {
    /// Strategy name, which the worker must answer to `hello`.
    pub strategy: &'a str,
    /// What to load.
    pub load: session::Job<'a>,
    /// The batches of epochs, taken in turn.
    pub schedules: &'a [ScheduleFile],
    /// Steps of each schedule, and examples of all of them.
    pub work: (u64, u64),
    /// Its round among the processes that serve the same.
    pub round: usize,
    /// What its epochs count for.
    pub serves: Serves,
    /// Which process of the run it is.
    pub position: usize,
    /// How long one request may take.
    pub timeout: Duration,
    /// How long the process may be at work; at least one epoch must be whole by then.
    pub limit: Option<Duration>,
    /// What the worker said of itself in the gate.
    pub described: Option<&'a Description>,
    /// What an epoch without noise comes to, if an earlier process of the row has found out.
    pub expected: Option<ExpectedEpoch>,
    /// A file of its own for its parameters.
    pub answers: PathBuf,
}

/// A process at work.
pub struct Process<'a> {
    /// What it is to do.
    pub job: Job<'a>,
    /// The worker.
    pub worker: Worker,
    /// What it has measured so far.
    pub run: ProcessRun,
    /// How long it was at work.
    spent: Duration,
    /// The least that a request took beside its epochs, in seconds.
    overhead_s: f64,
    began: Load,
    /// Processors that it kept busy while its clock was watched.
    pub busy: Option<f64>,
}

impl<'a> Process<'a> {
    /// Starts the worker; nothing is loaded yet.
    pub fn start(job: Job<'a>, launch: &Launch, guard: &Guard) -> Result<Self, WorkerError> {
        let (began, started) = (Load::now(), utc(Timestamp::now()));
        let begin = Instant::now();
        let worker = session::start(job.strategy, launch, guard, job.timeout)?;
        let run = ProcessRun {
            round: job.round,
            serves: job.serves,
            started,
            position: job.position,
            load_average: began.average,
            steal: None,
            warm_from: None,
            turns: None,
            idle_cpu: None,
            checked: None,
            start_s: worker.start_s(),
            load_s: 0.0,
            kernels: None,
            first_step_s: None,
            epochs_s: Vec::new(),
            peak_rss_bytes: None,
            cpu_utilization: None,
            gpu_peak_bytes: None,
            gpu_utilization: None,
            energy_j: None,
            gpu: None,
            non_finite_examples: 0,
            capped: false,
        };
        Ok(Process { job, worker, run, spent: begin.elapsed(), overhead_s: f64::INFINITY, began, busy: None })
    }

    /// Has the worker load. It must be what it was in the gate.
    pub fn load(&mut self) -> Result<(), WorkerError> {
        let begin = Instant::now();
        let loaded = session::load(&mut self.worker, &self.job.load, self.job.timeout)?;
        self.spent += begin.elapsed();
        if let Some(described) = self.job.described.filter(|described| **described != loaded.description) {
            return Err(failed(format!(
                "describes itself as {:?} where it is timed, as {described:?} where it was verified",
                loaded.description
            )));
        }
        self.run.load_s = loaded.load_s;
        self.run.kernels = loaded.kernels;
        Ok(())
    }

    /// Runs the batches of the next schedule `repeat` times. `false` if its limit has ended it: its whole epochs are
    /// kept, and the worker is gone.
    pub fn epochs(&mut self, repeat: u32) -> Result<bool, WorkerError> {
        let schedule = self.schedule();
        let (timeout, left) = (self.job.timeout, self.left());
        let begin = Instant::now();
        let answer = session::epochs(
            &mut self.worker,
            schedule,
            self.job.work,
            repeat,
            left.map_or(timeout, |l| l.min(timeout)),
        );
        let wall = begin.elapsed();
        self.spent += wall;
        let epoch = match answer {
            Err(error) if error.status == Status::Timeout && left.is_some_and(|left| left < timeout) => {
                if self.run.epochs_s.is_empty() {
                    return Err(out_of_time(self.job.limit.expect("something is left of it")));
                }
                self.run.capped = true;
                return Ok(false);
            }
            answer => answer?,
        };
        check_clock(&epoch.epochs_s, wall.as_secs_f64())?;
        let said_s: f64 = epoch.epochs_s.iter().sum();
        match (epoch.first_step_s, self.run.epochs_s.is_empty()) {
            (None, _) => {}
            (Some(first), true) if first > 0.0 && first <= epoch.epochs_s[0] => self.run.first_step_s = Some(first),
            (Some(first), true) => {
                return Err(failed(format!("a first step of {first} s in an epoch of {} s", epoch.epochs_s[0])));
            }
            (Some(_), false) => return Err(failed("first_step_s belongs to the first epoch and no other")),
        }
        if !self.run.epochs_s.is_empty() {
            self.overhead_s = self.overhead_s.min(wall.as_secs_f64() - said_s);
        }
        // Ten nanoseconds are less than any clock here can tell apart.
        self.run.epochs_s.extend(epoch.epochs_s.iter().map(|seconds| (seconds * 1e8).round().max(1.0) / 1e8));
        self.run.non_finite_examples = epoch.non_finite_examples;
        Ok(true)
    }

    /// The schedule of the next epochs.
    fn schedule(&self) -> &'a ScheduleFile {
        let turns = self.run.turns.as_ref().map_or(self.run.epochs_s.len(), |turns| turns.epochs.len() + 1);
        &self.job.schedules[turns % self.job.schedules.len()]
    }

    /// What is left of its limit.
    pub fn left(&self) -> Option<Duration> {
        self.job.limit.map(|limit| limit.saturating_sub(self.spent))
    }

    /// The median epoch but for the first, in seconds.
    pub fn epoch_s(&self) -> Option<f64> {
        let warm = if self.run.epochs_s.len() > 1 { &self.run.epochs_s[1..] } else { &self.run.epochs_s };
        dpsgd_stats::median(warm)
    }

    /// Ends the timing: what the machine was like meanwhile.
    pub fn timed(&mut self) {
        self.run.steal = Some(Load::now().steal_since(&self.began));
        self.run.warm_from = dpsgd_stats::steady_state(&self.run.epochs_s);
    }

    /// Checks what the parameters have become, and that an epoch is its steps; `clock` if its clock is to be checked too,
    /// for which it runs a second of epochs. What an epoch comes to, for the row's next process.
    pub fn check(&mut self, clock: bool) -> Result<Option<ExpectedEpoch>, WorkerError> {
        let begin = Instant::now();
        let epoch_s = self.epoch_s().unwrap_or(f64::INFINITY);
        let subject = checks::Subject {
            job: &self.job.load,
            schedule: &self.job.schedules[0],
            work: self.job.work,
            timeout: self.job.timeout,
            answers: self.job.answers.clone(),
        };
        let (moved, moved_bounds) = checks::moved(&mut self.worker, &subject, self.run.epochs_s.len())?;
        let mut checked = Checked { moved, moved_bounds, epoch_error: None, clock_error: None };
        if clock && self.overhead_s.is_finite() {
            let watched = checks::watch(&mut self.worker, &subject, epoch_s, self.overhead_s)?;
            checked.clock_error = Some(watched.clock_error);
            self.busy = watched.busy;
        }
        let mut expected = None;
        if self.job.expected.is_some() || epoch_s <= LONGEST_CHECK_S {
            let (error, found) = checks::epoch_error(&mut self.worker, &subject, self.job.expected.as_ref())?;
            checked.epoch_error = Some(error);
            expected = Some(found);
        }
        self.run.checked = Some(checked);
        self.spent += begin.elapsed();
        let _ = std::fs::remove_file(&self.job.answers);
        Ok(expected)
    }

    /// Says goodbye to the worker; one that its limit ended is gone.
    pub fn finish(self) -> Result<ProcessRun, WorkerError> {
        if !self.run.capped {
            self.worker.finish(self.job.timeout)?;
        }
        Ok(self.run)
    }
}

fn out_of_time(limit: Duration) -> WorkerError {
    let seconds = limit.as_secs_f64();
    let reason =
        format!("not one epoch in {seconds} s, this process's share of row_limit_s; raise that, or lower examples");
    WorkerError::new(Status::Timeout, reason)
}

/// Checks a worker's own clock against ours around the request: its epochs can't be longer together, and little else
/// should have happened in between.
fn check_clock(epochs_s: &[f64], wall_s: f64) -> Result<(), WorkerError> {
    let said_s: f64 = epochs_s.iter().sum();
    let each = epochs_s.iter().all(|epoch_s| epoch_s.is_finite() && *epoch_s > 0.0);
    if each && said_s <= wall_s && wall_s <= 2.0 * said_s + OVERHEAD_S {
        return Ok(());
    }
    let epochs = epochs_s.len();
    Err(failed(format!("its clock says {said_s} s for {epochs} epochs that took {wall_s:.6} s by the runner's")))
}

#[cfg(test)]
mod tests {
    use super::check_clock;

    #[test]
    fn a_clock_that_contradicts_the_runner_s_is_refused() {
        for (epoch_s, wall_s) in
            [(-1.0, 1.0), (0.0, 1.0), (f64::NAN, 1.0), (f64::INFINITY, 1.0), (1.1, 1.0), (1e-6, 4.0)]
        {
            let error = check_clock(&[epoch_s], wall_s).unwrap_err();
            assert!(error.reason.contains("by the runner's"), "{epoch_s} of {wall_s}: {}", error.reason);
        }
        assert!(check_clock(&[0.6, 0.6], 1.0).is_err());
        assert!(check_clock(&[1.5, -0.6], 1.0).is_err());
    }

    #[test]
    fn an_honest_clock_passes_with_a_short_epoch_and_with_a_long_one() {
        for (epoch_s, wall_s) in [(1e-4, 2e-3), (3.0, 3.01), (100.0, 100.0)] {
            assert!(check_clock(&[epoch_s], wall_s).is_ok());
        }
    }
}
