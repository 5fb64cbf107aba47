//! The verification gate: before a row may show a time, its step is checked against the float64 oracle.
//!
//! The gate drives the same worker, through the same requests, that will be timed. From the initial parameters it takes
//! one step per [`Case`] and compares `theta_0 - theta_1` with the oracle's update ([`bounds`]); [`noise`] then tests the
//! noise; last come batches of the sizes that are measured, ascending, because a worker may not survive the largest.

pub mod bounds;
mod noise;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dpsgd_core::{Description, DpSgd, Mode, ModelSpec, Params, Settings};
use dpsgd_protocol::messages::{Reply, Request};
use dpsgd_protocol::results::Verification;

use bounds::Comparison;

use crate::prepare::{Bounds, Case, EpochCase, Needs, PartsCase, Reference};
use crate::session::{self, failed, unexpected};
use crate::worker::{Worker, WorkerError};

/// What the registry says of a contender that matters to the gate.
#[derive(Clone, Copy, Debug)]
pub struct Expectations {
    /// Largest relative L2 error of an update whose gradients do not cancel.
    pub tolerance: f64,
    /// Whether it takes a batch in which every slot is masked.
    pub empty_batch: bool,
    /// Whether it leaves out, and counts, examples whose gradient is not finite.
    pub non_finite: bool,
}

/// What the gate found about one contender on one model.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What the worker said of itself.
    pub description: Description,
    /// For each mode checked.
    pub modes: Vec<(Mode, Verification)>,
    /// The least batch size measured that could not be checked, as the worker ended there, and how; larger ones were not
    /// tried.
    pub unchecked: Option<(usize, WorkerError)>,
}

impl Verdict {
    /// Why rows of this batch size were not verified; `None` if they were.
    pub fn unchecked_at(&self, batch_size: usize) -> Option<&WorkerError> {
        self.unchecked.as_ref().filter(|(from, _)| batch_size >= *from).map(|(_, error)| error)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (mode, verification)) in self.modes.iter().enumerate() {
            let separator = if position > 0 { "; " } else { "" };
            write!(f, "{separator}{} ", mode.name())?;
            match (&verification.failure, verification.max_relative_error) {
                (Some(failure), _) => write!(f, "DISQUALIFIED: {failure}")?,
                (None, error) => {
                    let share = 100.0 * verification.error_over_allowed.unwrap_or(0.0);
                    write!(f, "verified, largest error {:.1e}, {share:.0}% of what is allowed", error.unwrap_or(0.0))?;
                }
            }
            if verification.noise_passed == Some(true) {
                write!(f, ", noise right")?;
            }
        }
        if let Some((from, error)) = &self.unchecked {
            write!(f, "; from batch size {from} on not verified: {}", error.reason)?;
        }
        Ok(())
    }
}

/// One gate session with a worker.
pub struct Gate<'a> {
    worker: &'a mut Worker,
    reference: &'a Reference,
    model: &'a ModelSpec,
    settings: Settings,
    expectations: Expectations,
    /// Where the worker writes its parameters.
    params_file: PathBuf,
    initial: Params,
    timeout: Duration,
    /// What the worker counted so far.
    non_finite_examples: u64,
}

impl<'a> Gate<'a> {
    /// A session with `worker`, which has not loaded anything yet; `folder` takes its files.
    pub fn new(
        worker: &'a mut Worker,
        model: &'a ModelSpec,
        reference: &'a Reference,
        settings: Settings,
        expectations: Expectations,
        folder: &Path,
        timeout: Duration,
    ) -> Result<Self, WorkerError> {
        let initial = Params::load(&reference.params, model).map_err(failed)?;
        let params_file = folder.join("answer.safetensors");
        Ok(Gate {
            worker,
            reference,
            model,
            settings,
            expectations,
            params_file,
            initial,
            timeout,
            non_finite_examples: 0,
        })
    }

    /// Checks all cases of `modes`, and the noise if private mode is among them.
    pub fn run(&mut self, modes: &[Mode]) -> Result<Verdict, WorkerError> {
        // Noise seeded as in the processes that are timed: so the contender's description says it.
        let description = self.load(&self.reference.noise, None)?;
        let mut verdict = Verdict { description, modes: Vec::new(), unchecked: None };
        for mode in modes {
            let mut findings = self.updates(*mode)?;
            let mut noise_passed = None;
            if *mode == Mode::Private && findings.failure.is_none() {
                findings.failure = noise::check(self)?;
                noise_passed = Some(findings.failure.is_none());
            }
            verdict.modes.push((*mode, findings.verification(noise_passed)));
        }
        let plain = DpSgd { mode: Mode::NonPrivate, ..self.reference.noise };
        self.load(if modes.contains(&Mode::Private) { &self.reference.noise } else { &plain }, Some(1))?;
        self.sizes_measured(&mut verdict)?;
        Ok(verdict)
    }

    fn updates(&mut self, mode: Mode) -> Result<Findings, WorkerError> {
        let reference = self.reference;
        let mut findings = Findings::default();
        for case in &reference.cases {
            if case.dp.mode == mode && self.applies(case) {
                findings.take(&case.name, self.check(case)?);
            }
        }
        for case in reference.epochs.iter().filter(|case| case.dp.mode == mode) {
            findings.take(&format!("{} steps in a row", case.steps), self.check_epoch(case)?);
        }
        Ok(findings)
    }

    /// Batches of the sizes measured, in the modes that are right so far, and what they add to `verdict`.
    fn sizes_measured(&mut self, verdict: &mut Verdict) -> Result<(), WorkerError> {
        let reference = self.reference;
        let known = reference.measured.iter().map(Wide::Known);
        for case in known.chain(reference.parts.iter().map(Wide::ByParts)) {
            let (name, mode, size) = case.labels();
            let Some((_, verification)) = verdict.modes.iter_mut().find(|(one, _)| *one == mode) else { continue };
            if !verification.passed {
                continue;
            }
            let found = match case {
                Wide::Known(case) => self.check(case),
                Wide::ByParts(case) => self.check_parts(case),
            };
            match found {
                Ok(found) => {
                    let mut findings = Findings::of(verification);
                    findings.take(name, found);
                    *verification = findings.verification(verification.noise_passed);
                }
                Err(error) if error.interrupted => return Err(error),
                Err(error) => {
                    verdict.unchecked = Some((size, error));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn applies(&self, case: &Case) -> bool {
        match case.needs {
            Needs::Nothing => true,
            Needs::EmptyBatch => self.expectations.empty_batch,
            Needs::NonFinite => self.expectations.non_finite,
        }
    }

    /// The update of one case against the oracle's.
    fn check(&mut self, case: &Case) -> Result<Comparison, WorkerError> {
        self.reset(&case.dp)?;
        let counted = self.step(&case.indices, &case.mask)?;
        let changes = self.changes()?;
        let Some(expected) = case.expected_update().map_err(failed)? else {
            let changed = changes.iter().filter(|change| **change != 0.0).count();
            let wrong = (changed > 0).then(|| format!("{changed} parameters changed, expected none"));
            return Ok(Comparison { relative_error: 0.0, share: 0.0, wrong });
        };
        let mut found = self.compare(&changes, &expected, &case.bounds);
        if found.wrong.is_none() && counted != case.non_finite && case.needs == Needs::NonFinite {
            found.wrong = Some(format!("{counted} examples reported as not finite, expected {}", case.non_finite));
        }
        Ok(found)
    }

    /// Several steps in a row, with the hyperparameters of the load, against the oracle's.
    fn check_epoch(&mut self, case: &EpochCase) -> Result<Comparison, WorkerError> {
        self.load(&case.dp, Some(1))?;
        self.epoch(case)?;
        let changes = self.changes()?;
        Ok(self.compare(&changes, &case.expected_update().map_err(failed)?, &case.bounds))
    }

    /// The worker's step on a large batch against the sum of its own steps on parts of it.
    fn check_parts(&mut self, case: &PartsCase) -> Result<Comparison, WorkerError> {
        let mut sum = vec![0.0; self.initial.len()];
        let mut bounds = Bounds {
            added: 0.0,
            added_of_tensors: vec![0.0; self.initial.tensors.len()],
            // On both sides.
            epsilon: 0.0,
            epsilon_of_tensors: vec![0.0; self.initial.tensors.len()],
            roundings: case.roundings,
            steps: 1.0,
        };
        for part in case.indices.chunks(case.part) {
            let mut dp = case.dp;
            if dp.mode == Mode::NonPrivate {
                // A mean over the part, as a share of the mean over the whole.
                dp.learning_rate *= part.len() as f64 / case.indices.len() as f64;
            }
            let update = self.update(&dp, part)?;
            sum.iter_mut().zip(&update).for_each(|(sum, update)| *sum += update);
            // Twice: rounding is on both sides. By the triangle inequality examples add up to no less.
            bounds.added += 2.0 * length(&update);
            let mut rest = &update[..];
            for (added, tensor) in bounds.added_of_tensors.iter_mut().zip(&self.initial.tensors) {
                let (here, later) = rest.split_at(tensor.values.len());
                *added += 2.0 * length(here);
                rest = later;
            }
            bounds.steps += 1.0;
        }
        let changes = self.update(&case.dp, &case.indices)?;
        Ok(self.compare(&changes, &sum, &bounds))
    }

    /// What one step on a batch in which all count does to the initial parameters.
    fn update(&mut self, dp: &DpSgd, indices: &[u32]) -> Result<Vec<f64>, WorkerError> {
        self.reset(dp)?;
        self.step(indices, &vec![true; indices.len()])?;
        self.changes()
    }

    /// The initial parameters less the worker's.
    fn changes(&mut self) -> Result<Vec<f64>, WorkerError> {
        let after = self.params()?;
        let pairs = self.initial.values().zip(after.values());
        Ok(pairs.map(|(old, new)| f64::from(old) - f64::from(new)).collect())
    }

    fn compare(&self, changes: &[f64], expected: &[f64], bounds: &Bounds) -> Comparison {
        bounds::compare(changes, expected, &self.initial, bounds, self.expectations.tolerance)
    }

    fn load(&mut self, dp: &DpSgd, noise_seed: Option<u64>) -> Result<Description, WorkerError> {
        let job = session::Job {
            model: self.model,
            params: &self.reference.params,
            dataset: &self.reference.dataset,
            data_sha256: &self.reference.data_sha256,
            dp: *dp,
            settings: &Settings { noise_seed, ..self.settings.clone() },
        };
        self.non_finite_examples = 0;
        Ok(session::load(self.worker, &job, self.timeout)?.description)
    }

    /// Back to the initial parameters.
    fn reset(&mut self, dp: &DpSgd) -> Result<(), WorkerError> {
        let request = Request::Set { params: Some(self.reference.params.clone()), dp: Some(*dp) };
        match self.worker.request(&request, self.timeout)? {
            Reply::Set {} => Ok(()),
            other => Err(unexpected(&request, &other)),
        }
    }

    /// One step; how many examples it left out as not finite.
    fn step(&mut self, indices: &[u32], mask: &[bool]) -> Result<u64, WorkerError> {
        let request = Request::Step { indices: indices.to_vec(), mask: mask.to_vec() };
        match self.worker.request(&request, self.timeout)? {
            Reply::Stepped { non_finite_examples, .. } => {
                let counted = non_finite_examples.saturating_sub(self.non_finite_examples);
                self.non_finite_examples = non_finite_examples;
                Ok(counted)
            }
            other => Err(unexpected(&request, &other)),
        }
    }

    /// All batches of a case's schedule.
    fn epoch(&mut self, case: &EpochCase) -> Result<(), WorkerError> {
        session::epochs(self.worker, &case.schedule, (case.steps, case.examples), 1, self.timeout).map(drop)
    }

    fn params(&mut self) -> Result<Params, WorkerError> {
        session::params(self.worker, self.model, &self.params_file, self.timeout)
    }
}

/// A batch of a size that is measured.
#[derive(Clone, Copy)]
enum Wide<'a> {
    Known(&'a Case),
    ByParts(&'a PartsCase),
}

impl<'a> Wide<'a> {
    /// Name, mode and number of examples.
    fn labels(self) -> (&'a str, Mode, usize) {
        match self {
            Wide::Known(case) => (&case.name, case.dp.mode, case.indices.len()),
            Wide::ByParts(case) => (&case.name, case.dp.mode, case.indices.len()),
        }
    }
}

/// What the cases of one mode showed so far.
#[derive(Default)]
struct Findings {
    errors: Vec<f64>,
    shares: Vec<f64>,
    failure: Option<String>,
}

impl Findings {
    fn of(verification: &Verification) -> Self {
        Findings {
            errors: verification.max_relative_error.into_iter().collect(),
            shares: verification.error_over_allowed.into_iter().collect(),
            failure: verification.failure.clone(),
        }
    }

    fn take(&mut self, name: &str, found: Comparison) {
        self.errors.push(found.relative_error);
        self.shares.push(found.share);
        if let (None, Some(wrong)) = (&self.failure, found.wrong) {
            self.failure = Some(format!("{name}: {wrong}"));
        }
    }

    fn verification(self, noise_passed: Option<bool>) -> Verification {
        // An error that is not a number, whatever its sign, is the largest of all; it has no place in a results file.
        let largest = |values: Vec<f64>| {
            values.into_iter().map(f64::abs).max_by(f64::total_cmp).filter(|value| value.is_finite())
        };
        Verification {
            passed: self.failure.is_none(),
            max_relative_error: largest(self.errors),
            error_over_allowed: largest(self.shares),
            noise_passed,
            failure: self.failure,
        }
    }
}

/// The L2 norm.
fn length(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}
