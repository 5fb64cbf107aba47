//! Profiles of steps, on the emulator: every launch is in them, and its products are those of the model.

use dpsgd_conformance::synthetic;
use dpsgd_core::cost::layers;
use dpsgd_core::{BatchRef, Layer, Mode, ModelSpec};
use dpsgd_fused::cuda::Profile;

use crate::emulator::{Emulator, Settings, engine, is_available, with};

const EXAMPLES: usize = 2;

fn profile(model: &ModelSpec, mode: Mode, variant: &str) -> Profile {
    let mut job = synthetic::job(model, EXAMPLES, mode, Some(variant));
    job.dp.learning_rate = 1e-6;
    job.dp.expected_batch_size = EXAMPLES as f64;
    let mut engine = engine(Emulator::new(), &job).expect("loads");
    let indices: Vec<u32> = (0..EXAMPLES as u32).collect();
    let batch = BatchRef { indices: &indices, mask: &[true; EXAMPLES] };
    engine.profile(&batch, &job.dp, 1).expect("a profile")
}

/// FLOPs of the products of a plain step.
fn products(model: &ModelSpec) -> f64 {
    let rows = layers(model, EXAMPLES, Mode::NonPrivate).expect("a valid model");
    // Of the input, of each layer, of the loss.
    let of_layer = |(layer, row): (&Layer, &dpsgd_core::cost::LayerCost)| match *layer {
        Layer::Linear { .. } | Layer::Conv2d { .. } => row.forward + row.input_gradient + row.weight_gradient,
        // What is done number by number is counted there as well, each way as often as the weights' gradient is not.
        Layer::Lstm { .. } => 3.0 * row.weight_gradient,
        _ => 0.0,
    };
    model.layers.iter().zip(&rows[1..]).map(of_layer).sum()
}

#[test]
fn kernels_of_a_plain_step_have_the_products_of_the_model() {
    if !is_available() {
        return;
    }
    for resident in [true, false] {
        for model in ModelSpec::built_in_names().map(|name| ModelSpec::built_in(name).expect("built in")) {
            let settings = Settings { resident, ..Settings::new() };
            let profile = with(settings, || profile(&model, Mode::NonPrivate, "best"));
            let (found, wanted) =
                (profile.kernels.iter().map(|kernel| kernel.work.flops).sum::<f64>(), products(&model));
            assert!((found - wanted).abs() <= 1e-9 * wanted, "{}: {found:e}, not {wanted:e}\n{profile}", model.name);
            assert!(profile.seconds() > 0.0 && profile.step_s > 0.0);
            assert!(profile.kernels.iter().all(|kernel| kernel.launches > 0 && kernel.seconds > 0.0), "{profile}");
        }
    }
}

#[test]
fn a_private_step_has_norms_and_kept_gradients_beside_them() {
    if !is_available() {
        return;
    }
    let model = ModelSpec::built_in("mnist-cnn").expect("built in");
    let settings = Settings { resident: false, ..Settings::new() };
    let named = |profile: &Profile, part: &str| profile.kernels.iter().any(|kernel| kernel.name.ends_with(part));
    for (variant, part) in [("kept", "_map_keep"), ("ghost", "_ghost_norm")] {
        let plain = with(settings, || profile(&model, Mode::NonPrivate, variant));
        let private = with(settings, || profile(&model, Mode::Private, variant));
        assert!(named(&private, part) && !named(&plain, part), "{private}");
        assert!(named(&private, "_rank_one_norm") && named(&private, "update"), "{private}");
    }
}
