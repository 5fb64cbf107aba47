//! Steps that are recorded once and then started again give the same bits as launches one by one, cut for the very batch:
//! whatever the mode, the batch and the hyperparameters, with all steps waiting at once.

use dpsgd_conformance::{odd_models, synthetic};
use dpsgd_core::{BatchRef, DpSgd, Mode, ModelSpec, Strategy};

use crate::emulator::{Emulated, Settings, is_available, with};
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

/// What the steps leave behind: the parameters' bits, and how many examples were left out. And how many recordings were
/// started.
fn run(model: &ModelSpec, variant: &str, settings: Settings, steps: &[Taken]) -> ((Vec<u32>, u64), usize) {
    let mut job = synthetic::job(model, EXAMPLES, Mode::Private, Some(variant));
    job.dp.expected_batch_size = 8.0;
    with(settings, || {
        let mut strategy = Emulated::load(job).expect("loads");
        for Taken { indices, mask, dp } in steps {
            strategy.set_dp(dp).expect("accepted");
            strategy.step(&BatchRef { indices, mask }).expect("a step");
        }
        let params = strategy.params().expect("parameters");
        assert!(params.values().all(f32::is_finite), "{}", model.name);
        let left_out = strategy.non_finite_examples().expect("a number");
        ((params.values().map(f32::to_bits).collect(), left_out), strategy.emulator().replays())
    })
}

fn check(model: &ModelSpec, variant: &str, settings: Settings, steps: &[Taken]) {
    println!("{}: {variant}, {settings:?}", model.name);
    let (expected, none) = run(model, variant, Settings { records: false, ..settings }, steps);
    let (recorded, replays) = run(model, variant, settings, steps);
    assert!(recorded == expected, "{}, {variant}: recorded steps differ", model.name);
    assert!(replays > steps.len() / 4, "{}: {replays} of {} steps were replayed", model.name, steps.len());
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
        assert_eq!(run(Settings { can_record: false, ..settings }), (expected, 0));
    }
}
