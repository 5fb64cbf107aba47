//! The checks that every strategy passes, on the emulator.

use dpsgd_conformance as conformance;
use dpsgd_core::{ModelInput, ModelSpec, Strategy};

use crate::emulator::{Emulated, Settings, is_available, with};

fn model(name: &str) -> ModelSpec {
    ModelSpec::built_in(name).expect("built in")
}

#[test]
fn steps_of_the_built_in_models_match_the_oracle() {
    if !is_available() {
        return;
    }
    for (model, examples) in conformance::built_in_models() {
        println!("{}", model.name);
        conformance::private_steps_match_the_oracle::<Emulated>(&model, None, examples);
        conformance::plain_steps_match_the_oracle::<Emulated>(&model, None, examples);
    }
}

#[test]
fn steps_of_odd_models_match_the_oracle_in_every_variant() {
    if !is_available() {
        return;
    }
    for model in conformance::odd_models() {
        for variant in Emulated::VARIANTS {
            println!("{}: {variant}", model.name);
            conformance::private_steps_match_the_oracle::<Emulated>(&model, Some(variant), 9);
            conformance::plain_steps_match_the_oracle::<Emulated>(&model, Some(variant), 9);
        }
    }
}

#[test]
fn non_finite_examples_contribute_nothing_and_are_counted() {
    if !is_available() {
        return;
    }
    for name in ["logreg", "ffnn-regression", "mnist-cnn"] {
        conformance::a_non_finite_example_contributes_nothing::<Emulated>(&model(name), None);
    }
    conformance::a_non_finite_example_contributes_nothing::<Emulated>(&model("mnist-cnn"), Some("ghost"));
}

#[test]
fn ties_go_to_the_first_position() {
    if is_available() {
        conformance::ties_go_to_the_first_position::<Emulated>(None);
    }
}

#[test]
fn an_empty_batch_adds_noise_and_nothing_else() {
    if !is_available() {
        return;
    }
    for name in ["ffnn", "mnist-cnn", "embedding"] {
        conformance::an_empty_batch_adds_noise_and_nothing_else::<Emulated>(&model(name), None);
    }
}

#[test]
fn noise_is_normal_fresh_and_seeded() {
    if is_available() {
        conformance::noise_is_normal_fresh_and_seeded::<Emulated>(None);
    }
}

#[test]
fn batches_larger_than_a_chunk_and_groups_smaller_than_one_match_the_oracle() {
    if !is_available() {
        return;
    }
    // Four examples at once, of which one example's gradients are kept at once; little shared memory.
    let settings =
        Settings { resident: false, chunk: Some(4), cache_bytes: 1, shared_bytes: 48 << 10, ..Settings::new() };
    with(settings, || {
        for model in conformance::odd_models().into_iter().chain([model("mnist-cnn")]) {
            conformance::private_steps_match_the_oracle::<Emulated>(&model, None, 9);
            conformance::plain_steps_match_the_oracle::<Emulated>(&model, None, 9);
        }
    });
}

#[test]
fn blocks_that_take_several_whole_examples_match_the_oracle() {
    if !is_available() {
        return;
    }
    let of_images = |model: &ModelSpec| !matches!(model.input, ModelInput::Tokens { .. });
    // On a device with room for the blocks' sums in shared memory, and on one without.
    for shared_bytes in [232_448, 166_912] {
        with(Settings { multiprocessors: 2, shared_bytes, ..Settings::new() }, || {
            for model in conformance::odd_models().into_iter().filter(of_images).chain([model("mnist-cnn")]) {
                conformance::private_steps_match_the_oracle::<Emulated>(&model, None, 9);
                conformance::plain_steps_match_the_oracle::<Emulated>(&model, None, 9);
            }
        });
    }
}
