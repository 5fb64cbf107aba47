//! Python environments of our own: one folder each under `.envs/`, installed by uv from an exact lock.
//!
//! The last thing written into an environment is a stamp with the lock's digest. Without it, or with another digest, the
//! folder is what an interrupted or older setup left: it is removed and made anew.

use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::host::Host;
use super::python::Python;

/// The release that is installed when there is no uv on PATH.
const UV_VERSION: &str = "0.13.9";

/// The stamp within an environment.
const STAMP: &str = "dpsgd-bench.installed";

/// An environment that can be installed.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Its folder under `.envs` and its lock in `peers/requirements`.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// What it takes on disk.
    pub gigabytes: f64,
    /// Minor versions of Python 3 that its lock was made for.
    pub python: RangeInclusive<u32>,
}

/// PyTorch and what is built on it; libtorch comes from here too.
pub const TORCH: Spec = Spec { name: "torch", purpose: "libtorch and PyTorch", gigabytes: 5.0, python: 11..=14 };
/// JAX and what is built on it.
pub const JAX: Spec = Spec { name: "jax", purpose: "JAX", gigabytes: 0.6, python: 11..=14 };
/// TensorFlow and what is built on it.
pub const TF: Spec = Spec { name: "tf", purpose: "TensorFlow", gigabytes: 2.4, python: 11..=12 };

impl Spec {
    /// Its lock.
    fn lock_file(&self, host: &Host) -> PathBuf {
        host.checkout.peers().join(format!("requirements/{}.lock", self.name))
    }

    /// Its interpreter, once it is installed.
    pub fn interpreter(&self, host: &Host) -> PathBuf {
        host.envs.join(self.name).join("bin/python")
    }

    /// `3.11 to 3.14`.
    pub fn python_text(&self) -> String {
        format!("3.{} to 3.{}", self.python.start(), self.python.end())
    }
}

/// What the stamp of an environment must say.
fn digest(host: &Host, spec: &Spec) -> Result<String, String> {
    let path = spec.lock_file(host);
    let lock = fs::read(&path).map_err(|error| format!("{}: {error}; restore it from git", path.display()))?;
    Ok(Sha256::digest(&lock).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whether an environment is installed, to the end, from today's lock.
pub fn is_current(host: &Host, spec: &Spec) -> bool {
    let stamp = fs::read_to_string(host.envs.join(spec.name).join(STAMP));
    matches!((stamp, digest(host, spec)), (Ok(stamp), Ok(digest)) if stamp.trim() == digest)
}

/// Installs an environment unless it is current, and returns its folder. Says what it installs, what for and how large;
/// uv's own progress passes through. The error is one line that ends with the fix.
pub fn install(host: &Host, python: &Python, spec: &Spec) -> Result<PathBuf, String> {
    let Spec { purpose, gigabytes, .. } = spec;
    let folder = host.envs.join(spec.name);
    let digest = digest(host, spec)?;
    let unwritable = |error: io::Error| format!("{}: {error}; name another folder with --envs", host.envs.display());
    if !python.is_among(&spec.python) {
        let (found, version, wanted) = (python.executable.display(), python.version_text(), spec.python_text());
        return Err(format!(
            "{found} is Python {version}, must be {wanted} for {purpose}: put such a python3 on PATH or name one that has \
             the packages with --python, then run `runner setup`"
        ));
    }
    fs::create_dir_all(&host.envs).map_err(unwritable)?;
    let _alone = lock(&host.envs).map_err(unwritable)?;
    if is_current(host, spec) {
        return Ok(folder);
    }
    if folder.symlink_metadata().is_ok() {
        eprintln!("setup: {} is unfinished or out of date: making it anew", folder.display());
        fs::remove_dir_all(&folder).map_err(unwritable)?;
    }
    check_room(host, *gigabytes)?;
    eprintln!("setup: installing {purpose}: {} (about {gigabytes} GB), once", folder.display());
    let uv = uv(host, python)?;
    let lock = spec.lock_file(host);
    let run = |what: &str, command: &mut Command| match status(command) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("uv could not {what} of {}, {}", lock.display(), why(host))),
        Err(error) => Err(format!("uv could not {what} of {}: {error}; reinstall uv", lock.display())),
    };
    run(
        "make an environment for the packages",
        uv.command(host).args(["venv", "--quiet", "--python"]).arg(&python.executable).arg(&folder),
    )?;
    // Compiled now: a start would otherwise depend on whether an earlier one could write what it compiled.
    let install = ["pip", "install", "--only-binary", ":all:", "--python"];
    run(
        "install the packages",
        uv.command(host).args(install).arg(spec.interpreter(host)).arg("-r").arg(&lock).arg("--compile-bytecode"),
    )?;
    fs::write(folder.join(STAMP), format!("{digest}\n")).map_err(unwritable)?;
    Ok(folder)
}

/// What may have stopped uv, and the fix.
fn why(host: &Host) -> String {
    // Less than the smallest package that matters.
    match (host.free_gigabytes)(&host.envs) {
        Some(free) if free < 0.1 => format!(
            "and {} has {free:.2} GB free: free some, or name another folder with --envs; then run `runner setup` again",
            host.envs.display()
        ),
        _ => {
            "for the reason above; check the network, and if this machine uses a package mirror, set UV_DEFAULT_INDEX \
              to it; then run `runner setup` again"
                .into()
        }
    }
}

/// Runs `command` with its output on our stderr; whether it succeeded.
fn status(command: &mut Command) -> io::Result<bool> {
    Ok(command.stdin(Stdio::null()).stdout(io::stderr()).status()?.success())
}

/// Waits until no other setup works in `envs`; the lock ends with the returned file or this process.
fn lock(envs: &Path) -> io::Result<File> {
    let file = File::create(envs.join(".lock"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("setup: waiting for another setup in {}", envs.display());
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    Ok(file)
}

/// Refuses to begin an installation that can't fit.
fn check_room(host: &Host, gigabytes: f64) -> Result<(), String> {
    let Some(free) = (host.free_gigabytes)(&host.envs) else { return Ok(()) };
    if free >= gigabytes {
        return Ok(());
    }
    let envs = host.envs.display();
    Err(format!("{envs}: {free:.1} GB free, {gigabytes} GB needed: free some, or name another folder with --envs"))
}

/// The installer.
struct Uv {
    program: PathBuf,
    /// Where it keeps downloads, if not where the user's own does.
    cache: Option<PathBuf>,
}

impl Uv {
    fn command(&self, host: &Host) -> Command {
        let mut command = host.command(&self.program);
        if let Some(cache) = self.cache.as_ref().filter(|_| std::env::var_os("UV_CACHE_DIR").is_none()) {
            command.env("UV_CACHE_DIR", cache);
        }
        command
    }
}

/// uv from PATH, else one of our own, installed by pip.
fn uv(host: &Host, python: &Python) -> Result<Uv, String> {
    if let Some(program) = host.which("uv") {
        return Ok(Uv { program, cache: None });
    }
    let folder = host.envs.join("bootstrap");
    let program = folder.join("bin/uv");
    // On the file system of the environments, uv links files from its cache in place of copying them.
    let uv = Uv { program, cache: Some(host.envs.join("uv-cache")) };
    let works = |uv: &Uv| {
        let output = host.command(&uv.program).arg("--version").stdin(Stdio::null()).output();
        output.is_ok_and(|output| output.status.success())
    };
    if works(&uv) {
        return Ok(uv);
    }
    eprintln!("setup: installing uv {UV_VERSION}, which installs the rest (about 0.1 GB)");
    let remove = || {
        fs::remove_dir_all(&folder).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(format!("{}: {error}; remove it by hand", folder.display())),
        })
    };
    let requirement = format!("uv=={UV_VERSION}");
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    remove()?;
    // Some distributions ship Python without venv, others without pip; either will do.
    let made = host.command(&python.executable).args(["-m", "venv"]).arg(&folder).stdin(Stdio::null()).output();
    let in_venv = made.is_ok_and(|made| made.status.success())
        && status(host.command(&folder.join("bin/python")).args(pip).arg(&requirement)).unwrap_or(false);
    if in_venv && works(&uv) {
        return Ok(uv);
    }
    remove()?;
    let mut direct = host.command(&python.executable);
    let direct = direct.args(pip).arg("--target").arg(&folder).arg(&requirement);
    if status(direct).unwrap_or(false) && works(&uv) {
        return Ok(uv);
    }
    let python = python.executable.display();
    Err(format!(
        "{python} could not install uv: install uv, or python3 with venv and pip, if these are missing; else it failed {}",
        why(host)
    ))
}
