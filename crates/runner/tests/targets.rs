//! `runner targets` as a user meets it: what it says, and its exit status.

#[path = "../../report/tests/sample/mod.rs"]
mod sample;

use std::path::Path;
use std::process::{Command, Output};

use dpsgd_protocol::results::{DataKind, Status};
use sample::{Contender, Sample};

const TARGETS: &str = r#"
device = "cuda"

[[target]]
workloads = ["ffnn"]
contender = "fused:best"
mode = "private"
against = "jax:jit+vmap"
at_least = 10.0

[[target]]
workloads = ["ffnn"]
contender = "fused:best"
mode = "private"
against = "fused:best"
against_mode = "non_private"
at_most = 1.2
"#;

/// A folder with [`TARGETS`] in `mine.toml`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine.toml"), TARGETS).unwrap();
    folder
}

/// Writes the results of a made-up run: of `fused`, whose epochs take about a second, and a private one so many times
/// as long, and of JAX, whose private epochs take so many seconds, or which is unavailable.
fn write(file: &Path, workload: &'static str, batch_size: usize, private: f64, jax: Option<f64>, gpu: bool) {
    write_processes(file, workload, batch_size, (private, jax), gpu, Sample::typical().processes);
}

/// The same, of so many processes.
fn write_processes(
    file: &Path,
    workload: &'static str,
    batch_size: usize,
    (private, jax): (f64, Option<f64>),
    gpu: bool,
    processes: usize,
) {
    let jax = match jax {
        Some(seconds) => Contender::new("jax:jit+vmap", seconds, 1.0, 0.0, 100.0),
        None => Contender::failing("jax:jit+vmap", Status::Unavailable, "no CUDA device"),
    };
    let sample = Sample {
        workloads: vec![(workload, DataKind::Real, 1.0)],
        contenders: vec![Contender::new("fused:best", 1.0, private, 0.0, 100.0), jax],
        batch_sizes: vec![batch_size],
        processes,
        gpu,
        ..Sample::typical()
    };
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    sample.results().save(file).unwrap();
}

/// Runs `runner targets` in `folder`.
fn targets(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
    command.arg("targets").args(args).current_dir(folder).env("PATH", "/nowhere").output().unwrap()
}

/// Checks its exit status; what it printed, line by line.
fn said(folder: &Path, args: &[&str], status: i32) -> Vec<String> {
    let output = targets(folder, args);
    let (said, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(status), "{said}{errors}");
    assert!(errors.is_empty(), "{errors}");
    said.lines().map(str::to_string).collect()
}

/// Checks that it ends with status 2 and one line that holds all of `parts`, and prints nothing else.
fn assert_refused(folder: &Path, args: &[&str], parts: &[&str]) {
    let output = targets(folder, args);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {errors}");
    assert!(errors.starts_with("error: ") && errors.lines().count() == 1 && output.stdout.is_empty(), "{errors}");
    for part in parts {
        assert!(errors.contains(part), "{args:?}: `{part}` is not in: {errors}");
    }
}

#[test]
fn runs_that_meet_every_target_end_with_0_and_say_what_they_ran_on() {
    let folder = folder();
    let folder = folder.path();
    write(&folder.join("one/results.json"), "ffnn", 256, 1.1, Some(20.0), true);
    write(&folder.join("two.json"), "ffnn", 64, 1.1, Some(20.0), true);
    write(&folder.join("three.json"), "lstm", 64, 1.1, None, true);
    let lines = said(folder, &["one", "two.json", "three.json", "--targets", "mine.toml"], 0);
    assert_eq!(lines[0], "device: cuda:0 (Made-up GPU, driver 1.2.3)");
    let starts = ["met           ffnn   64  fused:best private is ", "met           ffnn  256  fused:best private is "];
    for (line, start) in lines[1..].iter().zip(starts) {
        assert!(line.starts_with(start) && line.ends_with("as fast as jax:jit+vmap private (at least 10×)"), "{line}");
    }
    assert!(lines[3].contains("takes ") && lines[3].ends_with("fused:best non_private (at most 1.2×)"), "{}", lines[3]);
    assert_eq!((lines.len(), lines[5].as_str()), (6, "4 met, 0 missed, 0 inconclusive, 0 failed, 0 absent"));
}

#[test]
fn one_missed_or_failed_ends_with_1_and_one_absent_with_3() {
    let folder = folder();
    let folder = folder.path();
    let (file, args) = (folder.join("results.json"), [".", "--targets", "mine.toml"]);
    write(&file, "ffnn", 256, 2.0, Some(40.0), true);
    let lines = said(folder, &args, 1);
    assert!(lines[2].starts_with("MISSED        ffnn  256  fused:best private takes "), "{}", lines[2]);
    assert_eq!(lines[3], "1 met, 1 missed, 0 inconclusive, 0 failed, 0 absent");
    write(&file, "ffnn", 256, 1.1, None, true);
    let lines = said(folder, &args, 1);
    assert_eq!(lines[1], "failed        ffnn  256  jax:jit+vmap private is unavailable: no CUDA device");
    assert_eq!(lines[3], "1 met, 0 missed, 0 inconclusive, 1 failed, 0 absent");
    write(&file, "logreg", 256, 1.1, Some(20.0), true);
    let lines = said(folder, &args, 3);
    let expected =
        "absent        ffnn  –  not measured: fused:best private against jax:jit+vmap private (at least 10×)";
    assert_eq!(lines[1], expected);
    assert_eq!(lines[3], "0 met, 0 missed, 0 inconclusive, 0 failed, 2 absent");
}

#[test]
fn targets_without_an_interval_are_inconclusive_and_end_with_3() {
    let folder = folder();
    let folder = folder.path();
    write_processes(&folder.join("results.json"), "ffnn", 256, (1.1, Some(20.0)), true, 3);
    let lines = said(folder, &[".", "--targets", "mine.toml"], 3);
    assert!(lines[1].starts_with("inconclusive  ffnn  256  fused:best private is "), "{}", lines[1]);
    assert!(lines[1].ends_with("(at least 10×; no interval: fewer than 4 processes)"), "{}", lines[1]);
    assert_eq!(lines[3], "0 met, 0 missed, 2 inconclusive, 0 failed, 0 absent");
}

#[test]
fn results_of_another_kind_of_device_are_refused() {
    let folder = folder();
    let folder = folder.path();
    write(&folder.join("one.json"), "ffnn", 256, 1.1, Some(20.0), true);
    write(&folder.join("two.json"), "ffnn", 64, 1.1, Some(20.0), false);
    let args = ["one.json", "two.json", "--targets", "mine.toml"];
    assert_refused(folder, &args, &["two.json: measured on device cpu", "mine.toml is for cuda", "--targets"]);
    std::fs::write(folder.join("mine.toml"), TARGETS.replace("\"cuda\"", "\"cpu\"")).unwrap();
    assert_refused(folder, &args, &["one.json: measured on device cuda:0", "mine.toml is for cpu"]);
    let lines = said(folder, &args[1..], 0);
    assert_eq!(lines[0], "device: cpu (Made-up Processor 9000 @ 2.70GHz)");
}

#[test]
fn what_is_none_and_what_is_there_twice_is_refused() {
    let folder = folder();
    let folder = folder.path();
    write(&folder.join("one.json"), "ffnn", 256, 1.1, Some(20.0), true);
    write(&folder.join("two.json"), "ffnn", 256, 1.1, Some(20.0), true);
    let twice = "one.json and two.json: both have rows of ffnn, batch size 256; name one of them";
    assert_refused(folder, &["one.json", "two.json", "--targets", "mine.toml"], &[twice]);
    assert_refused(folder, &[], &["<RESULTS>"]);
    assert_refused(folder, &["nope", "--targets", "mine.toml"], &["nope: No such file"]);
    assert_refused(folder, &["one.json", "--targets", "nope.toml"], &["nope.toml: No such file"]);
    std::fs::write(folder.join("mine.toml"), TARGETS.replace("at_most", "at_mots")).unwrap();
    let parts = ["mine.toml:17", "unknown field `at_mots`", "did you mean `at_most`?"];
    assert_refused(folder, &["one.json", "--targets", "mine.toml"], &parts);
}

#[test]
fn the_targets_of_the_checkout_are_taken_unless_others_are_named() {
    let folder = folder();
    write(&folder.path().join("results.json"), "ffnn", 256, 1.1, Some(20.0), true);
    let lines = said(folder.path(), &["."], 3);
    let of = |name: &str| lines.iter().filter(|line| line.split_whitespace().nth(1) == Some(name)).count();
    // Against JAX and for privacy, in batches of 64 and of 256.
    assert!(dpsgd_core::ModelSpec::built_in_names().all(|name| of(name) == 4), "{lines:#?}");
    assert_eq!(lines.last().unwrap(), "2 met, 0 missed, 0 inconclusive, 0 failed, 26 absent");
}
