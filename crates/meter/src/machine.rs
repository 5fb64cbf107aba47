//! Facts about the machine that a result depends on.

use procfs::{CpuInfo, Current};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::gpu::nvml;

/// The instruction sets that compute kernels choose between, as the kernel names them.
const KERNEL_FEATURES: [&str; 12] = [
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512vl",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
];

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Operating system and kernel.
    pub os: String,
    /// Processor model.
    pub cpu: String,
    /// Logical processors that this process may use.
    pub cpus: usize,
    /// Instruction sets that matter to kernels, such as `avx512f`.
    pub cpu_features: Vec<String>,
    /// Bytes of memory; of the control group, where that allows less.
    pub memory_bytes: u64,
    /// GPUs, by name.
    pub gpus: Vec<String>,
    /// Version of the GPUs' driver; `None` without one.
    pub gpu_driver: Option<String>,
}

/// Reads the facts. What can't be found out is empty or `unknown`.
pub fn machine() -> Machine {
    let cpu_info = CpuInfo::current().ok();
    let cpu = cpu_info.as_ref().and_then(|info| info.model_name(0)).unwrap_or("unknown").to_string();
    let flags = cpu_info.as_ref().and_then(|info| info.flags(0)).unwrap_or_default();
    let features = KERNEL_FEATURES.iter().filter(|feature| flags.contains(feature));
    Machine {
        os: os(),
        cpu,
        cpus: usable_cpus(),
        cpu_features: features.map(|feature| feature.to_string()).collect(),
        memory_bytes: memory_bytes(),
        gpus: nvml::names(),
        gpu_driver: nvml::driver(),
    }
}

fn os() -> String {
    let known = [System::name(), System::os_version()].into_iter().flatten().collect::<Vec<_>>().join(" ");
    let kernel = System::kernel_version().unwrap_or_else(|_| "unknown kernel".into());
    format!("{known}, {} {kernel}, {}", std::env::consts::OS, System::cpu_arch())
}

fn usable_cpus() -> usize {
    // Follows the affinity and the control group's quota.
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn memory_bytes() -> u64 {
    let ram = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let Ok(system) = System::new_with_specifics(ram) else { return 0 };
    let allowed = system.cgroup_limits().map(|limits| limits.total_memory).filter(|bytes| *bytes > 0);
    allowed.map_or(system.total_memory(), |allowed| allowed.min(system.total_memory()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_no_more_than_the_kernel_reports() {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap();
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
        let kilobytes: u64 = total.trim().trim_end_matches(" kB").parse().unwrap();
        let memory_bytes = machine().memory_bytes;
        assert!(memory_bytes > 0 && memory_bytes <= kilobytes * 1024, "{memory_bytes} of {kilobytes} kB");
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_instruction_sets_are_those_that_the_processor_reports() {
        let features = machine().cpu_features;
        let has = |name: &str| features.iter().any(|feature| feature == name);
        assert_eq!(has("avx2"), std::is_x86_feature_detected!("avx2"));
        assert_eq!(has("fma"), std::is_x86_feature_detected!("fma"));
        assert_eq!(has("avx512f"), std::is_x86_feature_detected!("avx512f"));
    }

    #[test]
    fn every_fact_fits_one_line() {
        let Machine { os, cpu, cpus, .. } = machine();
        assert!(cpus >= 1);
        for text in [os, cpu] {
            assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
        }
    }
}
