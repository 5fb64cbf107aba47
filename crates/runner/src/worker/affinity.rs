//! Which processors a worker runs on.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The logical processors that this process may use, ascending.
pub fn usable_cpus() -> Vec<usize> {
    match sched_getaffinity(Pid::from_raw(0)) {
        Ok(set) => (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect(),
        Err(_) => (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
    }
}

/// Confines the calling thread, and so the processes that it spawns, to some processors until dropped.
pub(crate) struct Confined {
    before: Option<CpuSet>,
}

impl Confined {
    /// Confines to `cpus`; an empty list changes nothing. Fails with one line if the system refuses.
    pub(crate) fn to(cpus: &[usize]) -> Result<Confined, String> {
        if cpus.is_empty() {
            return Ok(Confined { before: None });
        }
        let refused = |e: nix::Error| {
            format!("processors {cpus:?} can't be used: {}; this process may use {:?}", e.desc(), usable_cpus())
        };
        let before = sched_getaffinity(Pid::from_raw(0)).map_err(refused)?;
        let mut wanted = CpuSet::new();
        for cpu in cpus {
            wanted.set(*cpu).map_err(refused)?;
        }
        sched_setaffinity(Pid::from_raw(0), &wanted).map_err(refused)?;
        Ok(Confined { before: Some(before) })
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // It was in force a moment ago. Should it fail all the same, the runner itself is merely slower.
            let _ = sched_setaffinity(Pid::from_raw(0), before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confinement_ends_when_it_is_dropped() {
        let before = usable_cpus();
        let last = *before.last().unwrap();
        {
            let _confined = Confined::to(&[last]).unwrap();
            assert_eq!(usable_cpus(), [last]);
        }
        assert_eq!(usable_cpus(), before);
    }

    #[test]
    fn a_processor_that_does_not_exist_is_named() {
        let reason = Confined::to(&[100_000]).err().unwrap();
        assert!(reason.contains("100000"), "{reason}");
    }
}
