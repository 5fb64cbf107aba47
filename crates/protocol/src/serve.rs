//! The worker's side of the protocol, for any [`Strategy`].

use std::fs::File;
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use dpsgd_core::{BatchRef, Dataset, DpSgd, Load, ModelSpec, Params, Settings, Strategy, StrategyError};

use crate::REPLY_FD;
use crate::checksum;
use crate::messages::{ErrorKind, PROTOCOL_VERSION, Reply, Request};
use crate::schedule::Schedule;

/// The whole `main` of a Rust worker: serves `S` on stdin and the reply descriptor.
pub fn worker_main<S: Strategy>() -> ExitCode {
    let Ok(descriptor) = std::env::var(REPLY_FD) else {
        eprintln!("{}: this is a worker of dpsgd-bench, started by its runner; {REPLY_FD} is not set", S::NAME);
        return ExitCode::from(2);
    };
    let replies = match File::options().write(true).open(format!("/dev/fd/{descriptor}")) {
        Ok(replies) => replies,
        Err(error) => {
            eprintln!("{}: {REPLY_FD}={descriptor}: {error}", S::NAME);
            return ExitCode::from(2);
        }
    };
    serve::<S>(lines_until_closed(), replies);
    ExitCode::SUCCESS
}

/// Lines of stdin, read by a thread of its own. When stdin closes while a request is being carried out, the process
/// ends: its runner is gone.
fn lines_until_closed() -> impl Iterator<Item = String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            match line {
                Ok(line) => sender.send(line).expect("the receiver lives as long as the process"),
                Err(_) => break,
            }
        }
        std::process::exit(0);
    });
    receiver.into_iter()
}

/// Answers every line of `requests` on `replies` until `bye` or the end.
pub fn serve<S: Strategy>(requests: impl IntoIterator<Item = String>, mut replies: impl Write) {
    let mut worker: Worker<S> = Worker { loaded: None, greeted: false };
    for line in requests {
        let reply = match serde_json::from_str(&line) {
            Ok(request) => worker.answer(request).unwrap_or_else(Reply::from),
            Err(error) => protocol_error(format!("{error} in request {line}")).into(),
        };
        let mut text = serde_json::to_string(&reply).expect("replies are plain data");
        text.push('\n');
        // A runner that no longer listens has gone: there is nobody to tell.
        if replies.write_all(text.as_bytes()).and_then(|()| replies.flush()).is_err() || reply == (Reply::Bye {}) {
            return;
        }
    }
}

struct Worker<S> {
    loaded: Option<Loaded<S>>,
    greeted: bool,
}

struct Loaded<S> {
    strategy: S,
    model: ModelSpec,
    examples: usize,
    first_step_taken: bool,
}

impl<S: Strategy> Worker<S> {
    /// Carries out one request.
    fn answer(&mut self, request: Request) -> Result<Reply, Failure> {
        if !self.greeted && !matches!(request, Request::Hello { .. }) {
            return Err(protocol_error("the first request must be hello".into()));
        }
        match request {
            Request::Hello { version } if version == PROTOCOL_VERSION => {
                self.greeted = true;
                let variants = S::VARIANTS.iter().map(|variant| variant.to_string()).collect();
                Ok(Reply::Hello { version, name: S::NAME.into(), variants })
            }
            Request::Hello { version } => Err(protocol_error(format!(
                "protocol version {version}: this worker speaks {PROTOCOL_VERSION}; rebuild it"
            ))),
            Request::Load { model, params, dataset, dp, settings } => {
                let begin = Instant::now();
                let (loaded, received) = Loaded::<S>::load(model, &params, &dataset, dp, settings)?;
                let (description, kernels) = (loaded.strategy.describe(), loaded.strategy.kernels());
                self.loaded = Some(loaded);
                let load_s = (begin.elapsed() - received.took).as_secs_f64();
                Ok(Reply::Loaded { load_s, data_sha256: received.sha256, description, kernels })
            }
            Request::Set { params, dp } => {
                let loaded = self.loaded()?;
                if let Some(path) = params {
                    let params = Params::load(&path, &loaded.model).map_err(failed)?;
                    loaded.strategy.set_params(&params).map_err(strategy_error)?;
                }
                if let Some(dp) = dp {
                    dp.validate().map_err(failed)?;
                    loaded.strategy.set_dp(&dp).map_err(strategy_error)?;
                }
                Ok(Reply::Set {})
            }
            Request::Step { indices, mask } => self.loaded()?.step(&BatchRef { indices: &indices, mask: &mask }),
            Request::Epoch { repeat: 0, .. } => Err(protocol_error("repeat = 0 in epoch: must be at least 1".into())),
            Request::Epoch { schedule, repeat } => {
                self.loaded()?.epochs(&Schedule::load(&schedule).map_err(failed)?, repeat as usize)
            }
            Request::Params { path } => {
                let params = self.loaded()?.strategy.params().map_err(strategy_error)?;
                params.save(&path).map_err(failed)?;
                Ok(Reply::Params { path })
            }
            Request::Bye {} => Ok(Reply::Bye {}),
        }
    }

    fn loaded(&mut self) -> Result<&mut Loaded<S>, Failure> {
        self.loaded.as_mut().ok_or_else(|| protocol_error("nothing is loaded yet: send load first".into()))
    }
}

impl<S: Strategy> Loaded<S> {
    fn load(
        model: ModelSpec,
        params: &Path,
        dataset: &Path,
        dp: DpSgd,
        settings: Settings,
    ) -> Result<(Self, Received), Failure> {
        model.validate().map_err(failed)?;
        dp.validate().map_err(failed)?;
        if let Some(variant) = settings.variant.as_deref().filter(|variant| !S::VARIANTS.contains(variant)) {
            let message = format!("variant `{variant}`: {} has {:?}", S::NAME, S::VARIANTS);
            return Err(Failure { kind: ErrorKind::Unsupported, message });
        }
        let params = Params::load(params, &model).map_err(failed)?;
        let dataset = Dataset::load(dataset).map_err(failed)?;
        dataset.check_fits(&model).map_err(failed)?;
        let received = Received::of(&dataset);
        let examples = dataset.len();
        let load = Load { model: model.clone(), params, dataset, dp, settings };
        let mut strategy = S::load(load).map_err(strategy_error)?;
        strategy.synchronize().map_err(strategy_error)?;
        Ok((Loaded { strategy, model, examples, first_step_taken: false }, received))
    }

    fn check(&self, batch: &BatchRef<'_>) -> Result<(), Failure> {
        if batch.indices.is_empty() || batch.indices.len() != batch.mask.len() {
            let (indices, mask) = (batch.indices.len(), batch.mask.len());
            return Err(failed(format!("a batch of {indices} indices with a mask of {mask}: must be equal, above 0")));
        }
        match batch.indices.iter().find(|index| **index as usize >= self.examples) {
            Some(index) => Err(failed(format!("index {index} in a batch: the data set has {}", self.examples))),
            None => Ok(()),
        }
    }

    fn step(&mut self, batch: &BatchRef<'_>) -> Result<Reply, Failure> {
        self.check(batch)?;
        let begin = Instant::now();
        self.strategy.step(batch).map_err(strategy_error)?;
        self.strategy.synchronize().map_err(strategy_error)?;
        let step_s = begin.elapsed().as_secs_f64();
        self.first_step_taken = true;
        let non_finite_examples = self.strategy.non_finite_examples().map_err(strategy_error)?;
        Ok(Reply::Stepped { step_s, non_finite_examples })
    }

    fn epochs(&mut self, schedule: &Schedule, repeat: usize) -> Result<Reply, Failure> {
        for batch in schedule.batches() {
            self.check(&batch)?;
        }
        let mut epochs_s = Vec::with_capacity(repeat);
        // What the steps of the last repetition were given: all run the batches of one list.
        let mut given: Vec<BatchRef<'_>> = Vec::with_capacity(schedule.steps());
        let (mut steps, mut first_step_s) = (0, None);
        self.strategy.synchronize().map_err(strategy_error)?;
        let mut begin = Instant::now();
        for _ in 0..repeat {
            given.clear();
            for batch in schedule.batches() {
                given.push(batch);
                self.strategy.step(&batch).map_err(strategy_error)?;
                if !self.first_step_taken {
                    self.strategy.synchronize().map_err(strategy_error)?;
                    first_step_s = Some(begin.elapsed().as_secs_f64());
                    self.first_step_taken = true;
                }
            }
            self.strategy.synchronize().map_err(strategy_error)?;
            // One ends where the next begins: nothing between epochs is in no epoch.
            let end = Instant::now();
            epochs_s.push((end - begin).as_secs_f64());
            begin = end;
            steps += given.len() as u64;
        }
        let examples = repeat as u64 * given.iter().map(|batch| batch.examples() as u64).sum::<u64>();
        let batches_sha256 = checksum::of_batches(given);
        let non_finite_examples = self.strategy.non_finite_examples().map_err(strategy_error)?;
        Ok(Reply::Epoch { epochs_s, first_step_s, steps, examples, batches_sha256, non_finite_examples })
    }
}

/// The data set of a load, by its checksum, and how long that took to work out.
struct Received {
    sha256: String,
    took: Duration,
}

impl Received {
    fn of(dataset: &Dataset) -> Self {
        let begin = Instant::now();
        let sha256 = checksum::of_dataset(dataset);
        Received { sha256, took: begin.elapsed() }
    }
}

/// What becomes a [`Reply::Error`].
struct Failure {
    kind: ErrorKind,
    message: String,
}

impl From<Failure> for Reply {
    fn from(Failure { kind, message }: Failure) -> Reply {
        Reply::Error { kind, message }
    }
}

fn protocol_error(message: String) -> Failure {
    Failure { kind: ErrorKind::Protocol, message }
}

fn failed(error: impl ToString) -> Failure {
    Failure { kind: ErrorKind::Failed, message: error.to_string() }
}

fn strategy_error(error: StrategyError) -> Failure {
    let kind = match error {
        StrategyError::Unsupported(_) => ErrorKind::Unsupported,
        StrategyError::OutOfMemory(_) => ErrorKind::OutOfMemory,
        StrategyError::Failed(_) => ErrorKind::Failed,
    };
    Failure { kind, message: error.to_string() }
}
