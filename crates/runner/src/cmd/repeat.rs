//! `runner repeat`: the same steps with the same noise in two processes, and the parameters compared bit by bit.

use std::path::Path;

use dpsgd_core::{Mode, Params, Settings};
use dpsgd_protocol::messages::{Reply, Request};
use dpsgd_protocol::results::Status;

use super::Outcome;
use crate::cli::{EXIT_DIFFERS, EXIT_ERROR, EXIT_OK, RepeatArgs, RunArgs};
use crate::config::{Config, Workload, read_registry};
use crate::measure::bench::{Bench, device_missing, log_file};
use crate::measure::start_worker;
use crate::prepare::{self, DATASET_FILE, DataJob, PARAMS_FILE};
use crate::registry::Contender;
use crate::setup::{Host, Toolbox};
use crate::verify::{check_description, unexpected};
use crate::worker::{Guard, WorkerError};

/// Examples of an epoch unless more or fewer are asked for.
const EXAMPLES: usize = 512;

/// Carries out `runner repeat`; status 1 if the two processes differ, 2 if a contender could not be run for another reason
/// than being unavailable, or if none was.
pub fn run(args: &RepeatArgs) -> Outcome {
    let registry = read_registry(args.places.registry.as_deref())?;
    let asked = RunArgs {
        selection: args.selection.clone(),
        batch_sizes: args.batch_sizes.clone(),
        examples: Some(args.examples.unwrap_or(EXAMPLES)),
        ..RunArgs::default()
    };
    let config = Config::of_run_or_everything(&asked, &registry)?;
    let host = Host::of(&args.places)?;
    if let Some(reason) = device_missing(&config) {
        return Err(reason.into());
    }
    let toolbox = Toolbox::prepare(&host, &config.entries(&registry));
    let guard = Guard::start()?;
    let bench = Bench { config: &config, registry: &registry, toolbox: &toolbox, guard: &guard, device_missing: None };
    let scratch = tempfile::tempdir()?;
    std::fs::create_dir(scratch.path().join("logs"))?;
    let (mut same, mut different, mut unavailable, mut broken) = (0, 0, 0, 0);
    for workload in &config.workloads {
        let folder = scratch.path().join(&workload.name);
        std::fs::create_dir(&folder)?;
        let prepared = prepare::data(data_job(&config, workload, &folder))?;
        let initial = Params::load(&folder.join(PARAMS_FILE), &workload.model)?;
        for contender in &config.contenders {
            for (mode, batch_size) in bench
                .modes(contender)
                .into_iter()
                .flat_map(|mode| config.batch_sizes.iter().map(move |size| (mode, *size)))
            {
                let schedule = &prepared.schedules[&batch_size][0].path;
                let cell = Cell { bench: &bench, workload, contender, mode, batch_size, folder: &folder, schedule };
                let pair =
                    cell.after_an_epoch(scratch.path()).and_then(|a| Ok((a, cell.after_an_epoch(scratch.path())?)));
                let line = match pair {
                    Ok((first, second)) => match difference(&initial, &first, &second) {
                        None => {
                            same += 1;
                            format!("the same bits in two processes, {} parameters", initial.len())
                        }
                        Some(difference) => {
                            different += 1;
                            difference
                        }
                    },
                    Err(error) if error.interrupted => return Err(error.reason.into()),
                    Err(error) => {
                        *if error.status == Status::Unavailable { &mut unavailable } else { &mut broken } += 1;
                        format!("{}: {}", error.status.name(), error.reason)
                    }
                };
                println!("{:16} {batch_size:4} {:11} {:20} {line}", workload.name, mode.name(), contender.name());
            }
        }
        std::fs::remove_dir_all(&folder)?;
    }
    println!("{same} the same, {different} different, {unavailable} unavailable, {broken} broken");
    Ok(match (same, different, broken) {
        (_, 1.., _) => EXIT_DIFFERS,
        (1.., 0, 0) => EXIT_OK,
        _ => EXIT_ERROR,
    })
}

fn data_job(config: &Config, workload: &Workload, out: &Path) -> DataJob {
    DataJob {
        model: workload.model.clone(),
        dataset: workload.dataset.clone(),
        data_dir: config.data.clone(),
        examples: config.examples,
        order: config.order,
        batch_sizes: config.batch_sizes.clone(),
        epochs: 1,
        seed: config.seed,
        out: out.to_path_buf(),
    }
}

/// One contender in one mode and batch size.
struct Cell<'a> {
    bench: &'a Bench<'a>,
    workload: &'a Workload,
    contender: &'a Contender,
    mode: Mode,
    batch_size: usize,
    /// Data and initial parameters.
    folder: &'a Path,
    /// The batches.
    schedule: &'a Path,
}

impl Cell<'_> {
    /// The parameters after an epoch in a fresh process whose noise is seeded.
    fn after_an_epoch(&self, scratch: &Path) -> Result<Params, WorkerError> {
        let Cell { bench, workload, contender, .. } = self;
        let log = log_file(&[&workload.name, &self.batch_size.to_string(), self.mode.name(), &contender.name()]);
        let launch = bench.launch(contender, scratch.join(log))?;
        let timeout = bench.config.timeout;
        let mut worker = start_worker(&contender.strategy, &launch, bench.guard, timeout)?;
        let settings = Settings { noise_seed: Some(bench.config.seed), ..bench.settings(contender) };
        let load = Request::Load {
            model: workload.model.clone(),
            params: self.folder.join(PARAMS_FILE),
            dataset: self.folder.join(DATASET_FILE),
            dp: bench.config.dp(self.mode, self.batch_size),
            settings: settings.clone(),
        };
        match worker.request(&load, timeout)? {
            Reply::Loaded { description, .. } => check_description(&settings, &description)?,
            other => return Err(unexpected(&load, &other)),
        }
        worker.request(&Request::Epoch { schedule: self.schedule.to_path_buf() }, timeout)?;
        let file = self.folder.join("after.safetensors");
        worker.request(&Request::Params { path: file.clone() }, timeout)?;
        let params = Params::load(&file, &workload.model);
        worker.finish(timeout)?;
        params.map_err(|error| WorkerError::new(Status::Failed, error.to_string()))
    }
}

/// How two epochs from `initial` differ, in words; `None` if they do not. That nothing was computed is no agreement.
fn difference(initial: &Params, first: &Params, second: &Params) -> Option<String> {
    let finite = first.values().all(f32::is_finite);
    if !finite || first.values().zip(initial.values()).all(|(now, before)| now == before) {
        let what = if finite { "unchanged" } else { "not finite" };
        return Some(format!("parameters are {what} after an epoch: nothing to compare"));
    }
    let pairs: Vec<(f32, f32)> = first.values().zip(second.values()).collect();
    let apart: Vec<f32> =
        pairs.iter().filter(|(a, b)| a.to_bits() != b.to_bits()).map(|(a, b)| (a - b).abs()).collect();
    if apart.is_empty() {
        return None;
    }
    let most = apart.iter().copied().fold(0.0, f32::max);
    Some(format!("{} of {} parameters differ, by up to {most:.1e}", apart.len(), pairs.len()))
}

#[cfg(test)]
mod tests {
    use dpsgd_core::ModelSpec;

    use super::*;

    fn params(seed: u64) -> Params {
        Params::init(&ModelSpec::built_in("logreg").unwrap(), seed)
    }

    #[test]
    fn the_same_bits_are_no_difference_and_the_last_bit_of_one_is() {
        let (initial, first) = (params(1), params(2));
        assert_eq!(difference(&initial, &first, &first), None);
        let mut second = first.clone();
        let value = &mut second.tensors[0].values[3];
        *value = f32::from_bits(value.to_bits() ^ 1);
        let found = difference(&initial, &first, &second).unwrap();
        assert!(found.starts_with("1 of 105 parameters differ"), "{found}");
    }

    #[test]
    fn parameters_that_did_not_change_or_are_not_finite_are_no_agreement() {
        let initial = params(1);
        assert!(difference(&initial, &initial, &initial).unwrap().contains("unchanged"));
        let mut broken = params(2);
        broken.tensors[0].values[0] = f32::NAN;
        assert!(difference(&initial, &broken, &broken).unwrap().contains("not finite"));
    }
}
