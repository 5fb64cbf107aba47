//! The verification gate against strategies that are wrong on purpose, one mistake each, run as real workers.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dpsgd_protocol::results::{Results, Serves, Status};

/// Variants of the example `oracle_worker`, and what the gate must say of the modes they are wrong in.
const WRONG: [(&str, &str); 21] = [
    ("inverted-clip-factor", "some examples clipped: relative error"),
    ("clipping-per-layer", "some examples clipped: relative error"),
    ("mean-in-place-of-sum", "some examples clipped: relative error"),
    ("mask-ignored", "a padded batch: relative error"),
    ("plain-sum-in-place-of-mean", "plain SGD: relative error"),
    ("nan-not-counted", "0 examples reported as not finite, expected 2"),
    ("noise-5-percent-too-small", "standard deviation 0.9"),
    ("noise-5-percent-too-large", "standard deviation 1.0"),
    ("uniform-noise", "Kolmogorov-Smirnov"),
    ("noiseless-bias", "bias` got no noise"),
    ("same-noise-every-step", "noise"),
    ("one-seed-for-all", "noise of two seeds is correlated"),
    ("momentum", "3 steps in a row: relative error"),
    ("half-the-noise-reused", "repeat an earlier one up to its sign"),
    ("antithetic-noise", "repeat an earlier one up to its sign"),
    ("two-noises-in-turn", "noise"),
    ("constant-seed-unless-given", "noise of two seeds is correlated"),
    ("no-noise-on-an-empty-batch", "all parameters on an empty batch got no noise"),
    ("one-layer-short-by-a-thousandth", "some examples clipped: relative error"),
    ("one-bias-short-by-a-thousandth", "some examples clipped: relative error"),
    ("one-example-of-256-unclipped", "a batch of 256 different examples: relative error"),
];

/// Examples of this package are built with its tests, beside them, by `cargo test` without `--test`.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("examples").join(name)
}

/// A registry of the oracle in these variants.
fn registry(folder: &Path, variants: &[&str]) -> PathBuf {
    let program = example("oracle_worker");
    let variants: Vec<String> =
        variants.iter().map(|name| format!("{{ name = \"{name}\", description = \"{name}\" }}")).collect();
    let text = format!(
        "[[strategy]]\nname = \"oracle\"\ndescription = \"the oracle\"\nstart = [{program:?}]\nempty_batch = true\n\
         non_finite = true\nvariants = [{}]\n",
        variants.join(", ")
    );
    let file = folder.join("strategies.toml");
    std::fs::write(&file, text).unwrap();
    file
}

fn runner(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_runner")).args(args).output().unwrap()
}

#[test]
fn the_right_strategy_passes_and_every_mistake_is_disqualified_for_its_own_reason() {
    let folder = tempfile::tempdir().unwrap();
    let variants: Vec<&str> = ["right"].into_iter().chain(WRONG.map(|(name, _)| name)).collect();
    let registry = registry(folder.path(), &variants);
    let config = folder.path().join("config.toml");
    let text = "workloads = [\"ffnn\"]\nstrategies = [\"oracle\"]\nbatch_sizes = [16, 256]\nprocesses = 1\nepochs = 1\n\
                modes = [\"private\", \"non_private\"]\nschedule = \"shuffle\"\nseed = 1\ntimeout_s = 120\n\n[dp]\nclip_norm = 1.0\n\
                noise_multiplier = 1.1\nlearning_rate = 0.1\n";
    std::fs::write(&config, text).unwrap();
    let (registry, config) = (registry.to_str().unwrap(), config.to_str().unwrap());
    let output = runner(&["verify", "--registry", registry, "--config", config]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(4), "{said}");
    let line = |variant: &str| {
        let name = format!("oracle:{variant} ");
        said.lines().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("no line for {variant}: {said}"))
    };
    assert!(!line("right").contains("DISQUALIFIED"), "{}", line("right"));
    assert_eq!(line("right").matches("verified").count(), 2);
    for (variant, reason) in WRONG {
        let line = line(variant);
        assert!(line.contains("DISQUALIFIED") && line.contains(reason), "{line}");
    }
    assert!(said.ends_with("1 passed, 21 disqualified, 0 unavailable, 0 broken\n"), "{said}");
}

#[test]
fn the_gate_and_the_timed_processes_find_the_same_variables_with_caches_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let seen = folder.path().join("seen");
    let script = format!(
        "echo \"$CUDA_CACHE_DISABLE $DPSGD_KERNEL_CACHE $(ls \"$DPSGD_KERNEL_CACHE\" | wc -l)\" >>{}; exec {}",
        seen.display(),
        example("oracle_worker").display()
    );
    let text = format!(
        "[[strategy]]\nname = \"oracle\"\ndescription = \"the oracle\"\nstart = [\"/bin/sh\", \"-c\", {script:?}]\n\
         empty_batch = true\nnon_finite = true\n"
    );
    let registry = folder.path().join("strategies.toml");
    std::fs::write(&registry, text).unwrap();
    let out = folder.path().join("run");
    let mut args = vec!["--all", "--registry", registry.to_str().unwrap(), "--out", out.to_str().unwrap()];
    args.extend(["--strategies", "oracle", "--workloads", "logreg", "--batch-sizes", "16", "--modes", "non_private"]);
    args.extend(["--examples", "64", "--epochs", "2", "--processes", "2", "--seconds", "0"]);
    let output = runner(&args);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let seen = std::fs::read_to_string(seen).unwrap();
    let processes: Vec<Vec<&str>> = seen.lines().map(|line| line.split(' ').collect()).collect();
    // The gate, the process that is alone, then two rounds of two: only those after the first find something in the cache.
    let [gate, alone, rounds @ ..] = &processes[..] else { panic!("{seen}") };
    assert_eq!((gate[0], gate[2], alone[0], alone[2], rounds.len()), ("1", "0", "1", "0", 4), "{seen}");
    assert!(rounds.iter().all(|process| (process[0], process[2]) == ("1", "1")), "{seen}");
    assert!(gate[1] != alone[1] && rounds.iter().all(|process| process[1] == alone[1]), "{seen}");
}

#[test]
fn a_disqualified_row_keeps_its_figure_and_has_no_times_while_the_others_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let registry = registry(folder.path(), &["right", "inverted-clip-factor", "noise-5-percent-too-small"]);
    let (registry, out) = (registry.to_str().unwrap(), folder.path().join("run"));
    let mut args = vec!["--all", "--registry", registry, "--out", out.to_str().unwrap()];
    args.extend(["--strategies", "oracle", "--workloads", "logreg", "--batch-sizes", "16"]);
    args.extend(["--examples", "64", "--epochs", "2", "--processes", "2", "--seconds", "0"]);
    let output = runner(&args);
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    let results = Results::load(&out.join("results.json")).unwrap();
    let contenders: Vec<_> = results.cells.iter().filter(|cell| cell.control_of.is_none()).collect();
    assert_eq!(contenders.len(), 6);
    for cell in contenders {
        let verification = cell.verification.as_ref().unwrap();
        let private = cell.mode == dpsgd_core::Mode::Private;
        if private && cell.variant.as_deref() != Some("right") {
            assert_eq!(cell.status, Status::Disqualified);
            assert_eq!(cell.reason, verification.failure);
            assert!(!verification.passed && cell.processes.is_empty() && cell.median_epoch_s.is_none());
        } else {
            assert_eq!(cell.status, Status::Ok, "{:?}", cell.reason);
            assert!(verification.max_relative_error.unwrap() < 1e-6);
            assert_eq!(verification.noise_passed, private.then_some(true));
            let share = verification.error_over_allowed.unwrap();
            assert!(share > 0.0 && share < 0.1, "{share}");
            let (cold, warm): (Vec<_>, Vec<_>) =
                cell.processes.iter().partition(|process| process.serves == Serves::Cold);
            assert_eq!((cold.len(), warm.len()), (1, 2));
            let mean = cold[0].epochs_s.iter().sum::<f64>() / 2.0;
            assert!((cell.mean_epoch_s.unwrap() / mean - 1.0).abs() < 1e-12);
            assert_eq!(cell.examples_per_epoch, 64);
        }
    }
    assert!(!out.join("work").exists(), "what can be made again is not kept");
}
