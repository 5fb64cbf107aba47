//! One fresh process of one cell, from spawn to its last epoch.

use std::time::{Duration, Instant};

use dpsgd_core::Device;
use dpsgd_meter::{GpuMeter, Sampler};
use dpsgd_protocol::results::{ProcessRun, Status, Timeline};

use super::metered;
use crate::prepare::ScheduleFile;
use crate::session::{self, failed};
use crate::worker::{Guard, Launch, WorkerError};

/// How often memory and the GPU are looked at while epochs run.
const SAMPLING_INTERVAL: Duration = Duration::from_millis(200);

/// What a request may take beside its epoch: reading the schedule, a slow scheduler.
const OVERHEAD_S: f64 = 0.5;

/// What one process is to do.
pub struct Job<'a> {
    /// Strategy name, which the worker must answer to `hello`.
    pub strategy: &'a str,
    /// What to load.
    pub load: session::Job<'a>,
    /// One schedule per epoch.
    pub schedules: &'a [ScheduleFile],
    /// Steps of each schedule, and examples of all of them.
    pub work: (u64, u64),
    /// The round it belongs to.
    pub round: usize,
    /// How long one request may take.
    pub timeout: Duration,
    /// How long the process may take; at least one epoch must be whole by then.
    pub limit: Option<Duration>,
}

/// Measures one process. `epoch_done` is called after every epoch.
pub fn measure(
    job: &Job<'_>,
    launch: &Launch,
    guard: &Guard,
    mut epoch_done: impl FnMut(),
) -> Result<(ProcessRun, Timeline), WorkerError> {
    let gpu = match job.load.settings.device {
        Device::Cuda(ordinal) => GpuMeter::of_cuda_device(ordinal),
        Device::Cpu => None,
    };
    let started = Instant::now();
    let mut worker = session::start(job.strategy, launch, guard, job.timeout)?;
    let mut sampler = Sampler::start_with_gpu(worker.pid(), SAMPLING_INTERVAL, gpu);
    let greeted = Instant::now();
    let loaded = session::load(&mut worker, &job.load, job.timeout)?;
    let loaded_at_s = greeted.elapsed().as_secs_f64();
    sampler.mark();
    let mut run = ProcessRun {
        round: job.round,
        serves: Default::default(),
        started: String::new(),
        position: 0,
        load_average: None,
        steal: None,
        warm_from: None,
        turns: None,
        idle_cpu: None,
        checked: None,
        start_s: worker.start_s(),
        load_s: loaded.load_s,
        kernels: loaded.kernels,
        first_step_s: None,
        epochs_s: Vec::with_capacity(job.schedules.len()),
        peak_rss_bytes: None,
        cpu_utilization: None,
        gpu_peak_bytes: None,
        gpu_utilization: None,
        energy_j: None,
        gpu: None,
        non_finite_examples: 0,
        capped: false,
    };
    for schedule in job.schedules {
        let left = job.limit.map(|limit| limit.saturating_sub(started.elapsed()));
        let timeout = left.map_or(job.timeout, |left| left.min(job.timeout));
        let begin = Instant::now();
        let epoch = match session::epochs(&mut worker, schedule, job.work, 1, timeout) {
            Err(error) if error.status == Status::Timeout && left.is_some_and(|left| left < job.timeout) => {
                if run.epochs_s.is_empty() {
                    return Err(out_of_time(job.limit.expect("something is left of it")));
                }
                run.capped = true;
                break;
            }
            answered => answered?,
        };
        let epoch_s = epoch.epochs_s[0];
        check_clock(epoch_s, begin.elapsed().as_secs_f64())?;
        match (epoch.first_step_s, run.epochs_s.is_empty()) {
            (Some(first), true) if first > 0.0 && first <= epoch_s => run.first_step_s = Some(first),
            (None, false) => {}
            (Some(first), true) => {
                return Err(failed(format!("a first step of {first} s in an epoch of {epoch_s} s")));
            }
            _ => return Err(failed("first_step_s belongs to the first epoch and no other")),
        }
        run.epochs_s.push(epoch_s);
        run.non_finite_examples = epoch.non_finite_examples;
        epoch_done();
    }
    let timed_until_s = greeted.elapsed().as_secs_f64();
    // Before the GPU's window, whose schedule takes memory too.
    let usage = sampler.so_far();
    run.cpu_utilization = usage.cpu_utilization(job.load.settings.threads);
    run.peak_rss_bytes = usage.peak_rss_bytes;
    let mut window = None;
    // Once per row: it takes seconds, and nothing in it is timed.
    if job.round == 0 && !run.capped {
        let left = job.limit.map_or(job.timeout, |limit| limit.saturating_sub(started.elapsed()).min(job.timeout));
        window = metered::meter(&mut worker, &mut sampler, job.schedules, &run.epochs_s, left)?;
    }
    let usage = sampler.stop();
    run.gpu_peak_bytes = usage.gpu.as_ref().and_then(dpsgd_meter::GpuUsage::peak_bytes);
    run.gpu = usage.gpu.as_ref().map(|gpu| metered::gpu_use(gpu, window.as_ref()));
    if let Some(metered) = &window {
        run.gpu_utilization = metered.window.utilization;
        run.energy_j = metered.window.energy_j.map(|joules| joules / metered.epochs as f64);
    }
    let timeline = metered::timeline(&usage.timeline, loaded_at_s, timed_until_s, job.load.settings.threads);
    if !run.capped {
        // One that was stopped in the middle of an epoch has been ended.
        worker.finish(job.timeout)?;
    }
    Ok((run, timeline))
}

fn out_of_time(limit: Duration) -> WorkerError {
    let seconds = limit.as_secs_f64();
    let reason =
        format!("not one epoch in {seconds} s, this process's share of row_limit_s; raise that, or lower examples");
    WorkerError::new(Status::Timeout, reason)
}

/// Checks a worker's own clock against ours around the request: its epoch can't be longer, and little else should have
/// happened in between.
fn check_clock(epoch_s: f64, wall_s: f64) -> Result<(), WorkerError> {
    let plausible = epoch_s.is_finite() && epoch_s > 0.0 && epoch_s <= wall_s && wall_s <= 2.0 * epoch_s + OVERHEAD_S;
    if plausible {
        return Ok(());
    }
    Err(failed(format!("its clock says {epoch_s} s for an epoch that took {wall_s:.6} s by the runner's")))
}

#[cfg(test)]
mod tests {
    use super::check_clock;

    #[test]
    fn a_clock_that_contradicts_the_runner_s_is_refused() {
        for (epoch_s, wall_s) in
            [(-1.0, 1.0), (0.0, 1.0), (f64::NAN, 1.0), (f64::INFINITY, 1.0), (1.1, 1.0), (1e-6, 4.0)]
        {
            let error = check_clock(epoch_s, wall_s).unwrap_err();
            assert!(error.reason.contains("by the runner's"), "{epoch_s} of {wall_s}: {}", error.reason);
        }
    }

    #[test]
    fn an_honest_clock_passes_with_a_short_epoch_and_with_a_long_one() {
        for (epoch_s, wall_s) in [(1e-4, 2e-3), (3.0, 3.01), (100.0, 100.0)] {
            assert!(check_clock(epoch_s, wall_s).is_ok());
        }
    }
}
