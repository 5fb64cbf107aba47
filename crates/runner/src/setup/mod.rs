//! Finding or installing what the contenders need, and building their workers.
//!
//! What is missing never stops the rest: a strategy that can't be had is answered with the reason and the fix, which
//! become its rows in the results.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::registry::{DeviceKind, Entry, Environment};

pub mod build;
pub mod environment;
pub mod host;
pub mod interpreter;
pub mod libtorch;
mod nvrtc;
pub mod python;

pub use host::Host;

/// How to start a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Launcher {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment variables to add.
    pub env: BTreeMap<String, String>,
}

/// Why a contender can't take part. One line that ends with the fix.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// What is installed and built for a run.
#[derive(Debug, Default)]
pub struct Toolbox {
    launchers: BTreeMap<String, Result<Launcher, Unavailable>>,
}

impl Toolbox {
    /// Installs and builds what the strategies `wanted` need, and says on stderr what it does. When all is there already,
    /// nothing is installed and cargo compiles nothing.
    pub fn prepare(host: &Host, wanted: &[&Entry]) -> Self {
        let environments: BTreeSet<Environment> = wanted.iter().map(|entry| entry.environment).collect();
        let interpreters: Interpreters = environments
            .iter()
            .filter_map(|environment| Some((*environment, interpreter::find_or_install(host, *environment)?)))
            .collect();
        let libtorch = environments
            .contains(&Environment::Libtorch)
            .then(|| libtorch::find_or_install(host).map(|found| found.path));
        let ready = |entry: &Entry| match (entry.environment, &libtorch, interpreters.get(&entry.environment)) {
            (Environment::Libtorch, Some(Err(reason)), _) | (_, _, Some(Err(reason))) => {
                Err(Unavailable(reason.clone()))
            }
            _ => Ok(()),
        };
        let libtorch_path = libtorch.as_ref().and_then(|found| found.as_ref().ok()).map(PathBuf::as_path);
        let buildable = |entry: &&&Entry| ready(entry).is_ok();
        let packages: Vec<&str> = wanted.iter().filter(buildable).filter_map(|entry| package(entry)).collect();
        let built = match (&host.workers, packages.is_empty()) {
            (None, false) => build::build(host, &packages, libtorch_path),
            _ => Ok(build::Built::default()),
        };
        let launcher = |entry: &Entry| {
            ready(entry)?;
            let folder = workers_folder(host, entry, &built)?;
            let python = match interpreters.get(&entry.environment) {
                Some(interpreter) => interpreter.clone().ok(),
                None => host.python(),
            };
            interpreter::check_modules(host, python.as_deref(), entry).map_err(Unavailable)?;
            launcher(host, entry, &Filling { workers: folder, python }, libtorch_path)
        };
        Toolbox { launchers: wanted.iter().map(|entry| (entry.name.clone(), launcher(entry))).collect() }
    }

    /// How to start the worker of `entry` as it is now; nothing is installed or built. The reason names what would do so.
    pub fn as_it_is(host: &Host, entry: &Entry) -> Result<Launcher, Unavailable> {
        let libtorch = match entry.environment {
            Environment::Libtorch => libtorch::find(host).map_err(Unavailable)?.map(|found| found.path),
            _ => None,
        };
        let folder = match (&host.workers, package(entry)) {
            (Some(folder), _) => Some(folder.clone()),
            (None, None) => None,
            (None, Some(package)) => {
                let executable = release_executable(host, package);
                if !executable.is_file() {
                    let fix = format!("`runner setup --strategies {}` builds it", entry.name);
                    return Err(Unavailable(format!("{package} is not built yet: {fix}")));
                }
                executable.parent().map(Path::to_path_buf)
            }
        };
        launcher(host, entry, &Filling { workers: folder, python: host.python() }, libtorch.as_deref())
    }

    /// How to start the worker of a strategy, or why that can't be done.
    pub fn launcher(&self, strategy: &str) -> Result<&Launcher, Unavailable> {
        match self.launchers.get(strategy) {
            Some(launcher) => launcher.as_ref().map_err(Clone::clone),
            None => Err(Unavailable(format!("strategy `{strategy}` was not prepared"))),
        }
    }
}

/// Where cargo puts the executable of a package of this workspace.
pub fn release_executable(host: &Host, package: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| host.checkout.root().join("target")).join("release").join(package)
}

/// The package to build for a strategy.
fn package(entry: &Entry) -> Option<&str> {
    entry.build.as_ref().map(|build| build.package.as_str())
}

/// What `{workers}` stands for.
fn workers_folder(
    host: &Host,
    entry: &Entry,
    built: &Result<build::Built, String>,
) -> Result<Option<PathBuf>, Unavailable> {
    if let Some(folder) = &host.workers {
        return Ok(Some(folder.clone()));
    }
    let Some(package) = package(entry) else { return Ok(None) };
    let built = built.as_ref().map_err(|reason| Unavailable(reason.clone()))?;
    let Some(executable) = built.executables.get(package) else {
        let compiler = match host.cxx() {
            None if entry.environment == Environment::Libtorch => "there is no C++ compiler on PATH: install g++; ",
            _ => "",
        };
        let again = format!("cargo build --release -p {package}");
        return Err(Unavailable(format!("{package} did not build: {compiler}`{again}` shows why")));
    };
    Ok(executable.parent().map(Path::to_path_buf))
}

/// The interpreter of each environment in use, or why there is none.
type Interpreters = BTreeMap<Environment, Result<PathBuf, String>>;

/// What placeholders of `start` stand for.
struct Filling {
    workers: Option<PathBuf>,
    python: Option<PathBuf>,
}

fn launcher(host: &Host, entry: &Entry, filling: &Filling, libtorch: Option<&Path>) -> Result<Launcher, Unavailable> {
    let mut words = Vec::new();
    for text in &entry.start {
        words.push(expand(host, text, filling)?);
    }
    let mut words = words.into_iter();
    let mut program = PathBuf::from(words.next().expect("the registry has checked `start`"));
    if program.components().count() == 1 && program.is_relative() {
        // A bare name is looked up, as a shell would.
        let fix = format!("install it, or write ./{0} in `start` for a file beside the registry", program.display());
        let missing = || Unavailable(format!("no program {} on PATH: {fix}", program.display()));
        program = host.which(&program.to_string_lossy()).ok_or_else(missing)?;
    }
    if !program.is_file() {
        let fix = match (package(entry), &host.workers) {
            (Some(package), Some(_)) => {
                format!("build it with `cargo build --release -p {package}` and put it there, or leave out --workers")
            }
            _ => format!("check `start` of strategy `{}` in the registry", entry.name),
        };
        return Err(Unavailable(format!("no worker {}: {fix}", program.display())));
    }
    let mut env = entry.env.clone();
    if let (Some(libtorch), Some(_), Environment::Libtorch) = (libtorch, &host.workers, entry.environment) {
        // A worker built elsewhere looks for libtorch where it was there.
        env.insert("LD_LIBRARY_PATH".into(), libtorch.join("lib").display().to_string());
    }
    if entry.environment == Environment::None && entry.build.is_some() && entry.devices.contains(&DeviceKind::Cuda) {
        // Behind the user's own: NVRTC of a CUDA toolkit comes first.
        let user = std::env::var_os("LD_LIBRARY_PATH").filter(|user| !user.is_empty());
        if let Some(folder) = nvrtc::folder(host) {
            let folders = user.iter().map(OsString::as_os_str).chain([folder.as_os_str()]);
            let folders: Vec<_> = folders.map(|folder| folder.to_string_lossy()).collect();
            env.entry("LD_LIBRARY_PATH".into()).or_insert(folders.join(":"));
        }
    }
    Ok(Launcher { program, args: words.collect(), env })
}

/// `text` with its placeholders filled in.
fn expand(host: &Host, text: &str, filling: &Filling) -> Result<String, Unavailable> {
    let mut expanded = text.to_string();
    let mut fill = |word: &str, value: &dyn Fn() -> Result<PathBuf, Unavailable>| {
        if expanded.contains(word) {
            expanded = expanded.replace(word, &value()?.display().to_string());
        }
        Ok(())
    };
    fill("{workers}", &|| {
        let none = "`{workers}` in `start`, and nothing to build: add `build` to the registry, or name a folder with --workers";
        filling.workers.clone().ok_or_else(|| Unavailable(none.into()))
    })?;
    fill("{python}", &|| {
        let none = "no python3 on PATH: install it, or name an interpreter with --python";
        filling.python.clone().ok_or_else(|| Unavailable(none.into()))
    })?;
    fill("{peers}", &|| Ok(host.checkout.peers()))?;
    fill("{root}", &|| Ok(host.checkout.root().to_path_buf()))?;
    Ok(expanded)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

#[cfg(test)]
mod peers_tests;
