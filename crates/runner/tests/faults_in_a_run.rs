//! `runner --all` with faulty contenders among good ones, interrupted, and killed.

mod support;

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use dpsgd_core::Kernels;
use dpsgd_protocol::results::{Cell, Results, Serves, Status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runner::worker::is_alive;

use support::{RUNNER, example, processes_of, unique_name, wait_for};

/// Long enough for a busy machine.
const PATIENT: Duration = Duration::from_secs(60);
/// Epochs of one process, and processes of one row: one alone, and two with the others.
const EPOCHS: usize = 2;
const ROUNDS: usize = 2;
const PROCESSES: usize = 1 + ROUNDS;
/// The process that is alone comes after the gate's, those of the rounds after it.
const ALONE: u64 = 2;
const IN_ROUND_1: u64 = ALONE + 2;

/// A run on the smallest workload with contenders of our making.
struct Run {
    folder: tempfile::TempDir,
    /// Names the workers' processes: an argument of each.
    marker: String,
}

impl Run {
    /// One contender for each `(name, fault, stage)`.
    fn new(timeout_s: u32, contenders: &[(&str, &str, &str)]) -> Run {
        let run = Run { folder: tempfile::tempdir().unwrap(), marker: unique_name("run") };
        let (faulty, good) = (example("faulty_worker"), example("oracle_worker"));
        let mut registry = String::new();
        for (name, fault, stage) in contenders {
            let fault = fault.replace("FILE", run.file("count").to_str().unwrap());
            let start = match *fault {
                _ if fault == "missing" => vec!["/nowhere/worker"],
                _ => vec![faulty.to_str().unwrap(), &fault, stage, name, good.to_str().unwrap(), &run.marker],
            };
            registry += &format!("[[strategy]]\nname = {name:?}\ndescription = \"a test\"\nstart = {start:?}\n");
            registry += "empty_batch = true\nnon_finite = true\n\n";
        }
        std::fs::write(run.file("registry.toml"), registry).unwrap();
        let names: Vec<&str> = contenders.iter().map(|(name, ..)| *name).collect();
        let config = format!(
            "workloads = [\"logreg\"]\nstrategies = {names:?}\nbatch_sizes = [16]\nmodes = [\"private\"]\n\
             processes = {ROUNDS}\nseconds = 0\nepochs = {EPOCHS}\nexamples = 64\nschedule = \"shuffle\"\nseed = 1\nthreads = 1\n\
             timeout_s = {timeout_s}\n\n[dp]\nclip_norm = 1.0\nnoise_multiplier = 1.1\nlearning_rate = 0.1\n"
        );
        std::fs::write(run.file("config.toml"), config).unwrap();
        run
    }

    /// Sets `row_limit_s`.
    fn limit_rows(&self, seconds: u32) {
        let config = std::fs::read_to_string(self.file("config.toml")).unwrap();
        std::fs::write(self.file("config.toml"), format!("row_limit_s = {seconds}\n{config}")).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(RUNNER);
        command.arg("--all").args(more).arg("--config").arg(self.file("config.toml"));
        command.arg("--registry").arg(self.file("registry.toml")).arg("--out").arg(self.file("out"));
        command
    }

    fn carry_out(&self, more: &[&str]) -> Output {
        let output = self.command(more).output().unwrap();
        assert_eq!(processes_of(&self.marker), Vec::<String>::new());
        output
    }

    /// The results file, which is complete at any time.
    fn results(&self) -> Results {
        Results::load(&self.file("out").join("results.json")).unwrap()
    }

    /// Its rows.
    fn rows(&self) -> Vec<Cell> {
        self.results().cells
    }

    /// Starts a run one of whose contenders hangs at the `hello` of process `count`, and returns when it does.
    fn start_until_it_hangs(&self, count: u64) -> Started {
        let child = Started(self.command(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let visits = || std::fs::metadata(self.file("count")).map_or(0, |file| file.len());
        wait_for("the contender hangs", PATIENT, || visits() == count);
        assert_ne!(processes_of(&self.marker), Vec::<String>::new());
        child
    }
}

/// A runner that does not outlive its test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // Both fail if the test has done so already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn row<'a>(rows: &'a [Cell], strategy: &str) -> &'a Cell {
    rows.iter().find(|row| row.strategy == strategy).unwrap_or_else(|| panic!("no row {strategy}"))
}

/// The guard of a runner.
fn guard_of(runner: &Child) -> i32 {
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(1)?.parse().ok());
        parent == Some(runner.id())
    };
    let guards = processes_of("__guard");
    let pids: Vec<i32> = guards.iter().map(|line| line.split_once(':').unwrap().0.parse().unwrap()).collect();
    pids.into_iter().find(is_child).unwrap_or_else(|| panic!("no guard of {} among {guards:?}", runner.id()))
}

#[test]
fn each_row_has_its_own_status_and_the_others_are_unharmed() {
    let contenders = [
        ("good", "none", "start", Status::Ok, ""),
        ("chatty", "print", "epoch", Status::Ok, ""),
        ("parent", "forks=none", "epoch", Status::Ok, ""),
        ("crasher", "crash", "epoch", Status::Failed, "exited with status 3 during epoch; last line: ValueError: the"),
        ("early", "crash", "load", Status::Failed, "exited with status 3 during load"),
        ("stillborn", "garbage", "hello", Status::Failed, "to hello, it sent a reply that is none"),
        ("sleeper", "forks=hang", "epoch", Status::Timeout, "epoch took longer than 8 s"),
        ("glutton", "out-of-memory", "epoch", Status::OutOfMemory, "the device is full"),
        ("modest", "unsupported", "load", Status::Unavailable, "no LSTM here"),
        ("absent", "missing", "", Status::Unavailable, "/nowhere/worker"),
        ("idle", "skip", "step", Status::Disqualified, ""),
        // It takes the right steps and counts them right, on the batches of its first epoch again and again.
        ("stale", "stale", "epoch", Status::Failed, "other batches than all contenders were sent: SHA-256"),
        (
            "crowd",
            "one-thread-more",
            "load",
            Status::Failed,
            "asked for device cpu, 1 threads, variant default; the worker",
        ),
        ("outsider", "other-data", "load", Status::Failed, "other data set than all contenders were sent: SHA-256"),
    ];
    let faults = contenders.map(|(name, fault, stage, ..)| (name, fault, stage));
    let run = Run::new(8, &faults);
    let output = run.carry_out(&[]);
    let rows = run.rows();
    // The first contender is the reference: it has a second row.
    assert_eq!(rows.len(), contenders.len() + 1);
    for (name, _, _, status, reason) in contenders {
        let row = row(&rows, name);
        assert_eq!(row.status, status, "{name}: {:?}", row.reason);
        match status {
            Status::Ok => {
                assert_eq!(row.reason, None);
                let epochs: Vec<usize> = row.processes.iter().map(|process| process.epochs_s.len()).collect();
                assert_eq!(epochs, [EPOCHS; PROCESSES], "{name}");
                assert!(row.median_epoch_s.unwrap() > 0.0);
                assert!(row.roofline_fraction.is_some_and(|fraction| fraction > 0.0), "{name}");
            }
            _ => {
                let given = row.reason.as_deref().unwrap();
                assert!(given.contains(reason) && !given.is_empty() && !given.contains('\n'), "{name}: {given}");
                assert_eq!((row.median_epoch_s, row.processes.len()), (None, 0), "{name}");
                assert_eq!(row.roofline_fraction, None, "{name}");
            }
        }
    }
    // Every row has a cache of its own, which its first process fills; what that reads back counts for less.
    let (compiled, back, cached) = (Some(2.5), Some(0.125), Some(0.25));
    for row in rows.iter().filter(|row| row.status == Status::Ok && row.control_of.is_none()) {
        let kernels: Vec<Option<Kernels>> = row.processes.iter().map(|process| process.kernels).collect();
        let of = |compile_s, cached_s| Some(Kernels { compile_s, cached_s });
        assert_eq!(kernels, [of(compiled, back), of(None, cached), of(None, cached)], "{}", row.strategy);
        assert_eq!(row.kernels, of(compiled, cached));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("  good: kernels compiled in 2.50 s; from the cache in 250 ms"), "{said}");
    // 4: a contender was disqualified.
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_worker_that_is_right_in_the_gate_and_wrong_as_it_is_timed_fails_with_what_gave_it_away() {
    let another_epoch = "an epoch without noise is not its 4 steps";
    let contenders = [
        ("skipper", "skips-a-step-of-an-epoch", another_epoch),
        ("repeater", "repeats-a-step-of-an-epoch", another_epoch),
        ("loser", "loses-the-last-step", another_epoch),
        ("broken", "nan-in-an-epoch", "1 of 105 parameters are not finite"),
        ("hasty", "clock-5-percent-fast", "its clock is off by 5"),
        ("other", "describes-itself-differently-when-timed", "describes itself as"),
    ];
    let faults = contenders.map(|(name, fault, _)| (name, fault, "start"));
    let all: Vec<(&str, &str, &str)> = [("good", "none", "start")].into_iter().chain(faults).collect();
    let run = Run::new(60, &all);
    run.carry_out(&["--processes", "1"]);
    let rows = run.rows();
    for (name, _, reason) in contenders {
        let row = row(&rows, name);
        assert!(row.verification.as_ref().is_none_or(|verification| verification.passed), "{name} passes the gate");
        let given = row.reason.as_deref().unwrap_or_default();
        assert!(row.status == Status::Failed && given.contains(reason), "{name}: {:?}: {given}", row.status);
    }
    let good = row(&rows, "good");
    assert_eq!(good.status, Status::Ok, "{:?}", good.reason);
    for process in &good.processes {
        let checked = process.checked.as_ref().unwrap();
        let [least, most] = checked.moved_bounds.unwrap();
        assert!((least..=most).contains(&checked.moved) && checked.epoch_error.is_some_and(|error| error < 1e-3));
        let alone = process.serves == Serves::Cold;
        assert_eq!(checked.clock_error.is_some_and(|error| error < 0.02), alone);
        assert_eq!(process.turns.is_none(), alone);
    }
}

#[test]
fn the_reference_contender_runs_twice_beside_the_others_and_its_second_row_is_no_contender() {
    let run = Run::new(60, &[("good", "none", "start"), ("other", "none", "start")]);
    run.carry_out(&["--processes", "4", "--seconds", "0.05"]);
    let results = run.results();
    assert_eq!(results.config.reference.as_deref(), Some("good"));
    let names: Vec<(String, Option<&str>)> =
        results.cells.iter().map(|cell| (cell.contender(), cell.control_of.as_deref())).collect();
    assert_eq!(names, [("good".into(), None), ("good:(again)".into(), Some("good")), ("other".into(), None)]);
    for cell in &results.cells {
        let warm: Vec<_> = cell.processes.iter().filter(|process| process.serves == Serves::Warm).collect();
        assert_eq!(warm.len(), 4, "{}", cell.contender());
        assert!(cell.warm_epoch_s.is_some() && cell.warm_ci95_s.is_some(), "{}", cell.contender());
        for process in warm {
            let turns = process.turns.as_ref().unwrap();
            assert_eq!(turns.epochs.iter().sum::<usize>() + 1, process.epochs_s.len());
            assert!(process.epochs_s[1..].iter().sum::<f64>() >= 0.05);
        }
    }
    // While one is timed no other is.
    let mut turns: Vec<(f64, f64)> = Vec::new();
    for process in results.cells.iter().flat_map(|cell| &cell.processes) {
        let Some(of_process) = &process.turns else { continue };
        let mut epochs = process.epochs_s[1..].iter();
        for (at_s, count) in of_process.at_s.iter().zip(&of_process.epochs) {
            turns.push((*at_s, epochs.by_ref().take(*count).sum()));
        }
    }
    turns.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Begins are to a tenth of a millisecond.
    assert!(turns.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0 + 2e-4));
}

#[test]
fn a_row_that_reaches_its_time_limit_keeps_its_whole_epochs_and_says_that_it_was_capped() {
    let second_epoch = format!("hang-in={ALONE}.2:FILE");
    let run = Run::new(600, &[("good", "none", "start"), ("slow", &second_epoch, "epoch")]);
    run.limit_rows(15);
    let output = run.carry_out(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let rows = run.rows();
    let shape = |name| row(&rows, name).processes.iter().map(|p| (p.epochs_s.len(), p.capped)).collect::<Vec<_>>();
    assert_eq!(shape("good"), [(EPOCHS, false); PROCESSES]);
    // Each process has an equal share of the limit: one that is stopped leaves the next its own.
    assert_eq!(shape("slow"), [(1, true), (EPOCHS, false), (EPOCHS, false)]);
    let slow = row(&rows, "slow");
    assert_eq!(slow.status, Status::Ok);
    assert!(slow.median_epoch_s.unwrap() > 0.0);
    let capped = "capped: the row's time limit ended 1 of 3 processes early; 5 whole epochs are kept";
    assert!(slow.warnings.iter().any(|warning| warning.starts_with(capped)), "{:?}", slow.warnings);
    assert!(row(&rows, "good").warnings.iter().all(|warning| !warning.contains("capped")));
}

#[test]
fn a_row_that_has_no_whole_epoch_within_its_time_limit_is_a_timeout() {
    let first_epoch = format!("hang-in={ALONE}.1:FILE");
    let run = Run::new(600, &[("slow", &first_epoch, "epoch")]);
    run.limit_rows(9);
    run.carry_out(&[]);
    let rows = run.rows();
    let (slow, reason) = (row(&rows, "slow"), row(&rows, "slow").reason.as_deref().unwrap());
    assert_eq!((slow.status, slow.median_epoch_s), (Status::Timeout, None));
    assert!(reason.contains("not one epoch in 3 s") && reason.contains("row_limit_s"), "{reason}");
}

#[test]
fn no_worker_survives_a_runner_killed_by_sigkill_and_the_run_can_be_resumed() {
    // By the time it hangs, both contenders have a process of round 0 in the file.
    let sleeper = format!("nameless=forks=hang-on={IN_ROUND_1}:FILE");
    let run = Run::new(600, &[("good", "none", "start"), ("sleeper", &sleeper, "hello")]);
    let mut child = run.start_until_it_hangs(IN_ROUND_1);
    let guard = guard_of(&child.0);
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    wait_for("no worker is left", Duration::from_secs(5), || processes_of(&run.marker).is_empty());
    wait_for("the guard has ended", Duration::from_secs(5), || !is_alive(guard));

    let before = run.results();
    let at_first = before.environment.calibrations;
    assert_eq!(at_first.len(), 1);
    let before = before.cells;
    let kept = row(&before, "sleeper").processes.clone();
    // One was alone, and one in round 0.
    assert_eq!((kept.len(), row(&before, "good").processes.len()), (2, 2));

    let output = run.carry_out(&["--resume"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let results = run.results();
    for name in ["good", "sleeper"] {
        let row = row(&results.cells, name);
        assert_eq!((row.status, row.processes.len()), (Status::Ok, PROCESSES), "{name}: {:?}", row.reason);
        assert!(row.roofline_fraction.is_some_and(|fraction| fraction > 0.0), "{name}");
    }
    let sleeper = row(&results.cells, "sleeper");
    assert_eq!(sleeper.processes[..2], kept);
    // What the killed run has left in the row's cache is not used: the first process of each run has compiled.
    let kernels = Some(Kernels { compile_s: Some(2.5), cached_s: Some(0.125) });
    assert_eq!((sleeper.processes[0].kernels, sleeper.processes[2].kernels), (kernels, kernels));
    // Two more, before and after what was left, beside the one of before.
    let calibrations = &results.environment.calibrations;
    assert_eq!((calibrations.len(), &calibrations[..1]), (3, &at_first[..]));

    // Nothing is left to measure: not the machine's peak either.
    assert_eq!(run.carry_out(&["--resume"]).status.code(), Some(0));
    assert_eq!(run.results(), results);
}

#[test]
fn ctrl_c_and_sigterm_keep_what_was_measured_and_stop_the_workers() {
    let sleeper = format!("nameless=forks=hang-on={IN_ROUND_1}:FILE");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let run = Run::new(600, &[("good", "none", "start"), ("sleeper", &sleeper, "hello")]);
        let mut child = run.start_until_it_hangs(IN_ROUND_1);
        let guard = guard_of(&child.0);
        kill(Pid::from_raw(child.0.id() as i32), signal).unwrap();
        let status = child.0.wait().unwrap();
        assert!(status.code().is_some_and(|code| code != 0), "{signal}: {status}");
        assert_eq!(processes_of(&run.marker), Vec::<String>::new(), "{signal}");
        wait_for("the guard has ended", Duration::from_secs(5), || !is_alive(guard));
        let rows = run.rows();
        assert_eq!(row(&rows, "sleeper").processes.len(), 2, "{signal}");
        assert!(!row(&rows, "good").processes.is_empty(), "{signal}");
        assert!(rows.iter().all(|row| row.status == Status::Ok), "{signal}: an interrupted row is not a failed one");
    }
}

#[test]
fn a_worker_gets_the_runner_s_variables_and_of_the_user_s_only_those_on_the_list() {
    let run = Run::new(600, &[("sleeper", "hang-on=1:FILE", "hello")]);
    let users = [("GOMP_CPU_AFFINITY", "0"), ("JAX_DISABLE_JIT", "1"), ("PYTHONPATH", "/nowhere"), ("LD_PRELOAD", "")];
    let mut command = run.command(&["--threads", "1"]);
    command.envs(users).env("CUDA_VISIBLE_DEVICES", "3").env("OMP_NUM_THREADS", "64");
    let _runner = Started(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait_for("the contender hangs", PATIENT, || run.file("count").exists());
    let workers = processes_of(&run.marker);
    let is_faulty = |line: &&String| line.contains("faulty_worker") && !line.contains("runner");
    let pid = workers.iter().find(is_faulty).and_then(|line| line.split_once(':')).expect("a worker runs").0;
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let variables: Vec<String> =
        environ.split(|byte| *byte == 0).map(|entry| String::from_utf8_lossy(entry).into_owned()).collect();
    let has = |name: &str| variables.iter().any(|variable| variable.starts_with(&format!("{name}=")));
    assert!(users.iter().all(|(name, _)| !has(name)), "{variables:?}");
    assert!(has("PATH") && variables.iter().any(|variable| variable == "CUDA_VISIBLE_DEVICES=3"), "{variables:?}");
    assert!(variables.iter().any(|variable| variable == "OMP_NUM_THREADS=1"), "{variables:?}");
}

#[test]
fn a_second_signal_ends_the_runner_at_once_and_the_guard_ends_the_workers() {
    let run = Run::new(600, &[("sleeper", "nameless=forks=hang-on=1:FILE", "hello")]);
    let mut child = run.start_until_it_hangs(1);
    // Two kinds, because two of one kind may arrive as one.
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        kill(Pid::from_raw(child.0.id() as i32), signal).unwrap();
    }
    assert_eq!(child.0.wait().unwrap().code(), Some(130));
    wait_for("no worker is left", Duration::from_secs(5), || processes_of(&run.marker).is_empty());
}
