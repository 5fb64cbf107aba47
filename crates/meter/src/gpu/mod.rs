//! What a process does to a GPU: memory, utilization, power and energy, from what the GPU's driver tells.
//!
//! The driver is behind the trait [`Gpu`]. [`nvml`] is the real one; the logic in [`GpuMeter`] is tested with another.

pub(crate) mod nvml;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What is asked of a GPU's driver. Every figure is `None` where the driver does not tell it.
pub trait Gpu: Send {
    /// Bytes in use on the device, whoever uses them.
    fn used_bytes(&self) -> Option<u64>;
    /// Bytes that the process `pid` holds on the device; `None` also where the driver hides processes, as in a container,
    /// whose process ids are not the driver's.
    fn process_bytes(&self, pid: i32) -> Option<u64>;
    /// Share of time in which a kernel was running, 0 to 1, over the driver's last sampling period, which is a second
    /// long at most.
    fn utilization(&self) -> Option<f64>;
    /// Watts, averaged by the driver over a second at most.
    fn power_w(&self) -> Option<f64>;
    /// Joules since the driver was loaded.
    fn energy_j(&self) -> Option<f64>;
    /// Why the clocks are lower than they could be, other than that there is nothing to do.
    fn throttle_reasons(&self) -> Vec<&'static str>;
}

/// What the driver says of utilization and power right after a window has begun may be about the time before it.
const SETTLING: Duration = Duration::from_secs(1);
/// The shortest window of which the energy counter, which moves about every tenth of a second, says something.
const SHORTEST: Duration = Duration::from_secs(1);

/// Watches one process on one GPU, look by look.
pub struct GpuMeter {
    gpu: Box<dyn Gpu>,
    before_bytes: Option<u64>,
    process_peak_bytes: Option<u64>,
    device_peak_bytes: Option<u64>,
    window: Option<Window>,
}

/// What was seen since [`GpuMeter::begin_window`].
struct Window {
    begin: Instant,
    energy_before_j: Option<f64>,
    /// Readings that are of the window alone.
    utilizations: Vec<f64>,
    powers_w: Vec<f64>,
    /// All looks, and in how many of them each reason was given.
    looks: usize,
    throttled: BTreeMap<&'static str, usize>,
}

/// One look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GpuLook {
    /// Bytes of the process, or of the device above its level before, where processes are hidden.
    pub bytes: Option<u64>,
    /// As [`Gpu::utilization`].
    pub utilization: Option<f64>,
    /// As [`Gpu::power_w`].
    pub power_w: Option<f64>,
}

/// What a process did to a GPU.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuUsage {
    /// Peak bytes of the process as the driver accounts for it; `None` where it hides processes.
    pub process_peak_bytes: Option<u64>,
    /// Peak bytes in use on the device above its level before the process was started, whoever used them.
    pub device_peak_bytes: Option<u64>,
    /// The last window; `None` if none was begun.
    pub window: Option<GpuWindow>,
}

impl GpuUsage {
    /// The better of the two figures of memory: that of the process where there is one.
    pub fn peak_bytes(&self) -> Option<u64> {
        self.process_peak_bytes.or(self.device_peak_bytes)
    }
}

/// A stretch of time at work.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuWindow {
    /// How long it was.
    pub seconds: f64,
    /// Mean utilization, 0 to 1, without the first second; `None` if nothing is left.
    pub utilization: Option<f64>,
    /// Mean watts: energy over time.
    pub power_w: Option<f64>,
    /// Joules, by the device's counter, or from readings of the power where it has none; `None` if the window was shorter
    /// than a second.
    pub energy_j: Option<f64>,
    /// Why the clocks were lowered, and in which share of the looks, 0 to 1.
    pub throttled: Vec<(&'static str, f64)>,
}

impl GpuMeter {
    /// Reads the level of memory. Call this before the process starts.
    pub fn new(gpu: Box<dyn Gpu>) -> Self {
        let before_bytes = gpu.used_bytes();
        GpuMeter { gpu, before_bytes, process_peak_bytes: None, device_peak_bytes: None, window: None }
    }

    /// A meter of CUDA's device `ordinal`, if NVML knows it.
    ///
    /// CUDA's order is NVML's only if the process has `CUDA_DEVICE_ORDER=PCI_BUS_ID` in its environment.
    /// `CUDA_VISIBLE_DEVICES` is followed.
    pub fn of_cuda_device(ordinal: usize) -> Option<Self> {
        nvml::device(ordinal).ok().map(|device| GpuMeter::new(Box::new(device)))
    }

    /// Looks at what `pid` does now.
    pub fn look(&mut self, pid: i32, now: Instant) -> GpuLook {
        let process = self.gpu.process_bytes(pid).filter(|bytes| *bytes > 0);
        let device = self.gpu.used_bytes().zip(self.before_bytes).map(|(used, before)| used.saturating_sub(before));
        self.process_peak_bytes = self.process_peak_bytes.max(process);
        self.device_peak_bytes = self.device_peak_bytes.max(device);
        let (utilization, power_w) = (self.gpu.utilization(), self.gpu.power_w());
        if let Some(window) = &mut self.window {
            window.looks += 1;
            for reason in self.gpu.throttle_reasons() {
                *window.throttled.entry(reason).or_default() += 1;
            }
            if now.saturating_duration_since(window.begin) >= SETTLING {
                window.utilizations.extend(utilization);
                window.powers_w.extend(power_w);
            }
        }
        GpuLook { bytes: process.or(device), utilization, power_w }
    }

    /// From here on utilization, power, energy and reasons are counted. Peaks of memory count from the start.
    pub fn begin_window(&mut self, now: Instant) {
        self.window = Some(Window {
            begin: now,
            energy_before_j: self.gpu.energy_j(),
            utilizations: Vec::new(),
            powers_w: Vec::new(),
            looks: 0,
            throttled: BTreeMap::new(),
        });
    }

    /// What was used until now.
    pub fn usage(&self, now: Instant) -> GpuUsage {
        GpuUsage {
            process_peak_bytes: self.process_peak_bytes,
            device_peak_bytes: self.device_peak_bytes,
            window: self.window.as_ref().map(|window| window.close(self.gpu.energy_j(), now)),
        }
    }
}

impl Window {
    fn close(&self, energy_now_j: Option<f64>, now: Instant) -> GpuWindow {
        let length = now.saturating_duration_since(self.begin);
        let seconds = length.as_secs_f64();
        let counted = energy_now_j.zip(self.energy_before_j).map(|(now, before)| now - before).filter(|j| *j >= 0.0);
        let from_readings = mean(&self.powers_w).map(|watts| watts * seconds);
        let energy_j = counted.or(from_readings).filter(|_| length >= SHORTEST);
        let share = |(reason, count): (&&'static str, &usize)| (*reason, *count as f64 / self.looks as f64);
        GpuWindow {
            seconds,
            utilization: mean(&self.utilizations),
            power_w: energy_j.map(|joules| joules / seconds),
            energy_j,
            throttled: self.throttled.iter().map(share).collect(),
        }
    }
}

fn mean(figures: &[f64]) -> Option<f64> {
    (!figures.is_empty()).then(|| figures.iter().sum::<f64>() / figures.len() as f64)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
