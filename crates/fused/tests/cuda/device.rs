//! The strategy on a real device, if there is one.

use dpsgd_conformance as conformance;
use dpsgd_conformance::synthetic;
use dpsgd_core::{
    BatchRef, Description, Device, DpSgd, Kernels, Load, Mode, ModelSpec, Params, Strategy, StrategyError,
};
use dpsgd_fused::Fused;
use dpsgd_fused::cuda::{Cache, Hardware};

use crate::{precision, recorded};

/// The ordinal of the device: `DPSGD_TEST_DEVICE`, or else the first.
fn ordinal() -> usize {
    std::env::var("DPSGD_TEST_DEVICE").map_or(0, |ordinal| ordinal.parse().expect("an ordinal in DPSGD_TEST_DEVICE"))
}

/// `fused` on the device, whatever the job says.
struct OnDevice(Fused);

impl Strategy for OnDevice {
    const NAME: &'static str = Fused::NAME;
    const VARIANTS: &'static [&'static str] = &["best", "kept", "ghost"];

    fn load(mut job: Load) -> Result<Self, StrategyError> {
        job.settings.device = Device::Cuda(ordinal());
        Fused::load(job).map(OnDevice)
    }

    fn describe(&self) -> Description {
        self.0.describe()
    }

    fn step(&mut self, batch: &BatchRef<'_>) -> Result<(), StrategyError> {
        self.0.step(batch)
    }

    fn synchronize(&mut self) -> Result<(), StrategyError> {
        self.0.synchronize()
    }

    fn params(&mut self) -> Result<Params, StrategyError> {
        self.0.params()
    }

    fn set_params(&mut self, params: &Params) -> Result<(), StrategyError> {
        self.0.set_params(params)
    }

    fn set_dp(&mut self, dp: &DpSgd) -> Result<(), StrategyError> {
        self.0.set_dp(dp)
    }

    fn non_finite_examples(&mut self) -> Result<u64, StrategyError> {
        self.0.non_finite_examples()
    }

    fn kernels(&self) -> Option<Kernels> {
        self.0.kernels()
    }
}

fn model(name: &str) -> ModelSpec {
    ModelSpec::built_in(name).expect("built in")
}

/// Whether there is a device; says why not. Anything but that there is none is a failure.
fn is_available() -> bool {
    match OnDevice::load(synthetic::job(&model("logreg"), 1, Mode::Private, None)) {
        Ok(strategy) => {
            println!("{:?}", strategy.describe());
            true
        }
        Err(StrategyError::Unsupported(reason)) => {
            println!("skipped: {reason}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_missing_device_is_unsupported() {
    conformance::a_missing_cuda_device_is_unsupported::<Fused>();
    if let Err(StrategyError::Unsupported(reason)) =
        OnDevice::load(synthetic::job(&model("logreg"), 1, Mode::Private, None))
    {
        assert!(reason.contains("no CUDA device") || reason.contains("NVRTC"), "{reason}");
    }
}

#[test]
fn a_load_says_how_long_its_kernels_took_and_on_a_processor_that_there_are_none() {
    let job = |method| synthetic::job(&model("ffnn"), 8, Mode::Private, method);
    assert_eq!(Fused::load(job(None)).expect("loads").kernels(), None);
    if !is_available() {
        return;
    }
    let found = OnDevice::load(job(None)).expect("loads").kernels().expect("there are kernels");
    let seconds: Vec<f64> = found.compile_s.into_iter().chain(found.cached_s).collect();
    assert!(!seconds.is_empty() && seconds.iter().all(|seconds| *seconds > 0.0), "{found:?}");
}

/// A variant against the oracle.
fn check_steps(variant: &str) {
    if !is_available() {
        return;
    }
    let built_in = conformance::built_in_models();
    for (model, examples) in built_in.into_iter().chain(conformance::odd_models().into_iter().map(|model| (model, 9))) {
        conformance::private_steps_match_the_oracle::<OnDevice>(&model, Some(variant), examples);
        conformance::plain_steps_match_the_oracle::<OnDevice>(&model, Some(variant), examples);
    }
}

#[test]
fn steps_of_the_cheapest_methods_on_the_device_match_the_oracle() {
    check_steps("best");
}

#[test]
fn steps_that_keep_gradients_on_the_device_match_the_oracle() {
    check_steps("kept");
}

#[test]
fn steps_by_ghost_norms_on_the_device_match_the_oracle() {
    check_steps("ghost");
}

#[test]
fn special_batches_noise_and_tf32_on_the_device_are_as_elsewhere() {
    if !is_available() {
        return;
    }
    conformance::ties_go_to_the_first_position::<OnDevice>(None);
    conformance::a_non_finite_example_contributes_nothing::<OnDevice>(&model("mnist-cnn"), None);
    conformance::an_empty_batch_adds_noise_and_nothing_else::<OnDevice>(&model("ffnn"), None);
    conformance::noise_is_normal_fresh_and_seeded::<OnDevice>(None);
    precision::check_errors::<OnDevice>();
    precision::check_lengths::<OnDevice>(conformance::odd_models().into_iter().chain(precision::ghosts()));
}

#[test]
fn a_profile_of_the_device_has_times_and_its_peak() {
    if !is_available() {
        return;
    }
    let job = synthetic::job(&model("mnist-cnn"), 64, Mode::Private, None);
    let indices: Vec<u32> = (0..64).collect();
    let batch = BatchRef { indices: &indices, mask: &[true; 64] };
    let profile = OnDevice::load(job).expect("loads").0.profile(&batch, 5).expect("a profile");
    println!("{profile}");
    assert!(profile.peak.is_some() && profile.step_s > 0.0);
    assert!(profile.kernels.iter().all(|kernel| kernel.seconds > 0.0 && kernel.seconds < 1.0));
}

/// Parameters after steps with noise.
fn run<S: Strategy>(model: &ModelSpec, empty: bool) -> Vec<f32> {
    let mut job = synthetic::job(model, 40, Mode::Private, None);
    job.dp.noise_multiplier = 0.7;
    job.dp.learning_rate = 1e-3;
    let mut strategy = S::load(job).expect("loads");
    for step in 0..5 {
        let indices: Vec<u32> = (0..30).map(|slot| (slot * 7 + step) % 40).collect();
        strategy.step(&BatchRef { indices: &indices, mask: &[!empty; 30] }).expect("a step");
    }
    strategy.synchronize().expect("steps");
    strategy.params().expect("parameters").values().collect()
}

#[test]
fn runs_on_the_device_are_the_same_bit_by_bit_and_noise_is_the_processors() {
    if !is_available() {
        return;
    }
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
    for model in ModelSpec::built_in_names().map(model) {
        let first = run::<OnDevice>(&model, false);
        for _ in 0..3 {
            assert!(bits(&run::<OnDevice>(&model, false)) == bits(&first), "{}", model.name);
        }
        let (here, there) = (run::<Fused>(&model, true), run::<OnDevice>(&model, true));
        let largest = here.iter().zip(&there).map(|(here, there)| (here - there).abs()).fold(0.0, f32::max);
        assert!(largest < 1e-6, "{}: noise differs by {largest:e}", model.name);
    }
}

#[test]
fn steps_are_recorded_on_the_device_and_are_the_launches_bit_by_bit() {
    if !is_available() {
        return;
    }
    let description = OnDevice::load(synthetic::job(&model("ffnn"), 8, Mode::Private, None)).expect("loads").describe();
    // Nothing is slower than it should be.
    assert_eq!(description.versions["fused"], env!("CARGO_PKG_VERSION"));
    let device = || Hardware::new(ordinal(), Cache::of_environment()).expect("a device");
    recorded::check_on(device, || device().without_recordings());
}
