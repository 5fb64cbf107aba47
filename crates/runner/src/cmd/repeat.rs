//! `runner repeat`: the same steps with the same noise in two processes, and the parameters compared bit by bit.

use std::path::Path;

use dpsgd_core::{Mode, Params, Settings};

use super::Outcome;
use super::means::{Asked, Means, Scratch, Tally};
use crate::cli::{EXIT_DIFFERS, RepeatArgs, RunArgs};
use crate::config::{Config, Workload};
use crate::measure::bench::{Bench, log_file};
use crate::prepare::{DATASET_FILE, PARAMS_FILE, PreparedData};
use crate::registry::Contender;
use crate::session;
use crate::worker::WorkerError;

/// Examples of an epoch unless more or fewer are asked for.
const EXAMPLES: usize = 512;

/// Carries out `runner repeat`; status 1 if the two processes differ, 2 if a contender could not be run for another reason
/// than being unavailable, or if none was.
pub fn run(args: &RepeatArgs) -> Outcome {
    let selected = RunArgs {
        selection: args.selection.clone(),
        batch_sizes: args.batch_sizes.clone(),
        examples: Some(args.examples.unwrap_or(EXAMPLES)),
        ..RunArgs::default()
    };
    let asked = Asked::read(&args.places, |registry| Config::of_run_or_everything(&selected, registry))?;
    let means = Means::on_the_device(asked)?;
    let scratch = Scratch::new()?;
    let (bench, config) = (means.bench(), &means.config);
    let mut tally = Tally::default();
    for workload in &config.workloads {
        let folder = scratch.folder(workload)?;
        let prepared = bench.data(workload, 1, &folder)?;
        let initial = Params::load(&folder.join(PARAMS_FILE), &workload.model)?;
        for contender in &config.contenders {
            for (mode, batch_size) in bench
                .modes(contender)
                .into_iter()
                .flat_map(|mode| config.batch_sizes.iter().map(move |size| (mode, *size)))
            {
                let prepared = &prepared;
                let cell = Cell { bench: &bench, workload, contender, mode, batch_size, folder: &folder, prepared };
                let after = || cell.after_an_epoch(scratch.path());
                let line = match after().and_then(|first| Ok((first, after()?))) {
                    Ok((first, second)) => match difference(&initial, &first, &second) {
                        None => {
                            tally.right += 1;
                            format!("the same bits in two processes, {} parameters", initial.len())
                        }
                        Some(difference) => {
                            tally.wrong += 1;
                            difference
                        }
                    },
                    Err(error) if error.interrupted => return Err(error.reason.into()),
                    Err(error) => tally.count_failure(&error),
                };
                println!("{:16} {batch_size:4} {:11} {:21} {line}", workload.name, mode.name(), contender.name());
            }
        }
        std::fs::remove_dir_all(&folder)?;
    }
    println!("{}", tally.line("the same", "different"));
    Ok(tally.exit_status(EXIT_DIFFERS))
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
    prepared: &'a PreparedData,
}

impl Cell<'_> {
    /// The parameters after an epoch in a fresh process whose noise is seeded.
    fn after_an_epoch(&self, scratch: &Path) -> Result<Params, WorkerError> {
        let Cell { bench, workload, contender, prepared, batch_size, .. } = self;
        let log = log_file(&[&workload.name, &batch_size.to_string(), self.mode.name(), &contender.name()]);
        let launch = bench.launch(contender, scratch.join(log))?;
        let timeout = bench.config.timeout;
        let mut worker = session::start(&contender.strategy, &launch, bench.guard, timeout)?;
        let job = session::Job {
            model: &workload.model,
            params: &self.folder.join(PARAMS_FILE),
            dataset: &self.folder.join(DATASET_FILE),
            data_sha256: &prepared.data_sha256,
            dp: bench.config.dp(self.mode, *batch_size),
            settings: &Settings { noise_seed: Some(bench.config.seed), ..bench.settings(contender) },
        };
        session::load(&mut worker, &job, timeout)?;
        session::epochs(&mut worker, &prepared.schedules[batch_size][0], prepared.work(*batch_size), 1, timeout)?;
        let file = self.folder.join("after.safetensors");
        let params = session::params(&mut worker, &workload.model, &file, timeout)?;
        worker.finish(timeout)?;
        Ok(params)
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
