//! What setup starts from: the folders in play, the programs on PATH, the room on disk. Held in one value so that tests
//! can give it ones of their own.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::checkout::Checkout;
use crate::cli::Places;
use crate::config::ConfigError;

/// The folders in play, the programs on PATH, the room on disk.
#[derive(Clone, Debug)]
pub struct Host {
    /// The checkout.
    pub checkout: Checkout,
    /// Where environments of our own are.
    pub envs: PathBuf,
    /// PATH.
    pub search_path: OsString,
    /// LIBTORCH as the user set it.
    pub user_libtorch: Option<PathBuf>,
    /// The cargo to build with, if there is one.
    pub cargo: Option<PathBuf>,
    /// `--python`.
    pub python: Option<PathBuf>,
    /// `--workers`, or those of a bundle.
    pub workers: Option<PathBuf>,
    /// The free space of the file system of a folder, GB, if it can be read.
    pub free_gigabytes: fn(&Path) -> Option<f64>,
}

impl Host {
    /// This machine with the places that the user named. The error names a place that isn't there.
    pub fn of(places: &Places) -> Result<Self, ConfigError> {
        let checkout = Checkout::find().ok_or(ConfigError::NoCheckout("--config and --registry"))?;
        let wrong = |option: &str, path: &Path, reason: &str| {
            let reason = format!("{}: {reason}", path.display());
            Err(ConfigError::Value { place: format!("--{option}"), reason })
        };
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        if let Some(folder) = places.workers.as_ref().filter(|folder| !folder.is_dir()) {
            return wrong("workers", folder, "not a folder");
        }
        if let Some(folder) = places.envs.as_ref().filter(|folder| folder.exists() && !folder.is_dir()) {
            return wrong("envs", folder, "not a folder");
        }
        let search_path = std::env::var_os("PATH").unwrap_or_default();
        let python = match &places.python {
            None => None,
            // A bare name is looked up, as a shell would.
            Some(name) if name.components().count() == 1 && !is_executable(name) => match which(&search_path, name) {
                Some(found) => Some(found),
                None => return wrong("python", name, "not a program on PATH"),
            },
            Some(path) if is_executable(path) => Some(absolute(path)),
            Some(path) => return wrong("python", path, "not an executable file"),
        };
        let user = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
        let link = checkout.libtorch_link();
        let envs = places.envs.as_ref().map(absolute).or_else(|| user("DPSGD_ENVS").map(|envs| absolute(&envs)));
        Ok(Host {
            envs: envs.unwrap_or_else(|| checkout.root().join(".envs")),
            // `cargo run` sets LIBTORCH from .cargo/config.toml: that value is ours, not the user's.
            user_libtorch: user("LIBTORCH").filter(|libtorch| *libtorch != link),
            cargo: user("CARGO")
                .filter(|cargo| is_executable(cargo))
                .or_else(|| which(&search_path, Path::new("cargo"))),
            python,
            workers: places.workers.as_ref().map(absolute).or_else(|| checkout.bundled_workers()),
            free_gigabytes,
            search_path,
            checkout,
        })
    }

    /// The program of this name on PATH.
    pub fn which(&self, name: &str) -> Option<PathBuf> {
        which(&self.search_path, Path::new(name))
    }

    /// The interpreter to use: `--python`, else python3 on PATH.
    pub fn python(&self) -> Option<PathBuf> {
        self.python.clone().or_else(|| self.which("python3"))
    }

    /// A command that sees this host's PATH.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("PATH", &self.search_path);
        command
    }

    /// The C++ compiler that building against libtorch needs.
    pub fn cxx(&self) -> Option<PathBuf> {
        let named = std::env::var("CXX").ok().filter(|name| !name.is_empty());
        named.iter().map(String::as_str).chain(["c++", "g++", "clang++"]).find_map(|name| self.which(name))
    }
}

fn free_gigabytes(folder: &Path) -> Option<f64> {
    let found = nix::sys::statvfs::statvfs(folder).ok()?;
    Some(found.blocks_available() as f64 * found.fragment_size() as f64 / 1e9)
}

fn which(search_path: &OsString, name: &Path) -> Option<PathBuf> {
    std::env::split_paths(search_path).map(|folder| folder.join(name)).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
