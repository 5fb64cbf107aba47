//! `runner list --plan` with workers that have a plan, fail, or are not built.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// An example of this package, which `cargo test` has built beside this test (but not with `--test NAME`).
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(path.is_file(), "no {}: `cargo test -p runner` builds it", path.display());
    path
}

/// One strategy: its name, the rest of `start` after the program, and what else its entry has.
fn entry(name: &str, program: &Path, word: &str, more: &str) -> String {
    format!(
        "[[strategy]]\nname = {name:?}\ndescription = \"a test\"\nstart = [{program:?}, {word:?}]\nempty_batch = true\n\
         non_finite = true\n{more}\n"
    )
}

/// `runner list --plan` with this registry, on a machine without cargo.
fn plans(registry: &str, args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("reg.toml"), registry).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
    command.args(["list", "--plan", "--registry", "reg.toml"]).args(args);
    // An empty folder for cargo's output, in which nothing is built.
    command.env_remove("CARGO").env("PATH", "/nowhere").env("CARGO_TARGET_DIR", folder.path().join("target"));
    command.current_dir(folder.path()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_plan_of_each_workload_is_passed_through_for_strategies_that_have_one() {
    let worker = example("planning_worker");
    let registry = entry("silent", &worker, "never", "") + &entry("planner", &worker, "word", "plan = true");
    let output = plans(&registry, &["--workloads", "logreg,ffnn"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let expected = "planner on logreg:\nword: logreg in 1 layers\n  linear\n\n\
                    planner on ffnn:\nword: ffnn in 3 layers\n  linear\n  relu\n  linear\n\n";
    assert_eq!(text(&output.stdout), expected);
}

#[test]
fn without_workloads_there_is_a_plan_of_every_one_that_is_built_in() {
    let output = plans(&entry("planner", &example("planning_worker"), "word", "plan = true"), &[]);
    let said = text(&output.stdout);
    let headings: Vec<&str> = said.lines().filter(|line| line.starts_with("planner on ")).collect();
    assert_eq!(headings.len(), dpsgd_core::ModelSpec::built_in_names().count(), "{said}");
}

#[test]
fn a_worker_that_fails_is_named_with_its_last_line_and_the_others_show_their_plan() {
    let worker = example("planning_worker");
    let registry = entry("broken", &worker, "fail", "plan = true") + &entry("planner", &worker, "word", "plan = true");
    let output = plans(&registry, &["--workloads", "logreg"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("broken on logreg: `") && said.contains("exit status: 3: error: layer 1"), "{said}");
    assert!(said.ends_with("error: no plan of broken on logreg; see above\n"), "{said}");
    assert!(text(&output.stdout).starts_with("planner on logreg:\n"), "{}", text(&output.stdout));
    assert!(!text(&output.stdout).contains("half a plan"));
}

#[test]
fn a_worker_that_is_not_built_is_one_line_with_the_command_that_builds_it() {
    let more = "plan = true\nbuild = { package = \"dpsgd-planner\" }";
    let output = plans(&entry("planner", Path::new("{workers}/dpsgd-planner"), "word", more), &[]);
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 2), "{said}");
    assert!(said.starts_with("planner: ") && said.contains("`runner setup --strategies planner`"), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_registry_without_a_plan_and_a_workload_that_is_none_are_refused() {
    let worker = example("planning_worker");
    let refused = |registry: &str, args: &[&str], part: &str| {
        let output = plans(registry, args);
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains(part), "{said}");
    };
    refused(&entry("silent", &worker, "word", "plan = false"), &[], "reg.toml: no strategy has a plan to show");
    let planner = entry("planner", &worker, "word", "plan = true");
    refused(&planner, &["--workloads", "fnn"], "--workloads: unknown workload `fnn`: did you mean `ffnn`?");
    refused(&entry("odd", &worker, "word", "plan = \"yes\""), &[], "expected a boolean");
}

#[test]
fn workloads_are_an_option_of_plans_alone() {
    let output = Command::new(env!("CARGO_BIN_EXE_runner")).args(["list", "--workloads", "ffnn"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--plan"), "{}", text(&output.stderr));
}
