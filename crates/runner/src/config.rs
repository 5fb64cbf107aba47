//! What to measure: a file of `bench-configs/`, overridden by the command line, checked.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dpsgd_core::{Device, DpSgd, InputError, Mode, ModelSpec, read_toml};
use dpsgd_data::Order;
use dpsgd_protocol::results::RunConfig;
use serde::Deserialize;

use crate::checkout::Checkout;
use crate::cli::{RunArgs, Selection};
use crate::registry::{Contender, Entry, Registry, unknown};

/// The data set of each built-in model.
const BUILT_IN_DATA: [(&str, &str); 7] = [
    ("logreg", "adult"),
    ("ffnn", "adult"),
    ("ffnn-regression", "adult-age"),
    ("mnist-cnn", "mnist"),
    ("cifar10-cnn", "cifar10"),
    ("embedding", "imdb"),
    ("lstm", "imdb"),
];

/// More processes per row than this are a typing error.
const MOST_PROCESSES: usize = 1_000;
/// More epochs per process than this are a typing error; each has a schedule of its own on the disk.
const MOST_EPOCHS: usize = 100_000;
/// Seconds of warm epochs unless given, and at most.
const DEFAULT_SECONDS: f64 = 1.0;
const MOST_SECONDS: f64 = 3600.0;
/// The shortest and the longest limit of a request, in seconds.
const TIMEOUTS_S: (f64, f64) = (0.001, 1e6);

/// A config file as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Names of workloads, built-in or from `workload`.
    pub workloads: Vec<String>,
    /// Contenders: `naive`, `batched` (every variant) or `batched:captured`.
    pub strategies: Vec<String>,
    /// Examples per step.
    pub batch_sizes: Vec<usize>,
    /// `private`, `non_private`.
    pub modes: Vec<Mode>,
    /// Epochs of a process that runs alone, and the fewest of one that does not, 1 to 100,000.
    pub epochs: usize,
    /// Fresh processes per row that are timed in alternation, 1 to 1,000.
    pub processes: usize,
    /// Fresh processes per row that run alone, 1 to 1,000; 1 unless given.
    pub cold_processes: Option<usize>,
    /// Seconds of warm epochs, at least, of a process that is timed in alternation, 0 to 3,600; 1 unless given.
    pub seconds: Option<f64>,
    /// The contender that is measured twice in every comparison; the first unless given.
    pub reference: Option<String>,
    /// At most this many examples per epoch.
    pub examples: Option<usize>,
    /// The order of the examples.
    pub schedule: Order,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Threads of every contender; all processors unless given.
    pub threads: Option<usize>,
    /// `cpu` unless given.
    pub device: Option<Device>,
    /// Seconds that one request to a worker may take, 0.001 to 1,000,000.
    pub timeout_s: f64,
    /// Seconds that all processes of one row may take together, each an equal share; no limit unless given.
    pub row_limit_s: Option<f64>,
    /// Hyperparameters.
    pub dp: DpValues,
    /// Workloads of the user's own.
    #[serde(default, rename = "workload")]
    pub own_workloads: Vec<OwnWorkload>,
}

/// Hyperparameters of all workloads.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DpValues {
    /// C.
    pub clip_norm: f64,
    /// sigma.
    pub noise_multiplier: f64,
    /// eta.
    pub learning_rate: f64,
}

/// A workload of the user's own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnWorkload {
    /// The name by which `workloads` refers to it.
    pub name: String,
    /// A model file, relative to the config file.
    pub model: PathBuf,
    /// A name of [`dpsgd_data::names`] that fits the model.
    pub dataset: String,
}

/// A model and the data that it is trained on.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Its name in tables.
    pub name: String,
    /// The model, validated.
    pub model: ModelSpec,
    /// A name of [`dpsgd_data::names`].
    pub dataset: String,
}

/// What to measure, checked. Only what needs the data is left to [`crate::prepare`]: whether a batch is larger than it.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from; `None` for [`Config::everything`].
    pub path: Option<PathBuf>,
    /// In the order shown.
    pub workloads: Vec<Workload>,
    /// In the order shown.
    pub contenders: Vec<Contender>,
    /// Examples per step; all above 0.
    pub batch_sizes: Vec<usize>,
    /// Private, plain or both.
    pub modes: Vec<Mode>,
    /// Where to compute.
    pub device: Device,
    /// Threads of every contender, from 1 to the processors that this process may use.
    pub threads: usize,
    /// Fresh processes per row that are timed in alternation, 1 to 1,000.
    pub processes: usize,
    /// Fresh processes per row that run alone, 1 to 1,000.
    pub cold_processes: usize,
    /// Epochs of a process that runs alone, and the fewest of one that does not, 1 to 100,000.
    pub epochs: usize,
    /// Seconds of warm epochs, at least, of a process that is timed in alternation.
    pub seconds: f64,
    /// The contender that is measured twice in every comparison, by name.
    pub reference: Option<String>,
    /// At most this many examples per epoch.
    pub examples: Option<usize>,
    /// The order of the examples.
    pub order: Order,
    /// Seed of initial parameters, synthetic data, schedules and the order of measurement; not of the noise.
    pub seed: u64,
    /// Hyperparameters, in their ranges.
    pub dp: DpValues,
    /// What one request to a worker may take.
    pub timeout: Duration,
    /// What all processes of one row may take together, each an equal share. A process that reaches its share ends with
    /// the epochs that it has.
    pub row_limit: Option<Duration>,
    /// The user's folder of full data sets.
    pub data: Option<PathBuf>,
}

/// A config or an option that can't be used. One line: place, key, value found, values allowed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file can't be read or understood.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A value is outside its range.
    #[error("{place}: {reason}")]
    Value {
        /// The file, or the option that overrode it.
        place: String,
        /// Key, value found, values allowed.
        reason: String,
    },
    /// Not in a checkout and no file named.
    #[error("no bench-configs here or above: run within a checkout, or name a file with {0}")]
    NoCheckout(&'static str),
}

/// Names the place of a wrong value: the option if it was given, else the file.
struct Place {
    file: String,
}

impl Place {
    fn wrong(&self, option: Option<&str>, reason: impl Display) -> ConfigError {
        let place = option.map_or_else(|| self.file.clone(), |option| format!("--{option}"));
        ConfigError::Value { place, reason: reason.to_string() }
    }
}

impl Config {
    /// What `runner --all` measures: `--config` or the default config, with the options applied.
    pub fn of_run(args: &RunArgs, registry: &Registry) -> Result<Self, ConfigError> {
        let path = match &args.selection.config {
            Some(path) => path.clone(),
            None => Checkout::find().ok_or(ConfigError::NoCheckout("--config"))?.default_config(),
        };
        let file: ConfigFile = read_toml(&path)?;
        Config::resolve(file, Some(&path), args, registry)
    }

    /// What `runner verify` verifies: `--config`, or else every contender on every built-in workload, with the options
    /// applied. Batch sizes, epochs and processes don't matter there.
    pub fn of_verification(selection: &Selection, registry: &Registry) -> Result<Self, ConfigError> {
        Config::of_run_or_everything(&RunArgs { selection: selection.clone(), ..RunArgs::default() }, registry)
    }

    /// `--config`, or else every contender on every built-in workload, with the options applied.
    pub fn of_run_or_everything(args: &RunArgs, registry: &Registry) -> Result<Self, ConfigError> {
        match &args.selection.config {
            Some(_) => Config::of_run(args, registry),
            None => Config::resolve(everything(registry), None, args, registry),
        }
    }

    fn resolve(
        file: ConfigFile,
        path: Option<&Path>,
        args: &RunArgs,
        registry: &Registry,
    ) -> Result<Self, ConfigError> {
        let place = Place { file: path.map_or_else(|| "options".into(), |path| path.display().to_string()) };
        let selection = &args.selection;
        let workload_names = selection.workloads.as_ref().unwrap_or(&file.workloads);
        let option = selection.workloads.is_some().then_some("workloads");
        let workloads = workloads(&file.own_workloads, workload_names, path, &place, option)?;

        let strategy_names = selection.strategies.as_ref().unwrap_or(&file.strategies);
        let option = selection.strategies.is_some().then_some("strategies");
        not_empty(strategy_names, "strategies").map_err(|reason| place.wrong(option, reason))?;
        let contenders = contenders(strategy_names, registry).map_err(|reason| place.wrong(option, reason))?;

        let option = selection.modes.is_some().then_some("modes");
        let modes = match &selection.modes {
            Some(names) => names.iter().map(|name| mode(name)).collect::<Result<_, _>>(),
            None => Ok(file.modes),
        };
        let modes: Vec<Mode> = modes.map_err(|reason| place.wrong(option, reason))?;
        not_empty(&modes, "modes").map_err(|reason| place.wrong(option, reason))?;
        once(modes.iter().map(|mode| mode.name()), "modes").map_err(|reason| place.wrong(option, reason))?;

        let option = args.batch_sizes.is_some().then_some("batch-sizes");
        let batch_sizes = args.batch_sizes.clone().unwrap_or(file.batch_sizes);
        check_sizes(&batch_sizes).map_err(|reason| place.wrong(option, reason))?;

        let device = match &selection.device {
            Some(text) => text.parse().map_err(|reason| place.wrong(Some("device"), reason))?,
            None => file.device.unwrap_or(Device::Cpu),
        };
        let usable = usable_cpus();
        let threads = selection.threads.or(file.threads).unwrap_or(usable);
        if !(1..=usable).contains(&threads) {
            let option = selection.threads.is_some().then_some("threads");
            return Err(
                place.wrong(option, format!("threads = {threads}: must be 1 to {usable}, the processors usable here"))
            );
        }
        let count = |key: &str, option: Option<usize>, value: usize, most: usize| match value {
            value if (1..=most).contains(&value) => Ok(value),
            value => Err(place.wrong(option.map(|_| key), format!("{key} = {value}: must be 1 to {most}"))),
        };
        let processes = args.processes.unwrap_or(file.processes);
        let processes = count("processes", args.processes, processes, MOST_PROCESSES)?;
        let cold_processes = args.cold_processes.or(file.cold_processes).unwrap_or(1);
        let cold_processes = match count("cold_processes", None, cold_processes, MOST_PROCESSES) {
            Err(_) if args.cold_processes.is_some() => {
                count("cold-processes", Some(0), cold_processes, MOST_PROCESSES)?
            }
            checked => checked?,
        };
        let epochs = count("epochs", args.epochs, args.epochs.unwrap_or(file.epochs), MOST_EPOCHS)?;
        let warm_s = args.seconds.or(file.seconds).unwrap_or(DEFAULT_SECONDS);
        if !(0.0..=MOST_SECONDS).contains(&warm_s) {
            let option = args.seconds.map(|_| "seconds");
            return Err(place.wrong(option, format!("seconds = {warm_s:?}: must be 0 to {MOST_SECONDS}")));
        }
        // One that the command line left out of the contenders is no error of the file's.
        let names: Vec<String> = contenders.iter().map(Contender::name).collect();
        let reference = match &file.reference {
            Some(name) if names.contains(name) => name.clone(),
            Some(name) if selection.strategies.is_none() => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                return Err(place.wrong(None, format!("reference: {}", unknown("contender", name, &names))));
            }
            _ => names[0].clone(),
        };
        let examples = args.examples.or(file.examples);
        if let Some(examples) = examples {
            if examples == 0 {
                let option = args.examples.map(|_| "examples");
                return Err(place.wrong(option, "examples = 0: must be at least 1"));
            }
            // Both options may be given: the batch size is the value that is shown.
            let option = option.or(args.examples.map(|_| "examples"));
            check_against(&batch_sizes, examples, "examples").map_err(|reason| place.wrong(option, reason))?;
        }
        let seconds = |key: &str, value: f64| match (TIMEOUTS_S.0..=TIMEOUTS_S.1).contains(&value) {
            true => Ok(Duration::from_secs_f64(value)),
            // As `{:?}`: 1e300, not three hundred digits.
            false => {
                let (least, most) = TIMEOUTS_S;
                Err(place.wrong(None, format!("{key} = {value:?}: must be {least} to {most} seconds")))
            }
        };
        let timeout = seconds("timeout_s", file.timeout_s)?;
        let row_limit = file.row_limit_s.map(|limit| seconds("row_limit_s", limit)).transpose()?;
        check_data_folder(selection.data.as_deref())?;
        let config = Config {
            path: path.map(Path::to_path_buf),
            workloads,
            contenders,
            batch_sizes,
            modes,
            device,
            threads,
            processes,
            cold_processes,
            epochs,
            seconds: warm_s,
            reference: Some(reference),
            examples,
            order: file.schedule,
            seed: file.seed,
            dp: file.dp,
            timeout,
            row_limit,
            data: selection.data.clone(),
        };
        config.dp(Mode::Private, config.batch_sizes[0]).validate().map_err(|reason| place.wrong(None, reason))?;
        Ok(config)
    }

    /// The hyperparameters of a cell: the expected batch size is the batch size.
    pub fn dp(&self, mode: Mode, batch_size: usize) -> DpSgd {
        let DpValues { clip_norm, noise_multiplier, learning_rate } = self.dp;
        DpSgd { mode, clip_norm, noise_multiplier, learning_rate, expected_batch_size: batch_size as f64 }
    }

    /// The registry's entries of all strategies that take part, each once.
    pub fn entries<'r>(&self, registry: &'r Registry) -> Vec<&'r Entry> {
        let takes_part = |entry: &&Entry| self.contenders.iter().any(|contender| contender.strategy == entry.name);
        registry.entries().iter().filter(takes_part).collect()
    }

    /// What the results file says of this config.
    pub fn to_run_config(&self) -> RunConfig {
        RunConfig {
            workloads: self.workloads.iter().map(|workload| workload.name.clone()).collect(),
            models: self.workloads.iter().map(|workload| workload.model.clone()).collect(),
            datasets: self.workloads.iter().map(|workload| workload.dataset.clone()).collect(),
            data: self.data.clone(),
            contenders: self.contenders.iter().map(Contender::name).collect(),
            batch_sizes: self.batch_sizes.clone(),
            modes: self.modes.clone(),
            device: self.device.to_string(),
            threads: self.threads,
            processes: self.processes,
            cold_processes: self.cold_processes,
            epochs: self.epochs,
            seconds: self.seconds,
            reference: self.reference.clone(),
            examples: self.examples,
            schedule: self.order.name().into(),
            seed: self.seed,
            clip_norm: self.dp.clip_norm,
            noise_multiplier: self.dp.noise_multiplier,
            learning_rate: self.dp.learning_rate,
            timeout_s: self.timeout.as_secs_f64(),
            row_limit_s: self.row_limit.map(|limit| limit.as_secs_f64()),
        }
    }
}

/// Checks that `--data`, if it is given, names a folder.
pub fn check_data_folder(folder: Option<&Path>) -> Result<(), ConfigError> {
    match folder.filter(|folder| !folder.is_dir()) {
        Some(folder) => {
            Err(ConfigError::Value { place: "--data".into(), reason: format!("{}: not a folder", folder.display()) })
        }
        None => Ok(()),
    }
}

/// The built-in workloads, the seven of [`ModelSpec::built_in_names`].
pub fn built_in_workloads() -> Vec<Workload> {
    BUILT_IN_DATA.iter().map(|(name, _)| built_in(name).expect("the names are those of the models")).collect()
}

/// The processors that this process may use: its affinity mask, or its share of a container if that is less.
pub fn usable_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, |cpus| cpus.get())
}

/// Reads the registry: `--registry` or the default one.
pub fn read_registry(path: Option<&Path>) -> Result<Registry, ConfigError> {
    let path = match path {
        Some(path) => path.to_path_buf(),
        None => Checkout::find().ok_or(ConfigError::NoCheckout("--registry"))?.registry(),
    };
    Ok(Registry::read(&path)?)
}

fn everything(registry: &Registry) -> ConfigFile {
    ConfigFile {
        workloads: BUILT_IN_DATA.iter().map(|(name, _)| name.to_string()).collect(),
        strategies: registry.entries().iter().map(|entry| entry.name.clone()).collect(),
        batch_sizes: vec![64],
        modes: vec![Mode::Private, Mode::NonPrivate],
        epochs: 1,
        processes: 1,
        cold_processes: None,
        seconds: None,
        reference: None,
        examples: None,
        schedule: Order::Shuffle,
        seed: 1,
        threads: None,
        device: None,
        timeout_s: 600.0,
        row_limit_s: None,
        dp: DpValues { clip_norm: 1.0, noise_multiplier: 1.0, learning_rate: 0.1 },
        own_workloads: Vec::new(),
    }
}

fn built_in(name: &str) -> Option<Workload> {
    let (name, dataset) = BUILT_IN_DATA.iter().find(|(built_in, _)| *built_in == name)?;
    Some(Workload { name: name.to_string(), model: ModelSpec::built_in(name)?, dataset: dataset.to_string() })
}

/// The workloads of these names; `option` is the option that gave them, if one did.
fn workloads(
    own: &[OwnWorkload],
    names: &[String],
    config: Option<&Path>,
    place: &Place,
    option: Option<&str>,
) -> Result<Vec<Workload>, ConfigError> {
    let mut known: Vec<&str> = BUILT_IN_DATA.iter().map(|(name, _)| *name).collect();
    for workload in own {
        if known.contains(&workload.name.as_str()) {
            return Err(place.wrong(None, format!("workload `{}`: the name is taken; choose another", workload.name)));
        }
        let datasets: Vec<&str> = dpsgd_data::names().iter().map(|(name, _)| *name).collect();
        if !datasets.contains(&workload.dataset.as_str()) {
            let reason = unknown("dataset", &workload.dataset, &datasets);
            return Err(place.wrong(None, format!("workload `{}`: {reason}", workload.name)));
        }
        known.push(&workload.name);
    }
    not_empty(names, "workloads").map_err(|reason| place.wrong(option, reason))?;
    once(names.iter().map(String::as_str), "workloads").map_err(|reason| place.wrong(option, reason))?;
    let find = |name: &String| match (built_in(name), own.iter().find(|workload| workload.name == *name)) {
        (Some(workload), _) => Ok(workload),
        (None, Some(workload)) => {
            let folder = config.and_then(Path::parent).unwrap_or(Path::new(""));
            let model = ModelSpec::read(&folder.join(&workload.model))?;
            Ok(Workload { name: workload.name.clone(), model, dataset: workload.dataset.clone() })
        }
        (None, None) => Err(place.wrong(option, unknown("workload", name, &known))),
    };
    names.iter().map(find).collect()
}

fn contenders(names: &[String], registry: &Registry) -> Result<Vec<Contender>, String> {
    let mut all = Vec::new();
    for name in names {
        all.extend(registry.contenders(name)?);
    }
    let shown: Vec<String> = all.iter().map(Contender::name).collect();
    once(shown.iter().map(String::as_str), "strategies")?;
    Ok(all)
}

fn mode(name: &str) -> Result<Mode, String> {
    let all = [Mode::Private, Mode::NonPrivate];
    let valid: Vec<&str> = all.iter().map(|mode| mode.name()).collect();
    all.into_iter().find(|mode| mode.name() == name).ok_or_else(|| unknown("mode", name, &valid))
}

pub(crate) fn not_empty<T>(items: &[T], key: &str) -> Result<(), String> {
    if items.is_empty() { Err(format!("{key} = []: name at least one")) } else { Ok(()) }
}

pub(crate) fn once<T: Ord + Display>(items: impl Iterator<Item = T>, key: &str) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for item in items {
        if seen.contains(&item) {
            return Err(format!("{key}: {item} is there twice; name it once"));
        }
        seen.insert(item);
    }
    Ok(())
}

/// Batch sizes: at least one, none of them 0, none twice.
pub(crate) fn check_sizes(sizes: &[usize]) -> Result<(), String> {
    not_empty(sizes, "batch_sizes")?;
    if sizes.contains(&0) {
        return Err("batch size 0: must be at least 1".into());
    }
    once(sizes.iter(), "batch_sizes")
}

fn check_against(sizes: &[usize], examples: usize, what: &str) -> Result<(), String> {
    match sizes.iter().find(|size| **size > examples) {
        Some(size) => Err(format!("batch size {size}: must be at most {examples}, the number of {what}")),
        None => Ok(()),
    }
}
