//! Finding or installing what the contenders need, and building their workers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::cli::Places;
use crate::registry::{Entry, Registry};

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

/// Why a contender can't take part. One line, ending with the command that would fix it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// What is installed and built for a run.
#[derive(Debug)]
pub struct Toolbox {
    launchers: BTreeMap<String, Result<Launcher, Unavailable>>,
}

impl Toolbox {
    /// Installs and builds what the strategies `wanted` need. What is missing never stops the rest.
    pub fn prepare(_registry: &Registry, _wanted: &[&Entry], _places: &Places) -> Self {
        todo!()
    }

    /// How to start the worker of a strategy that was wanted, or why that can't be done.
    pub fn launcher(&self, strategy: &str) -> Result<&Launcher, &Unavailable> {
        self.launchers[strategy].as_ref()
    }
}
