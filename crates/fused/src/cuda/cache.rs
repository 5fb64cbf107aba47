//! Compiled kernels on disk, so that only the first run of a model on an architecture compiles.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use dpsgd_protocol::KERNEL_CACHE;
use sha2::{Digest, Sha256};

/// A folder of compiled programs, each under a name that says what it was compiled from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// In this folder, which is made when something is stored.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Cache { folder: folder.into() }
    }

    /// The first there is of: [`KERNEL_CACHE`], which a runner sets where it verifies and measures;
    /// `DPSGD_FUSED_CACHE`; the user's folder for caches. `None` where there is none of them, or the variable is
    /// empty: then nothing is stored.
    pub fn of_environment() -> Option<Self> {
        Cache::of(|name| std::env::var_os(name))
    }

    /// The same by variables that `variable` gives.
    pub fn of(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        if let Some(folder) = [KERNEL_CACHE, "DPSGD_FUSED_CACHE"].into_iter().find_map(&variable) {
            return (!folder.is_empty()).then(|| Cache::at(folder));
        }
        let caches = variable("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let caches = caches.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")))?;
        Some(Cache::at(caches.join("dpsgd-fused")))
    }

    /// The name for what this compiler makes of this source with these options.
    pub fn key(source: &str, options: &[String], compiler: &str) -> String {
        let mut hash = Sha256::new();
        for part in [source, compiler].into_iter().chain(options.iter().map(String::as_str)) {
            // Lengths too, so that no two lists of parts are the same bytes.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.cubin"))
    }

    /// What is stored under a name.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        fs::read(self.path(key)).ok().filter(|cubin| !cubin.is_empty())
    }

    /// Stores it: whole or not at all, also if others store the same at the same time.
    pub fn put(&self, key: &str, cubin: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let own = self.folder.join(format!("{key}.{}.part", std::process::id()));
        let written = fs::File::create(&own).and_then(|mut file| {
            file.write_all(cubin)?;
            file.sync_all()?;
            fs::rename(&own, self.path(key))
        });
        if written.is_err() {
            // What is half written helps nobody; if it can't be removed, that matters less than why.
            let _ = fs::remove_file(&own);
        }
        written
    }
}
