//! A GPU as NVML, the library of NVIDIA's driver, shows it.

use std::sync::OnceLock;

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::{Device, Nvml};

use super::Gpu;

/// NVML, if this machine has it. Containers have the versioned name only.
fn nvml() -> Option<&'static Nvml> {
    static NVML: OnceLock<Option<Nvml>> = OnceLock::new();
    let load = || {
        let versioned = Nvml::builder().lib_path("libnvidia-ml.so.1".as_ref()).init();
        versioned.or_else(|_| Nvml::init()).ok()
    };
    NVML.get_or_init(load).as_ref()
}

impl Gpu for Device<'static> {
    fn used_bytes(&self) -> Option<u64> {
        Some(self.memory_info().ok()?.used)
    }

    fn process_bytes(&self, pid: i32) -> Option<u64> {
        let processes = self.running_compute_processes().ok()?;
        let own = processes.iter().find(|process| i32::try_from(process.pid) == Ok(pid))?;
        match own.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        }
    }

    fn utilization(&self) -> Option<f64> {
        Some(f64::from(self.utilization_rates().ok()?.gpu) / 100.0)
    }

    fn power_w(&self) -> Option<f64> {
        Some(f64::from(self.power_usage().ok()?) / 1000.0)
    }

    fn energy_j(&self) -> Option<f64> {
        Some(self.total_energy_consumption().ok()? as f64 / 1000.0)
    }

    fn throttle_reasons(&self) -> Vec<&'static str> {
        self.current_throttle_reasons().map(names_of).unwrap_or_default()
    }
}

/// Reasons in words; those that say that nothing is held back are left out.
fn names_of(reasons: ThrottleReasons) -> Vec<&'static str> {
    let known = [
        (ThrottleReasons::APPLICATIONS_CLOCKS_SETTING, "application clocks are set"),
        (ThrottleReasons::SW_POWER_CAP, "power cap"),
        (ThrottleReasons::HW_SLOWDOWN, "hardware slowdown"),
        (ThrottleReasons::SYNC_BOOST, "sync boost with another GPU"),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, "heat"),
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, "heat, in hardware"),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "power brake"),
        (ThrottleReasons::DISPLAY_CLOCK_SETTING, "display clocks are set"),
    ];
    known.into_iter().filter(|(reason, _)| reasons.contains(*reason)).map(|(_, name)| name).collect()
}

/// CUDA's device `ordinal`; the error says why there is none.
pub(super) fn device(ordinal: usize) -> Result<Device<'static>, String> {
    let nvml = nvml().ok_or("NVML, the library of NVIDIA's driver, is not here")?;
    let count = nvml.device_count().unwrap_or(0);
    let absent = || format!("NVML finds {count}");
    let found = match std::env::var("CUDA_VISIBLE_DEVICES") {
        Ok(list) => match visible(&list, ordinal).ok_or_else(|| format!("CUDA_VISIBLE_DEVICES={list} names none"))? {
            Visible::Index(index) => nvml.device_by_index(index),
            Visible::Uuid(uuid) => nvml.device_by_uuid(uuid),
        },
        Err(_) => nvml.device_by_index(u32::try_from(ordinal).map_err(|_| absent())?),
    };
    found.map_err(|_| absent())
}

/// Why CUDA's device `ordinal` is not on this machine; `None` if it is, or if only CUDA itself could tell.
pub fn missing_cuda_device(ordinal: usize) -> Option<String> {
    let reason = device(ordinal).err()?;
    // Some drivers come without NVML: of an integrated GPU, and within Windows.
    let driver_without_nvml = || ["/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/dxg"].iter().any(|path| exists(path));
    (nvml().is_some() || !driver_without_nvml()).then_some(reason)
}

fn exists(path: &str) -> bool {
    std::path::Path::new(path).exists()
}

/// An entry of `CUDA_VISIBLE_DEVICES`.
#[derive(Debug, PartialEq, Eq)]
enum Visible {
    Index(u32),
    Uuid(String),
}

/// What CUDA's device `ordinal` is; `None` if the list has no such entry.
fn visible(list: &str, ordinal: usize) -> Option<Visible> {
    let entry = list.split(',').nth(ordinal)?.trim();
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

/// The driver's version, such as `580.159.04`.
pub(crate) fn driver() -> Option<String> {
    nvml()?.sys_driver_version().ok()
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
    fn an_idle_gpu_is_not_throttled_and_several_reasons_are_all_named() {
        assert!(names_of(ThrottleReasons::NONE | ThrottleReasons::GPU_IDLE).is_empty());
        let both = ThrottleReasons::SW_POWER_CAP | ThrottleReasons::SW_THERMAL_SLOWDOWN | ThrottleReasons::GPU_IDLE;
        assert_eq!(names_of(both), ["power cap", "heat"]);
    }

    #[test]
    fn a_gpu_that_is_there_can_be_read_and_one_that_is_not_has_a_reason() {
        assert!(device(usize::MAX).is_err());
        let Ok(gpu) = device(0) else {
            println!("skipped: NVML finds no GPU here");
            return;
        };
        assert!(!names().is_empty() && driver().is_some());
        assert_eq!(missing_cuda_device(0), None);
        assert!(gpu.used_bytes().is_some_and(|bytes| bytes < 1 << 40));
        assert!(gpu.utilization().is_some_and(|share| (0.0..=1.0).contains(&share)));
    }
}
