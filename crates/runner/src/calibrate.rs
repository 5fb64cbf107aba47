//! The machine's peak, measured within a run: with its threads, on its processors, in a process of its own.
//!
//! The process is this executable again, with the hidden subcommand [`SUBCOMMAND`]: its arrays are hundreds of megabytes,
//! which the process that supervises workers should never have held, and it is confined to processors as they are. A
//! machine on which it fails has no peak, and its run goes on.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use dpsgd_protocol::results::Calibration;
use jiff::Timestamp;

use crate::measure::environment::utc;
use crate::worker::{Confined, Guard};

/// The hidden subcommand that measures and prints a [`Calibration`] as JSON.
pub const SUBCOMMAND: &str = "__calibrate";

/// It takes about two seconds; a slow machine takes longer, and one that takes this long is not measured.
const LIMIT: Duration = Duration::from_secs(60);
/// Time between two looks at the process.
const TICK: Duration = Duration::from_millis(20);

/// Why there is no calibration.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum CalibrationError {
    /// The user stopped the run.
    #[error("stopped")]
    Interrupted,
    /// It failed: one line.
    #[error("{0}")]
    Failed(String),
}

/// Measures with `threads` threads on the processors `cpus`.
pub fn calibrate(cpus: &[usize], threads: usize, guard: &Guard) -> Result<Calibration, CalibrationError> {
    let executable = std::env::current_exe().map_err(failed)?;
    with(&executable, cpus, threads, LIMIT, || guard.is_interrupted())
}

fn with(
    executable: &Path,
    cpus: &[usize],
    threads: usize,
    limit: Duration,
    is_interrupted: impl Fn() -> bool,
) -> Result<Calibration, CalibrationError> {
    let mut command = Command::new(executable);
    command.args([SUBCOMMAND, &threads.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = {
        let _confined = Confined::to(cpus).map_err(CalibrationError::Failed)?;
        command.spawn().map_err(failed)?
    };
    let mut running = Running(child);
    let begin = Instant::now();
    // What it says fits into a pipe, so it ends whether or not anyone reads.
    let status = loop {
        if let Some(status) = running.0.try_wait().map_err(failed)? {
            break status;
        }
        if is_interrupted() {
            return Err(CalibrationError::Interrupted);
        }
        if begin.elapsed() > limit {
            return Err(failed(format!("not done after {} s", limit.as_secs_f64())));
        }
        std::thread::sleep(TICK);
    };
    if is_interrupted() {
        return Err(CalibrationError::Interrupted);
    }
    let (mut answer, mut said) = (String::new(), Vec::new());
    running.0.stdout.take().expect("stdout is piped").read_to_string(&mut answer).map_err(failed)?;
    running.0.stderr.take().expect("stderr is piped").read_to_end(&mut said).map_err(failed)?;
    if !status.success() {
        let said = String::from_utf8_lossy(&said).trim().replace('\n', " ");
        return Err(failed(if said.is_empty() { status.to_string() } else { format!("{status}: {said}") }));
    }
    let calibration: Calibration = serde_json::from_str(&answer).map_err(failed)?;
    let figures = [calibration.flops_per_s, calibration.bytes_per_s];
    if figures.iter().all(|figure| figure.is_finite() && *figure > 0.0) {
        return Ok(calibration);
    }
    Err(failed(format!("{figures:?} are no operations and bytes per second")))
}

fn failed(reason: impl ToString) -> CalibrationError {
    CalibrationError::Failed(reason.to_string())
}

/// A process that does not outlive its use.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail if it has ended and been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The whole of the hidden subcommand.
pub fn main(threads: usize) -> ExitCode {
    let taken = utc(Timestamp::now());
    let peak = dpsgd_roofline::measure(threads);
    let calibration = Calibration {
        taken,
        threads: peak.threads,
        flops_per_s: peak.flops_per_s,
        matrix_size: peak.matrix_size,
        bytes_per_s: peak.bytes_per_s,
        triad_bytes: peak.triad_bytes as u64,
    };
    println!("{}", serde_json::to_string(&calibration).expect("a calibration is plain data"));
    ExitCode::SUCCESS
}

#[cfg(test)]
#[path = "../tests/support/executable.rs"]
mod executable;

#[cfg(test)]
mod tests {
    use super::executable::write_executable;
    use super::*;

    /// What comes of an executable that runs `script`.
    fn of_script(script: &str, limit: Duration, interrupted: bool) -> Result<Calibration, CalibrationError> {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("calibrate");
        write_executable(&program, script);
        with(&program, &[], 2, limit, || interrupted)
    }

    fn reason(script: &str) -> String {
        match of_script(script, LIMIT, false) {
            Err(CalibrationError::Failed(reason)) => reason,
            other => panic!("{script}: {other:?}"),
        }
    }

    const ANSWER: &str = r#"{"taken": "2026-11-24T03:20:00Z", "threads": THREADS, "flops_per_s": 2e11,
        "matrix_size": 768, "bytes_per_s": 3e10, "triad_bytes": 402653184}"#;

    #[test]
    fn the_answer_of_the_process_is_the_calibration_and_it_is_told_the_threads() {
        let answer = ANSWER.replace("THREADS", "'$2'");
        let script = format!("test $1 = __calibrate && echo '{answer}'");
        let calibration = of_script(&script, LIMIT, false).unwrap();
        assert_eq!((calibration.threads, calibration.flops_per_s, calibration.bytes_per_s), (2, 2e11, 3e10));
    }

    #[test]
    fn a_process_that_fails_or_answers_nonsense_is_a_reason_in_one_line() {
        let said = reason("echo no such; echo instruction >&2; exit 3");
        assert!(said.contains('3') && said.contains("instruction"), "{said}");
        assert!(reason("kill -9 $$").contains("signal: 9"));
        for script in ["", "echo nonsense", "echo '{}'"] {
            assert!(!reason(script).contains('\n'));
        }
        for figure in ["0", "-1", "1e999"] {
            let answer = ANSWER.replace("THREADS", "2").replace("2e11", figure);
            let said = reason(&format!("echo '{answer}'"));
            assert!(!said.is_empty(), "{figure}");
        }
        let missing = with(Path::new("/nowhere/runner"), &[], 1, LIMIT, || false).unwrap_err();
        assert!(matches!(missing, CalibrationError::Failed(_)), "{missing}");
    }

    #[test]
    fn a_processor_that_is_not_there_is_a_reason() {
        let error = with(Path::new("/bin/true"), &[100_000], 1, LIMIT, || false).unwrap_err();
        assert!(error.to_string().contains("100000"), "{error}");
    }

    #[test]
    fn a_process_that_takes_too_long_is_ended_and_so_is_one_that_the_user_stops() {
        let begin = Instant::now();
        let error = of_script("exec sleep 60", Duration::from_millis(100), false).unwrap_err();
        assert!(error.to_string().contains("not done after 0.1 s"), "{error}");
        assert_eq!(of_script("exec sleep 60", LIMIT, true), Err(CalibrationError::Interrupted));
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
}
