//! The command line as a user meets it: the built executable, its exit status, and what it says. Nothing here needs
//! libtorch, Python or the network.

use std::path::Path;
use std::process::{Command, Output};

const CONFIG: &str = r#"
workloads = ["ffnn"]
strategies = ["naive"]
batch_sizes = [16]
modes = ["private"]
processes = 1
epochs = 1
examples = 64
schedule = "shuffle"
seed = 1
timeout_s = 60

[dp]
clip_norm = 1.0
noise_multiplier = 1.0
learning_rate = 0.1
"#;

const REGISTRY: &str = r#"
[[strategy]]
name = "naive"
description = "x"
start = ["/bin/true"]
empty_batch = true
non_finite = true
"#;

/// Runs the executable in `folder`, with a PATH on which nothing can be found.
fn runner(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
    for variable in ["LIBTORCH", "CARGO", "DPSGD_ENVS"] {
        command.env_remove(variable);
    }
    command.args(args).current_dir(folder).env("PATH", "/nowhere").output().expect("the executable was built")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Checks that `args` end with status 2 and one line that holds all of `parts`, and that nothing was created.
fn assert_refused(folder: &Path, args: &[&str], parts: &[&str]) {
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    };
    let before = files();
    let output = runner(folder, args);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
    assert!(said.starts_with("error: ") && said.lines().count() == 1, "{args:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{args:?}: `{part}` is not in: {said}");
    }
    assert_eq!(files(), before, "{args:?} created something");
}

/// Checks that `runner --all` refuses [`CONFIG`] with `from` replaced by `to`.
fn assert_config_refused(from: &str, to: &str, parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    assert!(CONFIG.contains(from), "{from}");
    std::fs::write(folder.path().join("mine.toml"), CONFIG.replacen(from, to, 1)).unwrap();
    assert_refused(
        folder.path(),
        &["--all", "--config", "mine.toml", "--out", "run"],
        &[&["mine.toml"], parts].concat(),
    );
}

/// Checks that `runner --all` with the default config refuses an option.
fn assert_option_refused(args: &[&str], parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    assert_refused(folder.path(), &[&["--all"], args].concat(), parts);
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_valid_key() {
    assert_config_refused("epochs =", "epoch =", &["mine.toml:7", "unknown field `epoch`", "did you mean `epochs`?"]);
    assert_config_refused("clip_norm", "clip_nrom", &["unknown field `clip_nrom`", "did you mean `clip_norm`?"]);
}

#[test]
fn a_missing_key_is_named() {
    assert_config_refused("seed = 1", "", &["missing field `seed`"]);
}

#[test]
fn an_unknown_name_in_a_config_is_refused_with_the_nearest_valid_name() {
    assert_config_refused("\"ffnn\"", "\"fnn\"", &["unknown workload `fnn`", "did you mean `ffnn`?"]);
    assert_config_refused("\"naive\"", "\"nave\"", &["unknown strategy `nave`", "did you mean `naive`?"]);
    assert_config_refused("\"private\"", "\"privat\"", &["unknown variant `privat`", "did you mean `private`?"]);
    assert_config_refused("\"shuffle\"", "\"shufle\"", &["unknown variant `shufle`", "did you mean `shuffle`?"]);
}

#[test]
fn a_hyperparameter_outside_its_range_is_refused_with_key_value_and_range() {
    let refused = |value: &str, shown: &str| {
        let expected = format!("clip_norm = {shown}: must be a finite number above 0");
        assert_config_refused("clip_norm = 1.0", &format!("clip_norm = {value}"), &[&expected]);
    };
    refused("0.0", "0");
    refused("-1.5", "-1.5");
    refused("nan", "NaN");
    refused("inf", "inf");
    assert_config_refused("noise_multiplier = 1.0", "noise_multiplier = -0.1", &["noise_multiplier = -0.1"]);
    assert_config_refused("learning_rate = 0.1", "learning_rate = 0.0", &["learning_rate = 0"]);
}

#[test]
fn a_count_of_zero_is_refused_in_a_config_and_as_an_option() {
    assert_config_refused("epochs = 1", "epochs = 0", &["epochs = 0: must be 1 to 100000"]);
    assert_config_refused("processes = 1", "processes = 0", &["processes = 0: must be 1 to 1000"]);
    assert_config_refused("examples = 64", "examples = 0", &["examples = 0"]);
    assert_config_refused("batch_sizes = [16]", "batch_sizes = [16, 0]", &["batch size 0: must be at least 1"]);
    assert_config_refused("seed = 1", "seed = 1\nthreads = 0", &["threads = 0: must be 1 to "]);
    for option in ["epochs", "processes", "examples", "threads"] {
        assert_option_refused(&[&format!("--{option}"), "0"], &[&format!("--{option}: {option} = 0: must be ")]);
    }
    assert_option_refused(&["--batch-sizes", "0"], &["--batch-sizes: batch size 0: must be at least 1"]);
}

#[test]
fn counts_and_limits_beyond_all_sense_are_refused_with_the_range() {
    let expected = "--epochs: epochs = 99999999999999999: must be 1 to 100000";
    assert_option_refused(&["--epochs", "99999999999999999"], &[expected]);
    assert_option_refused(&["--processes", "1001"], &["--processes: processes = 1001: must be 1 to 1000"]);
    for (value, shown) in [("0", "0.0"), ("-1.0", "-1.0"), ("1e300", "1e300"), ("1e-300", "1e-300"), ("nan", "NaN")] {
        let expected = format!("timeout_s = {shown}: must be 0.001 to 1000000 seconds");
        assert_config_refused("timeout_s = 60", &format!("timeout_s = {value}"), &[&expected]);
        let row_limit = format!("timeout_s = 60\nrow_limit_s = {value}");
        assert_config_refused(
            "timeout_s = 60",
            &row_limit,
            &[&format!("row_{}", expected.replacen("timeout", "limit", 1))],
        );
    }
}

#[test]
fn a_count_that_is_no_number_is_refused_with_the_value_found() {
    assert_option_refused(&["--batch-sizes", "-3"], &["invalid value '-3'", "--batch-sizes"]);
    assert_option_refused(&["--epochs", "many"], &["invalid value 'many'", "--epochs"]);
    assert_config_refused("batch_sizes = [16]", "batch_sizes = [-1]", &["mine.toml:4", "-1"]);
}

#[test]
fn a_batch_larger_than_the_examples_asked_for_is_refused() {
    let expected = "batch size 65: must be at most 64, the number of examples";
    assert_config_refused("batch_sizes = [16]", "batch_sizes = [16, 65]", &[expected]);
    assert_option_refused(&["--examples", "50"], &["--examples: batch size 64: must be at most 50"]);
    let both = ["--examples", "30162", "--batch-sizes", "30163"];
    assert_option_refused(&both, &["--batch-sizes: batch size 30163: must be at most 30162"]);
}

#[test]
fn empty_lists_and_repeated_names_are_refused() {
    for (key, value) in [("workloads", "\"ffnn\""), ("strategies", "\"naive\""), ("modes", "\"private\"")] {
        let found = format!("{key} = [{value}]");
        assert_config_refused(&found, &format!("{key} = []"), &[&format!("{key} = []: name at least one")]);
        assert_config_refused(&found, &format!("{key} = [{value}, {value}]"), &[key, "twice"]);
    }
    assert_config_refused("batch_sizes = [16]", "batch_sizes = []", &["batch_sizes = []: name at least one"]);
    assert_config_refused("batch_sizes = [16]", "batch_sizes = [16, 16]", &["batch_sizes: 16 is there twice"]);
}

#[test]
fn unknown_names_in_options_are_refused_with_the_nearest_valid_name() {
    assert_option_refused(&["--strategies", "nave"], &["--strategies", "`nave`", "did you mean `naive`?"]);
    assert_option_refused(&["--strategies", "batched:captred"], &["`captred`", "did you mean `captured`?"]);
    assert_option_refused(&["--strategies", "batched,batched:captured"], &["batched:captured is there twice"]);
    assert_option_refused(&["--workloads", "mnist-ccn"], &["--workloads", "did you mean `mnist-cnn`?"]);
    assert_option_refused(&["--modes", "public"], &["--modes", "`public`", "private, non_private"]);
    assert_option_refused(&["--device", "gpu"], &["--device", "`gpu`", "cuda:0"]);
    assert_option_refused(&["--epoch", "3"], &["unexpected argument '--epoch'", "--epochs"]);
}

#[test]
fn more_threads_than_processors_are_refused() {
    let usable = std::thread::available_parallelism().unwrap().get();
    let above = (usable + 1).to_string();
    let expected = format!("threads = {above}: must be 1 to {usable}, the processors usable here");
    assert_option_refused(&["--threads", &above], &[&expected]);
}

#[test]
fn places_that_are_not_there_are_refused() {
    assert_option_refused(&["--config", "nope.toml"], &["nope.toml: No such file"]);
    assert_option_refused(&["--registry", "nope.toml"], &["nope.toml: No such file"]);
    assert_option_refused(&["--data", "nope"], &["--data: nope: not a folder"]);
    let folder = tempfile::tempdir().unwrap();
    assert_refused(folder.path(), &["list", "--data", "nope"], &["--data: nope: not a folder"]);
    assert_option_refused(&["--workers", "nope"], &["--workers: nope: not a folder"]);
    assert_option_refused(&["--python", "nope"], &["--python: nope: not a program on PATH"]);
}

#[test]
fn an_unwritable_out_is_refused_before_anything_is_installed() {
    assert_option_refused(&["--out", "/proc/run"], &["/proc/run: can't write there", "folder with --out"]);
    assert_option_refused(&["--out", "/dev/null/run"], &["/dev/null/run: can't write there"]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("run")).unwrap();
    std::fs::write(folder.path().join("run/plots"), "in the way").unwrap();
    assert_refused(folder.path(), &["--all", "--out", "run"], &["run/plots: can't write there"]);
}

#[test]
fn resume_needs_the_folder_of_a_run_and_a_run_is_not_overwritten_without_it() {
    assert_option_refused(&["--resume"], &["--out <DIR>"]);
    assert_option_refused(&["--resume", "--out", "new"], &["--out new", "no results.json"]);
    let folder = tempfile::tempdir().unwrap();
    assert_refused(folder.path(), &["--resume", "--out", "new"], &["--out new", "no results.json"]);
    std::fs::write(folder.path().join("results.json"), "{}").unwrap();
    assert_refused(folder.path(), &["--all", "--out", "."], &["holds results already", "--resume"]);
}

#[test]
fn options_of_a_run_without_all_are_refused_and_no_argument_prints_the_help() {
    let folder = tempfile::tempdir().unwrap();
    assert_refused(folder.path(), &["--epochs", "3"], &["add `--all`"]);
    let output = runner(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("Usage: runner"), "{}", stdout(&output));
}

#[test]
fn a_model_of_ones_own_is_read_beside_its_config_and_layers_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    let own = "\n[[workload]]\nname = \"mine\"\nmodel = \"mine.toml\"\ndataset = \"adult\"\n";
    let config = CONFIG.replace("\"ffnn\"", "\"mine\"") + own;
    std::fs::write(folder.path().join("sub/config.toml"), &config).unwrap();
    let args = ["--all", "--config", "sub/config.toml", "--out", "run"];
    assert_refused(folder.path(), &args, &["sub/mine.toml: No such file"]);

    let layer =
        |of: usize, to: usize| format!("[[layers]]\nkind = \"linear\"\nin_features = {of}\nout_features = {to}\n");
    let head = "name = \"mine\"\nloss = \"cross_entropy\"\n[input]\nfeatures = 104\n";
    std::fs::write(folder.path().join("sub/mine.toml"), format!("{head}{}{}", layer(104, 50), layer(60, 2))).unwrap();
    assert_refused(folder.path(), &args, &["mine.toml", "layer 1 (linear)", "50", "60"]);

    let config = config.replace("dataset = \"adult\"", "dataset = \"adlt\"");
    std::fs::write(folder.path().join("sub/config.toml"), config).unwrap();
    assert_refused(folder.path(), &args, &["workload `mine`", "unknown dataset `adlt`", "did you mean `adult`?"]);
}

#[test]
fn a_faulty_registry_is_refused_with_the_entry_and_what_is_allowed() {
    let refused = |from: &str, to: &str, parts: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        assert!(REGISTRY.contains(from), "{from}");
        std::fs::write(folder.path().join("reg.toml"), REGISTRY.replacen(from, to, 1)).unwrap();
        assert_refused(folder.path(), &["list", "--registry", "reg.toml"], &[&["reg.toml"], parts].concat());
    };
    refused("start =", "strat =", &["reg.toml:5", "did you mean `start`?"]);
    refused("/bin/true", "{worker}/x", &["strategy `naive`", "unknown placeholder", "did you mean `workers`?"]);
    refused("[\"/bin/true\"]", "[]", &["strategy `naive`", "start = []"]);
    refused("\"naive\"", "\"na,ive\"", &["name = \"na,ive\""]);
    refused("non_finite", "tolerance = 0\nnon_finite", &["tolerance = 0: must be a finite number above 0"]);
    refused("non_finite", "environment = \"torchlib\"\nnon_finite", &["unknown variant `torchlib`", "`libtorch`"]);
    let variant = "non_finite = true\n\n[[strategy.variants]]\nname = \"one\"\ndescription = \"\"\n";
    let refused_variant = |key: &str, parts: &[&str]| refused("non_finite = true", &format!("{variant}{key}"), parts);
    refused_variant("devices = []", &["devices = []: name `cpu`, `cuda` or both"]);
    refused_variant("devices = [\"tpu\"]", &["unknown variant `tpu`", "`cuda`"]);
    refused_variant("threads = 0", &["strategy `naive`", "variant `one`: threads = 0: must be at least 1"]);
    let twice = format!("non_finite = true\n{REGISTRY}");
    refused("non_finite = true", &twice, &["strategy `naive`: there are two of this name"]);
}

#[test]
fn list_works_with_nothing_installed() {
    let folder = tempfile::tempdir().unwrap();
    let output = runner(folder.path(), &["list"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stdout(&output);
    let line = |start: &str| said.lines().find(|line| line.trim_start().starts_with(start)).unwrap_or_default();
    // 104 * 50 + 50 + 50 * 2 + 2 parameters.
    assert!(line("ffnn ").contains("5352 parameters") && line("ffnn ").contains("(real)"), "{said}");
    assert!(line("lstm ").contains("synthetic"), "{said}");
    assert!(line(":captured").contains("im2col"), "{said}");
    assert!(!line("default.toml").is_empty() && !line("paper.toml").is_empty(), "{said}");
    assert!(!said.contains("strategies.toml "), "the registry is not a config: {said}");
    assert!(!said.contains("gpu-targets.toml"), "the targets are not a config: {said}");
}

#[test]
fn doctor_names_what_is_missing_with_the_fix_and_ends_with_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let output = runner(folder.path(), &["doctor"]);
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let line = |what: &str| said.lines().find(|line| line.contains(what)).unwrap_or_default();
    assert!(line(" cargo ").starts_with("missing") && line(" cargo ").contains("install Rust"), "{said}");
    assert!(line("C++ compiler").starts_with("missing") && line("C++ compiler").contains("install g++"), "{said}");
    assert!(line("memory").starts_with("ok"), "{said}");
}

#[test]
fn doctor_is_content_with_prebuilt_workers_that_need_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // Whatever the default config names, as workers that need no build and no environment.
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench-configs/default.toml");
    let default: toml::Table = std::fs::read_to_string(default).unwrap().parse().unwrap();
    let mut variants = std::collections::BTreeMap::<&str, Vec<&str>>::new();
    for name in default["strategies"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()) {
        let (strategy, variant) = name.split_once(':').unwrap_or((name, "only"));
        variants.entry(strategy).or_default().push(variant);
    }
    let entry = |(strategy, variants): (&&str, &Vec<&str>)| {
        let variants: String = variants
            .iter()
            .map(|name| format!("[[strategy.variants]]\nname = {name:?}\ndescription = \"a test\"\n"))
            .collect();
        REGISTRY.replace("naive", strategy) + "\n" + &variants
    };
    let registry: String = variants.iter().map(entry).collect();
    std::fs::write(folder.path().join("reg.toml"), registry).unwrap();
    let output = runner(folder.path(), &["doctor", "--registry", "reg.toml", "--workers", "."]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
}
