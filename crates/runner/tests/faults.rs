//! Workers that do everything wrong: each ends in its own status, with a reason, and leaves no process behind.

mod support;

use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use dpsgd_core::{Device, DpSgd, Mode, ModelSpec, Settings};
use dpsgd_protocol::messages::Request;
use dpsgd_protocol::results::Status;
use runner::worker::{Allocator, Guard, Interrupt, Launch, Worker, WorkerError, usable_cpus};

use support::{RUNNER, example, processes_of, unique_name, wait_for};

/// Long enough for a busy machine.
const PATIENT: Duration = Duration::from_secs(30);
/// For what hangs anyway.
const BRIEF: Duration = Duration::from_millis(300);

static GUARD: LazyLock<Guard> = LazyLock::new(|| Guard::start_program(Path::new(RUNNER), Interrupt::never()).unwrap());

/// One faulty worker of a name of its own, and its log.
struct Case {
    name: String,
    launch: Launch,
    _folder: tempfile::TempDir,
}

impl Case {
    fn new(fault: &str, stage: &str) -> Case {
        let name = unique_name(&format!("{}-at-{stage}", fault.replace('=', "-")));
        let folder = tempfile::tempdir().unwrap();
        let launch = Launch {
            program: example("faulty_worker"),
            args: vec![fault.into(), stage.into(), name.clone()],
            env: Vec::new(),
            cpus: Vec::new(),
            threads: 1,
            allocator: Allocator::Keeping,
            log: folder.path().join("log"),
        };
        Case { name, launch, _folder: folder }
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.launch.log).unwrap()).into_owned()
    }

    /// Runs all stages; those that never come get a brief time limit.
    fn run(&self, brief_at: &str) -> Result<(), WorkerError> {
        let timeout = |stage| if stage == brief_at { BRIEF } else { PATIENT };
        let start = if brief_at == "start" { "start" } else { "hello" };
        let mut worker = Worker::start(&self.launch, &GUARD, timeout(start))?;
        assert_eq!(worker.hello().name, self.name);
        assert!(worker.start_s() > 0.0);
        for (stage, request) in requests() {
            worker.request(&request, timeout(stage))?;
        }
        worker.finish(timeout("bye"))
    }

    fn assert_nothing_is_left(&self) {
        assert_eq!(processes_of(&self.name), Vec::<String>::new());
    }
}

/// One request of each kind but the first and the last.
fn requests() -> Vec<(&'static str, Request)> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench-configs/models");
    let model = ModelSpec::read(&models.join("logreg.toml")).unwrap();
    let dp = DpSgd {
        mode: Mode::Private,
        clip_norm: 1.0,
        noise_multiplier: 1.0,
        learning_rate: 0.1,
        expected_batch_size: 2.0,
    };
    let settings = Settings { variant: None, device: Device::Cpu, threads: 1, noise_seed: None };
    let (params, dataset) = ("params".into(), "dataset".into());
    vec![
        ("load", Request::Load { model, params, dataset, dp, settings }),
        ("set", Request::Set { params: None, dp: None }),
        ("step", Request::Step { indices: vec![0, 1], mask: vec![true, true] }),
        ("epoch", Request::Epoch { schedule: "schedule".into(), repeat: 1 }),
        ("params", Request::Params { path: "/nowhere".into() }),
    ]
}

const STAGES: [&str; 8] = ["start", "hello", "load", "set", "step", "epoch", "params", "bye"];

#[test]
fn a_worker_without_faults_answers_everything() {
    let case = Case::new("none", "start");
    assert_eq!(case.run("none"), Ok(()));
    case.assert_nothing_is_left();
}

#[test]
fn a_crash_at_any_stage_is_failed_with_the_exit_status_and_the_last_line_of_stderr() {
    for stage in STAGES {
        let case = Case::new("crash", stage);
        let error = case.run("none").unwrap_err();
        assert_eq!(error.status, Status::Failed, "{stage}: {error}");
        let during = if stage == "start" { "hello" } else { stage };
        let reason =
            format!("the worker exited with status 3 during {during}; last line: ValueError: the tests asked for it");
        assert_eq!(error.reason, reason);
        assert!(case.log().contains("Traceback"));
        case.assert_nothing_is_left();
    }
}

#[test]
fn a_hang_at_any_stage_is_a_timeout() {
    std::thread::scope(|scope| {
        for stage in STAGES {
            scope.spawn(move || {
                let case = Case::new("hang", stage);
                let error = case.run(stage).unwrap_err();
                assert_eq!(error.status, Status::Timeout, "{stage}: {error}");
                assert!(error.reason.contains("took longer than 0.3 s"), "{stage}: {error}");
                case.assert_nothing_is_left();
            });
        }
    });
}

#[test]
fn every_fault_ends_in_its_own_status() {
    let cases = [
        (
            "garbage",
            "load",
            Status::Failed,
            r#"to load, it sent a reply that is none: "100% |======| \xf0\x9f\xa4\x96 <"#,
        ),
        ("cut", "step", Status::Failed, r#"to step, it sent a reply cut short: "{\"reply\":\"ste""#),
        ("huge", "step", Status::Failed, r#"to step, it sent a reply longer than 1048576 bytes: "xxxxx"#),
        ("babble", "set", Status::Failed, r#"{"reply":"set"}"#),
        ("wrong-reply", "hello", Status::Failed, r#"to hello, it sent {"reply":"params","path":"/nowhere"}"#),
        ("wrong-reply", "bye", Status::Failed, r#"to bye, it sent {"reply":"params","path":"/nowhere"}"#),
        ("version", "hello", Status::Failed, "speaks protocol version 4, this runner 3: rebuild the older"),
        ("close", "epoch", Status::Failed, "during epoch, it closed its replies"),
        ("unsupported", "load", Status::Unavailable, "no LSTM here"),
        ("out-of-memory", "epoch", Status::OutOfMemory, "the device is full"),
        ("memory-error", "load", Status::OutOfMemory, "MemoryError: Unable to allocate 64.0 GiB"),
        ("failed", "step", Status::Failed, "boom: no room left in the zoom module"),
        ("memory-crash", "load", Status::OutOfMemory, "was killed by SIGABRT during load; last line: what(): std::bad"),
        ("killed", "epoch", Status::Failed, "was killed by SIGKILL during epoch; it printed nothing"),
        ("bad-exit", "none", Status::Failed, "exited with status 4 after bye"),
    ];
    for (fault, stage, status, reason) in cases {
        let case = Case::new(fault, stage);
        let error = case.run("none").unwrap_err();
        assert_eq!(error.status, status, "{fault} at {stage}: {error}");
        assert!(error.reason.contains(reason) && !error.reason.contains('\n'), "{fault} at {stage}: {error}");
        assert!(error.reason.len() < 1000, "{fault} at {stage}: {error}");
        case.assert_nothing_is_left();
    }
}

#[test]
fn a_worker_that_reports_an_error_can_be_asked_again() {
    let case = Case::new("failed", "step");
    let mut worker = Worker::start(&case.launch, &GUARD, PATIENT).unwrap();
    for (stage, request) in requests() {
        assert_eq!(worker.request(&request, PATIENT).is_err(), stage == "step");
    }
    assert_eq!(worker.finish(PATIENT), Ok(()));
}

#[test]
fn a_worker_that_was_killed_is_not_asked_again() {
    let case = Case::new("hang", "set");
    let mut worker = Worker::start(&case.launch, &GUARD, PATIENT).unwrap();
    let set = Request::Set { params: None, dp: None };
    assert_eq!(worker.request(&set, BRIEF).unwrap_err().status, Status::Timeout);
    let begin = Instant::now();
    assert_eq!(worker.request(&set, PATIENT).unwrap_err().reason, "set: the worker has ended already");
    assert!(begin.elapsed() < PATIENT);
}

#[test]
fn what_libraries_print_on_stdout_is_harmless() {
    for stage in STAGES {
        let case = Case::new("print", stage);
        assert_eq!(case.run("none"), Ok(()), "{stage}");
        assert!(case.log().contains("INFO: stdout is not for replies"));
    }
}

#[test]
fn a_slow_answer_within_the_limit_is_fine() {
    let case = Case::new("sleep=400", "epoch");
    assert_eq!(case.run("none"), Ok(()));
}

#[test]
fn a_flood_on_stderr_neither_blocks_the_worker_nor_fills_the_disk() {
    let case = Case::new("flood", "step");
    assert_eq!(case.run("none"), Ok(()));
    let log = case.log();
    assert!(log.len() < 3 << 20, "{} bytes", log.len());
    assert!(log.contains("bytes of output were cut here by dpsgd-bench") && log.ends_with("the flood is over\n"));
    case.assert_nothing_is_left();
}

#[test]
fn helpers_die_with_their_worker_wherever_they_hid() {
    // They ignore SIGTERM, leave the group, leave the session, leave their parent; the nameless one clears its
    // environment.
    let cases = [
        ("forks=none", None),
        ("forks=crash", Some(Status::Failed)),
        ("forks=hang", Some(Status::Timeout)),
        ("nameless=none", None),
        ("nameless=hang", Some(Status::Timeout)),
    ];
    let (_, epoch) = requests().into_iter().find(|(stage, _)| *stage == "epoch").unwrap();
    for (fault, status) in cases {
        let case = Case::new(fault, "epoch");
        let mut worker = Worker::start(&case.launch, &GUARD, PATIENT).unwrap();
        let timeout = if status == Some(Status::Timeout) { Duration::from_secs(2) } else { PATIENT };
        // The helpers inherit the pipe for replies, so a crash must be noticed without its end.
        let answer = worker.request(&epoch, timeout);
        assert_eq!(answer.err().map(|error| error.status), status, "{fault}");
        if status.is_none() {
            let helpers = if fault.starts_with("forks") { 3 } else { 1 };
            assert_eq!(processes_of(&case.name).len(), 1 + helpers, "{:?}", processes_of(&case.name));
            drop(worker);
        }
        case.assert_nothing_is_left();
    }
}

#[test]
fn helpers_of_a_worker_that_said_goodbye_die_too() {
    let case = Case::new("forks=none", "epoch");
    assert_eq!(case.run("none"), Ok(()));
    case.assert_nothing_is_left();
}

#[test]
fn a_program_that_does_not_exist_is_unavailable() {
    let mut case = Case::new("none", "start");
    case.launch.program = "/nowhere/worker".into();
    let error = case.run("none").unwrap_err();
    assert_eq!(error.status, Status::Unavailable);
    assert!(error.reason.starts_with("/nowhere/worker can't be started: No such file"), "{error}");
}

#[test]
fn a_program_that_is_no_worker_is_failed() {
    let mut case = Case::new("none", "start");
    case.launch.program = "/bin/true".into();
    let error = case.run("none").unwrap_err();
    assert_eq!(error.reason, "the worker exited with status 0 during hello; it printed nothing");
}

#[test]
fn a_worker_gets_its_processors_and_thread_variables() {
    let mut case = Case::new("none", "start");
    let last = *usable_cpus().last().unwrap();
    case.launch.cpus = vec![last];
    case.launch.threads = 3;
    case.launch.env = vec![("OMP_NUM_THREADS".into(), "64".into()), ("EXTRA".into(), "yes".into())];
    let before = usable_cpus();
    let worker = Worker::start(&case.launch, &GUARD, PATIENT).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid())).unwrap();
    assert!(status.contains(&format!("Cpus_allowed_list:\t{last}\n")), "{status}");
    let environ = std::fs::read_to_string(format!("/proc/{}/environ", worker.pid())).unwrap();
    let environ: Vec<&str> = environ.split('\0').collect();
    for entry in ["OMP_NUM_THREADS=3", "RAYON_NUM_THREADS=3", "PJRT_NPROC=3", "EXTRA=yes"] {
        assert!(environ.contains(&entry), "{entry} is not in {environ:?}");
    }
    assert_eq!(usable_cpus(), before);
}

#[test]
fn an_interrupt_kills_the_worker_that_is_being_waited_for() {
    let interrupt = Interrupt::never();
    let guard = Guard::start_program(Path::new(RUNNER), interrupt.clone()).unwrap();
    let case = Case::new("forks=hang", "set");
    let mut worker = Worker::start(&case.launch, &guard, PATIENT).unwrap();
    let raise = std::thread::spawn(move || {
        std::thread::sleep(BRIEF);
        interrupt.raise();
    });
    let error = worker.request(&Request::Set { params: None, dp: None }, PATIENT).unwrap_err();
    assert!(error.interrupted, "{error}");
    raise.join().unwrap();
    case.assert_nothing_is_left();
    assert!(Worker::start(&case.launch, &guard, PATIENT).err().unwrap().interrupted);
}

#[test]
fn a_guard_that_was_killed_is_replaced() {
    let guard = Guard::start_program(Path::new(RUNNER), Interrupt::never()).unwrap();
    let first = guard.pid();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_for("the guard is gone", PATIENT, || !runner::worker::is_alive(first));
    let case = Case::new("none", "start");
    let worker = Worker::start(&case.launch, &guard, PATIENT).unwrap();
    assert_ne!(guard.pid(), first);
    assert_eq!(worker.finish(PATIENT), Ok(()));
    let second = guard.pid();
    drop(guard);
    assert!(!runner::worker::is_alive(second));
}

#[test]
fn a_stopped_worker_uses_no_processor_though_a_thread_of_it_spins_and_answers_once_it_goes_on() {
    let case = Case::new("spin", "hello");
    let mut worker = Worker::start(&case.launch, &GUARD, PATIENT).unwrap();
    let used_in_a_while = |worker: &Worker| {
        let before = worker.cpu_time().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        worker.cpu_time().unwrap() - before
    };
    wait_for("it spins", PATIENT, || used_in_a_while(&worker) > Duration::from_millis(5));
    worker.pause();
    assert!(used_in_a_while(&worker) < Duration::from_millis(20), "of 200 ms");
    worker.resume();
    let step = Request::Step { indices: vec![0], mask: vec![true] };
    assert!(worker.request(&step, PATIENT).is_ok());
    // One that is stopped can be ended all the same.
    worker.pause();
    drop(worker);
    assert_eq!(processes_of(&case.name), Vec::<String>::new());
}
