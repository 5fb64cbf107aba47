//! Steps of generated models on the emulator against the float64 oracle, and that they don't depend on the order of blocks
//! and threads.

use dpsgd_conformance::{plain_steps_match_the_oracle, private_steps_match_the_oracle, synthetic};
use dpsgd_core::{BatchRef, Mode, ModelSpec, Params, Strategy};

use crate::emulator::{Emulated, Settings, is_available, with};
use crate::generated::models::{image_model, token_model, vector_model};

/// Every variant, private and plain, with few examples at once and with little of everything.
fn check(models: impl Iterator<Item = ModelSpec>) {
    if !is_available() {
        return;
    }
    for (i, model) in models.enumerate() {
        println!("{}", model.name);
        let chunk = Some(2 + i % 4);
        // As a small device, or as a large one.
        let settings = match i % 2 {
            0 => Settings { chunk, cache_bytes: 40_000, multiprocessors: 2, order: i as u64, ..Settings::new() },
            _ => Settings { chunk, order: i as u64, ..Settings::new() },
        };
        for (resident, variant) in [(true, "best"), (false, "best"), (false, "kept"), (false, "ghost")] {
            with(Settings { resident, ..settings }, || {
                private_steps_match_the_oracle::<Emulated>(&model, Some(variant), 5);
                plain_steps_match_the_oracle::<Emulated>(&model, Some(variant), 5);
            });
        }
    }
}

#[test]
fn steps_of_generated_image_models_match_the_oracle() {
    check((0..8).map(|seed| image_model(seed, false)));
}

#[test]
fn steps_of_generated_models_with_gaps_match_the_oracle() {
    check((0..8).map(|seed| image_model(seed, true)));
}

#[test]
fn steps_of_generated_vector_models_match_the_oracle() {
    check((0..4).map(vector_model));
}

#[test]
fn steps_of_generated_token_models_match_the_oracle() {
    check((0..6).map(token_model));
}

fn bits(params: &Params) -> Vec<u32> {
    params.values().map(f32::to_bits).collect()
}

/// Parameters after three private steps with noise.
fn run(model: &ModelSpec, order: u64, resident: bool) -> Vec<u32> {
    let mut job = synthetic::job(model, 12, Mode::Private, None);
    job.dp.noise_multiplier = 0.7;
    job.dp.learning_rate = 1e-3;
    let settings = Settings { order, resident, chunk: Some(8), cache_bytes: 300_000, ..Settings::new() };
    with(Settings { multiprocessors: if resident { 3 } else { 132 }, ..settings }, || {
        let mut strategy = Emulated::load(job).expect("loads");
        for step in 0..3 {
            let indices: Vec<u32> = (0..11).map(|slot| (slot * 7 + step) % 12).collect();
            strategy.step(&BatchRef { indices: &indices, mask: &[true; 11] }).expect("a step");
        }
        bits(&strategy.params().expect("parameters"))
    })
}

#[test]
fn steps_do_not_depend_on_the_order_of_blocks_and_threads() {
    if !is_available() {
        return;
    }
    let built_in = ["ffnn", "mnist-cnn", "embedding"].map(|name| ModelSpec::built_in(name).expect("built in"));
    for model in built_in.into_iter().chain([image_model(5, true), token_model(3)]) {
        for resident in [true, false] {
            let first = run(&model, 0, resident);
            for order in [1, 2, 3] {
                assert!(run(&model, order, resident) == first, "{}: order {order}, {resident}", model.name);
            }
        }
    }
}
