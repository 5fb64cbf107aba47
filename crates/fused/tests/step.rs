//! The steps of `fused`, every method and instruction set that this machine has, against the float64 oracle.

use dpsgd_conformance::{self as conformance, synthetic};
use dpsgd_core::{Mode, ModelSpec, Strategy};
use dpsgd_fused::Fused;

/// Every variant that this machine can run; says which ones it can't.
fn variants() -> Vec<&'static str> {
    let job =
        |variant| synthetic::job(&ModelSpec::built_in("logreg").expect("built in"), 1, Mode::Private, Some(variant));
    let (can, cannot): (Vec<&str>, Vec<&str>) =
        Fused::VARIANTS.iter().partition(|variant| Fused::load(job(variant)).is_ok());
    cannot.iter().for_each(|variant| println!("skipped: {variant}: this processor doesn't have it"));
    can
}

#[test]
fn private_steps_of_every_built_in_model_match_the_oracle() {
    for (model, examples) in conformance::built_in_models() {
        for variant in variants() {
            conformance::private_steps_match_the_oracle::<Fused>(&model, Some(variant), examples);
        }
    }
}

#[test]
fn plain_steps_of_every_built_in_model_match_the_oracle() {
    for (model, examples) in conformance::built_in_models() {
        for variant in variants() {
            conformance::plain_steps_match_the_oracle::<Fused>(&model, Some(variant), examples);
        }
    }
}

#[test]
fn steps_of_models_with_odd_sizes_match_the_oracle() {
    for model in conformance::odd_models() {
        for variant in variants() {
            conformance::private_steps_match_the_oracle::<Fused>(&model, Some(variant), 6);
        }
        for variant in variants() {
            conformance::plain_steps_match_the_oracle::<Fused>(&model, Some(variant), 6);
        }
    }
}

#[test]
fn an_example_with_a_nan_is_left_out_and_counted() {
    for name in ["ffnn", "mnist-cnn"] {
        let model = ModelSpec::built_in(name).expect("built in");
        for variant in variants() {
            conformance::a_non_finite_example_contributes_nothing::<Fused>(&model, Some(variant));
        }
    }
}

#[test]
fn an_empty_batch_adds_noise_and_nothing_else() {
    let model = ModelSpec::built_in("ffnn").expect("built in");
    for variant in variants() {
        conformance::an_empty_batch_adds_noise_and_nothing_else::<Fused>(&model, Some(variant));
    }
}

#[test]
fn equal_maxima_in_a_pooling_window_go_to_the_first() {
    for variant in variants() {
        conformance::ties_go_to_the_first_position::<Fused>(Some(variant));
    }
}

#[test]
fn a_cuda_device_that_is_not_there_is_unsupported() {
    conformance::a_missing_cuda_device_is_unsupported::<Fused>();
}

#[test]
fn the_description_tells_what_is_in_force() {
    let description = conformance::the_description_tells_what_is_in_force::<Fused>();
    assert!(description.versions["fused"].starts_with(env!("CARGO_PKG_VERSION")), "{description:?}");
    assert!(description.rng.contains("ChaCha"), "{description:?}");
}

#[test]
fn the_noise_is_normal_fresh_at_every_step_and_seeded() {
    conformance::noise_is_normal_fresh_and_seeded::<Fused>(None);
}
