//! The verification gate: before a row may show a time, its step is checked against the float64 oracle.
//!
//! The gate drives the same worker, through the same requests, that will be timed. From the initial parameters it takes
//! one step per [`Case`] and compares `theta_0 - theta_1` with the oracle's update, all parameters together, by relative
//! L2 error; [`noise`] then tests the noise.

mod noise;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dpsgd_core::{Description, DpSgd, Mode, ModelSpec, Params, Settings};
use dpsgd_protocol::messages::{Reply, Request};
use dpsgd_protocol::results::Verification;

use crate::prepare::{Case, EpochCase, Needs, Reference};
use crate::session::{self, failed, unexpected};
use crate::worker::{Worker, WorkerError};

/// What the registry says of a contender that matters to the gate.
#[derive(Clone, Copy, Debug)]
pub struct Expectations {
    /// Largest relative L2 error of an update.
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
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (mode, verification)) in self.modes.iter().enumerate() {
            let separator = if position > 0 { "; " } else { "" };
            write!(f, "{separator}{} ", mode.name())?;
            match (&verification.failure, verification.max_relative_error) {
                (Some(failure), _) => write!(f, "DISQUALIFIED: {failure}")?,
                (None, error) => write!(f, "verified, largest error {:.1e}", error.unwrap_or(0.0))?,
            }
            if verification.noise_passed == Some(true) {
                write!(f, ", noise right")?;
            }
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
        let mut verdict = Verdict { description, modes: Vec::new() };
        for mode in modes {
            let mut verification = self.updates(*mode)?;
            if *mode == Mode::Private && verification.passed {
                let failure = noise::check(self)?;
                verification.noise_passed = Some(failure.is_none());
                verification.passed = failure.is_none();
                verification.failure = failure;
            }
            verdict.modes.push((*mode, verification));
        }
        Ok(verdict)
    }

    fn updates(&mut self, mode: Mode) -> Result<Verification, WorkerError> {
        let reference = self.reference;
        let (mut errors, mut failure) = (Vec::new(), None);
        for case in &reference.cases {
            if case.dp.mode != mode || !self.applies(case) {
                continue;
            }
            let (error, wrong) = self.check(case)?;
            errors.push(error);
            failure = failure.or(wrong.map(|wrong| format!("{}: {wrong}", case.name)));
        }
        for case in reference.epochs.iter().filter(|case| case.dp.mode == mode) {
            let (error, wrong) = self.check_epoch(case)?;
            errors.push(error);
            failure = failure.or(wrong.map(|wrong| format!("{} steps in a row: {wrong}", case.steps)));
        }
        // An error that is not a number, whatever its sign, is the largest of all; it has no place in a results file.
        let largest = errors.into_iter().map(f64::abs).max_by(f64::total_cmp);
        let max_relative_error = largest.filter(|error| error.is_finite());
        Ok(Verification { passed: failure.is_none(), max_relative_error, noise_passed: None, failure })
    }

    fn applies(&self, case: &Case) -> bool {
        match case.needs {
            Needs::Nothing => true,
            Needs::EmptyBatch => self.expectations.empty_batch,
            Needs::NonFinite => self.expectations.non_finite,
        }
    }

    /// The relative error of one case, and what is wrong if anything is.
    fn check(&mut self, case: &Case) -> Result<(f64, Option<String>), WorkerError> {
        self.reset(&case.dp)?;
        let counted = self.step(&case.indices, &case.mask)?;
        let after = self.params()?;
        let changes = self.initial.values().zip(after.values()).map(|(old, new)| f64::from(old) - f64::from(new));
        let error = match case.expected_update().map_err(failed)? {
            None => {
                let changed = changes.filter(|change| *change != 0.0).count();
                let wrong = format!("{changed} parameters changed, expected none");
                return Ok((0.0, (changed > 0).then_some(wrong)));
            }
            Some(expected) => relative_error(changes, &expected),
        };
        let wrong = if let Some(wrong) = self.too_large(error) {
            Some(wrong)
        } else if counted != case.non_finite && case.needs == Needs::NonFinite {
            Some(format!("{counted} examples reported as not finite, expected {}", case.non_finite))
        } else {
            None
        };
        Ok((error, wrong))
    }

    /// The relative error of several steps in a row, with the hyperparameters of the load, and what is wrong if anything
    /// is.
    fn check_epoch(&mut self, case: &EpochCase) -> Result<(f64, Option<String>), WorkerError> {
        self.load(&case.dp, Some(1))?;
        self.epoch(case)?;
        let after = self.params()?;
        let changes = self.initial.values().zip(after.values()).map(|(old, new)| f64::from(old) - f64::from(new));
        let error = relative_error(changes, &case.expected_update().map_err(failed)?);
        Ok((error, self.too_large(error)))
    }

    fn too_large(&self, error: f64) -> Option<String> {
        let tolerance = self.expectations.tolerance;
        let wrong = error.is_nan() || error > tolerance;
        wrong.then(|| format!("relative error {error:.2e}, allowed {tolerance:.0e}"))
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

/// The L2 norm of `changes - expected` over that of `expected`.
fn relative_error(changes: impl Iterator<Item = f64>, expected: &[f64]) -> f64 {
    let (mut difference, mut length) = (0.0, 0.0);
    for (change, expected) in changes.zip(expected) {
        difference += (change - expected).powi(2);
        length += expected.powi(2);
    }
    (difference / length).sqrt()
}
