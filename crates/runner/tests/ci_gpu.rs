//! `ci/gpu` in what looks like a bundle: it ends in time whatever the runner does, and says how its parts went.

#[path = "support/executable.rs"]
mod executable;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use executable::write_executable;

/// For starting processes on a busy machine.
const SLACK: Duration = Duration::from_secs(4);

/// A runner that does not end when it is asked to, and leaves a process behind that holds its output open.
const STUBBORN: &str = "trap '' INT TERM; echo at work; setsid sleep 20 2>/dev/null & sleep 20";

/// A runner that does all it is asked to in no time, and remembers what that was.
const WILLING: &str = r#"
echo "$*" >>asked
case $1 in
    repeat) echo "7 the same" ;;
    verify) echo "14 passed" ;;
    --all)
        while [ "$1" != --out ]; do shift; done
        echo '"status": "ok"' >"$2/results.json"
        ;;
esac"#;

/// What a runner begins with that says that there is a GPU.
const WITH_A_GPU: &str = "[ $1 != doctor ] || { echo 'ok       GPU            a fake'; exit; }";

/// A folder with `ci/gpu` and a runner of our making.
struct Bundle {
    /// What `--device` names.
    device: &'static str,
    folder: tempfile::TempDir,
}

impl Bundle {
    fn new(runner: &str) -> Bundle {
        let bundle = Bundle { device: "cpu", folder: tempfile::tempdir().unwrap() };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ci/gpu");
        std::fs::create_dir(bundle.file("ci")).unwrap();
        std::fs::copy(script, bundle.file("ci/gpu")).unwrap();
        std::fs::write(bundle.file("bundle.json"), "{}").unwrap();
        write_executable(&bundle.file("runner"), runner);
        bundle
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A worker and its tests of a device.
    fn set_fused(&self, worker: &str, tests: &str) {
        for (folder, text) in [("workers", worker), ("checks", tests)] {
            std::fs::create_dir_all(self.file(folder)).unwrap();
            write_executable(&self.file(folder).join("dpsgd-fused"), text);
        }
    }

    /// The command.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("bash");
        command.arg(self.file("ci/gpu")).args(["--device", self.device, "--out"]).arg(self.file("out")).args(args);
        command
    }

    /// What [`leaving_rows`] leaves, by strategy and status.
    fn set_rows(&self, rows: &[(&str, &str)]) {
        let row = |(strategy, status): &(&str, &str)| {
            format!("  \"mode\": \"private\",\n  \"strategy\": \"{strategy}\",\n  \"status\": \"{status}\",\n")
        };
        std::fs::write(self.file("rows"), rows.iter().map(row).collect::<String>()).unwrap();
    }

    /// The status, the summary, and how long it took.
    fn run(&self, args: &[&str]) -> (Option<i32>, Vec<String>, Duration) {
        let begin = Instant::now();
        let output = self.command(args).output().unwrap();
        let took = begin.elapsed();
        let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let summary = std::fs::read_to_string(self.file("out/summary.txt")).unwrap_or_default();
        assert!(!summary.is_empty() && said.ends_with(&summary), "{said}{errors}");
        (output.status.code(), summary.lines().map(str::to_string).collect(), took)
    }
}

/// Asserts that a line of the summary is of this part, ended so and has this text.
fn assert_line(line: &str, part: &str, status: &str, text: &str) {
    let words: Vec<&str> = line.split_whitespace().take(2).collect();
    assert!(words == [part, status] && line.contains(text), "{line}: not {part}, {status}, {text}");
}

#[test]
fn it_ends_in_time_even_if_nothing_that_it_starts_does() {
    let bundle = Bundle::new(STUBBORN);
    // A hundredth of 470 s.
    let (status, summary, took) = bundle.run(&["--scale", "0.01"]);
    assert!(took < Duration::from_millis(4700) + SLACK, "{took:?}");
    assert_eq!((status, summary.len()), (Some(1), 13), "{summary:?}");
    assert_line(&summary[0], "repeat", "FAILED", "not done within 0.600 s");
    assert_line(&summary[1], "tests", "skipped", "");
    assert_line(&summary[2], "profile", "skipped", "");
    assert_line(&summary[3], "measure", "cut", "mnist-cnn: 0 rows ok");
    assert_line(&summary[4], "measure", "cut", "ffnn: no time left");
    assert_line(&summary[10], "targets", "skipped", "");
    assert_line(&summary[11], "sanitize", "skipped", "");
    assert_line(&summary[12], "verify", "cut", "no time left");
    assert!(bundle.file("out/repeat.txt").is_file());
}

#[test]
fn a_runner_that_does_not_end_is_not_waited_for_either_when_it_is_asked_for_the_device() {
    let bundle = Bundle { device: "cuda:0", ..Bundle::new(STUBBORN) };
    let (status, summary, took) = bundle.run(&["--scale", "0.01", "repeat"]);
    assert!(took < Duration::from_millis(300 + 600) + SLACK, "{took:?}");
    assert_eq!((status, summary.len()), (Some(1), 1), "{summary:?}");
    assert_line(&summary[0], "repeat", "FAILED", "not done within 0.600 s");
}

#[test]
fn a_part_that_has_no_time_left_or_less_than_its_limit_is_cut() {
    // Of 4.7 s, the 0.6 that are the limit of `repeat` are not left; on a busy machine, nothing may be.
    let bundle = Bundle::new("trap '' INT; [ $1 != verify ] || exec sleep 4.4; exec sleep 30");
    let (status, summary, _) = bundle.run(&["--scale", "0.01", "verify", "repeat", "repeat", "measure"]);
    assert_eq!((status, summary.len()), (Some(0), 10), "{summary:?}");
    assert_line(&summary[0], "verify", "cut", "0 verified within");
    assert_line(&summary[1], "repeat", "cut", "left");
    assert_line(&summary[2], "repeat", "cut", "no time left");
    assert_line(&summary[3], "measure", "cut", "no time left");
}

#[test]
fn looking_at_a_tool_that_hangs_is_within_its_limit() {
    let hang = "trap '' INT TERM; sleep 20";
    let tool = Bundle::new(hang);
    std::fs::rename(tool.file("runner"), tool.file("compute-sanitizer")).unwrap();
    let bundle = Bundle { device: "cuda:0", ..Bundle::new(&format!("{WITH_A_GPU}; {hang}")) };
    let path = format!("{}:{}", tool.folder.path().display(), std::env::var("PATH").unwrap());
    let begin = Instant::now();
    let output = bundle.command(&["--scale", "0.2", "sanitize"]).env("PATH", path).output().unwrap();
    let (took, said) = (begin.elapsed(), String::from_utf8_lossy(&output.stdout).into_owned());
    assert_eq!(said.matches("not done within 4.000 s, no finding in its logs").count(), 3, "{said}");
    // A fifth of 60 s; with the looks beside it, it would be 15 s.
    assert!(took < Duration::from_millis(14_500), "{took:?}");
}

#[test]
fn a_tool_that_is_slow_has_failed_if_it_found_something() {
    let tool = Bundle::new("exit 0");
    std::fs::rename(tool.file("runner"), tool.file("compute-sanitizer")).unwrap();
    let path = format!("{}:{}", tool.folder.path().display(), std::env::var("PATH").unwrap());
    for (log, words) in [
        ("========= COMPUTE-SANITIZER\n========= Warning: Race reported\n=========     at x", ["FAILED", "cut", "cut"]),
        ("========= COMPUTE-SANITIZER\n========= RACECHECK SUMMARY: 0 hazards displayed", ["cut"; 3]),
    ] {
        let log = log.replace('\n', "\\n");
        let leave = format!("[ -e racy ] || {{ touch racy; printf '{log}' >out/memcheck.7.log; }}; exec sleep 20");
        let bundle = Bundle { device: "cuda:0", ..Bundle::new(&format!("{WITH_A_GPU}; {leave}")) };
        let output = bundle.command(&["--scale", "0.05", "sanitize"]).env("PATH", &path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let summary = std::fs::read_to_string(bundle.file("out/summary.txt")).unwrap();
        for (line, word) in summary.lines().zip(words) {
            let text =
                if word == "FAILED" { "memcheck: ========= Warning: Race reported" } else { "done within 1.000 s" };
            assert_line(line, "sanitize", word, text);
        }
        assert_eq!((summary.lines().count(), output.status.code()), (3, Some((words[0] == "FAILED").into())), "{said}");
    }
}

#[test]
fn on_a_device_fused_is_tested_and_profiled_and_targets_are_judged() {
    let runner =
        format!("{WITH_A_GPU}; [ $1 != targets ] || {{ echo \"$*\" >judged; echo '14 met'; exit; }}\n{WILLING}");
    let bundle = Bundle { device: "cuda:0", ..Bundle::new(&runner) };
    bundle.set_fused("echo \"slowest: $2 $3 $4\"", "echo \"test result: ok. 5 passed, $*\"");
    let parts = ["tests", "profile", "targets"];
    let (status, summary, _) = bundle.run(&parts);
    assert_eq!((status, summary.len()), (Some(0), 9), "{summary:?}");
    assert_line(&summary[0], "tests", "ok", "test result: ok. 5 passed, --nocapture device::");
    assert_line(&summary[1], "profile", "ok", "mnist-cnn: slowest: mnist-cnn 256 cuda:0");
    assert_line(&summary[7], "profile", "ok", "lstm: slowest");
    assert_line(&summary[8], "targets", "cut", "nothing measured yet");
    let (status, summary, _) = bundle.run(&["measure", "targets"]);
    assert_eq!((status, summary.len()), (Some(0), 8), "{summary:?}");
    assert_line(&summary[7], "targets", "ok", "14 met");
    let judged = std::fs::read_to_string(bundle.file("judged")).unwrap();
    assert!(judged.matches("/results.json").count() == 7 && judged.contains("out/measured/lstm/"), "{judged}");
}

#[test]
fn a_test_that_finds_no_device_has_failed_on_one_and_so_has_a_profile_that_is_none() {
    let bundle = Bundle { device: "cuda:0", ..Bundle::new(&format!("{WITH_A_GPU}; exit 1")) };
    bundle.set_fused("echo 'no such kernel' >&2; exit 2", "echo 'skipped: no NVRTC'; echo 'test result: ok. 5 passed'");
    let (status, summary, _) = bundle.run(&["tests", "profile"]);
    assert_eq!((status, summary.len()), (Some(1), 8), "{summary:?}");
    assert_line(&summary[0], "tests", "FAILED", "skipped: no NVRTC");
    assert_line(&summary[1], "profile", "FAILED", "mnist-cnn: no such kernel (status 2)");
    bundle.set_fused("exec sleep 20", "echo 'test result: FAILED'; exit 101");
    let (status, summary, took) = bundle.run(&["--scale", "0.02", "tests", "profile"]);
    assert_eq!((status, summary.len()), (Some(1), 8), "{summary:?}");
    assert_line(&summary[0], "tests", "FAILED", "test result: FAILED (status 101)");
    assert_line(&summary[1], "profile", "FAILED", "mnist-cnn: not done within 0.2");
    assert_line(&summary[7], "profile", "FAILED", "lstm: not done within 0.2");
    assert!(took < Duration::from_millis(1400) + SLACK, "{took:?}");
}

#[test]
fn a_tool_that_found_something_has_failed_also_when_it_ends_well_or_the_time_is_over() {
    let tool = Bundle::new("exit 0");
    std::fs::rename(tool.file("runner"), tool.file("compute-sanitizer")).unwrap();
    let path = format!("{}:{}", tool.folder.path().display(), std::env::var("PATH").unwrap());
    for end in ["echo '5 the same'", "exec sleep 20"] {
        let leave =
            format!("case \"$*\" in *racecheck*) echo '========= Invalid read' >out/racecheck.1.log; esac; {end}");
        let bundle = Bundle { device: "cuda:0", ..Bundle::new(&format!("{WITH_A_GPU}; {leave}")) };
        let output = bundle.command(&["--scale", "0.02", "sanitize"]).env("PATH", &path).output().unwrap();
        let summary = std::fs::read_to_string(bundle.file("out/summary.txt")).unwrap();
        assert_eq!(output.status.code(), Some(1), "{summary}");
        assert_line(summary.lines().nth(1).unwrap(), "sanitize", "FAILED", "racecheck: ========= Invalid read");
    }
}

#[test]
fn a_tool_without_a_summary_has_looked_at_nothing() {
    let tool = Bundle::new("exit 0");
    std::fs::rename(tool.file("runner"), tool.file("compute-sanitizer")).unwrap();
    let path = format!("{}:{}", tool.folder.path().display(), std::env::var("PATH").unwrap());
    let end = "case \"$*\" in *initcheck*) ;; *racecheck*) echo '= RACECHECK SUMMARY: 0 hazards' >out/racecheck.1.log ;; \
               *) echo '========= ERROR SUMMARY: 0 errors' >out/memcheck.1.log ;; esac; echo '5 the same'";
    let bundle = Bundle { device: "cuda:0", ..Bundle::new(&format!("{WITH_A_GPU}; {end}")) };
    bundle.command(&["sanitize"]).env("PATH", &path).output().unwrap();
    let summary = std::fs::read_to_string(bundle.file("out/summary.txt")).unwrap();
    let lines: Vec<&str> = summary.lines().collect();
    assert_line(lines[0], "sanitize", "ok", "memcheck: 5 the same");
    assert_line(lines[1], "sanitize", "ok", "racecheck: 5 the same");
    assert_line(lines[2], "sanitize", "FAILED", "initcheck: no summary in its logs");
}

#[test]
fn a_machine_is_without_a_device_only_if_somebody_looked() {
    let run = |doctor: &str, args: &[&str]| {
        let bundle =
            Bundle { device: "cuda:0", ..Bundle::new(&format!("[ $1 != doctor ] || {{ {doctor}; }}; exit 1")) };
        let output = bundle.command(args).output().unwrap();
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        (output.status.code(), said.concat())
    };
    let (status, said) = run("echo '-        GPU            none that NVML knows'; exit 0", &[]);
    assert_eq!((status, said.as_str()), (Some(0), "skipped: no CUDA device\n"));
    let (status, said) = run("echo 'runner: --python /nowhere: not an executable file' >&2; exit 2", &[]);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("/nowhere: not an executable file") && said.contains("says nothing of a GPU (status 2)"));
    // A relative interpreter is the caller's.
    let (_, said) = run("echo \"asked: $*\"; exit 2", &["--python", "venv/bin/python"]);
    let here = std::env::current_dir().unwrap();
    assert!(said.contains(&format!("asked: doctor --python {}/venv/bin/python", here.display())), "{said}");
}

#[test]
fn targets_that_are_missed_have_failed_and_those_without_rows_are_cut() {
    for (status, code, word) in [(0, 0, "ok"), (3, 0, "cut"), (1, 1, "FAILED"), (2, 1, "FAILED")] {
        let judge = format!("[ $1 != targets ] || {{ echo 'a tally'; exit {status}; }}");
        let bundle = Bundle { device: "cuda:0", ..Bundle::new(&format!("{WITH_A_GPU}; {judge}\n{WILLING}")) };
        let (found, summary, _) = bundle.run(&["measure", "targets"]);
        assert_eq!(found, Some(code), "{summary:?}");
        assert_line(summary.last().unwrap(), "targets", word, "a tally");
    }
}

#[test]
fn a_build_that_does_not_end_is_said_to_be_why() {
    let bundle = Bundle::new("trap '' INT TERM; sleep 20");
    std::fs::rename(bundle.file("runner"), bundle.file("cargo")).unwrap();
    std::fs::remove_file(bundle.file("bundle.json")).unwrap();
    let path = format!("{}:{}", bundle.folder.path().display(), std::env::var("PATH").unwrap());
    let output = bundle.command(&["--scale", "0.002"]).env("PATH", path).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("cargo was not done within 0.940 s"), "{errors}");
}

#[test]
fn a_runner_that_somebody_else_kills_has_failed() {
    let bundle = Bundle::new("kill -9 $$");
    let (status, summary, _) = bundle.run(&[]);
    assert_eq!((status, summary.len()), (Some(1), 13), "{summary:?}");
    assert_line(&summary[0], "repeat", "FAILED", "status 137");
    assert_line(&summary[3], "measure", "FAILED", "0 rows ok; status 137");
    assert_line(&summary[12], "verify", "FAILED", "status 137");
}

/// A runner that leaves the rows of [`Bundle::set_rows`] and then does what `$then` says.
fn leaving_rows(then: &str) -> String {
    format!(
        "[ \"$1\" = --all ] || exit 1; while [ \"$1\" != --out ]; do shift; done; cp rows \"$2/results.json\"; {then}"
    )
}

#[test]
fn rows_that_ought_to_be_otherwise_fail_a_measurement_that_ends_well() {
    let bundle = Bundle::new(&leaving_rows("exit 0"));
    let mnist = |rows: &[(&str, &str)]| {
        bundle.set_rows(rows);
        let (status, summary, _) = bundle.run(&["measure"]);
        (status, summary[0].clone())
    };
    let (status, line) = mnist(&[("fused", "ok"), ("jax", "unavailable")]);
    assert_eq!(status, Some(0));
    assert_line(&line, "measure", "ok", "1 rows ok");
    for bad in ["failed", "timeout", "out_of_memory", "disqualified"] {
        let (status, line) = mnist(&[("fused", "ok"), ("jax", bad)]);
        assert_eq!(status, Some(1), "{bad}");
        assert_line(&line, "measure", "FAILED", &format!("1 rows ok; jax private: {bad}"));
    }
    let (status, line) = mnist(&[("fused", "unavailable"), ("jax", "ok")]);
    assert_eq!(status, Some(1));
    assert_line(&line, "measure", "FAILED", "fused private: unavailable");
}

#[test]
fn what_the_clock_stops_has_failed_if_what_it_found_is_wrong() {
    // The plot does not work either: then the table of before is kept.
    let bundle = Bundle::new(&leaving_rows("exec sleep 30"));
    bundle.set_rows(&[("fused", "ok"), ("jax", "disqualified")]);
    std::fs::create_dir_all(bundle.file("out/measured/mnist-cnn")).unwrap();
    let (status, summary, _) = bundle.run(&["--scale", "0.01", "measure"]);
    assert_eq!(status, Some(1));
    assert_line(&summary[0], "measure", "FAILED", "1 rows ok; jax private: disqualified; not drawn (status 1)");

    let lines = "echo 'ffnn  a:b  private verified, largest error 1e-7'; \
                 echo 'lstm  a:b  private verified; non_private DISQUALIFIED: relative error'";
    for (line, status, word, text) in [
        (":", 0, "cut", "1 verified within"),
        ("echo 'lstm  a:b  unavailable: it failed: no'", 0, "cut", "1 verified within"),
        ("echo 'lstm  a:b  failed: exited with status 3'", 1, "FAILED", "1 wrong, 1 verified within"),
    ] {
        let first = lines.split(';').next().unwrap();
        let bundle = Bundle::new(&format!("{first}; {line}; exec sleep 30"));
        let (code, summary, _) = bundle.run(&["--scale", "0.01", "verify"]);
        assert_eq!(code, Some(status), "{summary:?}");
        assert_line(&summary[0], "verify", word, text);
    }
    let bundle = Bundle::new(&format!("{lines}; exec sleep 30"));
    let (code, summary, _) = bundle.run(&["--scale", "0.01", "verify"]);
    assert_eq!(code, Some(1), "{summary:?}");
    assert_line(&summary[0], "verify", "FAILED", "1 wrong, 1 verified within");

    let bundle =
        Bundle::new("echo 'ffnn  256 private     a:b    3 of 9 parameters differ, by up to 1e-3'; exec sleep 30");
    let (code, summary, _) = bundle.run(&["--scale", "0.05", "repeat"]);
    assert_eq!(code, Some(1), "{summary:?}");
    assert_line(&summary[0], "repeat", "FAILED", "1 wrong within 3.000 s");
}

#[test]
fn a_plot_that_works_replaces_the_table_and_one_that_does_not_leaves_it() {
    for (plot, word, text) in [("echo drawn", "cut", "drawn\n"), ("echo half; exit 3", "FAILED", "measuring\n")] {
        let runner =
            format!("if [ \"$1\" = plot ]; then {plot}; exit; fi; echo measuring; {}", leaving_rows("exec sleep 30"));
        let bundle = Bundle::new(&runner);
        bundle.set_rows(&[("fused", "ok")]);
        let (_, summary, _) = bundle.run(&["--scale", "0.01", "measure"]);
        assert_line(&summary[0], "measure", word, "1 rows ok");
        let table = std::fs::read_to_string(bundle.file("out/measured/mnist-cnn/table.txt")).unwrap();
        assert_eq!(table, text, "{summary:?}");
    }
}

#[test]
fn all_parts_are_done_and_what_there_is_is_continued() {
    let bundle = Bundle::new(WILLING);
    let (status, summary, _) = bundle.run(&[]);
    assert_eq!((status, summary.len()), (Some(0), 13), "{summary:?}");
    assert_line(&summary[0], "repeat", "ok", "7 the same");
    assert_line(&summary[3], "measure", "ok", "mnist-cnn: 1 rows ok");
    assert_line(&summary[9], "measure", "ok", "lstm: 1 rows ok");
    assert_line(&summary[12], "verify", "ok", "14 passed");
    let asked = || std::fs::read_to_string(bundle.file("asked")).unwrap();
    assert!(asked().contains("--workloads lstm --batch-sizes 256,64 --out ") && !asked().contains("--resume"));
    bundle.run(&["measure"]);
    assert_eq!(asked().matches("--resume").count(), 7, "{}", asked());
}

#[test]
fn a_part_that_fails_is_named_and_the_others_are_done() {
    let bundle = Bundle::new(&format!("[ \"$1\" != repeat ] || {{ echo 1 different; exit 1; }}\n{WILLING}"));
    let (status, summary, _) = bundle.run(&["repeat", "verify"]);
    assert_eq!(status, Some(1));
    assert_line(&summary[0], "repeat", "FAILED", "1 different");
    assert_line(&summary[1], "verify", "ok", "14 passed");
}

#[test]
fn a_scale_that_is_none_is_refused() {
    let bundle = Bundle::new(WILLING);
    for scale in ["0", "0.0", "-1", "1.2.3", "fast", ""] {
        let status = Command::new("bash").arg(bundle.file("ci/gpu")).args(["--scale", scale]).status().unwrap();
        assert_eq!(status.code(), Some(2), "{scale}");
    }
}
