//! How much memory the triad goes over: far more than the caches hold, and no more than there is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Bytes of all arrays over bytes of the last-level caches: each of the three arrays is four times as large as they are,
/// as STREAM asks for.
const BEYOND: u64 = 3 * 4;
/// Last-level cache of a machine that does not tell.
const ASSUMED_CACHE: u64 = 32 << 20;
/// More would take too long to write for the first time.
const MOST: u64 = 2 << 30;
/// Less measures nothing.
const LEAST: u64 = 3 << 20;
/// The share of the free memory that may be used.
const OF_FREE: u64 = 4;

/// Bytes of all arrays together.
pub fn far_beyond_the_caches() -> usize {
    let caches = last_level_caches(Path::new("/sys/devices/system/cpu")).unwrap_or(ASSUMED_CACHE);
    bytes(caches, free()) as usize
}

fn bytes(caches: u64, free: Option<u64>) -> u64 {
    let most = free.map_or(MOST, |free| (free / OF_FREE).min(MOST));
    caches.saturating_mul(BEYOND).min(most).max(LEAST)
}

/// Bytes of the last-level caches of all processors, each cache counted once; `None` if the system does not tell.
fn last_level_caches(cpus: &Path) -> Option<u64> {
    // The level, and the sizes by the processors that share a cache of it.
    let mut last: (u32, BTreeMap<String, u64>) = (0, BTreeMap::new());
    for cpu in fs::read_dir(cpus).ok()?.flatten() {
        for index in fs::read_dir(cpu.path().join("cache")).into_iter().flatten().flatten() {
            let read = |name: &str| fs::read_to_string(index.path().join(name)).map(|text| text.trim().to_string());
            let (Ok(level), Ok(size), Ok(shared)) = (read("level"), read("size"), read("shared_cpu_list")) else {
                continue;
            };
            let (Ok(level), Some(size)) = (level.parse(), parse_size(&size)) else { continue };
            if level > last.0 {
                last = (level, BTreeMap::new());
            }
            if level == last.0 {
                last.1.insert(shared, size);
            }
        }
    }
    Some(last.1.values().sum()).filter(|sum| *sum > 0)
}

/// `32768K` or `32M` in bytes.
fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = match text.strip_suffix('K') {
        Some(number) => (number, 1 << 10),
        None => (text.strip_suffix('M')?, 1 << 20),
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// Bytes that can be had without pushing anything out: of the machine, or of the control group if that has less.
fn free() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let machine = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10;
    let group =
        |name: &str| fs::read_to_string(Path::new("/sys/fs/cgroup").join(name)).ok()?.trim().parse::<u64>().ok();
    let left = group("memory.max").zip(group("memory.current")).map(|(most, used)| most.saturating_sub(used));
    Some(left.map_or(machine, |left| left.min(machine)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_twelve_times_the_caches_unless_memory_is_short() {
        assert_eq!(bytes(32 << 20, Some(64 << 30)), 384 << 20);
        assert_eq!(bytes(32 << 20, Some(1 << 30)), 256 << 20);
        assert_eq!(bytes(768 << 20, Some(1 << 40)), MOST);
        assert_eq!(bytes(u64::MAX, None), MOST);
        assert_eq!(bytes(32 << 20, Some(0)), LEAST);
    }

    #[test]
    fn a_cache_shared_by_processors_counts_once_and_only_the_last_level_counts() {
        let root = std::env::temp_dir().join(format!("dpsgd-roofline-caches-{}", std::process::id()));
        for (cpu, index, level, size, shared) in [
            (0, 0, "1", "32K", "0"),
            (0, 3, "3", "16384K", "0-1"),
            (1, 0, "1", "32K", "1"),
            (1, 3, "3", "16384K", "0-1"),
            (2, 3, "3", "8M", "2"),
        ] {
            let folder = root.join(format!("cpu{cpu}/cache/index{index}"));
            fs::create_dir_all(&folder).unwrap();
            for (name, text) in [("level", level), ("size", size), ("shared_cpu_list", shared)] {
                fs::write(folder.join(name), format!("{text}\n")).unwrap();
            }
        }
        let found = last_level_caches(&root);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, Some(24 << 20));
        assert_eq!(last_level_caches(&root), None);
    }

    #[test]
    fn sizes_that_are_none_are_none() {
        for text in ["", "K", "32", "32G", "-1K"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
