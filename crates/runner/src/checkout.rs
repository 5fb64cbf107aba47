//! Where this project's files are.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The file that makes a folder a bundle: what it was made of.
pub const BUNDLE_FILE: &str = "bundle.json";

/// What an unpacked bundle was made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Version of dpsgd-bench.
    pub version: String,
    /// Commit of the checkout, with `-dirty` if it was changed; `null` if it had none.
    pub commit: Option<String>,
    /// Processor and system that its programs are for, such as `x86_64-linux`.
    pub target: String,
    /// Version of the libtorch that workers on it were built against.
    pub libtorch: Option<String>,
}

/// The root of a checkout, the folder with `Cargo.toml` and `bench-configs/`; or of an unpacked bundle, with
/// [`BUNDLE_FILE`] in place of `Cargo.toml`.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// The checkout around the working directory, else the one around this executable, else the one it was built from.
    pub fn find() -> Option<Self> {
        let here = std::env::current_dir().ok();
        let executable = std::env::current_exe().ok();
        let built_from = Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")));
        [here, executable, built_from].into_iter().flatten().find_map(|start| Checkout::around(&start))
    }

    /// The checkout that `start` is within.
    pub fn around(start: &Path) -> Option<Self> {
        let has = |folder: &Path, file: &str| folder.join(file).is_file();
        let is_root = |folder: &&Path| {
            folder.join("bench-configs").is_dir() && (has(folder, "Cargo.toml") || has(folder, BUNDLE_FILE))
        };
        start.ancestors().find(is_root).map(|root| Checkout { root: root.to_path_buf() })
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What it was made of, if it is an unpacked bundle.
    pub fn bundle(&self) -> Option<Bundle> {
        let text = std::fs::read_to_string(self.root.join(BUNDLE_FILE)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// The prebuilt workers of a bundle.
    pub fn bundled_workers(&self) -> Option<PathBuf> {
        self.bundle().map(|_| self.root.join("workers"))
    }

    /// `bench-configs/default.toml`.
    pub fn default_config(&self) -> PathBuf {
        self.bench_configs().join("default.toml")
    }

    /// `bench-configs/strategies.toml`.
    pub fn registry(&self) -> PathBuf {
        self.bench_configs().join("strategies.toml")
    }

    /// `bench-configs/gpu-targets.toml`.
    pub fn targets(&self) -> PathBuf {
        self.bench_configs().join("gpu-targets.toml")
    }

    /// `bench-configs`.
    pub fn bench_configs(&self) -> PathBuf {
        self.root.join("bench-configs")
    }

    /// `peers`: the Python workers and the locks of their environments.
    pub fn peers(&self) -> PathBuf {
        self.root.join("peers")
    }

    /// Where LIBTORCH points for a plain `cargo` (`.cargo/config.toml`): a link that `setup` makes.
    pub fn libtorch_link(&self) -> PathBuf {
        self.root.join(".envs/libtorch")
    }
}
