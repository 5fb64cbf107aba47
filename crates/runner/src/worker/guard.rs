//! A second process that outlives the runner just long enough to end the runner's workers.
//!
//! A runner that is killed by SIGKILL can't clean up, and a worker that hangs doesn't notice that its stdin closed. So
//! the runner starts itself again as a guard, in a process group of its own (Ctrl-C reaches only the runner), and tells
//! it of every worker through a pipe. When the pipe closes, for whatever reason, the guard ends all workers it knows.
//!
//! A worker's token is told before the worker is spawned. Between fork and exec the worker still holds the runner's end
//! of the pipe, so the pipe can't close before the token is in its environment: there is no gap.

use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::Interrupt;
use super::processes::{Marks, end_all};

/// The hidden subcommand of the runner that calls [`guard_main`].
pub const GUARD_COMMAND: &str = "__guard";

/// How long the guard tries to end workers before it gives up.
const LIMIT: Duration = Duration::from_secs(5);

/// The runner's side: workers registered here do not outlive the runner. Clones share the one guard process, which ends
/// with the last of them.
#[derive(Clone, Debug)]
pub struct Guard {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    program: PathBuf,
    interrupt: Interrupt,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The guard process and the pipe to it.
    process: (Child, ChildStdin),
    /// Workers that are running.
    workers: Vec<Marks>,
}

impl Guard {
    /// Starts this very executable again as the guard, and takes over Ctrl-C and SIGTERM; see [`Interrupt`].
    pub fn start() -> io::Result<Guard> {
        // The link, not its target: it leads to the running executable even after a rebuild has replaced the file.
        Guard::start_program(Path::new("/proc/self/exe"), Interrupt::install()?)
    }

    /// Starts an executable whose [`GUARD_COMMAND`] calls [`guard_main`]. The workers' waits watch `interrupt`.
    pub fn start_program(program: &Path, interrupt: Interrupt) -> io::Result<Guard> {
        let state = State { process: spawn(program)?, workers: Vec::new() };
        let shared = Shared { program: program.to_path_buf(), interrupt, state: Mutex::new(state) };
        Ok(Guard { shared: Arc::new(shared) })
    }

    /// Whether the user has asked to stop.
    pub fn is_interrupted(&self) -> bool {
        self.shared.interrupt.is_raised()
    }

    /// The guard's process id.
    pub fn pid(&self) -> i32 {
        self.lock().process.0.id() as i32
    }

    /// Adds a worker, before it is spawned (`group: None`) and again once its process group is known.
    pub(super) fn register(&self, marks: &Marks) -> io::Result<()> {
        let mut state = self.lock();
        state.workers.retain(|worker| worker.token != marks.token);
        state.workers.push(marks.clone());
        if tell(&mut state.process.1, marks).is_ok() {
            return Ok(());
        }
        // The guard itself has been killed. A new one takes over all that is running.
        let _ = state.process.0.wait();
        state.process = spawn(&self.shared.program)?;
        let State { process, workers } = &mut *state;
        workers.iter().try_for_each(|worker| tell(&mut process.1, worker))
    }

    /// Forgets a worker that has ended, before it is reaped: later its process id may belong to somebody else.
    pub(super) fn release(&self, token: &str) {
        let mut state = self.lock();
        state.workers.retain(|worker| worker.token != token);
        // A guard that is gone has nothing to forget.
        let _ = writeln!(state.process.1, "- {token}");
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn spawn(program: &Path) -> io::Result<(Child, ChildStdin)> {
    let mut command = Command::new(program);
    command.arg(GUARD_COMMAND).process_group(0);
    // Not the runner's own output: `runner | tee log` must end when the runner does.
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let pipe = child.stdin.take().expect("stdin is piped");
    Ok((child, pipe))
}

fn tell(pipe: &mut ChildStdin, marks: &Marks) -> io::Result<()> {
    match marks.group {
        Some(group) => writeln!(pipe, "+ {} {group}", marks.token),
        None => writeln!(pipe, "+ {}", marks.token),
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        // Replacing the pipe would need a second one; the guard is asked to end instead, then waited for.
        let _ = writeln!(state.process.1, "end");
        let _ = state.process.0.wait();
    }
}

/// The whole `main` of the guard: reads the runner's notes until the pipe closes, then ends the workers.
pub fn guard_main() -> ExitCode {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The guard ends when its runner has, and not before. It works without this too, only less surely.
        let _ = signal_hook::flag::register(signal, Arc::<AtomicBool>::default());
    }
    let mut workers = Vec::new();
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        note(&mut workers, &line);
        if line == "end" {
            break;
        }
    }
    match end_all(&workers, LIMIT) {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Applies one line, `+ TOKEN`, `+ TOKEN GROUP` or `- TOKEN`, to the list of workers.
fn note(workers: &mut Vec<Marks>, line: &str) {
    let fields: Vec<&str> = line.split(' ').collect();
    if let ["+" | "-", token, ..] = fields[..] {
        workers.retain(|worker| worker.token != token);
    }
    match fields[..] {
        ["+", token] => workers.push(Marks { token: token.into(), group: None }),
        ["+", token, group] => workers.push(Marks { token: token.into(), group: group.parse().ok() }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_knows_the_workers_that_run_and_forgets_those_that_ended() {
        let mut workers = Vec::new();
        for line in ["+ a", "+ b", "+ a 17", "- b", "+ c 18"] {
            note(&mut workers, line);
        }
        let known = |token: &str, group| Marks { token: token.into(), group: Some(group) };
        assert_eq!(workers, [known("a", 17), known("c", 18)]);
    }
}
