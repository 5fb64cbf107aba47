//! Where this project's files are.

use std::path::{Path, PathBuf};

/// The root of a checkout: the folder with `Cargo.toml` and `bench-configs/`.
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
        let is_root = |folder: &&Path| folder.join("Cargo.toml").is_file() && folder.join("bench-configs").is_dir();
        start.ancestors().find(is_root).map(|root| Checkout { root: root.to_path_buf() })
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `bench-configs/default.toml`.
    pub fn default_config(&self) -> PathBuf {
        self.bench_configs().join("default.toml")
    }

    /// `bench-configs/strategies.toml`.
    pub fn registry(&self) -> PathBuf {
        self.bench_configs().join("strategies.toml")
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
