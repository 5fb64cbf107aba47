//! `runner doctor`: what this machine has, what is missing, and how to get it. Changes nothing.

use std::path::Path;

use super::Outcome;
use crate::cli::{DoctorArgs, EXIT_ERROR, EXIT_OK};
use crate::config::{Config, read_registry};
use crate::registry::Environment;
use crate::setup::environment::{self, Spec, TORCH};
use crate::setup::python::Python;
use crate::setup::{Host, interpreter, libtorch};

/// One line of the answer.
struct Finding {
    what: &'static str,
    state: State,
    text: String,
}

/// How a finding bears on the default config.
enum State {
    Ok,
    /// Nothing needs it, or the first run gets it.
    Absent,
    /// The default config can't run without it.
    Missing,
}

fn ok(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { what, state: State::Ok, text: text.into() }
}

fn absent(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { what, state: State::Absent, text: text.into() }
}

fn missing(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { what, state: State::Missing, text: text.into() }
}

/// Prints the findings; status 2 if something that the default config needs is missing and can't be got by setup.
pub fn run(args: &DoctorArgs) -> Outcome {
    let registry = read_registry(args.places.registry.as_deref())?;
    let host = Host::of(&args.places)?;
    let config = Config::of_run(&crate::cli::RunArgs::default(), &registry)?;
    let wanted = config.entries(&registry);
    let needs_build = host.workers.is_none() && wanted.iter().any(|entry| entry.build.is_some());
    let needs_libtorch = wanted.iter().any(|entry| entry.environment == Environment::Libtorch);
    let mut findings = machine();
    findings.push(cargo(&host, needs_build));
    findings.push(compiler(&host, needs_build && needs_libtorch));
    let python = host.python().map(|executable| Python::probe(&host, &executable));
    let libtorch = libtorch_finding(&host, python.as_ref());
    let have_libtorch = matches!(libtorch.state, State::Ok);
    let mut lacking: Vec<&Spec> = wanted.iter().filter_map(|entry| interpreter::spec(entry.environment)).collect();
    lacking.retain(|spec| host.python.is_none() && !environment::is_current(&host, spec));
    if needs_libtorch && !have_libtorch {
        lacking.push(&TORCH);
    }
    findings.push(python_finding(python.as_ref(), &lacking));
    findings.push(match host.which("uv") {
        Some(uv) => ok("uv", version_of(&host, &uv)),
        None if lacking.is_empty() => absent("uv", "not on PATH; nothing is left to install"),
        None => absent("uv", "not on PATH; setup installs its own"),
    });
    findings.push(libtorch);
    let mut environments: Vec<Environment> = wanted.iter().map(|entry| entry.environment).collect();
    environments.sort();
    environments.dedup();
    findings
        .extend(environments.into_iter().filter_map(interpreter::spec).map(|spec| environment_finding(&host, spec)));
    for entry in wanted.iter().filter(|entry| entry.build.is_some()) {
        findings.push(worker(&host, entry.build.as_ref().map_or("", |build| &build.package)));
    }
    for Finding { what, state, text } in &findings {
        let mark = match state {
            State::Ok => "ok",
            State::Absent => "-",
            State::Missing => "missing",
        };
        println!("{mark:<8} {what:<14} {text}");
    }
    match findings.iter().filter(|finding| matches!(finding.state, State::Missing)).count() {
        0 => {
            println!("\nReady: `runner --all` gets what it still needs.");
            Ok(EXIT_OK)
        }
        count => {
            println!("\n{count} missing that the default config needs; each line says what to do.");
            Ok(EXIT_ERROR)
        }
    }
}

fn machine() -> Vec<Finding> {
    let machine = dpsgd_meter::machine();
    let features = match machine.cpu_features.is_empty() {
        true => String::new(),
        false => format!(", {}", machine.cpu_features.join(" ")),
    };
    vec![
        ok("system", machine.os),
        ok("processor", format!("{}, {} usable{features}", machine.cpu, crate::config::usable_cpus())),
        ok("memory", format!("{:.1} GB", machine.memory_bytes as f64 / 1e9)),
        match machine.gpus.is_empty() {
            true => absent("GPU", "none that NVML knows; only `--device cuda:0` needs one"),
            false => {
                let driver = machine.gpu_driver.map_or_else(String::new, |driver| format!("; driver {driver}"));
                ok("GPU", machine.gpus.join(", ") + &driver)
            }
        },
    ]
}

fn cargo(host: &Host, needed: bool) -> Finding {
    match &host.cargo {
        Some(cargo) => ok("cargo", version_of(host, cargo)),
        None if needed => missing("cargo", "not on PATH: install Rust, or name prebuilt workers with --workers"),
        None => absent("cargo", "not on PATH; the workers are prebuilt"),
    }
}

fn compiler(host: &Host, needed: bool) -> Finding {
    match host.cxx() {
        Some(compiler) => ok("C++ compiler", version_of(host, &compiler)),
        None if needed => missing("C++ compiler", "none on PATH: install g++"),
        None => absent("C++ compiler", "none on PATH; nothing has to be compiled with it"),
    }
}

/// `lacking` are the environments that are still to be installed, with which it must fit.
fn python_finding(python: Option<&Result<Python, String>>, lacking: &[&Spec]) -> Finding {
    let state = if lacking.is_empty() { absent } else { missing };
    let wanted = format!("install python3 ({})", TORCH.python_text());
    match python {
        None => state("python3", format!("not on PATH: {wanted}")),
        Some(Err(reason)) => state("python3", format!("{reason}: {wanted}")),
        Some(Ok(python)) => {
            let text = format!("{} ({})", python.version_text(), python.executable.display());
            match lacking.iter().find(|spec| !python.is_among(&spec.python)) {
                Some(spec) => {
                    missing("python3", format!("{text}: must be {} for {}", spec.python_text(), spec.purpose))
                }
                None => ok("python3", text),
            }
        }
    }
}

fn environment_finding(host: &Host, spec: &Spec) -> Finding {
    if let Some(own) = &host.python {
        return ok("environment", format!("{}: {} (--python)", spec.name, own.display()));
    }
    if environment::is_current(host, spec) {
        return ok("environment", format!("{}: {}", spec.name, spec.interpreter(host).display()));
    }
    let Spec { name, gigabytes, .. } = spec;
    absent(
        "environment",
        format!("{name}: not installed yet ({gigabytes} GB): `runner setup`, or the first run, does it"),
    )
}

fn libtorch_finding(host: &Host, python: Option<&Result<Python, String>>) -> Finding {
    let has = |python: &&Python| python.torch.as_deref().is_some_and(|torch| libtorch::check(torch).is_ok());
    match (libtorch::find(host), python.and_then(|python| python.as_ref().ok()).filter(has)) {
        (Ok(Some(found)), _) => ok("libtorch", found.to_string()),
        (Err(reason), _) => missing("libtorch", reason),
        (Ok(None), Some(python)) => ok("libtorch", format!("the torch of {}", python.executable.display())),
        (Ok(None), None) => {
            let version = libtorch::VERSION;
            absent("libtorch", format!("{version} not installed yet: `runner setup`, or the first run, installs it"))
        }
    }
}

fn worker(host: &Host, package: &str) -> Finding {
    if let Some(folder) = &host.workers {
        let file = folder.join(package);
        return match file.is_file() {
            true => ok("worker", file.display().to_string()),
            false => missing("worker", format!("no {}: `cargo build --release -p {package}`", file.display())),
        };
    }
    let file = crate::setup::release_executable(host, package);
    match file.is_file() {
        true => ok("worker", file.display().to_string()),
        false => absent("worker", format!("{package} not built yet: `runner setup`, or the first run, builds it")),
    }
}

/// The first line of `program --version`.
fn version_of(host: &Host, program: &Path) -> String {
    let output = host.command(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    match text.lines().next() {
        Some(line) if !line.trim().is_empty() => format!("{} ({})", line.trim(), program.display()),
        _ => program.display().to_string(),
    }
}
