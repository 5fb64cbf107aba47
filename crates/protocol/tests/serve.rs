//! The worker's side of the protocol, driven by lines of text with a strategy that only counts.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use dpsgd_core::{
    BatchRef, Dataset, Description, Device, DpSgd, Inputs, Load, Mode, ModelSpec, Params, Settings, Strategy,
    StrategyError, Targets,
};
use dpsgd_protocol::checksum;
use dpsgd_protocol::messages::{ErrorKind, PROTOCOL_VERSION, Reply, Request};
use dpsgd_protocol::schedule::Schedule;
use dpsgd_protocol::serve;

/// Sets every parameter to the number of examples seen; works asynchronously: a step returns at once and
/// `synchronize` waits for the work.
struct Counting {
    params: Params,
    seen: usize,
    pending: Duration,
}

const WORK: Duration = Duration::from_millis(20);

impl Strategy for Counting {
    const NAME: &'static str = "counting";
    const VARIANTS: &'static [&'static str] = &["plain", "other"];

    fn load(job: Load) -> Result<Self, StrategyError> {
        match job.settings.device {
            Device::Cpu => Ok(Counting { params: job.params, seen: 0, pending: Duration::ZERO }),
            device => Err(StrategyError::Unsupported(format!("no device {device}"))),
        }
    }

    fn describe(&self) -> Description {
        Description {
            name: Self::NAME.into(),
            variant: None,
            versions: BTreeMap::new(),
            device: "cpu".into(),
            threads: 1,
            rng: "none".into(),
        }
    }

    fn step(&mut self, batch: &BatchRef<'_>) -> Result<(), StrategyError> {
        self.pending += WORK;
        self.seen += batch.examples();
        if self.seen > 1000 { Err(StrategyError::OutOfMemory("too many".into())) } else { Ok(()) }
    }

    fn synchronize(&mut self) -> Result<(), StrategyError> {
        sleep(std::mem::take(&mut self.pending));
        Ok(())
    }

    fn params(&mut self) -> Result<Params, StrategyError> {
        let mut params = self.params.clone();
        params.tensors.iter_mut().for_each(|tensor| tensor.values.fill(self.seen as f32));
        Ok(params)
    }

    fn set_params(&mut self, _: &Params) -> Result<(), StrategyError> {
        self.seen = 0;
        Ok(())
    }

    fn set_dp(&mut self, _: &DpSgd) -> Result<(), StrategyError> {
        Ok(())
    }

    fn non_finite_examples(&mut self) -> Result<u64, StrategyError> {
        Ok(0)
    }
}

fn dp() -> DpSgd {
    DpSgd { mode: Mode::Private, clip_norm: 1.0, noise_multiplier: 1.0, learning_rate: 1.0, expected_batch_size: 2.0 }
}

fn load(folder: &Path, variant: Option<&str>, device: Device) -> Request {
    let model = ModelSpec::built_in("logreg").unwrap();
    let (params, dataset) = (folder.join("params.safetensors"), folder.join("dataset.safetensors"));
    Params::init(&model, 1).save(&params).unwrap();
    let inputs = Inputs::F32(vec![0.5; 3 * 104]);
    let targets = Targets::Value(vec![0.0, 1.0, 0.0]);
    Dataset { example_shape: vec![104], inputs, targets }.save(&dataset).unwrap();
    let settings = Settings { variant: variant.map(String::from), device, threads: 1, noise_seed: None };
    Request::Load { model, params, dataset, dp: dp(), settings }
}

fn talk(requests: &[Request]) -> Vec<Reply> {
    talk_lines(requests.iter().map(|request| serde_json::to_string(request).unwrap()).collect())
}

fn talk_lines(lines: Vec<String>) -> Vec<Reply> {
    let mut replies = Vec::new();
    serve::<Counting>(lines, &mut replies);
    let replies = String::from_utf8(replies).unwrap();
    replies.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn hello() -> Request {
    Request::Hello { version: PROTOCOL_VERSION }
}

fn error_kind(reply: &Reply) -> Option<ErrorKind> {
    match reply {
        Reply::Error { kind, .. } => Some(*kind),
        _ => None,
    }
}

#[test]
fn a_whole_conversation_is_answered_line_by_line_and_ends_at_bye() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let replies = talk(&[
        hello(),
        load(folder.path(), Some("other"), Device::Cpu),
        Request::Step { indices: vec![0, 2], mask: vec![true, true] },
        Request::Params { path: out.clone() },
        Request::Bye {},
        hello(),
    ]);
    assert_eq!(replies.len(), 5, "nothing is answered after bye: {replies:?}");
    assert!(matches!(&replies[0], Reply::Hello { name, variants, .. } if name == "counting" && variants.len() == 2));
    let params = Params::load(&out, &ModelSpec::built_in("logreg").unwrap()).unwrap();
    assert!(params.values().all(|value| value == 2.0));
}

#[test]
fn the_clock_stops_only_when_the_updated_parameters_are_ready() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("schedule.safetensors");
    Schedule { width: 2, indices: vec![0, 1, 2, 0, 1, 2], mask: vec![true; 6] }.save(&file).unwrap();
    let epoch = Request::Epoch { schedule: file.clone(), repeat: 1 };
    let twice = Request::Epoch { schedule: file, repeat: 2 };
    let step = Request::Step { indices: vec![0], mask: vec![true] };
    let replies = talk(&[hello(), load(folder.path(), None, Device::Cpu), epoch, twice, step]);
    let work = WORK.as_secs_f64();
    let Reply::Epoch { epochs_s, first_step_s: Some(first_step_s), steps: 3, examples: 6, .. } = &replies[2] else {
        panic!("{:?}", replies[2]);
    };
    assert!(epochs_s[0] >= 3.0 * work && *first_step_s >= work && *first_step_s < epochs_s[0]);
    let Reply::Epoch { epochs_s, first_step_s, steps: 6, examples: 12, .. } = &replies[3] else {
        panic!("{:?}", replies[3])
    };
    assert_eq!(*first_step_s, None, "only a process's first epoch has a first step");
    assert!(epochs_s.len() == 2 && epochs_s.iter().all(|epoch_s| *epoch_s >= 3.0 * work), "each has its own time");
    assert!(matches!(replies[4], Reply::Stepped { step_s, .. } if step_s >= work));
}

#[test]
fn the_data_and_the_batches_that_a_strategy_was_given_are_reported_by_their_checksums() {
    let folder = tempfile::tempdir().unwrap();
    let schedules = [vec![0, 1, 2, 0], vec![0, 1, 0, 2]].map(|indices| {
        let file = folder.path().join(format!("{indices:?}"));
        let schedule = Schedule { width: 2, indices, mask: vec![true, true, true, false] };
        schedule.save(&file).unwrap();
        (file, schedule)
    });
    let load = load(folder.path(), None, Device::Cpu);
    let dataset = Dataset::load(&folder.path().join("dataset.safetensors")).unwrap();
    let epochs = schedules.iter().map(|(file, _)| Request::Epoch { schedule: file.clone(), repeat: 1 });
    let replies = talk(&[hello(), load].into_iter().chain(epochs).collect::<Vec<_>>());
    let Reply::Loaded { data_sha256, .. } = &replies[1] else { panic!("{replies:?}") };
    assert_eq!(*data_sha256, checksum::of_dataset(&dataset));
    for (reply, (_, schedule)) in replies[2..].iter().zip(&schedules) {
        let Reply::Epoch { batches_sha256, .. } = reply else { panic!("{reply:?}") };
        assert_eq!(*batches_sha256, checksum::of_batches(schedule.batches()));
    }
    assert_ne!(replies[2], replies[3]);
}

#[test]
fn what_is_out_of_order_unknown_or_of_another_version_is_a_protocol_error() {
    let step = Request::Step { indices: vec![0], mask: vec![true] };
    assert_eq!(error_kind(&talk(std::slice::from_ref(&step))[0]), Some(ErrorKind::Protocol));
    assert_eq!(error_kind(&talk(&[hello(), step])[1]), Some(ErrorKind::Protocol));
    let lines = [r#"{"request":"hello","version":99}"#, "garbage", r#"{"request":"bye","x":1}"#];
    let none = Request::Epoch { schedule: "any.safetensors".into(), repeat: 0 };
    assert_eq!(error_kind(&talk(&[hello(), none])[1]), Some(ErrorKind::Protocol));
    let replies = talk_lines(lines.map(String::from).to_vec());
    assert!(replies.iter().all(|reply| error_kind(reply) == Some(ErrorKind::Protocol)), "{replies:?}");
}

#[test]
fn a_strategy_s_error_keeps_its_kind_and_the_worker_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let replies = talk(&[
        hello(),
        load(folder.path(), None, Device::Cuda(0)),
        load(folder.path(), Some("missing"), Device::Cpu),
        load(folder.path(), None, Device::Cpu),
        Request::Step { indices: vec![0; 1001], mask: vec![true; 1001] },
        Request::Set { params: Some(folder.path().join("params.safetensors")), dp: None },
        Request::Step { indices: vec![0], mask: vec![true] },
    ]);
    assert_eq!(error_kind(&replies[1]), Some(ErrorKind::Unsupported));
    assert_eq!(error_kind(&replies[2]), Some(ErrorKind::Unsupported));
    assert_eq!(error_kind(&replies[4]), Some(ErrorKind::OutOfMemory));
    assert!(matches!(replies[6], Reply::Stepped { .. }), "{replies:?}");
}

#[test]
fn a_bad_batch_bad_hyperparameters_and_a_missing_file_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let replies = talk(&[
        hello(),
        load(folder.path(), None, Device::Cpu),
        Request::Step { indices: vec![3], mask: vec![true] },
        Request::Step { indices: vec![0, 1], mask: vec![true] },
        Request::Step { indices: vec![], mask: vec![] },
        Request::Set { params: None, dp: Some(DpSgd { clip_norm: -1.0, ..dp() }) },
        Request::Set { params: Some("missing.safetensors".into()), dp: None },
        Request::Epoch { schedule: "missing.safetensors".into(), repeat: 1 },
    ]);
    for reply in &replies[2..] {
        assert_eq!(error_kind(reply), Some(ErrorKind::Failed), "{reply:?}");
    }
}

#[test]
fn a_schedule_survives_a_round_trip_and_a_misshapen_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("schedule.safetensors");
    let schedule = Schedule { width: 2, indices: vec![5, 0, 70_000, 1], mask: vec![true, false, true, true] };
    schedule.save(&file).unwrap();
    assert_eq!(Schedule::load(&file).unwrap(), schedule);
    std::fs::write(&file, b"nonsense").unwrap();
    assert!(Schedule::load(&file).unwrap_err().to_string().contains("schedule.safetensors"));
}
