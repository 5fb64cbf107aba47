//! Building the workers that are packages of this workspace.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;

use super::host::Host;

/// What of cargo's messages matters here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    target: Option<Target>,
    #[serde(default)]
    fresh: bool,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// What was built.
#[derive(Debug, Default, PartialEq)]
pub struct Built {
    /// The executable of each package that built, by its name, which is the package's.
    pub executables: BTreeMap<String, PathBuf>,
    /// How many packages had to be compiled.
    pub compiled: usize,
}

/// Builds `packages` in the release profile, in one call, so that what they share is compiled once; cargo's output passes
/// through. A package that fails is missing from the answer and does not stop the others. The error is one line.
pub fn build(host: &Host, packages: &[&str], libtorch: Option<&Path>) -> Result<Built, String> {
    let arguments: Vec<&str> = packages.iter().flat_map(|package| ["-p", package]).collect();
    let built = cargo_build(host, &arguments, libtorch)?;
    if built.compiled > 0 {
        eprintln!("setup: built {} ({} crates compiled)", packages.join(", "), built.compiled);
    }
    Ok(built)
}

/// Builds a test target of a package in the release profile, and gives its executable. The error is one line.
pub fn build_tests(host: &Host, package: &str, target: &str) -> Result<PathBuf, String> {
    let arguments = ["-p", package, "--test", target];
    let built = cargo_build(host, &arguments, None)?;
    let again = || {
        format!("test {target} of {package} did not build: `cargo build --release {}` shows why", arguments.join(" "))
    };
    built.executables.get(target).cloned().ok_or_else(again)
}

/// `cargo build` with these arguments, in the release profile.
fn cargo_build(host: &Host, arguments: &[&str], libtorch: Option<&Path>) -> Result<Built, String> {
    let cargo = host.cargo.as_ref().ok_or("no cargo on PATH: install Rust, or name prebuilt workers with --workers")?;
    let mut command = host.command(cargo);
    command.args(["build", "--release", "--keep-going", "--message-format=json-render-diagnostics"]).args(arguments);
    // Always the same value, because torch-sys builds anew when it changes.
    command.envs(libtorch.map(|path| ("LIBTORCH", path)));
    command.current_dir(host.checkout.root()).stdin(Stdio::null()).stdout(Stdio::piped());
    let failed = |error: std::io::Error| format!("{}: {error}", cargo.display());
    let mut child = command.spawn().map_err(failed)?;
    let mut built = Built::default();
    for line in BufReader::new(child.stdout.take().expect("stdout is piped")).lines() {
        let Ok(message) = serde_json::from_str::<Message>(&line.map_err(failed)?) else { continue };
        if message.reason != "compiler-artifact" {
            continue;
        }
        built.compiled += usize::from(!message.fresh);
        if let (Some(target), Some(executable)) = (message.target, message.executable) {
            built.executables.insert(target.name, executable);
        }
    }
    child.wait().map_err(failed)?;
    Ok(built)
}
