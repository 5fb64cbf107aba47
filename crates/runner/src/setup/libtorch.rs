//! Finding libtorch, or installing it.
//!
//! In this order: `LIBTORCH` as set by the user; the link `.envs/libtorch` that an earlier setup left; a python3, or that of
//! `--python`, that already has the right torch; an environment of our own, unless `--python` is given. The last two leave the link behind, so that the next run, a
//! plain `cargo test --workspace` and an editor find the same libtorch by the same path: torch-sys builds anew whenever
//! the value of `LIBTORCH` changes.

use std::fmt;
use std::path::{Path, PathBuf};

use super::environment::{self, TORCH};
use super::host::Host;
use super::python::Python;

/// The one version that the pinned tch is made for.
pub const VERSION: &str = "2.11.0";

/// A libtorch that can be built against.
#[derive(Clone, Debug, PartialEq)]
pub struct Libtorch {
    /// What `LIBTORCH` must be: the folder with `lib` and `include`.
    pub path: PathBuf,
    /// Where it came from.
    pub origin: Origin,
}

/// Where a libtorch came from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// `LIBTORCH`, set by the user.
    User,
    /// The link of an earlier setup, to this folder.
    Linked(PathBuf),
    /// This interpreter's torch package.
    Python(PathBuf),
    /// Installed just now into this environment.
    Installed(PathBuf),
}

impl fmt::Display for Libtorch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.origin {
            Origin::User => write!(f, "{path} (LIBTORCH, set by you)"),
            Origin::Linked(target) => write!(f, "{path} -> {}", target.display()),
            Origin::Python(python) => write!(f, "{path} (the torch of {})", python.display()),
            Origin::Installed(environment) => write!(f, "{path} (installed in {})", environment.display()),
        }
    }
}

/// Finds libtorch without installing or linking anything; `None` when there is none yet.
pub fn find(host: &Host) -> Result<Option<Libtorch>, String> {
    if let Some(path) = &host.user_libtorch {
        let fix = "unset it and run `runner setup` to find or install the right one";
        check(path).map_err(|reason| format!("LIBTORCH={}: {reason}; {fix}", path.display()))?;
        return Ok(Some(Libtorch { path: path.clone(), origin: Origin::User }));
    }
    Ok(linked(host).map(|target| Libtorch { path: host.checkout.libtorch_link(), origin: Origin::Linked(target) }))
}

/// Finds libtorch, or links or installs it. The error is one line that ends with the fix.
pub fn find_or_install(host: &Host) -> Result<Libtorch, String> {
    if let Some(found) = find(host)? {
        return Ok(found);
    }
    let path = host.checkout.libtorch_link();
    let link = |target: &Path| {
        replace_link(&path, target)
            .map_err(|error| format!("{}: {error}; remove it, and make its folder writable", path.display()))
    };
    let Some(interpreter) = host.python() else {
        return Err(no_python());
    };
    let python = Python::probe(host, &interpreter)?;
    if let Some(torch) = python.torch.as_deref().filter(|torch| check(torch).is_ok()) {
        link(torch)?;
        eprintln!("setup: libtorch {VERSION} found in the torch of {}", python.executable.display());
        return Ok(Libtorch { path: path.clone(), origin: Origin::Python(python.executable) });
    }
    if host.python.is_some() {
        let python = python.executable.display();
        return Err(format!(
            "{python} has no torch {VERSION}, which libtorch would come from: install it there, set LIBTORCH to a libtorch \
             of your own, or leave out --python"
        ));
    }
    let folder = environment::install(host, &python, &TORCH)?;
    let torch = torch_of(&folder).ok_or_else(|| {
        format!("{}: no torch in it after installing; remove the folder and run `runner setup`", folder.display())
    })?;
    check(&torch).map_err(|reason| {
        format!("{}: {reason}; remove {} and run `runner setup`", torch.display(), folder.display())
    })?;
    link(&torch)?;
    Ok(Libtorch { path: path.clone(), origin: Origin::Installed(folder) })
}

/// Why nothing can be installed without Python, and the fix.
pub(super) fn no_python() -> String {
    let fix = format!("install python3 ({}), or set LIBTORCH to a libtorch of your own", TORCH.python_text());
    format!("no python3 on PATH, which libtorch {VERSION} would come from: {fix}, then run `runner setup`")
}

/// The folder that the link of an earlier setup leads to, if that is whole.
fn linked(host: &Host) -> Option<PathBuf> {
    let target = host.checkout.libtorch_link().canonicalize().ok()?;
    let ours = host.envs.join(TORCH.name).canonicalize().is_ok_and(|ours| target.starts_with(ours));
    // An environment of our own counts only when it was installed to the end, from today's lock.
    let whole = !ours || environment::is_current(host, &TORCH);
    (whole && check(&target).is_ok()).then_some(target)
}

/// Whether `folder` is a whole libtorch of the right version; the error says what is wrong.
pub fn check(folder: &Path) -> Result<(), String> {
    let library = format!("lib/{}torch_cpu{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    for file in [library.as_str(), "include/torch/csrc/api/include/torch/torch.h"] {
        if !folder.join(file).exists() {
            return Err(format!("no {file} in it"));
        }
    }
    match version(folder) {
        Some(version) if version == VERSION || std::env::var_os("LIBTORCH_BYPASS_VERSION_CHECK").is_some() => Ok(()),
        Some(version) => Err(format!("torch {version}: must be {VERSION}")),
        None => Err("neither build-version nor version.py in it, so its version can't be told".into()),
    }
}

/// The version of the libtorch in `folder`, without what follows `+`: a libtorch archive has `build-version`, a Python
/// package `version.py`.
fn version(folder: &Path) -> Option<String> {
    let text = match std::fs::read_to_string(folder.join("build-version")) {
        Ok(text) => text,
        Err(_) => {
            let python = std::fs::read_to_string(folder.join("version.py")).ok()?;
            let line = python.lines().find(|line| line.starts_with("__version__ ="))?;
            line.split(['\'', '"']).nth(1)?.to_string()
        }
    };
    text.trim().split('+').next().map(str::to_string)
}

/// The torch package of a virtual environment.
fn torch_of(environment: &Path) -> Option<PathBuf> {
    let versions = std::fs::read_dir(environment.join("lib")).ok()?;
    let torch = |entry: std::io::Result<std::fs::DirEntry>| Some(entry.ok()?.path().join("site-packages/torch"));
    versions.filter_map(torch).find(|torch| torch.is_dir())
}

/// Makes `link` point to `target`, in one step, so that no other process sees it missing.
fn replace_link(link: &Path, target: &Path) -> std::io::Result<()> {
    let folder = link.parent().expect("the link is in .envs");
    std::fs::create_dir_all(folder)?;
    let fresh = folder.join(format!(".libtorch-{}", std::process::id()));
    std::os::unix::fs::symlink(target, &fresh)?;
    std::fs::rename(&fresh, link).inspect_err(|_| drop(std::fs::remove_file(&fresh)))
}
