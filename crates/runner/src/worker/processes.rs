//! Finding and ending the processes that a worker left behind.
//!
//! Three marks lead to them: the worker's process group; descent from it; and the token that it was given in its
//! environment, which a helper keeps when it leaves the group by `setsid` and its parent by forking twice. Only a helper
//! that did all three (left the group, cleared its environment, and lost its parent before we looked) is not found.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// The environment variable that carries a worker's token.
pub(super) const TOKEN: &str = "DPSGD_WORKER_TOKEN";

/// Time between two looks at the process table while ending a worker.
const PAUSE: Duration = Duration::from_millis(10);

/// What marks the processes of one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    /// Value of [`TOKEN`] in the worker's environment.
    pub(super) token: String,
    /// The worker's process group, which is also its process id; `None` until it is known.
    pub(super) group: Option<i32>,
}

/// The processes, other than zombies, that have `token` in their environment.
fn holders(token: &str) -> Vec<i32> {
    let wanted = format!("{TOKEN}={token}");
    let holds = |pid: &i32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
    };
    // A zombie's environment reads as empty.
    all_pids().into_iter().filter(holds).collect()
}

/// Kills all processes so marked until none is left, for at most `limit`; returns how many were still there.
pub(super) fn end_all(workers: &[Marks], limit: Duration) -> usize {
    let begin = Instant::now();
    let mut known: BTreeSet<i32> = workers.iter().filter_map(|marks| marks.group).collect();
    // Two looks in a row must find nothing: a process in the middle of an exec shows no environment for a moment.
    let mut empty_looks = 0;
    loop {
        // Before anything is killed: when a parent dies, its children become init's.
        known.extend(descendants(&known));
        for group in workers.iter().filter_map(|marks| marks.group) {
            // ESRCH: the group is empty already.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let mut found: BTreeSet<i32> = workers.iter().flat_map(|marks| holders(&marks.token)).collect();
        found.extend(known.iter().filter(|pid| is_alive(**pid)));
        empty_looks = if found.is_empty() { empty_looks + 1 } else { 0 };
        if empty_looks == 2 || begin.elapsed() >= limit {
            return found.len();
        }
        for pid in &found {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether a process exists and is not a zombie.
pub fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// All processes that descend from one of `roots`, zombies included.
fn descendants(roots: &BTreeSet<i32>) -> BTreeSet<i32> {
    let parents: HashMap<i32, i32> =
        all_pids().into_iter().filter_map(|pid| stat(pid).map(|stat| (pid, stat.parent))).collect();
    let descends = |pid: &i32| {
        let mut ancestor = parents.get(pid);
        // As many steps as there are processes: the table may change under us, so a cycle is conceivable.
        for _ in 0..parents.len() {
            match ancestor {
                Some(pid) if roots.contains(pid) => return true,
                Some(pid) => ancestor = parents.get(pid),
                None => return false,
            }
        }
        false
    };
    parents.keys().copied().filter(descends).collect()
}

struct Stat {
    state: char,
    parent: i32,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may itself hold blanks and parentheses.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some(Stat { state: fields.next()?.chars().next()?, parent: fields.next()?.parse().ok()? })
}

fn all_pids() -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
