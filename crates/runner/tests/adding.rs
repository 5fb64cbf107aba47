//! Workers in Python from outside: `docs/adding-a-framework.md` followed literally in a checkout of the test's own, and the
//! gate against workers that are wrong on purpose.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dpsgd_protocol::results::{Results, Status};

/// The root of this checkout.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The one code block of this language on the page.
fn block(page: &str, language: &str) -> String {
    let blocks: Vec<&str> = page.split(&format!("```{language}\n")).skip(1).collect();
    assert_eq!(blocks.len(), 1, "{language}");
    blocks[0].split("```").next().unwrap().to_string()
}

/// An interpreter with NumPy: that of an environment of ours, or python3. `None` is said on stderr: a machine without one
/// can't run the test.
fn python_with_numpy() -> Option<PathBuf> {
    let ours = ["torch", "jax", "tf"].map(|name| root().join(".envs").join(name).join("bin/python"));
    let has_numpy = |python: &PathBuf| {
        let asked = Command::new(python).args(["-c", "import numpy"]).output();
        asked.is_ok_and(|output| output.status.success())
    };
    let found = ours.into_iter().chain(["python3".into()]).find(has_numpy);
    if found.is_none() {
        eprintln!("skipped: no Python with numpy; `runner setup` installs one");
    }
    found
}

fn runner(checkout: &Path, python: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
    command.current_dir(checkout).args(args).arg("--python").arg(python).output().unwrap()
}

/// Variants of `peers/fixtures/wrong_worker.py`, and what the gate must say of them.
const WRONG: [(&str, &str); 8] = [
    ("inverted-clip-factor", "some examples clipped: relative error"),
    ("mean-in-place-of-sum", "some examples clipped: relative error"),
    ("mask-ignored", "a padded batch: relative error"),
    ("noise-5-percent-too-small", "standard deviation 0.9"),
    ("noiseless-bias", "bias` got no noise"),
    ("same-noise-every-step", "noise"),
    ("one-seed-for-all", "noise of two seeds is correlated"),
    ("momentum", "3 steps in a row: relative error"),
];

#[test]
fn the_gate_disqualifies_python_workers_that_are_wrong_on_purpose_each_for_its_own_reason() {
    let Some(python) = python_with_numpy() else { return };
    let folder = tempfile::tempdir().unwrap();
    let variants = ["right"].into_iter().chain(WRONG.map(|(name, _)| name));
    let variants: Vec<String> = variants.map(|name| format!("{{ name = {name:?}, description = {name:?} }}")).collect();
    let registry = format!(
        "[[strategy]]\nname = \"wrong\"\ndescription = \"a test\"\nmodules = [\"numpy\"]\nempty_batch = true\n\
         non_finite = false\nstart = [\"{{python}}\", \"{{peers}}/fixtures/wrong_worker.py\"]\nvariants = [{}]\n",
        variants.join(", ")
    );
    let file = folder.path().join("strategies.toml");
    std::fs::write(&file, registry).unwrap();
    let args = ["verify", "--registry", file.to_str().unwrap(), "--workloads", "logreg"];
    let output = runner(&root(), &python, &args);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(4), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let line = |variant: &str| {
        let name = format!("wrong:{variant} ");
        said.lines().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("no line for {variant}: {said}"))
    };
    assert!(line("right").contains("private verified") && !line("right").contains("DISQUALIFIED"), "{said}");
    for (variant, reason) in WRONG {
        let line = line(variant);
        assert!(line.contains("DISQUALIFIED") && line.contains(reason), "{line}");
    }
}

#[test]
fn the_page_on_adding_a_framework_works_as_it_stands() {
    let Some(python) = python_with_numpy() else { return };
    let page = std::fs::read_to_string(root().join("docs/adding-a-framework.md")).unwrap();
    let checkout = tempfile::tempdir().unwrap();
    for folder in ["bench-configs", "peers"] {
        std::fs::create_dir(checkout.path().join(folder)).unwrap();
    }
    let write = |file: &str, text: &str| std::fs::write(checkout.path().join(file), text).unwrap();
    write("Cargo.toml", "");
    let worker = block(&page, "python");
    let fixture = std::fs::read_to_string(root().join("peers/fixtures/toy_worker.py")).unwrap();
    assert_eq!(worker, fixture, "the page and the worker that the other test is built on");
    write("peers/toy_worker.py", &worker);
    write("bench-configs/strategies.toml", &block(&page, "toml"));
    let default = std::fs::read_to_string(root().join("bench-configs/default.toml")).unwrap();
    write("bench-configs/default.toml", &default);
    std::os::unix::fs::symlink(root().join("peers/dpsgd_worker"), checkout.path().join("peers/dpsgd_worker")).unwrap();

    let commands = block(&page, "sh");
    let commands: Vec<Vec<&str>> = commands.lines().map(|line| line.split_whitespace().skip(5).collect()).collect();
    let [verify, measure] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!(verify[0], "verify");
    let output = runner(checkout.path(), &python, verify);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("private verified") && said.contains("noise right"), "{said}");

    // The same command, on a small cell.
    let out = checkout.path().join("run");
    let mut measure = measure.clone();
    measure.extend(["--examples", "256", "--epochs", "2", "--processes", "1", "--out", out.to_str().unwrap()]);
    let output = runner(checkout.path(), &python, &measure);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let results = Results::load(&out.join("results.json")).unwrap();
    assert!(!results.cells.is_empty());
    for cell in &results.cells {
        // One process alone, which the second row of the reference contender does without, and one in a round.
        let processes = if cell.control_of.is_some() { 1 } else { 2 };
        assert_eq!((cell.status, cell.processes.len()), (Status::Ok, processes), "{:?}", cell.reason);
    }
}
