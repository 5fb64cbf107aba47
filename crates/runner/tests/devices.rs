//! A device that is not on this machine, a variant on fewer threads, two processes that must agree, and a bundle that
//! runs without cargo.

#[allow(dead_code, reason = "not every test uses all of it")]
mod support;

#[path = "support/executable.rs"]
mod executable;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dpsgd_protocol::results::{Results, Status};

use executable::write_executable;
use support::{RUNNER, example};

/// No machine has so many.
const DEVICE: &str = "cuda:99";

const CONFIG: &str = r#"
workloads = ["logreg", "ffnn"]
strategies = ["oracle:right", "other"]
batch_sizes = [8, 16]
modes = ["private", "non_private"]
processes = 1
epochs = 2
examples = 32
schedule = "shuffle"
seed = 3
threads = 1
timeout_s = 60

[dp]
clip_norm = 1.0
noise_multiplier = 1.1
learning_rate = 0.1
"#;

/// A folder with a config and a registry of `oracle`, started by `start`, and `other`.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(start: &str) -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        let registry = format!(
            "[[strategy]]\nname = \"oracle\"\ndescription = \"a test\"\nstart = [{start:?}]\nbuild = {{ package = \
             \"oracle_worker\" }}\nempty_batch = true\nnon_finite = true\n\n[[strategy.variants]]\nname = \"right\"\n\
             description = \"as it should be\"\n\n[[strategy]]\nname = \"other\"\ndescription = \"a test\"\n\
             devices = [\"cpu\"]\nstart = [\"/nowhere/worker\"]\nempty_batch = true\nnon_finite = true\n"
        );
        std::fs::write(place.file("registry.toml"), registry).unwrap();
        std::fs::write(place.file("config.toml"), CONFIG).unwrap();
        place
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An executable.
    fn script(&self, name: &str, text: &str) -> PathBuf {
        let file = self.file(name);
        write_executable(&file, text);
        file
    }

    /// Runs `program` in `folder`, with a PATH on which no cargo and no Python is.
    fn run(&self, program: &Path, folder: &Path, args: &[&str]) -> Output {
        let mut command = Command::new(program);
        for variable in ["LIBTORCH", "CARGO", "DPSGD_ENVS"] {
            command.env_remove(variable);
        }
        command.args(args).current_dir(folder).env("PATH", "/nowhere").output().unwrap()
    }

    /// Runs the runner with the config and the registry.
    fn runner(&self, args: &[&str]) -> Output {
        let args = [args, &["--config", "config.toml", "--registry", "registry.toml"]].concat();
        self.run(Path::new(RUNNER), self.folder.path(), &args)
    }
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn without_the_device_every_row_says_so_no_worker_starts_and_the_run_ends_well() {
    let place = Place::new("./worker");
    place.script("worker", "touch started; exit 1");
    let output = place.runner(&["--all", "--device", DEVICE, "--workers", ".", "--out", "out"]);
    let (said, errors) = text(&output);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let results = Results::load(&place.file("out/results.json")).unwrap();
    // Two contenders, of which the first has a second row.
    assert_eq!(results.cells.len(), 2 * 2 * 2 * 3);
    for cell in &results.cells {
        let reason = cell.reason.as_deref().unwrap();
        assert_eq!((cell.status, cell.device.as_str()), (Status::Unavailable, DEVICE));
        assert!(reason.starts_with("no CUDA device cuda:99: "), "{reason}");
        assert_eq!((cell.examples_per_epoch, &cell.log), (32, &None));
    }
    assert!(said.contains("ffnn: private, batch size 16") && said.contains("no CUDA device"), "{said}");
    assert!(place.file("out/plots/index.html").is_file());
    assert!(!place.file("started").exists());
}

#[test]
fn a_variant_for_another_kind_of_device_says_so_and_starts_no_worker() {
    let place = Place::new("./worker");
    place.script("worker", "touch started; exit 1");
    let registry = std::fs::read_to_string(place.file("registry.toml")).unwrap();
    let variants = "
        [[strategy.variants]]
        name = \"slow\"
        description = \"a test\"
        [[strategy.variants]]
        name = \"fast\"
        description = \"a test\"
        devices = [\"cuda\"]
        tolerance = 0.01
    ";
    // What `other` needs isn't there; that is looked for only where it could run.
    std::fs::write(place.file("registry.toml"), registry + variants).unwrap();
    let output = place.runner(&["--all", "--strategies", "other", "--workers", ".", "--out", "out"]);
    let (said, errors) = text(&output);
    let results =
        Results::load(&place.file("out/results.json")).unwrap_or_else(|error| panic!("{error}: {said}{errors}"));
    for cell in &results.cells {
        let reason = cell.reason.as_deref().unwrap();
        let is_fast = cell.variant.as_deref() == Some("fast");
        assert_eq!(cell.status, Status::Unavailable, "{reason}");
        assert_eq!(reason == "other:fast does not run on cpu, only on cuda", is_fast, "{reason}");
    }
    assert_eq!(results.cells.iter().filter(|cell| cell.variant.as_deref() == Some("fast")).count(), 8);
    let listed = text(&place.run(Path::new(RUNNER), place.folder.path(), &["list", "--registry", "registry.toml"])).0;
    assert!(listed.contains(":fast") && listed.contains("(only on cuda)"), "{listed}");
}

#[test]
fn a_variant_with_a_limit_of_threads_gets_no_more_processors_and_its_rows_say_so() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        eprintln!("skipped: one processor");
        return;
    }
    let place = Place::new("./worker");
    let record = "grep Cpus_allowed_list /proc/self/status; echo $OMP_NUM_THREADS";
    let worker = example("oracle_worker");
    place.script("worker", &format!("PATH=/usr/bin:/bin; ({record}) >>told; exec {}", worker.display()));
    let registry = std::fs::read_to_string(place.file("registry.toml")).unwrap();
    let described = "description = \"as it should be\"";
    std::fs::write(place.file("registry.toml"), registry.replace(described, &format!("{described}\nthreads = 1")))
        .unwrap();
    let cell = ["--strategies", "oracle:right", "--workloads", "logreg", "--batch-sizes", "8", "--modes", "private"];
    let output =
        place.runner(&[&["--all", "--threads", "2", "--workers", ".", "--out", "out"], &cell as &[&str]].concat());
    let (said, errors) = text(&output);
    let results =
        Results::load(&place.file("out/results.json")).unwrap_or_else(|error| panic!("{error}: {said}{errors}"));
    let [row, _again] = &results.cells[..] else { panic!("{said}{errors}") };
    assert_eq!((row.status, row.threads, results.config.threads), (Status::Ok, 1, 2), "{:?}", row.reason);
    assert_eq!(results.environment.contenders[0].threads, 1);
    let told = std::fs::read_to_string(place.file("told")).unwrap();
    let (processors, variables): (Vec<&str>, Vec<&str>) = told.lines().partition(|line| line.contains("Cpus"));
    assert!(!variables.is_empty() && variables.iter().all(|threads| *threads == "1"), "{told}");
    assert!(processors.iter().all(|line| !line.contains(['-', ','])), "one processor: {told}");
}

#[test]
fn what_can_only_be_done_on_the_device_is_refused_without_it() {
    let place = Place::new("./worker");
    for command in ["verify", "repeat"] {
        let output = place.runner(&[command, "--device", DEVICE, "--workers", "."]);
        let (_, errors) = text(&output);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.starts_with("error: no CUDA device cuda:99: ") && errors.lines().count() == 1, "{errors}");
    }
}

#[test]
fn two_processes_with_the_same_noise_agree_to_the_bit_or_the_status_is_1() {
    let place = Place::new("./worker");
    let worker = example("oracle_worker");
    let worker = worker.display();
    let repeat = || place.runner(&["repeat", "--workers", ".", "--strategies", "oracle", "--batch-sizes", "8"]);

    place.script("worker", &format!("exec {worker}"));
    let (said, errors) = text(&repeat());
    assert!(said.ends_with("4 the same, 0 different, 0 unavailable, 0 broken\n"), "{said}{errors}");

    // Every second start gets other noise than it was asked for. Plain steps have none.
    let tampered = r#"sed -u 's/"noise_seed":3/"noise_seed":4/'"#;
    place.script(
        "worker",
        &format!(
            "PATH=/usr/bin:/bin; if mkdir once 2>/dev/null; then exec {worker}; fi; rmdir once; mkfifo $$; exec 4<&0
             {tampered} <&4 >$$ & exec {worker} <$$"
        ),
    );
    let output = repeat();
    let (said, errors) = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}{errors}");
    assert!(said.ends_with("2 the same, 2 different, 0 unavailable, 0 broken\n"), "{said}{errors}");
    assert!(said.contains("105 of 105 parameters differ, by up to"), "{said}");
}

#[test]
fn a_worker_that_was_not_given_the_data_agrees_with_nobody() {
    let place = Place::new("./worker");
    let (faulty, good) = (example("faulty_worker"), example("oracle_worker"));
    place.script("worker", &format!("exec {} other-data load oracle {} repeat", faulty.display(), good.display()));
    let output = place.runner(&["repeat", "--workers", ".", "--strategies", "oracle", "--batch-sizes", "8"]);
    let (said, errors) = text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}{errors}");
    assert!(said.contains("failed: other data set than all contenders were sent"), "{said}{errors}");
    assert!(said.ends_with("0 the same, 0 different, 0 unavailable, 4 broken\n"), "{said}{errors}");
}

#[test]
fn a_bundle_that_is_unpacked_elsewhere_measures_without_cargo() {
    let place = Place::new("{workers}/oracle_worker");
    // What a real cargo says of what it built; building for real is left to ci/bundle.
    let artifact = |name: &str, executable: &Path| {
        let message = serde_json::json!({
            "reason": "compiler-artifact", "target": {"name": name}, "executable": executable, "fresh": true
        });
        format!("echo '{message}'")
    };
    let cargo = [artifact("oracle_worker", &example("oracle_worker")), artifact("runner", Path::new(RUNNER))];
    let cargo = place.script("cargo", &cargo.join("\n"));
    let archive = place.file("bundle.tar.gz");
    let mut command = Command::new(RUNNER);
    command.args(["bundle", "--strategies", "oracle", "--registry", "registry.toml", "--out"]).arg(&archive);
    let output = command.env("CARGO", &cargo).current_dir(place.folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output).1);

    let elsewhere = tempfile::tempdir().unwrap();
    // By another process, for the reason that `write_executable` gives.
    assert!(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(elsewhere.path()).status().unwrap().success());
    let root = std::fs::read_dir(elsewhere.path()).unwrap().next().unwrap().unwrap().path();
    for file in ["workers/oracle_worker", "ci/gpu", "peers/jax_worker.py", "bench-configs/gpu.toml", "bundle.json"] {
        assert!(root.join(file).is_file(), "{file}");
    }
    assert!(!root.join("peers/__pycache__").exists() && !root.join("Cargo.toml").exists());

    let (config, registry) = (place.file("config.toml"), place.file("registry.toml"));
    let (config, registry) = (config.to_str().unwrap(), registry.to_str().unwrap());
    let args = ["--all", "--config", config, "--registry", registry, "--strategies", "oracle:right"];
    let output = place.run(&root.join("runner"), &root, &[&args[..], &["--workloads", "logreg"]].concat());
    let (said, errors) = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}{errors}");
    let run = std::fs::read_dir(root.join("results")).unwrap().next().unwrap().unwrap().path();
    let results = Results::load(&run.join("results.json")).unwrap();
    let contenders: Vec<_> = results.cells.iter().filter(|cell| cell.control_of.is_none()).collect();
    assert_eq!((contenders.len(), results.cells.len()), (4, 8));
    for cell in contenders {
        assert_eq!(cell.status, Status::Ok, "{:?}", cell.reason);
        assert!(cell.verification.as_ref().unwrap().passed);
        assert!(cell.timeline.as_ref().unwrap().at_s.len() > 2 && cell.processes[0].gpu.is_none());
    }
    let bundle: serde_json::Value = serde_json::from_slice(&std::fs::read(root.join("bundle.json")).unwrap()).unwrap();
    assert_eq!(serde_json::json!(results.environment.commit), bundle["commit"]);
}

#[test]
fn a_bundle_lacks_no_worker_unasked() {
    let place = Place::new("{workers}/oracle_worker");
    let cargo = place.script("cargo", "exit 101");
    let mut command = Command::new(RUNNER);
    command.args(["bundle", "--strategies", "oracle", "--registry", "registry.toml", "--out", "bundle.tar.gz"]);
    let output = command.env("CARGO", &cargo).current_dir(place.folder.path()).output().unwrap();
    let (_, errors) = text(&output);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors.contains("oracle_worker did not build: `cargo build --release -p oracle_worker`"), "{errors}");
    assert!(!place.file("bundle.tar.gz").exists() && !place.file("bundle.tar.gz.partial").exists());
}
