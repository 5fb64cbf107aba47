//! The steps of `naive` against the float64 oracle.

use dpsgd_conformance as conformance;
use dpsgd_core::ModelSpec;
use dpsgd_naive::Naive;

#[test]
fn private_steps_of_every_built_in_model_match_the_oracle() {
    for (model, examples) in conformance::built_in_models() {
        conformance::private_steps_match_the_oracle::<Naive>(&model, None, examples);
    }
}

#[test]
fn plain_steps_of_every_built_in_model_match_the_oracle() {
    for (model, examples) in conformance::built_in_models() {
        conformance::plain_steps_match_the_oracle::<Naive>(&model, None, examples);
    }
}

#[test]
fn steps_of_models_with_odd_sizes_match_the_oracle() {
    for model in conformance::odd_models() {
        conformance::private_steps_match_the_oracle::<Naive>(&model, None, 6);
        conformance::plain_steps_match_the_oracle::<Naive>(&model, None, 6);
    }
}

#[test]
fn an_example_with_a_nan_is_left_out_and_counted() {
    for name in ["ffnn", "mnist-cnn"] {
        let model = ModelSpec::built_in(name).expect("built in");
        conformance::a_non_finite_example_contributes_nothing::<Naive>(&model, None);
    }
}

#[test]
fn an_empty_batch_adds_noise_and_nothing_else() {
    let model = ModelSpec::built_in("ffnn").expect("built in");
    conformance::an_empty_batch_adds_noise_and_nothing_else::<Naive>(&model, None);
}

#[test]
fn equal_maxima_in_a_pooling_window_go_to_the_first() {
    conformance::ties_go_to_the_first_position::<Naive>(None);
}

#[test]
fn a_cuda_device_that_is_not_there_is_unsupported() {
    conformance::a_missing_cuda_device_is_unsupported::<Naive>();
}

#[test]
fn the_description_tells_what_is_in_force() {
    let versions = conformance::the_description_tells_what_is_in_force::<Naive>().versions;
    assert!(versions["libtorch"].starts_with("2.11.0"), "{versions:?}");
}
