//! What `runner verify` and `runner repeat` have in common: what they work with, and how outcomes are counted.

use std::error::Error;
use std::path::{Path, PathBuf};

use dpsgd_protocol::results::Status;
use tempfile::TempDir;

use crate::cli::{EXIT_ERROR, EXIT_OK, Places};
use crate::config::{Config, ConfigError, Workload, read_registry};
use crate::measure::bench::{Bench, device_missing};
use crate::registry::Registry;
use crate::setup::{Host, Toolbox};
use crate::worker::{Guard, WorkerError};

/// All that workers are started with and fed from, where nothing is kept.
pub struct Means {
    registry: Registry,
    pub config: Config,
    toolbox: Toolbox,
    guard: Guard,
    scratch: TempDir,
}

impl Means {
    /// Reads the registry and the config that `config` makes, refuses a device that is not there, and installs and
    /// builds what the contenders need.
    pub fn prepare(
        places: &Places,
        config: impl FnOnce(&Registry) -> Result<Config, ConfigError>,
    ) -> Result<Self, Box<dyn Error>> {
        let registry = read_registry(places.registry.as_deref())?;
        let config = config(&registry)?;
        let host = Host::of(places)?;
        if let Some(reason) = device_missing(&config) {
            return Err(reason.into());
        }
        let toolbox = Toolbox::prepare(&host, &config.entries(&registry));
        let guard = Guard::start()?;
        let scratch = tempfile::tempdir()?;
        std::fs::create_dir(scratch.path().join("logs"))?;
        Ok(Means { registry, config, toolbox, guard, scratch })
    }

    pub fn bench(&self) -> Bench<'_> {
        let Means { registry, config, toolbox, guard, .. } = self;
        Bench { config, registry, toolbox, guard, device_missing: None }
    }

    /// The folder that goes in the end; `logs` is in it.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// A new folder for a workload's files.
    pub fn folder(&self, workload: &Workload) -> std::io::Result<PathBuf> {
        let folder = self.scratch().join(&workload.name);
        std::fs::create_dir(&folder)?;
        Ok(folder)
    }
}

/// How often what was asked for came out well or badly, or could not be found out.
#[derive(Debug, Default)]
pub struct Tally {
    pub good: usize,
    pub bad: usize,
    unavailable: usize,
    broken: usize,
}

impl Tally {
    /// Counts a worker's failure; what to print of it. The error is that the user has stopped it.
    pub fn fail(&mut self, error: WorkerError) -> Result<String, String> {
        if error.interrupted {
            return Err(error.reason);
        }
        *if error.status == Status::Unavailable { &mut self.unavailable } else { &mut self.broken } += 1;
        Ok(format!("{}: {}", error.status.name(), error.reason))
    }

    /// One line; `good` and `bad` are the words for these two.
    pub fn line(&self, good: &str, bad: &str) -> String {
        let Tally { good: well, bad: badly, unavailable, broken } = self;
        format!("{well} {good}, {badly} {bad}, {unavailable} unavailable, {broken} broken")
    }

    /// The exit status: `if_bad` if anything came out badly, an error if something could not be found out for another
    /// reason than being unavailable, or if nothing came out.
    pub fn exit_status(&self, if_bad: u8) -> u8 {
        match (self.good, self.bad, self.broken) {
            (_, 1.., _) => if_bad,
            (1.., 0, 0) => EXIT_OK,
            _ => EXIT_ERROR,
        }
    }
}
