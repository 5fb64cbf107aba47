//! What a process and its descendants use right now, from `/proc`.

use procfs::ProcResult;
use procfs::process::Process;

/// What a process and its living descendants use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct TreeUse {
    /// The highest that the resident bytes of the process itself ever were (`VmHWM`).
    pub(crate) peak_rss_bytes: u64,
    /// Resident bytes of the process and its descendants together, now.
    pub(crate) rss_bytes: u64,
    /// Seconds of CPU time, user and system, since their start, of the process, its living descendants, and the dead
    /// ones that were waited for. Counted in the kernel's ticks, usually 10 ms.
    pub(crate) cpu_s: f64,
}

/// Reads it; fails if the process is gone.
pub(crate) fn read(pid: i32) -> ProcResult<TreeUse> {
    let root = Process::new(pid)?;
    let status = root.status()?;
    // The kernel adds up resident pages per thread and reports them late: the peak it knows may lie below the present.
    let resident = status.vmrss.unwrap_or(0) * 1024;
    let peak = (status.vmhwm.unwrap_or(0) * 1024).max(resident);
    let mut total = TreeUse { peak_rss_bytes: peak, rss_bytes: resident, cpu_s: cpu_s(&root)? };
    let mut pending = children(&root);
    while let Some(pid) = pending.pop() {
        // A descendant may end at any moment; what it used is then found in its parent's count.
        let Ok(process) = Process::new(pid) else { continue };
        let (Ok(status), Ok(cpu_s)) = (process.status(), cpu_s(&process)) else { continue };
        total.rss_bytes += status.vmrss.unwrap_or(0) * 1024;
        total.cpu_s += cpu_s;
        pending.extend(children(&process));
    }
    Ok(total)
}

fn cpu_s(process: &Process) -> ProcResult<f64> {
    let stat = process.stat()?;
    let dead_children = stat.cutime.max(0) as u64 + stat.cstime.max(0) as u64;
    Ok((stat.utime + stat.stime + dead_children) as f64 / procfs::ticks_per_second() as f64)
}

/// The children, by whichever of its threads started them; empty where the kernel does not list children.
fn children(process: &Process) -> Vec<i32> {
    let Ok(tasks) = process.tasks() else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| task.children().ok());
    lists.flatten().filter_map(|pid| i32::try_from(pid).ok()).collect()
}
