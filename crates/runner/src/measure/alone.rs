//! A process that runs alone, from the cold, as in the talk: what starting costs, the first epochs with their compiler, and
//! memory. Its clock is checked here, and its use of the processors measured, over a second of epochs that are not timed.

use std::time::{Duration, Instant};

use dpsgd_core::Device;
use dpsgd_meter::{GpuMeter, Sampler};
use dpsgd_protocol::results::{ProcessRun, Timeline};

use super::checks::ExpectedEpoch;
use super::metered;
use super::process::{Job, Process};
use crate::worker::{Guard, Launch, WorkerError};

/// How often memory and the GPU are looked at while epochs run.
const SAMPLING_INTERVAL: Duration = Duration::from_millis(200);

/// What came of it.
pub struct Alone {
    /// What it measured.
    pub run: ProcessRun,
    /// What it used over time.
    pub timeline: Timeline,
    /// What an epoch without noise comes to, for other processes of the row.
    pub expected: Option<ExpectedEpoch>,
}

/// Measures one process over `epochs` epochs. `launch` leaves the allocator at its defaults.
pub fn measure(job: Job<'_>, epochs: usize, launch: &Launch, guard: &Guard) -> Result<Alone, WorkerError> {
    let settings = job.load.settings;
    let gpu = match settings.device {
        Device::Cuda(ordinal) => GpuMeter::of_cuda_device(ordinal),
        Device::Cpu => None,
    };
    let mut process = Process::start(job, launch, guard)?;
    let mut sampler = Sampler::start_with_gpu(process.worker.pid(), SAMPLING_INTERVAL, gpu);
    let greeted = Instant::now();
    process.load()?;
    let loaded_at_s = greeted.elapsed().as_secs_f64();
    sampler.mark();
    while process.run.epochs_s.len() < epochs && process.epochs(1)? {}
    process.timed();
    let timed_until_s = greeted.elapsed().as_secs_f64();
    // Before what is not timed, whose schedules take memory too.
    let usage = sampler.so_far();
    process.run.peak_rss_bytes = usage.peak_rss_bytes;
    process.run.cpu_utilization = usage.cpu_utilization(settings.threads);
    let (mut expected, mut window) = (None, None);
    if !process.run.capped {
        expected = process.check(true)?;
        // Of the second in which the clock is watched: that is long enough for any row, and has no compiler in it.
        let busy = process.busy.map(|busy| busy / settings.threads.max(1) as f64);
        process.run.cpu_utilization = busy.or(process.run.cpu_utilization);
        // Once per row: it takes seconds, and nothing in it is timed.
        if process.run.round == 0 {
            let left = process.left().unwrap_or(process.job.timeout).min(process.job.timeout);
            let (schedules, epochs_s) = (process.job.schedules, process.run.epochs_s.clone());
            window = metered::meter(&mut process.worker, &mut sampler, schedules, &epochs_s, left)?;
        }
    }
    let usage = sampler.stop();
    let run = &mut process.run;
    run.gpu_peak_bytes = usage.gpu.as_ref().and_then(dpsgd_meter::GpuUsage::peak_bytes);
    run.gpu = usage.gpu.as_ref().map(|gpu| metered::gpu_use(gpu, window.as_ref()));
    if let Some(metered) = &window {
        run.gpu_utilization = metered.window.utilization;
        run.energy_j = metered.window.energy_j.map(|joules| joules / metered.epochs as f64);
    }
    let timeline = metered::timeline(&usage.timeline, loaded_at_s, timed_until_s, settings.threads);
    Ok(Alone { run: process.finish()?, timeline, expected })
}
