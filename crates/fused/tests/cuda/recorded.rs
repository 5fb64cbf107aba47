//! Steps that are recorded once and then started again give the same bits as launches one by one, cut for the very batch:
//! whatever the mode, the batch and the hyperparameters, with all steps waiting at once.

use dpsgd_conformance::{odd_models, synthetic};
use dpsgd_core::{BatchRef, DpSgd, Load, Mode, ModelSpec};
use dpsgd_fused::cuda::{Device, DeviceError, Engine};

use crate::emulator::{Emulator, Settings, engine, is_available, with};
use crate::generated::models::{image_model, token_model};

const EXAMPLES: usize = 40;

/// A batch, of which some slots count, and its hyperparameters.
struct Taken {
    indices: Vec<u32>,
    mask: Vec<bool>,
    dp: DpSgd,
}

/// Step `step`, on `slots` slots, of which every `masked`th does not count (none if that is 0).
fn taken(step: usize, slots: usize, masked: usize, mode: Mode) -> Taken {
    let indices = (0..slots).map(|slot| ((slot * 7 + step * 3) % EXAMPLES) as u32).collect();
    let mask = (0..slots).map(|slot| masked == 0 || (slot + 1) % masked != 0).collect();
    let dp = DpSgd {
        mode,
        clip_norm: [0.5, 0.02, 3.0][step % 3],
        noise_multiplier: [0.7, 0.0, 1.3, 0.1][step % 4],
        learning_rate: [1e-3, 2e-3][step % 2],
        expected_batch_size: [8.0, 9.0, 30.0][step % 3],
    };
    Taken { indices, mask, dp }
}

/// Private and plain steps on batches that are whole, partly masked, empty, larger than any before, and small again.
fn mixed() -> Vec<Taken> {
    let mut steps = Vec::new();
    for slots in [9, 9, 12, 30, 1, 9, 31, 9] {
        for (mode, masked) in [(Mode::Private, 0), (Mode::NonPrivate, 3), (Mode::Private, 4), (Mode::Private, 1)] {
            steps.push(taken(steps.len(), slots, masked, mode));
        }
        steps.push(taken(steps.len(), slots, 1, Mode::NonPrivate));
    }
    steps
}

fn job(model: &ModelSpec, variant: &str) -> Load {
    let mut job = synthetic::job(model, EXAMPLES, Mode::Private, Some(variant));
    job.dp.expected_batch_size = 8.0;
    job
}

/// What the steps leave behind: the parameters' bits, and how many examples were left out. And how many recordings were
/// started.
fn run_on<D: Device>(device: D, job: &Load, steps: &[Taken]) -> ((Vec<u32>, u64), u64) {
    let mut engine = engine(device, job).expect("loads");
    for Taken { indices, mask, dp } in steps {
        engine.step(&BatchRef { indices, mask }, dp).expect("a step");
    }
    let mut params = job.params.clone();
    engine.read(&mut params).expect("parameters");
    assert!(params.values().all(f32::is_finite), "{}", job.model.name);
    let left_out = engine.non_finite().expect("a number");
    ((params.values().map(f32::to_bits).collect(), left_out), engine.replays())
}

fn run(model: &ModelSpec, variant: &str, settings: Settings, steps: &[Taken]) -> ((Vec<u32>, u64), u64) {
    with(settings, || run_on(Emulator::new(), &job(model, variant), steps))
}

/// The same comparison on devices of one kind: steps are recorded on those that `recording` makes, not on the others.
pub fn check_on<D: Device>(recording: impl Fn() -> D, plain: impl Fn() -> D) {
    let models = ["ffnn", "mnist-cnn"].map(|name| (ModelSpec::built_in(name).expect("built in"), "best"));
    for (model, variant) in models.into_iter().chain([(image_model(5, true), "ghost"), (token_model(3), "best")]) {
        let (job, steps) = (job(&model, variant), mixed());
        let ((expected, none), (recorded, replays)) =
            (run_on(plain(), &job, &steps), run_on(recording(), &job, &steps));
        assert!(recorded == expected, "{}, {variant}: recorded steps differ", model.name);
        assert!(none == 0 && replays > steps.len() as u64 / 4, "{}: {replays} replays", model.name);
    }
}

fn check(model: &ModelSpec, variant: &str, settings: Settings, steps: &[Taken]) {
    println!("{}: {variant}, {settings:?}", model.name);
    let (expected, none) = run(model, variant, Settings { records: false, ..settings }, steps);
    let (recorded, replays) = run(model, variant, settings, steps);
    assert!(recorded == expected, "{}, {variant}: recorded steps differ", model.name);
    assert!(replays > steps.len() as u64 / 4, "{}: {replays} of {} steps were replayed", model.name, steps.len());
    assert_eq!(none, 0);
}

#[test]
fn recorded_steps_of_whole_examples_are_the_launches_bit_by_bit() {
    if !is_available() {
        return;
    }
    // Two processors, so that a block has several examples, and a hundred, so that most have none.
    for multiprocessors in [2, 100] {
        let settings = Settings { multiprocessors, ..Settings::new() };
        for model in [ModelSpec::built_in("ffnn").expect("built in"), image_model(5, true)] {
            check(&model, "best", settings, &mixed());
        }
    }
}

#[test]
fn recorded_steps_by_chunks_are_the_launches_bit_by_bit() {
    if !is_available() {
        return;
    }
    let lstms = odd_models().into_iter().find(|model| model.name == "two LSTMs").expect("an odd model");
    for (model, variant) in [
        (image_model(5, true), "kept"),
        (image_model(5, true), "ghost"),
        (image_model(5, true), "tf32"),
        (token_model(3), "best"),
        (lstms, "best"),
    ] {
        // Several chunks of few groups.
        let settings = Settings { resident: false, chunk: Some(8), cache_bytes: 40_000, ..Settings::new() };
        check(&model, variant, settings, &mixed());
    }
}

#[test]
fn more_shapes_than_are_remembered_are_recorded_again() {
    if !is_available() {
        return;
    }
    let mut steps = Vec::new();
    for slots in (1..34).chain((1..34).rev()).chain([7, 7, 7]) {
        for mode in [Mode::Private, Mode::NonPrivate, Mode::Private] {
            steps.push(taken(steps.len(), slots, 0, mode));
        }
    }
    let settings = Settings { resident: false, ..Settings::new() };
    check(&image_model(5, true), "best", settings, &steps);
}

#[test]
fn a_device_that_cannot_record_takes_the_same_steps() {
    if !is_available() {
        return;
    }
    for resident in [true, false] {
        let settings = Settings { resident, multiprocessors: 2, ..Settings::new() };
        let run = |settings| run(&image_model(5, true), "best", settings, &mixed());
        let (expected, _) = run(Settings { records: false, ..settings });
        assert_eq!(run(Settings { can_record: 0, ..settings }), (expected.clone(), 0));
        // Those of the load and of the first shape that comes again.
        let (result, replays) = run(Settings { can_record: 2, ..settings });
        assert!(result == expected && replays > 0, "{replays} replays");
    }
}

#[test]
fn why_steps_are_not_recorded_is_reported() {
    if !is_available() {
        return;
    }
    let reported = |can_record, steps: &[Taken]| {
        let settings = Settings { can_record, ..Settings::new() };
        let mut engine =
            with(settings, || engine(Emulator::new(), &job(&image_model(5, true), "best")).expect("loads"));
        for Taken { indices, mask, dp } in steps {
            engine.step(&BatchRef { indices, mask }, dp).expect("a step");
        }
        engine.fallbacks()
    };
    assert_eq!(reported(usize::MAX, &mixed()), Vec::<String>::new());
    for (can_record, steps) in [(0, Vec::new()), (1, mixed())] {
        let found = reported(can_record, &steps);
        assert!(matches!(&*found, [reason] if reason.contains("no more recordings")), "{found:?}");
    }
}

#[test]
fn a_batch_that_there_was_no_memory_for_leaves_all_as_it_was() {
    if !is_available() {
        return;
    }
    for resident in [true, false] {
        let settings = Settings { resident, ..Settings::new() };
        let run = |fails: bool| {
            let mut engine =
                with(settings, || engine(Emulator::new(), &job(&image_model(5, true), "best")).expect("loads"));
            let step = |engine: &mut Engine<Emulator>, slots: usize| {
                let Taken { indices, mask, dp } = taken(1, slots, 0, Mode::Private);
                engine.step(&BatchRef { indices: &indices, mask: &mask }, &dp)
            };
            for _ in 0..3 {
                step(&mut engine, 9).expect("a step");
            }
            if fails {
                for _ in 0..2 {
                    engine.device().fill();
                    let error = step(&mut engine, 2000).expect_err("no memory");
                    assert!(matches!(error, DeviceError::OutOfMemory(_)), "{error}");
                    step(&mut engine, 9).expect("a step");
                }
            } else {
                (0..2).for_each(|_| step(&mut engine, 9).expect("a step"));
            }
            assert_eq!(engine.replays(), 4);
            for slots in [2000, 9, 2000, 9] {
                step(&mut engine, slots).expect("a step");
            }
            let mut params = synthetic::job(&image_model(5, true), EXAMPLES, Mode::Private, None).params;
            engine.read(&mut params).expect("parameters");
            params.values().map(f32::to_bits).collect::<Vec<u32>>()
        };
        assert!(run(true) == run(false), "whole examples: {resident}: results differ");
    }
}

#[test]
fn outputs_of_more_examples_than_there_is_room_for_leave_recordings_as_they_are() {
    if !is_available() {
        return;
    }
    for resident in [true, false] {
        let settings = Settings { resident, ..Settings::new() };
        let mut engine =
            with(settings, || engine(Emulator::new(), &job(&image_model(5, true), "best")).expect("loads"));
        let Taken { indices, mask, dp } = taken(0, 9, 0, Mode::Private);
        let batch = BatchRef { indices: &indices, mask: &mask };
        (0..3).for_each(|_| engine.step(&batch, &dp).expect("a step"));
        let few: Vec<u32> = (0..EXAMPLES as u32).rev().collect();
        let expected = engine.outputs(&few[..7]).expect("outputs");
        // No memory is asked for.
        engine.device().fill();
        let all = engine.outputs(&few.repeat(20)).expect("outputs");
        let per_example = expected.len() / 7;
        assert_eq!(all.len(), 20 * EXAMPLES * per_example);
        for own in all.chunks(EXAMPLES * per_example) {
            assert!(own[..expected.len()] == expected && own == &all[..own.len()], "outputs differ");
        }
        engine.step(&batch, &dp).expect("a step");
        assert_eq!(engine.replays(), 3);
    }
}
