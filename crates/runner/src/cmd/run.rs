//! `runner --all`: measure, draw, and say how it went.

use std::error::Error;
use std::path::{Path, PathBuf};

use dpsgd_protocol::results::{Results, Status};
use jiff::Timestamp;

use super::Outcome;
use super::means::Asked;
use crate::checkout::Checkout;
use crate::cli::{EXIT_DISQUALIFIED, EXIT_ERROR, EXIT_OK, RunArgs};
use crate::config::Config;
use crate::measure::environment::{environment, run_name};
use crate::measure::progress::human;
use crate::measure::{Run, RunError, plan};
use crate::out::{self, RESULTS_FILE};

/// Where a run writes.
struct Folders {
    results: PathBuf,
    plots: PathBuf,
}

/// Carries out `runner --all`; the exit status, unless the harness failed.
pub fn run(args: &RunArgs) -> Outcome {
    let asked = Asked::read(&args.places, |registry| Config::of_run(args, registry))?;
    let started = Timestamp::now();
    let folders = folders(args.out.as_deref(), started)?;
    out::check(&folders.results, args.resume)?;
    out::check_writable(&folders.plots)?;
    if args.dry_run {
        let Asked { config, registry, .. } = &asked;
        let cells = plan::cells(config, &dpsgd_meter::machine().cpu_features);
        for cell in &cells {
            let same: Vec<String> = cell.same_program.iter().map(|name| format!(" = {name}")).collect();
            println!("{cell}{}", same.concat());
        }
        let (rows, cold, warm) = (cells.len(), config.cold_processes, config.processes);
        let (epochs, seconds, threads) = (config.epochs, config.seconds, config.threads);
        println!(
            "{rows} rows, each with {cold} processes alone ({epochs} epochs each) and {warm} in alternation with those \
             that it is compared with ({seconds} s of warm epochs each), {threads} threads"
        );
        let guess = human(plan::guess_seconds(&cells, config, registry));
        println!("estimated time, a guess that half or twice as long would not contradict: {guess}, after set-up");
        return Ok(EXIT_OK);
    }
    let asked_threads = asked.config.threads;
    let means = asked.prepare()?;
    let run = Run::new(means.bench(), environment(started, asked_threads), &folders.results, args.resume)?;
    let results = match run.carry_out() {
        Err(RunError::Interrupted(folder)) => return Err(interrupted(args, &folder).into()),
        outcome => outcome?,
    };
    let plots = dpsgd_report::plots(&results, &folders.plots)?;
    println!("{}", dpsgd_report::table(&results));
    println!("results: {}", folders.results.join(RESULTS_FILE).display());
    println!("plots:   {} ({} files)", folders.plots.display(), plots.len());
    Ok(exit_status(&results, means.device_missing.is_some()))
}

/// What to say of a run that was stopped: the command that continues it, which is this one with what it lacks.
fn interrupted(args: &RunArgs, folder: &Path) -> String {
    let given = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    let mut command: Vec<String> = given.collect();
    if args.out.is_none() {
        command.extend(["--out".into(), folder.display().to_string()]);
    }
    if !args.resume {
        command.push("--resume".into());
    }
    let command: Vec<String> = command.iter().map(|argument| quoted(argument)).collect();
    format!("stopped; what was measured is kept, continue with: {}", command.join(" "))
}

/// An argument as a shell reads it.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:=+@%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_string();
    }
    format!("'{}'", argument.replace('\'', "'\\''"))
}

fn folders(out: Option<&Path>, started: Timestamp) -> Result<Folders, Box<dyn Error>> {
    if let Some(out) = out {
        return Ok(Folders { results: out.to_path_buf(), plots: out.join("plots") });
    }
    let checkout = Checkout::find().ok_or("no checkout here or above: name a folder with --out")?;
    let name = run_name(started);
    Ok(Folders {
        results: checkout.root().join("results").join(&name),
        plots: checkout.root().join("plots").join(name),
    })
}

/// A contender that computes something else is the worst that can be found; a run that measured nothing has failed, unless
/// the device asked for is not here: then its rows say all there is to say.
fn exit_status(results: &Results, device_missing: bool) -> u8 {
    let any = |status| results.cells.iter().any(|cell| cell.status == status);
    if any(Status::Disqualified) {
        EXIT_DISQUALIFIED
    } else if any(Status::Ok) || device_missing {
        EXIT_OK
    } else {
        EXIT_ERROR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_a_quoted_argument_as_it_was() {
        for argument in ["--all", "a b", "it's", "", "$HOME", "a\"b", "x;y", "*", "ü"] {
            let echo = format!("printf %s {}", quoted(argument));
            let output = std::process::Command::new("sh").args(["-c", &echo]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), argument);
        }
        assert_eq!(quoted("--strategies=batched:captured,naive"), "--strategies=batched:captured,naive");
    }

    #[test]
    fn a_stopped_run_names_the_folder_and_resume_once() {
        let folder = Path::new("/a b/run");
        let fresh = interrupted(&RunArgs::default(), folder);
        assert!(fresh.ends_with(" --out '/a b/run' --resume"), "{fresh}");
        // Both are among the arguments of this run already.
        let again = interrupted(&RunArgs { out: Some(folder.into()), resume: true, ..RunArgs::default() }, folder);
        assert!(!again.contains("--out") && !again.contains("--resume"), "{again}");
    }
}
