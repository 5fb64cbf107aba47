//! What the commands that start workers have in common: what they work with, and how outcomes are counted.

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

/// What is asked for, and where: nothing is installed, built or started yet.
pub struct Asked {
    pub registry: Registry,
    pub config: Config,
    host: Host,
}

impl Asked {
    /// Reads the registry and the config that `config` makes.
    pub fn read(
        places: &Places,
        config: impl FnOnce(&Registry) -> Result<Config, ConfigError>,
    ) -> Result<Self, Box<dyn Error>> {
        let registry = read_registry(places.registry.as_deref())?;
        let config = config(&registry)?;
        Ok(Asked { registry, config, host: Host::of(places)? })
    }

    /// Installs and builds what the contenders need. On a machine without the device nothing will be started, so
    /// nothing is installed or built.
    pub fn prepare(self) -> Result<Means, Box<dyn Error>> {
        let Asked { registry, config, host } = self;
        let device_missing = device_missing(&config);
        let toolbox = match &device_missing {
            Some(_) => Toolbox::default(),
            None => Toolbox::prepare(&host, &config.entries(&registry)),
        };
        Ok(Means { registry, config, toolbox, guard: Guard::start()?, device_missing })
    }
}

/// All that workers are started with.
pub struct Means {
    registry: Registry,
    pub config: Config,
    toolbox: Toolbox,
    guard: Guard,
    /// Why the device is not on this machine, if it is not.
    pub device_missing: Option<String>,
}

impl Means {
    /// Of what is asked for; refuses a device that is not there.
    pub fn on_the_device(asked: Asked) -> Result<Self, Box<dyn Error>> {
        let means = asked.prepare()?;
        match means.device_missing {
            Some(reason) => Err(reason.into()),
            None => Ok(means),
        }
    }

    pub fn bench(&self) -> Bench<'_> {
        let Means { registry, config, toolbox, guard, device_missing } = self;
        Bench { config, registry, toolbox, guard, device_missing: device_missing.as_deref() }
    }
}

/// A folder of files that nobody keeps; it goes in the end.
pub struct Scratch(TempDir);

impl Scratch {
    pub fn new() -> std::io::Result<Self> {
        let scratch = Scratch(tempfile::tempdir()?);
        std::fs::create_dir(scratch.path().join("logs"))?;
        Ok(scratch)
    }

    /// The folder; `logs` is in it.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A new folder for a workload's files.
    pub fn folder(&self, workload: &Workload) -> std::io::Result<PathBuf> {
        let folder = self.path().join(&workload.name);
        std::fs::create_dir(&folder)?;
        Ok(folder)
    }
}

/// How often what was asked for came out right or wrong, or could not be found out.
#[derive(Debug, Default)]
pub struct Tally {
    pub right: usize,
    pub wrong: usize,
    unavailable: usize,
    broken: usize,
}

impl Tally {
    /// Counts a worker's failure; what to print of it.
    pub fn count_failure(&mut self, error: &WorkerError) -> String {
        *if error.status == Status::Unavailable { &mut self.unavailable } else { &mut self.broken } += 1;
        format!("{}: {}", error.status.name(), error.reason)
    }

    /// One line, with the words for what came out right and wrong.
    pub fn line(&self, word_for_right: &str, word_for_wrong: &str) -> String {
        let Tally { right, wrong, unavailable, broken } = self;
        format!("{right} {word_for_right}, {wrong} {word_for_wrong}, {unavailable} unavailable, {broken} broken")
    }

    /// The exit status: `if_wrong` if anything came out wrong, an error if something could not be found out for another
    /// reason than being unavailable, or if nothing came out.
    pub fn exit_status(&self, if_wrong: u8) -> u8 {
        match (self.right, self.wrong, self.broken) {
            (_, 1.., _) => if_wrong,
            (1.., 0, 0) => EXIT_OK,
            _ => EXIT_ERROR,
        }
    }
}
