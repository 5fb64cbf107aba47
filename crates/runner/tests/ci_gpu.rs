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
    assert_eq!((status, summary.len()), (Some(1), 17), "{summary:?}");
    assert_line(&summary[0], "repeat", "FAILED", "not done within 0.450 s");
    assert_line(&summary[1], "sanitize", "skipped", "");
    assert_line(&summary[2], "measure", "cut", "mnist-cnn, batch size 256: 0 rows ok");
    assert_line(&summary[3], "measure", "cut", "ffnn, batch size 256: no time left");
    assert_line(&summary[16], "verify", "cut", "no time left");
    assert!(bundle.file("out/repeat.txt").is_file());
}

#[test]
fn a_runner_that_does_not_end_is_not_waited_for_either_when_it_is_asked_for_the_device() {
    let bundle = Bundle { device: "cuda:0", ..Bundle::new(STUBBORN) };
    let (status, summary, took) = bundle.run(&["--scale", "0.01", "repeat"]);
    assert!(took < Duration::from_millis(300 + 450) + SLACK, "{took:?}");
    assert_eq!((status, summary.len()), (Some(1), 1), "{summary:?}");
    assert_line(&summary[0], "repeat", "FAILED", "not done within 0.450 s");
}

#[test]
fn a_part_that_has_no_time_left_or_less_than_its_limit_is_cut() {
    // Of 4.7 s, the 0.45 that are the limit of `repeat` are not left; on a busy machine, nothing may be.
    let bundle = Bundle::new("trap '' INT; [ $1 != verify ] || exec sleep 4.4; exec sleep 30");
    let (status, summary, _) = bundle.run(&["--scale", "0.01", "verify", "repeat", "repeat", "measure"]);
    assert_eq!((status, summary.len()), (Some(0), 17), "{summary:?}");
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
    let runner = format!("[ $1 != doctor ] || {{ echo 'ok       GPU            a fake'; exit; }}; {hang}");
    let bundle = Bundle { device: "cuda:0", ..Bundle::new(&runner) };
    let path = format!("{}:{}", tool.folder.path().display(), std::env::var("PATH").unwrap());
    let begin = Instant::now();
    let output = bundle.command(&["--scale", "0.2", "sanitize"]).env("PATH", path).output().unwrap();
    let (took, said) = (begin.elapsed(), String::from_utf8_lossy(&output.stdout).into_owned());
    assert_eq!(said.matches("not done within 4.000 s").count(), 3, "{said}");
    // A fifth of 60 s; with the looks beside it, it would be 15 s.
    assert!(took < Duration::from_millis(14_500), "{took:?}");
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
    assert_eq!((status, summary.len()), (Some(1), 17), "{summary:?}");
    assert_line(&summary[0], "repeat", "FAILED", "status 137");
    assert_line(&summary[2], "measure", "FAILED", "0 rows ok; status 137");
    assert_line(&summary[16], "verify", "FAILED", "status 137");
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
    std::fs::create_dir_all(bundle.file("out/batch-256/mnist-cnn")).unwrap();
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
    assert_line(&summary[0], "repeat", "FAILED", "1 wrong within 2.250 s");
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
        let table = std::fs::read_to_string(bundle.file("out/batch-256/mnist-cnn/table.txt")).unwrap();
        assert_eq!(table, text, "{summary:?}");
    }
}

#[test]
fn all_parts_are_done_large_batches_first_and_what_there_is_is_continued() {
    let bundle = Bundle::new(WILLING);
    let (status, summary, _) = bundle.run(&[]);
    assert_eq!((status, summary.len()), (Some(0), 17), "{summary:?}");
    assert_line(&summary[0], "repeat", "ok", "7 the same");
    assert_line(&summary[2], "measure", "ok", "mnist-cnn, batch size 256: 1 rows ok");
    assert_line(&summary[9], "measure", "ok", "mnist-cnn, batch size 64: 1 rows ok");
    assert_line(&summary[16], "verify", "ok", "14 passed");
    let asked = || std::fs::read_to_string(bundle.file("asked")).unwrap();
    assert!(asked().contains("--workloads lstm --batch-sizes 64 --out ") && !asked().contains("--resume"));
    bundle.run(&["measure"]);
    assert_eq!(asked().matches("--resume").count(), 14, "{}", asked());
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
