//! How a worker fails, and which status its row gets.

use dpsgd_protocol::messages::ErrorKind;
use dpsgd_protocol::results::Status;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

/// Longest reason kept, in characters.
const REASON_LIMIT: usize = 600;

/// Why a worker gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct WorkerError {
    /// What the row becomes.
    pub status: Status,
    /// One line for people.
    pub reason: String,
    /// Whether the user stopped the run; the row then keeps what it had.
    pub interrupted: bool,
}

impl WorkerError {
    /// An error with a reason made to fit one line.
    pub fn new(status: Status, reason: impl AsRef<str>) -> Self {
        WorkerError { status, reason: one_line(reason.as_ref()), interrupted: false }
    }

    /// The user stopped the run.
    pub fn interrupted() -> Self {
        WorkerError { interrupted: true, ..WorkerError::new(Status::Failed, "interrupted") }
    }

    /// What an error reply means. Libraries report exhausted memory as an ordinary failure, so its text is read too.
    pub(super) fn from_reply(kind: ErrorKind, message: &str) -> Self {
        let status = match kind {
            ErrorKind::Unsupported => Status::Unavailable,
            ErrorKind::OutOfMemory => Status::OutOfMemory,
            ErrorKind::Failed if names_exhausted_memory(message) => Status::OutOfMemory,
            ErrorKind::Protocol | ErrorKind::Failed => Status::Failed,
        };
        WorkerError::new(status, message)
    }

    /// The worker ended by itself. `oom_killed`: the kernel has killed some process for memory meanwhile, which is this
    /// one only if it died by SIGKILL.
    pub(super) fn exited(how: WaitStatus, when: &str, oom_killed: bool, last_line: &str) -> Self {
        let (how, killed_for_memory) = match how {
            WaitStatus::Signaled(_, Signal::SIGKILL, _) if oom_killed => {
                ("was killed by the kernel for lack of memory".to_string(), true)
            }
            WaitStatus::Signaled(_, signal, _) => (format!("was killed by {signal}"), false),
            WaitStatus::Exited(_, code) => (format!("exited with status {code}"), false),
            other => (format!("ended: {other:?}"), false),
        };
        let exhausted = killed_for_memory || names_exhausted_memory(last_line);
        let status = if exhausted { Status::OutOfMemory } else { Status::Failed };
        match last_line {
            "" => WorkerError::new(status, format!("the worker {how} {when}; it printed nothing")),
            line => WorkerError::new(status, format!("the worker {how} {when}; last line: {line}")),
        }
    }
}

/// Whether a message is one by which Python, C++, Rust, CUDA or XLA say that memory ran out.
fn names_exhausted_memory(message: &str) -> bool {
    let lower = message.to_lowercase();
    let rust_abort = lower.contains("memory allocation of") && lower.contains("bytes failed");
    let words = lower.split(|c: char| !c.is_alphanumeric() && c != '_').collect::<Vec<_>>();
    rust_abort
        || lower.contains("out of memory")
        || lower.contains("std::bad_alloc")
        || lower.contains("cannot allocate memory")
        || words.iter().any(|word| ["memoryerror", "outofmemoryerror", "_arraymemoryerror"].contains(word))
}

/// Newlines and runs of blanks become one blank, control characters vanish, and a long text loses its middle.
fn one_line(text: &str) -> String {
    let printable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = printable.split_whitespace().collect::<Vec<_>>().join(" ");
    let length = line.chars().count();
    if length <= REASON_LIMIT {
        return line;
    }
    let head: String = line.chars().take(REASON_LIMIT / 2).collect();
    let tail: String = line.chars().skip(length - REASON_LIMIT / 2).collect();
    format!("{head} ... {tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_message_about_memory_counts_as_out_of_memory() {
        let exhausted = [
            "MemoryError",
            "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 5.2 GiB",
            "what():  std::bad_alloc",
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB",
            "RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes",
            "memory allocation of 1099511627776 bytes failed",
        ];
        for message in exhausted {
            assert_eq!(WorkerError::from_reply(ErrorKind::Failed, message).status, Status::OutOfMemory, "{message}");
        }
        for message in ["no room left", "zoom: unknown layer", "oom", "memory format channels_last is not supported"] {
            assert_eq!(WorkerError::from_reply(ErrorKind::Failed, message).status, Status::Failed, "{message}");
        }
        assert_eq!(WorkerError::from_reply(ErrorKind::Unsupported, "no lstm").status, Status::Unavailable);
        assert_eq!(WorkerError::from_reply(ErrorKind::OutOfMemory, "big").status, Status::OutOfMemory);
    }

    #[test]
    fn a_kill_is_the_kernels_only_if_its_counter_has_grown() {
        let pid = nix::unistd::Pid::from_raw(1);
        let killed = |signal, oom_killed| {
            let error = WorkerError::exited(WaitStatus::Signaled(pid, signal, false), "during load", oom_killed, "");
            (error.status, error.reason)
        };
        let by_kernel = "the worker was killed by the kernel for lack of memory during load; it printed nothing";
        assert_eq!(killed(Signal::SIGKILL, true), (Status::OutOfMemory, by_kernel.into()));
        assert_eq!(killed(Signal::SIGKILL, false).0, Status::Failed);
        assert_eq!(killed(Signal::SIGSEGV, true).0, Status::Failed);
        let python = WorkerError::exited(WaitStatus::Exited(pid, 1), "during load", false, "MemoryError");
        assert_eq!(python.status, Status::OutOfMemory);
    }

    #[test]
    fn a_reason_is_one_line_of_limited_length() {
        assert_eq!(one_line("a\n  b\t\u{1b}[31mc\r\n"), "a b [31mc");
        let long = one_line(&format!("begin{}end", "x".repeat(10_000)));
        assert!(long.starts_with("beginx") && long.ends_with("xend") && long.len() < REASON_LIMIT + 10);
    }
}
