//! What verification and measurement share: how to start a contender, and where.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use dpsgd_core::{Device, Mode, Settings};
use dpsgd_protocol::KERNEL_CACHE;
use dpsgd_protocol::results::Status;

use crate::config::{Config, Workload};
use crate::prepare::{self, DataJob, PrepareError, PreparedData, Reference};
use crate::registry::{Contender, Entry, Registry};
use crate::session::{self, failed};
use crate::setup::Toolbox;
use crate::verify::{Expectations, Gate, Verdict};
use crate::worker::{Allocator, Guard, Launch, WorkerError, usable_cpus};

/// The means of a run.
#[derive(Clone, Copy)]
pub struct Bench<'a> {
    /// What to measure.
    pub config: &'a Config,
    /// The contenders.
    pub registry: &'a Registry,
    /// How to start them.
    pub toolbox: &'a Toolbox,
    /// What ends workers if this process can't.
    pub guard: &'a Guard,
    /// Why the device asked for is not on this machine; `None` if it is. No worker is started then.
    pub device_missing: Option<&'a str>,
}

/// The logical processors that a process of so many threads is confined to: one per thread, and no two of one core while
/// another core is free.
pub fn cpus(threads: usize) -> Vec<usize> {
    dpsgd_meter::spread_over_cores(&usable_cpus(), threads)
}

/// Why the device that `config` asks for is not on this machine, as a reason for a row; `None` if it is.
pub fn device_missing(config: &Config) -> Option<String> {
    let Device::Cuda(ordinal) = config.device else { return None };
    let reason = dpsgd_meter::missing_cuda_device(ordinal)?;
    Some(format!("no CUDA device {}: {reason}; measure on the CPU with --device cpu", config.device))
}

impl Bench<'_> {
    /// How to start `contender` with its output going to `log`; the error says what is missing.
    pub fn launch(&self, contender: &Contender, log: PathBuf) -> Result<Launch, WorkerError> {
        let unavailable = |reason: String| WorkerError::new(Status::Unavailable, reason);
        if let Some(reason) = self.device_missing {
            return Err(unavailable(reason.to_string()));
        }
        if let Some(reason) = contender.not_on(self.config.device) {
            return Err(unavailable(reason));
        }
        let launcher =
            self.toolbox.launcher(&contender.strategy).map_err(|missing| unavailable(missing.to_string()))?;
        let threads = contender.threads(self.config.threads);
        Ok(Launch {
            program: launcher.program.clone(),
            args: launcher.args.clone(),
            env: launcher.env.clone().into_iter().collect(),
            cpus: cpus(threads),
            threads,
            allocator: Allocator::Keeping,
            log,
        })
    }

    /// Where and how `contender` runs.
    pub fn settings(&self, contender: &Contender) -> Settings {
        Settings {
            variant: contender.variant.clone(),
            device: self.config.device,
            threads: contender.threads(self.config.threads),
            noise_seed: None,
        }
    }

    /// Prepares the files of `workload` for so many epochs, in the folder `out`, which must exist.
    pub fn data(&self, workload: &Workload, epochs: usize, out: &Path) -> Result<PreparedData, PrepareError> {
        let config = self.config;
        prepare::data(DataJob {
            model: workload.model.clone(),
            dataset: workload.dataset.clone(),
            data_dir: config.data.clone(),
            examples: config.examples,
            order: config.order,
            batch_sizes: config.batch_sizes.clone(),
            epochs,
            seed: config.seed,
            out: out.to_path_buf(),
        })
    }

    /// The modes in which `contender` takes part.
    pub fn modes(&self, contender: &Contender) -> Vec<Mode> {
        self.config.modes.iter().copied().filter(|mode| contender.modes().contains(mode)).collect()
    }

    /// Takes contenders, each with the file for its output, through the verification gate on `workload`. `take` gets every
    /// verdict once it is there; after it has failed no other gate is begun.
    pub fn verify<'c, E>(
        &self,
        workload: &Workload,
        contenders: &[(&'c Contender, PathBuf)],
        reference: &Reference,
        folder: &Path,
        mut take: impl FnMut(&'c Contender, Result<Verdict, WorkerError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let next = AtomicUsize::new(0);
        let (sender, verdicts) = channel();
        std::thread::scope(|scope| {
            for _ in 0..self.gates_at_once() {
                let (sender, next) = (sender.clone(), &next);
                scope.spawn(move || {
                    while let Some((contender, log)) = contenders.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let verdict = self.verify_one(workload, contender, reference, folder, log.clone());
                        if sender.send((*contender, verdict)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            for (contender, verdict) in verdicts {
                take(contender, verdict)?;
            }
            Ok(())
        })
    }

    /// Gates share the processors, since nothing in them is timed, but not a GPU's memory.
    fn gates_at_once(&self) -> usize {
        match self.config.device {
            Device::Cpu => 2,
            Device::Cuda(_) => 1,
        }
    }

    fn verify_one(
        &self,
        workload: &Workload,
        contender: &Contender,
        reference: &Reference,
        folder: &Path,
        log: PathBuf,
    ) -> Result<Verdict, WorkerError> {
        // For this gate alone: others may be at work beside it.
        let folder = tempfile::tempdir_in(folder).map_err(failed)?;
        let mut launch = self.launch(contender, log)?;
        // As in the processes that are timed.
        launch.env.extend(cache_variables(&folder.path().join("kernels")).map_err(failed)?);
        if self.gates_at_once() > 1 {
            // OpenMP's threads spin while they wait, on processors that another gate's threads need.
            launch.env.push(("OMP_WAIT_POLICY".into(), "passive".into()));
        }
        let entry = self.entry(contender);
        let expectations = Expectations {
            tolerance: contender.tolerance,
            empty_batch: contender.empty_batch,
            non_finite: entry.non_finite,
        };
        let timeout = self.config.timeout;
        let mut worker = session::start(&contender.strategy, &launch, self.guard, timeout)?;
        let settings = self.settings(contender);
        let mut gate =
            Gate::new(&mut worker, &workload.model, reference, settings, expectations, folder.path(), timeout)?;
        let verdict = gate.run(&self.modes(contender))?;
        if verdict.unchecked.is_none() {
            worker.finish(timeout)?;
        }
        Ok(verdict)
    }

    fn entry(&self, contender: &Contender) -> &Entry {
        self.registry.entry(&contender.strategy).expect("a config names only contenders of the registry")
    }
}

/// The variables by which a worker caches machine code in this folder, which is made if it is not there, and nowhere
/// else: CUDA's own cache, which others may have filled, is off.
pub fn cache_variables(folder: &Path) -> std::io::Result<[(String, String); 2]> {
    std::fs::create_dir_all(folder)?;
    Ok([(KERNEL_CACHE.into(), folder.display().to_string()), ("CUDA_CACHE_DISABLE".into(), "1".into())])
}

/// A log's name within the run's folder.
pub fn log_file(parts: &[&str]) -> PathBuf {
    let name = parts.join("_").replace([':', '/'], "-");
    Path::new("logs").join(format!("{name}.log"))
}
