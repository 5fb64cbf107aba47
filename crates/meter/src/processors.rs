//! The processors: which of them are one core, what sets their clocks, how much of their time is allowed.

use std::fs::read_to_string;
use std::path::Path;

/// What the system says of its processors beyond their model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Processors {
    /// What sets the clocks, such as `performance`; `None` where the system does not say, as in most virtual machines.
    pub governor: Option<String>,
    /// Whether clocks may be raised above the nominal one; `None` where the system does not say.
    pub turbo: Option<bool>,
    /// Processors' worth of time that the control group allows; `None` for no limit.
    pub quota: Option<f64>,
}

/// Reads what the system says; the governor is that of `cpu`.
pub fn processors(cpu: usize) -> Processors {
    let governor = trimmed(&format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"));
    Processors { governor, turbo: turbo(), quota: quota() }
}

/// Logical processors out of `usable`, as many as `count` or all, ascending: one of each core before a second of any.
pub fn spread_over_cores(usable: &[usize], count: usize) -> Vec<usize> {
    spread(usable, count, |cpu| {
        trimmed(&format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"))
            .unwrap_or_else(|| cpu.to_string())
    })
}

/// The same, where `core` names the core of a logical processor.
fn spread(usable: &[usize], count: usize, core: impl Fn(usize) -> String) -> Vec<usize> {
    let mut cores: Vec<(String, Vec<usize>)> = Vec::new();
    for cpu in usable {
        let name = core(*cpu);
        match cores.iter_mut().find(|(known, _)| *known == name) {
            Some((_, siblings)) => siblings.push(*cpu),
            None => cores.push((name, vec![*cpu])),
        }
    }
    let most = cores.iter().map(|(_, siblings)| siblings.len()).max().unwrap_or(0);
    let by_turn = (0..most).flat_map(|turn| cores.iter().filter_map(move |(_, siblings)| siblings.get(turn)));
    let mut chosen: Vec<usize> = by_turn.copied().take(count).collect();
    chosen.sort_unstable();
    chosen
}

fn turbo() -> Option<bool> {
    let intel = || Some(trimmed("/sys/devices/system/cpu/intel_pstate/no_turbo")? == "0");
    let other = || Some(trimmed("/sys/devices/system/cpu/cpufreq/boost")? == "1");
    intel().or_else(other)
}

/// The least quota of the control group, version 2 or 1, as seen from inside it and from the host.
fn quota() -> Option<f64> {
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut quotas = Vec::new();
    for line in groups.lines() {
        match line.splitn(3, ':').collect::<Vec<_>>()[..] {
            ["0", "", path] => quotas.extend(["", path].map(|path| of_version_2(&format!("/sys/fs/cgroup{path}")))),
            [_, controllers, path] if controllers.split(',').any(|name| name == "cpu") => {
                quotas.extend(["", path].map(|path| of_version_1(&format!("/sys/fs/cgroup/cpu{path}"))));
            }
            _ => {}
        }
    }
    quotas.into_iter().flatten().reduce(f64::min)
}

fn of_version_2(group: &str) -> Option<f64> {
    parse_version_2(&read_to_string(Path::new(group).join("cpu.max")).ok()?)
}

/// `200000 100000` is two processors; `max 100000` is no limit.
fn parse_version_2(text: &str) -> Option<f64> {
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let (quota, period) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (period > 0.0).then_some(quota / period)
}

fn of_version_1(group: &str) -> Option<f64> {
    let number = |name: &str| trimmed(&format!("{group}/{name}"))?.parse::<f64>().ok();
    let (quota, period) = (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?);
    // -1 is no limit.
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

fn trimmed(path: &str) -> Option<String> {
    let text = read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_siblings_are_chosen_while_another_core_is_free() {
        // Four cores of two threads, numbered as Linux does: 0 and 4 are one core.
        let core = |cpu: usize| format!("{},{}", cpu % 4, cpu % 4 + 4);
        assert_eq!(spread(&[0, 1, 2, 3, 4, 5, 6, 7], 4, core), [0, 1, 2, 3]);
        assert_eq!(spread(&[0, 1, 4, 5, 6], 3, core), [0, 1, 6]);
        assert_eq!(spread(&[0, 4, 1, 5], 3, core), [0, 1, 4]);
        assert_eq!(spread(&[0, 4], 5, core), [0, 4]);
        // Numbered as some machines do: neighbours are one core.
        assert_eq!(spread(&[0, 1, 2, 3], 2, |cpu| (cpu / 2).to_string()), [0, 2]);
    }

    #[test]
    fn every_usable_processor_of_this_machine_is_found_once() {
        let usable: Vec<usize> = (0..std::thread::available_parallelism().unwrap().get()).collect();
        assert_eq!(spread_over_cores(&usable, usable.len()), usable);
    }

    #[test]
    fn a_quota_is_a_number_of_processors() {
        assert_eq!(parse_version_2("150000 100000\n"), Some(1.5));
        assert_eq!(parse_version_2("max 100000\n"), None);
        assert_eq!(parse_version_2(""), None);
    }
}
