//! What else the machine is doing: its load, what other machines on the same hardware took, and the memory left.

use std::fs::read_to_string;

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// The machine at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Processes that ran or wanted to, averaged over a minute; `None` where the system does not say.
    pub average: Option<f64>,
    /// Ticks, over all processors since the start of the system, that the host gave to others while a processor here had
    /// work.
    stolen: u64,
    /// Ticks of any kind.
    total: u64,
}

impl Load {
    /// Reads it now.
    pub fn now() -> Load {
        let average = read_to_string("/proc/loadavg").ok().and_then(|text| text.split(' ').next()?.parse().ok());
        let (stolen, total) = ticks(&read_to_string("/proc/stat").unwrap_or_default()).unwrap_or_default();
        Load { average, stolen, total }
    }

    /// Share of the processors' time that was stolen between two moments, 0 to 1; 0 if no tick went by.
    pub fn steal_since(&self, before: &Load) -> f64 {
        let total = self.total.saturating_sub(before.total);
        if total == 0 { 0.0 } else { self.stolen.saturating_sub(before.stolen) as f64 / total as f64 }
    }
}

/// Stolen and all ticks of the line `cpu  user nice system idle iowait irq softirq steal guest guest_nice`. Guests' are a
/// part of user's and nice's.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).take(8).collect();
    Some((*fields.get(7)?, fields.iter().sum()))
}

/// Bytes of memory that new processes can have without anything being swapped out: of the system, or of the control
/// group where that allows less. `None` where the system does not say.
pub fn available_memory() -> Option<u64> {
    let text = read_to_string("/proc/meminfo").ok()?;
    let kilobytes: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .ok()?;
    let ram = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let limits = System::new_with_specifics(ram).ok().and_then(|system| system.cgroup_limits());
    let allowed = limits.map(|limits| limits.free_memory).filter(|free| *free > 0);
    Some(allowed.map_or(kilobytes * 1024, |allowed| allowed.min(kilobytes * 1024)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_a_share_of_all_ticks_and_guests_are_not_counted_twice() {
        let stat = "cpu  100 0 50 800 10 0 0 40 30 0\ncpu0 1 2 3\n";
        assert_eq!(ticks(stat), Some((40, 1000)));
        let load = |stolen, total| Load { average: None, stolen, total };
        assert_eq!(load(50, 1100).steal_since(&load(40, 1000)), 0.1);
        assert_eq!(load(40, 1000).steal_since(&load(40, 1000)), 0.0);
    }

    #[test]
    fn this_machine_says_its_load_and_its_memory() {
        assert!(Load::now().average.is_some_and(|average| average >= 0.0));
        assert!(available_memory().is_some_and(|bytes| bytes > 1 << 20 && bytes <= crate::machine().memory_bytes));
    }
}
