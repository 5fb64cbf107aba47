//! Python environments of our own: one folder each under `.envs/`, installed by uv from an exact lock.
//!
//! The last thing written into an environment is a stamp with the lock's digest. Without it, or with another digest, the
//! folder is what an interrupted or older setup left: it is removed and made anew.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::host::Host;
use super::python::{Python, SUPPORTED};

/// The release that is installed when there is no uv on PATH.
const UV_VERSION: &str = "0.13.9";

/// The stamp within an environment.
const STAMP: &str = "dpsgd-bench.installed";

/// The lock of an environment.
fn lock_file(host: &Host, name: &str) -> PathBuf {
    host.checkout.peers().join(format!("requirements/{name}.lock"))
}

/// What the stamp of an environment must say.
fn digest(host: &Host, name: &str) -> Result<String, String> {
    let path = lock_file(host, name);
    let lock = fs::read(&path).map_err(|error| format!("{}: {error}; restore it from git", path.display()))?;
    Ok(Sha256::digest(&lock).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whether environment `name` is installed, to the end, from today's lock.
pub fn is_current(host: &Host, name: &str) -> bool {
    let stamp = fs::read_to_string(host.envs.join(name).join(STAMP));
    matches!((stamp, digest(host, name)), (Ok(stamp), Ok(digest)) if stamp.trim() == digest)
}

/// Installs environment `name` unless it is current, and returns its folder. Says what it installs, what for and how
/// large; uv's own progress passes through. The error is one line that ends with the fix.
pub fn install(host: &Host, python: &Python, name: &str, purpose: &str, gigabytes: f64) -> Result<PathBuf, String> {
    let folder = host.envs.join(name);
    let digest = digest(host, name)?;
    let unwritable = |error: io::Error| format!("{}: {error}; name another folder with --envs", host.envs.display());
    if !python.is_supported() {
        let (low, high) = (SUPPORTED.start(), SUPPORTED.end());
        let (found, version) = (python.executable.display(), python.version_text());
        return Err(format!(
            "{found} is Python {version}, must be 3.{low} to 3.{high}: put such a python3 on PATH or name it with --python, then run `runner setup`"
        ));
    }
    fs::create_dir_all(&host.envs).map_err(unwritable)?;
    let _alone = lock(&host.envs).map_err(unwritable)?;
    if is_current(host, name) {
        return Ok(folder);
    }
    if folder.symlink_metadata().is_ok() {
        eprintln!("setup: {} is unfinished or out of date: making it anew", folder.display());
        fs::remove_dir_all(&folder).map_err(unwritable)?;
    }
    check_room(&host.envs, gigabytes)?;
    eprintln!("setup: installing {purpose}: {} (about {gigabytes} GB), once", folder.display());
    let uv = uv(host, python)?;
    let fix = "if this machine uses a package mirror, set UV_DEFAULT_INDEX to it; then run `runner setup` again";
    let run = |what: &str, command: &mut Command| match status(command) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("uv could not {what}, for the reason above; {fix}")),
        Err(error) => Err(format!("uv could not {what}: {error}; {fix}")),
    };
    run(
        "make the environment",
        uv.command(host).args(["venv", "--quiet", "--python"]).arg(&python.executable).arg(&folder),
    )?;
    let install = ["pip", "install", "--only-binary", ":all:", "--python"];
    let interpreter = folder.join("bin/python");
    run("install packages", uv.command(host).args(install).arg(interpreter).arg("-r").arg(lock_file(host, name)))?;
    fs::write(folder.join(STAMP), format!("{digest}\n")).map_err(unwritable)?;
    Ok(folder)
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
fn check_room(envs: &Path, gigabytes: f64) -> Result<(), String> {
    let Ok(found) = nix::sys::statvfs::statvfs(envs) else { return Ok(()) };
    let free = found.blocks_available() as f64 * found.fragment_size() as f64 / 1e9;
    if free >= gigabytes {
        return Ok(());
    }
    let envs = envs.display();
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
        "{python} could not install uv, for the reason above: install uv, or python3 with venv and pip, and check the network; then run `runner setup` again"
    ))
}
