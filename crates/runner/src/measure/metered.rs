//! What the meters have seen of a process, as the results file has it; and the window in which a GPU's are read.
//!
//! NVML's counter of energy moves about every tenth of a second, and its utilization is that of up to a second before. An
//! epoch on a GPU may take a millisecond. So after the timed epochs the last one's batches run again, as often as it takes
//! to keep the GPU busy for [`WINDOW_S`], in as few requests as the length of a schedule allows; that is timed by nobody.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dpsgd_meter::{GpuUsage, GpuWindow, Sampler};
use dpsgd_protocol::messages::{Reply, Request};
use dpsgd_protocol::results::{self, GpuUse, Timeline};
use dpsgd_protocol::schedule::Schedule;
use dpsgd_stats as stats;

use crate::prepare::ScheduleFile;
use crate::session::{failed, unexpected};
use crate::worker::{Worker, WorkerError};

/// How long the window is to be: one second to settle, and some readings after it.
const WINDOW_S: f64 = 2.5;
/// Slots of the longest schedule written, 100 MB.
const MOST_SLOTS: usize = 20_000_000;

/// Utilization, power and energy of a GPU at work.
pub struct Metered {
    /// As the meter saw it.
    pub window: GpuWindow,
    /// Epochs within it.
    pub epochs: usize,
}

/// How often an epoch that takes `epoch_s` is run in a request, for a schedule of `slots`; and how many requests there are.
fn repetitions(epoch_s: f64, slots: usize) -> (usize, usize) {
    let wanted = (WINDOW_S / epoch_s.max(1e-6)).ceil().max(1.0) as usize;
    let of_request = wanted.min((MOST_SLOTS / slots.max(1)).max(1));
    (of_request, wanted.div_ceil(of_request))
}

/// Runs the last of `schedules` again and again, and reads the GPU's meters meanwhile. `epochs_s` are the epochs timed so
/// far. `None` if there is no GPU to watch or if this would not end within `limit`.
pub fn meter(
    worker: &mut Worker,
    sampler: &mut Sampler,
    schedules: &[ScheduleFile],
    epochs_s: &[f64],
    limit: Duration,
) -> Result<Option<Metered>, WorkerError> {
    let (Some(last), Some(_)) = (schedules.last(), sampler.so_far().gpu) else { return Ok(None) };
    let warm = if epochs_s.len() > 1 { &epochs_s[1..] } else { epochs_s };
    let Some(epoch_s) = stats::median(warm) else { return Ok(None) };
    let once = Schedule::load(&last.path).map_err(failed)?;
    let (of_request, requests) = repetitions(epoch_s, once.indices.len());
    let epochs = of_request * requests;
    if epochs as f64 * epoch_s * 2.0 > limit.as_secs_f64() {
        return Ok(None);
    }
    let file = repeated_file(&last.path);
    let repeated = Schedule { indices: once.indices.repeat(of_request), mask: once.mask.repeat(of_request), ..once };
    repeated.save(&file).map_err(failed)?;
    let request = Request::Epoch { schedule: file.clone(), repeat: 1 };
    sampler.mark_gpu();
    let mut again = || match worker.request(&request, limit)? {
        Reply::Epoch { steps, .. } if steps == repeated.steps() as u64 => Ok(()),
        other => Err(unexpected(&request, &other)),
    };
    let done = (0..requests).try_for_each(|_| again());
    let usage = sampler.so_far().gpu;
    let _ = std::fs::remove_file(file);
    done?;
    Ok(usage.and_then(|usage| usage.window).map(|window| Metered { window, epochs }))
}

fn repeated_file(schedule: &Path) -> PathBuf {
    schedule.with_extension("repeated.safetensors")
}

/// What the results file has of a GPU.
pub fn gpu_use(usage: &GpuUsage, metered: Option<&Metered>) -> GpuUse {
    let window = metered.map(|Metered { window, epochs }| results::GpuWindow {
        seconds: window.seconds,
        epochs: *epochs,
        power_w: window.power_w,
        throttled: window.throttled.iter().map(|(reason, share)| (reason.to_string(), *share)).collect(),
    });
    GpuUse { process_peak_bytes: usage.process_peak_bytes, device_peak_bytes: usage.device_peak_bytes, window }
}

/// What the results file has of use over time, with as many digits as mean something.
pub fn timeline(seen: &dpsgd_meter::Timeline, loaded_at_s: f64, timed_until_s: f64, threads: usize) -> Timeline {
    let moments = seen.moments();
    let milli = |value: f64| (value * 1000.0).round() / 1000.0;
    let mut cpu_utilization = vec![0.0; moments.len().min(1)];
    cpu_utilization.extend(moments.windows(2).map(|pair| {
        let (wall, cpu) = (pair[1].at_s - pair[0].at_s, pair[1].cpu_s - pair[0].cpu_s);
        // Ticks of 10 ms can make a short stretch look busier than it can be.
        if wall > 0.0 { milli((cpu / wall / threads.max(1) as f64).min(1.0)) } else { 0.0 }
    }));
    // All or nothing: a driver that has told a figure once tells it every time.
    let all = |figures: Option<Vec<f64>>| figures.unwrap_or_default();
    Timeline {
        at_s: moments.iter().map(|moment| milli(moment.at_s)).collect(),
        loaded_at_s: milli(loaded_at_s),
        timed_until_s: milli(timed_until_s),
        rss_bytes: moments.iter().map(|moment| moment.rss_bytes).collect(),
        cpu_utilization,
        gpu_bytes: moments.iter().map(|moment| moment.gpu_bytes).collect::<Option<_>>().unwrap_or_default(),
        gpu_utilization: all(moments.iter().map(|moment| moment.gpu_utilization.map(milli)).collect()),
        gpu_power_w: all(moments.iter().map(|moment| moment.gpu_power_w.map(milli)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use dpsgd_meter::Moment;

    use super::*;

    #[test]
    fn an_epoch_is_repeated_until_the_window_is_full_and_no_schedule_grows_without_bounds() {
        assert_eq!(repetitions(0.001, 4096), (2500, 1));
        assert_eq!(repetitions(0.9, 4096), (3, 1));
        assert_eq!(repetitions(60.0, 4096), (1, 1));
        assert_eq!(repetitions(50e-6, 2048), (9765, 6));
        assert_eq!(repetitions(1.0, MOST_SLOTS * 2), (1, 3));
    }

    #[test]
    fn cpu_utilization_over_time_is_that_between_looks() {
        let mut seen = dpsgd_meter::Timeline::default();
        for (at_s, cpu_s) in [(0.0, 5.0), (1.0, 6.5), (1.0, 6.5), (3.0, 6.7)] {
            seen.add(Moment { at_s, cpu_s, rss_bytes: 7, ..Moment::default() });
        }
        let timeline = timeline(&seen, 0.5, 2.5, 2);
        assert_eq!(timeline.cpu_utilization, [0.0, 0.75, 0.0, 0.05]);
        assert_eq!((timeline.at_s, timeline.rss_bytes), (vec![0.0, 1.0, 1.0, 3.0], vec![7; 4]));
        assert!(timeline.gpu_bytes.is_empty() && timeline.gpu_utilization.is_empty());
    }
}
