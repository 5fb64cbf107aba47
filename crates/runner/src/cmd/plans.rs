//! `runner list --plan`: what each strategy that plans its step means to do for each workload, in its own words.
//!
//! The strategy's worker is started with two more arguments, `plan` and a model file in JSON, and what it prints is
//! passed through. Nothing is installed and nothing built.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use super::Outcome;
use crate::cli::EXIT_OK;
use crate::config::{Workload, built_in_workloads};
use crate::registry::{Registry, unknown};
use crate::setup::{Host, Launcher, Toolbox};

/// Prints the plans for the workloads named, or all that are built in. What fails is said on stderr, one line each, and
/// does not stop the others.
pub fn run(host: &Host, registry: &Registry, workloads: Option<&[String]>) -> Outcome {
    let workloads = select(workloads)?;
    let planning: Vec<_> = registry.entries().iter().filter(|entry| entry.plan).collect();
    if planning.is_empty() {
        let fix = "add `plan = true` to those whose worker answers `plan MODEL.json`";
        return Err(format!("{}: no strategy has a plan to show: {fix}", registry.path().display()).into());
    }
    let folder = tempfile::tempdir()?;
    let mut failed = Vec::new();
    for entry in planning {
        let launcher = match Toolbox::as_it_is(host, entry) {
            Ok(launcher) => launcher,
            Err(reason) => {
                eprintln!("{}: {reason}", entry.name);
                failed.push(entry.name.clone());
                continue;
            }
        };
        for workload in &workloads {
            let model = folder.path().join(format!("{}.json", workload.name));
            std::fs::write(&model, serde_json::to_vec(&workload.model).expect("a model is plain data"))?;
            match plan(host, &launcher, &model) {
                Ok(text) => {
                    let mut stdout = std::io::stdout().lock();
                    writeln!(stdout, "{} on {}:", entry.name, workload.name)?;
                    stdout.write_all(&text)?;
                    writeln!(stdout)?;
                }
                Err(reason) => {
                    eprintln!("{} on {}: {reason}", entry.name, workload.name);
                    failed.push(format!("{} on {}", entry.name, workload.name));
                }
            }
        }
    }
    if failed.is_empty() { Ok(EXIT_OK) } else { Err(format!("no plan of {}; see above", failed.join(", ")).into()) }
}

fn select(names: Option<&[String]>) -> Result<Vec<Workload>, String> {
    let all = built_in_workloads();
    let Some(names) = names else { return Ok(all) };
    let find = |name: &String| {
        let valid: Vec<&str> = all.iter().map(|workload| workload.name.as_str()).collect();
        let found = all.iter().find(|workload| workload.name == *name).cloned();
        found.ok_or_else(|| format!("--workloads: {}", unknown("workload", name, &valid)))
    };
    names.iter().map(find).collect()
}

/// What the worker prints about the model, or why there is nothing to show, in one line.
fn plan(host: &Host, launcher: &Launcher, model: &Path) -> Result<Vec<u8>, String> {
    let mut command = host.command(&launcher.program);
    command.args(&launcher.args).arg("plan").arg(model).envs(&launcher.env);
    let program = launcher.program.display();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it says nothing on stderr");
    Err(format!("`{program} plan` ended with {}: {}", output.status, last.trim()))
}
