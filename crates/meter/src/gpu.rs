//! GPU use, read through NVML.
//!
//! Without the library or a driver every figure is `None`.

use std::sync::OnceLock;

use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::{Device, Nvml};

/// NVML, if this machine has it. Containers have the versioned name only.
pub(crate) fn nvml() -> Option<&'static Nvml> {
    static NVML: OnceLock<Option<Nvml>> = OnceLock::new();
    let load = || {
        let versioned = Nvml::builder().lib_path("libnvidia-ml.so.1".as_ref()).init();
        versioned.or_else(|_| Nvml::init()).ok()
    };
    NVML.get_or_init(load).as_ref()
}

/// A GPU and how much of its memory others held before the worker was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuBefore {
    /// NVML's index of the device.
    index: u32,
    /// Bytes in use on the device.
    used_bytes: u64,
}

impl GpuBefore {
    /// Reads the level of CUDA's device `ordinal`; `None` if there is none. Call this before the worker starts.
    ///
    /// CUDA's order is NVML's only if the worker has `CUDA_DEVICE_ORDER=PCI_BUS_ID` in its environment.
    /// `CUDA_VISIBLE_DEVICES` is followed.
    pub fn read(ordinal: u32) -> Option<GpuBefore> {
        let nvml = nvml()?;
        let device = match std::env::var("CUDA_VISIBLE_DEVICES") {
            Ok(list) => match visible(&list, ordinal)? {
                Visible::Index(index) => nvml.device_by_index(index),
                Visible::Uuid(uuid) => nvml.device_by_uuid(uuid),
            },
            Err(_) => nvml.device_by_index(ordinal),
        };
        let device = device.ok()?;
        Some(GpuBefore { index: device.index().ok()?, used_bytes: device.memory_info().ok()?.used })
    }

    fn device(&self) -> Option<Device<'static>> {
        nvml()?.device_by_index(self.index).ok()
    }

    /// Bytes that `pids` hold on the device. Inside a container NVML does not know our process ids, or says 0; then it
    /// is what the device holds above the level before.
    pub(crate) fn used_bytes(&self, pids: &[i32]) -> Option<u64> {
        let device = self.device()?;
        let processes = device.running_compute_processes().unwrap_or_default();
        let ours = processes.iter().filter(|process| pids.contains(&(process.pid as i32)));
        let named: u64 = ours.map(|process| bytes(&process.used_gpu_memory)).sum();
        if named > 0 {
            return Some(named);
        }
        Some(device.memory_info().ok()?.used.saturating_sub(self.used_bytes))
    }

    /// Share of time in which a kernel was running, 0 to 1, over the device's last sampling period.
    pub(crate) fn utilization(&self) -> Option<f64> {
        Some(f64::from(self.device()?.utilization_rates().ok()?.gpu) / 100.0)
    }

    /// Joules since the driver was loaded.
    pub(crate) fn energy_j(&self) -> Option<f64> {
        Some(self.device()?.total_energy_consumption().ok()? as f64 / 1000.0)
    }
}

fn bytes(memory: &UsedGpuMemory) -> u64 {
    match memory {
        UsedGpuMemory::Used(bytes) => *bytes,
        UsedGpuMemory::Unavailable => 0,
    }
}

/// An entry of `CUDA_VISIBLE_DEVICES`.
#[derive(Debug, PartialEq, Eq)]
enum Visible {
    Index(u32),
    Uuid(String),
}

/// What CUDA's device `ordinal` is; `None` if the list has no such entry.
fn visible(list: &str, ordinal: u32) -> Option<Visible> {
    let entry = list.split(',').nth(ordinal as usize)?.trim();
    if entry.starts_with("GPU-") || entry.starts_with("MIG-") {
        return Some(Visible::Uuid(entry.into()));
    }
    entry.parse().ok().map(Visible::Index)
}

/// Names of the GPUs, in NVML's order.
pub(crate) fn names() -> Vec<String> {
    let Some(nvml) = nvml() else { return Vec::new() };
    let devices = (0..nvml.device_count().unwrap_or(0)).filter_map(|index| nvml.device_by_index(index).ok());
    devices.filter_map(|device| device.name().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_looked_up_through_the_visible_ones() {
        assert_eq!(visible("2,3", 1), Some(Visible::Index(3)));
        assert_eq!(visible("GPU-8932, 0", 0), Some(Visible::Uuid("GPU-8932".into())));
        assert_eq!(visible("2,3", 2), None);
        assert_eq!(visible("", 0), None);
    }

    #[test]
    fn a_gpu_that_is_there_can_be_read() {
        let Some(before) = GpuBefore::read(0) else {
            println!("skipped: NVML finds no GPU here");
            return;
        };
        assert!(!names().is_empty());
        assert_eq!(before.used_bytes(&[]).map(|bytes| bytes < 1 << 40), Some(true));
        assert!(before.utilization().is_some_and(|share| (0.0..=1.0).contains(&share)));
    }
}
