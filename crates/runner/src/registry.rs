//! The registry of contenders: `bench-configs/strategies.toml`. The runner links none of them; what it knows of a
//! strategy is an entry here and what the worker says of itself.

mod same_program;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use dpsgd_core::{Device, InputError, Mode, ModelSpec, nearest, read_toml};
use serde::Deserialize;

pub use same_program::SameAs;
use same_program::{Relations, original};

/// Largest relative L2 error of an update in f32, unless an entry names its own.
pub const DEFAULT_TOLERANCE: f64 = 1e-5;

/// Words that an entry's `start` may hold in braces.
const PLACEHOLDERS: [&str; 4] = ["workers", "python", "peers", "root"];

/// All contenders, in the order shown.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    #[serde(rename = "strategy")]
    strategies: Vec<Entry>,
    /// The file it was read from.
    #[serde(skip)]
    path: PathBuf,
}

/// One strategy: how to get it, how to start it, and what to expect of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The name that its worker answers to `hello`.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// The ways to run it, the default first; empty when there is only one.
    #[serde(default)]
    pub variants: Vec<Variant>,
    /// Largest relative L2 error of an update; a variant may name its own.
    #[serde(default = "default_tolerance")]
    pub tolerance: f64,
    /// Kinds of device that it runs on; a variant may name its own.
    #[serde(default = "all_devices")]
    pub devices: Vec<DeviceKind>,
    /// Modes that it runs in; a variant may name its own.
    #[serde(default = "all_modes")]
    pub modes: Vec<Mode>,
    /// What must be installed for it.
    #[serde(default)]
    pub environment: Environment,
    /// How to build its worker, if it has to be.
    pub build: Option<Build>,
    /// The worker's command line; `{workers}`, `{python}`, `{peers}` and `{root}` stand for folders and the interpreter.
    /// The program is absolute, begins with one of these, or is a bare name for PATH: [`Registry::read`] has resolved a
    /// relative path against the registry's folder.
    pub start: Vec<String>,
    /// Whether its worker, started with the further arguments `plan` and the path of a model in JSON, prints in plain
    /// text how it would carry out a step of that model, and ends; `runner list --plan` shows it.
    #[serde(default)]
    pub plan: bool,
    /// Environment variables of the worker.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The Python modules that its worker cannot do without, as imported: what an interpreter given with `--python` must
    /// have.
    #[serde(default)]
    pub modules: Vec<String>,
    /// Whether it takes a batch in which no example counts.
    pub empty_batch: bool,
    /// Whether it leaves out, and counts, examples whose gradient holds a NaN or an infinity.
    pub non_finite: bool,
}

/// One way to run a strategy.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// The name that its worker knows it by.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Largest relative L2 error of an update, in place of the strategy's.
    pub tolerance: Option<f64>,
    /// Kinds of device that it runs on, in place of the strategy's.
    pub devices: Option<Vec<DeviceKind>>,
    /// Modes that it runs in, in place of the strategy's.
    pub modes: Option<Vec<Mode>>,
    /// Where it is the same program as another variant.
    #[serde(default)]
    pub same_as: Vec<SameAs>,
    /// Whether it takes a batch in which no example counts, in place of the strategy's.
    pub empty_batch: Option<bool>,
    /// The most threads that it runs on, however many the others get.
    pub threads: Option<usize>,
}

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// Any CUDA device.
    Cuda,
}

impl DeviceKind {
    /// The kind of `device`.
    pub fn of(device: Device) -> Self {
        match device {
            Device::Cpu => DeviceKind::Cpu,
            Device::Cuda(_) => DeviceKind::Cuda,
        }
    }

    /// The name used in the registry.
    pub fn name(self) -> &'static str {
        match self {
            DeviceKind::Cpu => "cpu",
            DeviceKind::Cuda => "cuda",
        }
    }
}

/// What must be installed before a strategy can be built or started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// Nothing.
    #[default]
    None,
    /// libtorch, from the user or from a Python environment with torch.
    Libtorch,
    /// Python with PyTorch and what is built on it.
    Torch,
    /// Python with JAX and what is built on it.
    Jax,
    /// Python with TensorFlow and what is built on it.
    Tf,
}

/// How to build a worker.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// The package of this workspace whose binary is the worker.
    pub package: String,
    /// A test target of the package whose tests named `device::...` are of a CUDA device: a bundle has it, as
    /// `checks/PACKAGE`.
    pub device_tests: Option<String>,
}

fn default_tolerance() -> f64 {
    DEFAULT_TOLERANCE
}

fn all_devices() -> Vec<DeviceKind> {
    vec![DeviceKind::Cpu, DeviceKind::Cuda]
}

fn all_modes() -> Vec<Mode> {
    vec![Mode::Private, Mode::NonPrivate]
}

/// One contender: a strategy in one variant, and what the verification gate expects of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Contender {
    /// Name of the strategy.
    pub strategy: String,
    /// The variant, or `None` if the strategy has only one way.
    pub variant: Option<String>,
    /// Largest relative L2 error of an update.
    pub tolerance: f64,
    /// Kinds of device that it runs on.
    pub devices: Vec<DeviceKind>,
    /// Modes that it runs in.
    modes: Vec<Mode>,
    /// Where it is the same program as another variant.
    same_as: Relations,
    /// Whether it takes a batch in which no example counts.
    pub empty_batch: bool,
    /// The most threads that it runs on, if it has a limit of its own.
    pub most_threads: Option<usize>,
}

impl Contender {
    /// Why it does not run on `device`, if it doesn't.
    pub fn not_on(&self, device: Device) -> Option<String> {
        let kinds: Vec<&str> = self.devices.iter().map(|kind| kind.name()).collect();
        let runs = self.devices.contains(&DeviceKind::of(device));
        (!runs).then(|| format!("{} does not run on {device}, only on {}", self.name(), kinds.join(", ")))
    }

    /// The modes that it runs in.
    pub fn modes(&self) -> &[Mode] {
        &self.modes
    }

    /// The variant of the same strategy that is the same program as this one, for this model and mode on a processor with
    /// `cpu_features` (named as in /proc/cpuinfo), if the registry declares one. That variant has no such answer itself, and
    /// may not take part in a run: contenders with the same answer are one program nonetheless.
    pub fn same_program_as(&self, model: &ModelSpec, mode: Mode, cpu_features: &[String]) -> Option<String> {
        let variant = self.variant.as_deref()?;
        let original = original(&self.same_as, variant, |same| same.holds(model, mode, cpu_features));
        (original != variant).then(|| original.to_string())
    }

    /// The threads that it runs on where the others have `threads`.
    pub fn threads(&self, threads: usize) -> usize {
        self.most_threads.map_or(threads, |most| most.min(threads))
    }

    /// `strategy` or `strategy:variant`.
    pub fn name(&self) -> String {
        dpsgd_protocol::results::contender_name(&self.strategy, self.variant.as_deref())
    }
}

impl Registry {
    /// Reads and checks a registry; the error is one line that names file, entry and what is allowed.
    pub fn read(path: &Path) -> Result<Self, InputError> {
        let mut registry: Registry = read_toml(path)?;
        registry.path = path.to_path_buf();
        registry.validate().map_err(|reason| {
            let (path, place) = (path.display().to_string(), String::new());
            InputError { path, place, reason }
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for program in registry.strategies.iter_mut().filter_map(|entry| entry.start.first_mut()) {
            *program = beside(folder, program);
        }
        Ok(registry)
    }

    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All strategies, in the order shown.
    pub fn entries(&self) -> &[Entry] {
        &self.strategies
    }

    /// The strategy of this name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.strategies.iter().find(|entry| entry.name == name)
    }

    /// The strategies that `names` stand for, each once and in the order named; all without names.
    pub fn entries_named(&self, names: Option<&[String]>) -> Result<Vec<&Entry>, String> {
        let Some(names) = names else { return Ok(self.strategies.iter().collect()) };
        let mut wanted: Vec<&Entry> = Vec::new();
        for name in names {
            let first = self.contenders(name)?.swap_remove(0);
            wanted.extend(self.entry(&first.strategy).filter(|entry| !wanted.iter().any(|w| w.name == entry.name)));
        }
        Ok(wanted)
    }

    /// The contenders that `name` stands for: `naive`, `batched` (every variant) or `batched:captured`. The error names
    /// the nearest contender.
    pub fn contenders(&self, name: &str) -> Result<Vec<Contender>, String> {
        let (strategy, variant) = match name.split_once(':') {
            Some((strategy, variant)) => (strategy, Some(variant)),
            None => (name, None),
        };
        let Some(entry) = self.entry(strategy) else {
            let names: Vec<&str> = self.strategies.iter().map(|entry| entry.name.as_str()).collect();
            return Err(unknown("strategy", strategy, &names));
        };
        match variant {
            None => Ok(entry.contenders()),
            Some(variant) => {
                let all = entry.contenders();
                let chosen: Vec<Contender> =
                    all.into_iter().filter(|contender| contender.variant.as_deref() == Some(variant)).collect();
                if chosen.is_empty() {
                    let names: Vec<&str> = entry.variants.iter().map(|variant| variant.name.as_str()).collect();
                    return Err(unknown(&format!("variant of {strategy}"), variant, &names));
                }
                Ok(chosen)
            }
        }
    }

    fn validate(&self) -> Result<(), String> {
        if self.strategies.is_empty() {
            return Err("no strategy: add at least one [[strategy]]".into());
        }
        let mut names = BTreeSet::new();
        for entry in &self.strategies {
            entry.validate().map_err(|reason| format!("strategy `{}`: {reason}", entry.name))?;
            if !names.insert(&entry.name) {
                return Err(format!("strategy `{}`: there are two of this name; rename one", entry.name));
            }
        }
        Ok(())
    }
}

impl Entry {
    /// One contender per variant, or a single one.
    pub fn contenders(&self) -> Vec<Contender> {
        let alone = Contender {
            strategy: self.name.clone(),
            variant: None,
            tolerance: self.tolerance,
            devices: self.devices.clone(),
            modes: self.modes.clone(),
            same_as: self.variants.iter().map(|variant| (variant.name.clone(), variant.same_as.clone())).collect(),
            empty_batch: self.empty_batch,
            most_threads: None,
        };
        if self.variants.is_empty() {
            return vec![alone];
        }
        let of = |variant: &Variant| Contender {
            variant: Some(variant.name.clone()),
            tolerance: variant.tolerance.unwrap_or(alone.tolerance),
            devices: variant.devices.clone().unwrap_or_else(|| alone.devices.clone()),
            modes: variant.modes.clone().unwrap_or_else(|| alone.modes.clone()),
            empty_batch: variant.empty_batch.unwrap_or(alone.empty_batch),
            most_threads: variant.threads,
            ..alone.clone()
        };
        self.variants.iter().map(of).collect()
    }

    fn validate(&self) -> Result<(), String> {
        check_name("name", &self.name)?;
        let mut variants = BTreeSet::new();
        for variant in &self.variants {
            check_name("variant", &variant.name)?;
            if !variants.insert(&variant.name) {
                return Err(format!("variant `{}`: there are two of this name; rename one", variant.name));
            }
        }
        let own = self.variants.iter().filter_map(|variant| variant.tolerance);
        if let Some(tolerance) = own.chain([self.tolerance]).find(|value| !(value.is_finite() && *value > 0.0)) {
            return Err(format!("tolerance = {tolerance}: must be a finite number above 0"));
        }
        let own = self.variants.iter().filter_map(|variant| variant.devices.as_ref());
        if own.chain([&self.devices]).any(Vec::is_empty) {
            return Err("devices = []: name `cpu`, `cuda` or both".into());
        }
        let own = self.variants.iter().filter_map(|variant| variant.modes.as_ref());
        if own.chain([&self.modes]).any(Vec::is_empty) {
            return Err("modes = []: name `private`, `non_private` or both".into());
        }
        same_program::validate(&self.variants)?;
        if let Some(variant) = self.variants.iter().find(|variant| variant.threads == Some(0)) {
            let name = &variant.name;
            return Err(format!("variant `{name}`: threads = 0: must be at least 1; leave it out for no limit"));
        }
        if self.start.first().is_none_or(String::is_empty) {
            return Err("start = []: the first item is the program, such as \"{workers}/dpsgd-naive\"".into());
        }
        let module = |name: &str| name.split('.').all(|part| !part.is_empty() && part.chars().all(is_of_identifiers));
        if let Some(name) = self.modules.iter().find(|name| !module(name)) {
            return Err(format!("modules: `{name}` is no module: write it as Python imports it, such as \"torch\""));
        }
        for text in &self.start {
            if let Some(word) = placeholders(text).find(|word| !PLACEHOLDERS.contains(word)) {
                return Err(unknown("placeholder in start", word, &PLACEHOLDERS));
            }
        }
        Ok(())
    }
}

/// A program of a registry in `folder`: a relative path is meant from there. Bare names and placeholders are left.
fn beside(folder: &Path, program: &str) -> String {
    if !program.contains('/') || program.contains('{') {
        return program.to_string();
    }
    let path = folder.join(program);
    std::path::absolute(&path).unwrap_or(path).display().to_string()
}

/// The words in braces in `text`.
fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(word, _)| word))
}

fn is_of_identifiers(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Names become file names, table cells and items of comma-separated lists.
fn check_name(key: &str, name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    if !name.is_empty() && name.chars().all(legal) {
        return Ok(());
    }
    Err(format!("{key} = \"{name}\": must be letters, digits and `-`, `_`, `.`, `+`"))
}

/// One line about an unknown name: the nearest valid one, and all of them.
pub(crate) fn unknown(what: &str, found: &str, valid: &[&str]) -> String {
    let all =
        if valid.is_empty() { "there are none".to_string() } else { format!("must be one of {}", valid.join(", ")) };
    match nearest(found, valid.iter().copied()) {
        Some(name) => format!("unknown {what} `{found}`: did you mean `{name}`? ({all})"),
        None => format!("unknown {what} `{found}`: {all}"),
    }
}
