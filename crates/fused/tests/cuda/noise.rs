//! The noise of a device is the processor's: the same normal for the same parameter.

use dpsgd_conformance::synthetic;
use dpsgd_core::{BatchRef, Mode, ModelSpec, Params, Strategy};
use dpsgd_fused::Fused;

use crate::emulator::{Emulated, is_available};

/// Parameters after steps without examples, from zero: noise alone.
fn noise<S: Strategy>(model: &ModelSpec) -> Params {
    let mut job = synthetic::job(model, 2, Mode::Private, None);
    job.dp.noise_multiplier = 3.0;
    job.settings.noise_seed = Some(11);
    job.params.tensors.iter_mut().for_each(|tensor| tensor.values.fill(0.0));
    let mut strategy = S::load(job).expect("loads");
    for _ in 0..3 {
        strategy.step(&BatchRef { indices: &[0], mask: &[false] }).expect("a step");
    }
    strategy.synchronize().expect("steps");
    strategy.params().expect("parameters")
}

/// Numbers of one strategy that are not the same bits in the other, and the largest difference.
fn differences(model: &ModelSpec) -> (usize, f32) {
    let (here, there) = (noise::<Fused>(model), noise::<Emulated>(model));
    let pairs = || here.values().zip(there.values());
    assert!(here.values().any(|value| value != 0.0), "{}: no noise", model.name);
    let different = pairs().filter(|(here, there)| here.to_bits() != there.to_bits()).count();
    (different, pairs().map(|(here, there)| (here - there).abs()).fold(0.0, f32::max))
}

#[test]
fn every_parameter_gets_the_noise_that_it_gets_on_the_processor() {
    if !is_available() {
        return;
    }
    for model in ModelSpec::built_in_names().map(|name| ModelSpec::built_in(name).expect("built in")) {
        let (different, largest) = differences(&model);
        // A processor with a fused multiply-add gives the same bits; without, polynomials round differently.
        let has_fma = cfg!(target_arch = "x86_64") && std::arch::is_x86_feature_detected!("fma");
        assert!(!has_fma || different == 0, "{}: {different} numbers differ", model.name);
        assert!(largest < 1e-5, "{}: {largest:e}", model.name);
    }
}
