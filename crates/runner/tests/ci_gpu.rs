//! `ci/gpu` in what looks like a bundle: it ends in time whatever the runner does, and says how its parts went.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// For starting processes on a busy machine, and for the second after which a pipe is not waited for.
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
    folder: tempfile::TempDir,
}

impl Bundle {
    fn new(runner: &str) -> Bundle {
        let bundle = Bundle { folder: tempfile::tempdir().unwrap() };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ci/gpu");
        std::fs::create_dir(bundle.file("ci")).unwrap();
        std::fs::copy(script, bundle.file("ci/gpu")).unwrap();
        std::fs::write(bundle.file("bundle.json"), "{}").unwrap();
        // By another process: what this one has open to write, a fork of another test could hold open when it is run.
        let write = "printf '#!/bin/sh\\n%s\\n' \"$2\" >\"$1\" && chmod 755 \"$1\"";
        let status = Command::new("sh").args(["-c", write, "sh"]).arg(bundle.file("runner")).arg(runner).status();
        assert!(status.unwrap().success());
        bundle
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The status, the summary, and how long it took.
    fn run(&self, args: &[&str]) -> (Option<i32>, Vec<String>, Duration) {
        let begin = Instant::now();
        let mut command = Command::new("bash");
        command.arg(self.file("ci/gpu")).args(["--device", "cpu", "--out"]).arg(self.file("out")).args(args);
        let output = command.output().unwrap();
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
    assert_eq!(std::fs::read_to_string(bundle.file("out/repeat.txt")).unwrap(), "at work\n");
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
