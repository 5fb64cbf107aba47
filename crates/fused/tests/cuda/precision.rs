//! The variant `tf32`: operands of products are rounded to ten bits behind the point and nothing else is, and the others
//! know nothing of it.

use dpsgd_conformance::{built_in_models, odd_models, synthetic};
use dpsgd_core::oracle::{Gradient, clipped_sum, sum};
use dpsgd_core::{
    BatchRef, DpSgd, Inputs, Layer, Load, Loss, Mode, ModelInput, ModelSpec, Pair, Params, Strategy, Targets,
};
use dpsgd_fused::Fused;
use dpsgd_fused::cuda::{Limits, Precision, Program, Purpose};
use dpsgd_fused::plan::Methods;

use crate::emulator::{Emulated, Settings, is_available, with};
use crate::steps_against_oracle::{away_from_kinks, gradients};

/// The largest relative error that the registry lets this variant have.
fn tolerance() -> f64 {
    let registry = include_str!("../../../../bench-configs/strategies.toml");
    let entry = registry.split("[[").find(|entry| entry.contains("name = \"tf32\"")).expect("the variant");
    let line = entry.lines().find_map(|line| line.strip_prefix("tolerance = ")).expect("its tolerance");
    line.parse().expect("a number")
}

fn pair(n: usize) -> Pair {
    Pair { h: n, w: n }
}

/// Two convolutions and a linear layer, on images of so many pixels.
fn model(size: usize) -> ModelSpec {
    let conv = |in_channels, out_channels| Layer::Conv2d {
        in_channels,
        out_channels,
        kernel_size: pair(3),
        stride: pair(1),
        padding: pair(1),
    };
    ModelSpec {
        name: "few bits".into(),
        input: ModelInput::Image([2, size, size]),
        loss: Loss::Mse,
        layers: vec![
            conv(2, 3),
            conv(3, 2),
            Layer::MaxPool2d { kernel_size: pair(2), stride: None },
            Layer::Flatten,
            Layer::Linear { in_features: 2 * (size / 2).pow(2), out_features: 1 },
        ],
    }
}

/// A job all of whose numbers have few bits, targets near the outputs among them, so that neither rounding nor the order of
/// additions changes anything. `noise`: how far inputs are from that, as a part of them.
fn few_bits(size: usize, noise: f32) -> Load {
    let mut job = synthetic::job(&model(size), 6, Mode::NonPrivate, None);
    let few = |i: usize, of: usize| ((i * 7 + i / 3) % of) as f32 - (of / 2) as f32;
    for tensor in &mut job.params.tensors {
        // Mostly zeros, so that values stay small.
        let value = |i: usize| if i.is_multiple_of(3) { few(i, 3) / 4.0 } else { 0.0 };
        tensor.values.iter_mut().enumerate().for_each(|(i, weight)| *weight = value(i));
    }
    let Inputs::F32(values) = &mut job.dataset.inputs else { panic!("images are numbers") };
    values.iter_mut().enumerate().for_each(|(i, value)| *value = few(i, 5) / 2.0);
    let outputs = Fused::load(job.clone()).expect("loads").outputs(&[0, 1, 2, 3, 4, 5]).expect("outputs");
    let targets = outputs.iter().enumerate().map(|(i, output)| output + [1.0, -2.0, 0.5][i % 3]);
    job.dataset.targets = Targets::Value(targets.collect());
    let Inputs::F32(values) = &mut job.dataset.inputs else { unreachable!("images are numbers") };
    values.iter_mut().for_each(|value| *value *= 1.0 + noise);
    job
}

fn bits(params: &Params) -> Vec<u32> {
    params.values().map(f32::to_bits).collect()
}

/// The parameters' bits after a step on two examples: their gradients' mean is exact.
fn step(job: &Load, mode: Mode, variant: &str) -> Vec<u32> {
    let mut job = job.clone();
    job.settings.variant = Some(variant.into());
    job.dp = DpSgd { mode, clip_norm: 1e9, noise_multiplier: 0.0, learning_rate: 1.0, expected_batch_size: 2.0 };
    let mut strategy = with(Settings { resident: false, ..Settings::new() }, || Emulated::load(job).expect("loads"));
    strategy.step(&BatchRef { indices: &[1, 4], mask: &[true; 2] }).expect("a step");
    bits(&strategy.params().expect("parameters"))
}

#[test]
fn numbers_that_need_no_rounding_are_multiplied_exactly() {
    if !is_available() {
        return;
    }
    for mode in [Mode::Private, Mode::NonPrivate] {
        for size in [2, 5, 8] {
            let job = few_bits(size, 0.0);
            let (exact, rounded) = (step(&job, mode, "kept"), step(&job, mode, "tf32"));
            assert!(exact != bits(&job.params), "nothing moved");
            assert!(exact == rounded, "{mode:?}, {size}: results differ");
        }
    }
}

#[test]
fn operands_are_rounded_to_ten_bits_and_only_in_this_variant() {
    if !is_available() {
        return;
    }
    let job = few_bits(8, 0.0);
    // Less than half of the last bit that is left, in either direction, and more.
    for noise in [2f32.powi(-13), -2f32.powi(-14)] {
        let noisy = few_bits(8, noise);
        assert!(
            step(&noisy, Mode::NonPrivate, "tf32") == step(&job, Mode::NonPrivate, "tf32"),
            "{noise:e}: too precise"
        );
        assert!(
            step(&noisy, Mode::NonPrivate, "kept") != step(&job, Mode::NonPrivate, "kept"),
            "{noise:e}: f32 rounds"
        );
    }
    let noisy = few_bits(8, 2f32.powi(-9));
    assert!(step(&noisy, Mode::NonPrivate, "tf32") != step(&job, Mode::NonPrivate, "tf32"), "too coarse");
}

/// One step's relative L2 error against the oracle, as the gate takes it.
fn error<S: Strategy>(
    strategy: &mut S,
    job: &Load,
    all: &[Gradient],
    mode: Mode,
    clip_norm: f64,
    indices: &[u32],
) -> f64 {
    let counted = || indices.iter().map(|index| &all[*index as usize]);
    let (expected, divisor) = match mode {
        Mode::Private => (clipped_sum(counted(), clip_norm, &job.model), 8.0),
        Mode::NonPrivate => (sum(counted(), &job.model), indices.len() as f64),
    };
    let rate = 1e4 / expected.norm();
    let learning_rate = rate * divisor;
    let dp = DpSgd { mode, clip_norm, noise_multiplier: 0.0, learning_rate, expected_batch_size: 8.0 };
    strategy.set_dp(&dp).expect("accepted");
    strategy.set_params(&job.params).expect("accepted");
    strategy.step(&BatchRef { indices, mask: &vec![true; indices.len()] }).expect("a step");
    let after = strategy.params().expect("parameters");
    let moved = job.params.tensors.iter().zip(&after.tensors).map(|(before, after)| {
        let pairs = before.values.iter().zip(&after.values);
        pairs.map(|(before, after)| (f64::from(*before) - f64::from(*after)) / rate).collect()
    });
    Gradient(moved.collect()).relative_error(&expected)
}

#[test]
fn steps_in_tf32_are_within_the_registrys_tolerance() {
    if is_available() {
        check_errors::<Emulated>();
    }
}

/// Steps of the built-in models and of odd ones, private and plain.
pub fn check_errors<S: Strategy>() {
    let models = built_in_models().chain(odd_models().into_iter().map(|model| (model, 9)));
    let mut largest = 0.0f64;
    for (model, examples) in models {
        let job = synthetic::job(&model, 4 * examples, Mode::Private, Some("tf32"));
        let all = gradients(&job);
        let indices: Vec<u32> = away_from_kinks(&job).take(examples).collect();
        let mut norms: Vec<f64> = indices.iter().map(|index| all[*index as usize].norm()).collect();
        norms.sort_by(f64::total_cmp);
        let median = norms[norms.len() / 2];
        let mut strategy = S::load(job.clone()).expect("loads");
        let mut errors: Vec<f64> = [(Mode::Private, median), (Mode::Private, 1e-2 * median), (Mode::NonPrivate, 1.0)]
            .map(|(mode, clip_norm)| error(&mut strategy, &job, &all, mode, clip_norm, &indices))
            .to_vec();
        // Whatever is turned over shows most where it is not averaged.
        let alone = indices
            .iter()
            .take(if examples > 2 { 3 } else { 1 })
            .map(|index| error(&mut strategy, &job, &all, Mode::NonPrivate, 1.0, &[*index]));
        errors.extend(alone);
        let shown: Vec<String> = errors.iter().map(|error| format!("{error:.1e}")).collect();
        println!("{}: {}", model.name, shown.join(", "));
        assert!(errors.iter().all(|error| *error <= tolerance()), "{}: {errors:?}", model.name);
        largest = errors.into_iter().fold(largest, f64::max);
    }
    assert!(largest > 1e-5, "as precise as f32: {largest:e}");
}

/// Models whose convolution has few positions, of many inputs and outputs: so its norm is one that a formula gives.
pub fn ghosts() -> impl Iterator<Item = ModelSpec> {
    [[1, 2], [2, 2]].into_iter().map(|[h, w]| {
        let convolution =
            Layer::Conv2d { in_channels: 8, out_channels: 64, kernel_size: pair(5), stride: pair(1), padding: pair(0) };
        let linear = Layer::Linear { in_features: 64 * h * w, out_features: 3 };
        ModelSpec {
            name: format!("{h} x {w} wide windows"),
            input: ModelInput::Image([8, 4 + h, 4 + w]),
            loss: Loss::CrossEntropy,
            layers: vec![convolution, Layer::Relu, Layer::Flatten, linear],
        }
    })
}

#[test]
fn models_of_wide_windows_have_a_norm_by_formula() {
    for model in ghosts() {
        let purpose = Purpose { precision: Precision::Tf32, expected: 8, ..Purpose::default() };
        let (program, plan) = Program::new(&model, &purpose, &limits(true)).expect("a program");
        assert!(format!("{:?}", plan.operations[0]).contains("method: Ghost"), "{:?}", plan.operations[0]);
        for kernel in ["ghost_norm", "map_sum"] {
            assert!(program.names.iter().any(|name| name.ends_with(kernel)), "{kernel}: {:?}", program.names);
        }
    }
}

#[test]
fn a_clipped_gradient_is_no_longer_than_the_clip_norm_whatever_is_rounded() {
    if is_available() {
        check_lengths::<Emulated>(odd_models().into_iter().chain(ghosts()));
    }
}

/// Steps on single examples, whose gradients are longer than the clip norm: they move the parameters by just that.
pub fn check_lengths<S: Strategy>(models: impl IntoIterator<Item = ModelSpec>) {
    for model in models {
        let mut job = synthetic::job(&model, 4, Mode::Private, Some("tf32"));
        let norms: Vec<f64> = gradients(&job).iter().map(Gradient::norm).collect();
        let clip_norm = norms.iter().fold(f64::INFINITY, |least, norm| least.min(*norm)) / 3.0;
        // Far, so that the step is not lost in the parameters' rounding.
        let rate = 1e4 / clip_norm;
        job.dp = DpSgd { clip_norm, learning_rate: rate, ..job.dp };
        for index in 0..4 {
            let mut strategy = S::load(job.clone()).expect("loads");
            strategy.step(&BatchRef { indices: &[index], mask: &[true] }).expect("a step");
            let after = strategy.params().expect("parameters");
            let moved =
                job.params.values().zip(after.values()).map(|(before, after)| f64::from(before) - f64::from(after));
            let norm = moved.map(|change| (change / rate).powi(2)).sum::<f64>().sqrt() / clip_norm;
            assert!((norm - 1.0).abs() < 1e-5, "{}: a gradient of {norm} clip norms", model.name);
        }
    }
}

/// Without comments.
fn code(source: &str) -> String {
    source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<&str>>().join("\n")
}

fn limits(tf32: bool) -> Limits {
    Limits {
        shared_bytes: 232_448,
        multiprocessors: 132,
        cache_bytes: 50 << 20,
        memory_bytes: 80 << 30,
        tf32,
        records: true,
        resident: true,
        largest_chunk: None,
    }
}

#[test]
fn programs_have_tensor_cores_in_this_variant_alone() {
    let built_in = ModelSpec::built_in_names().map(|name| ModelSpec::built_in(name).expect("built in"));
    for model in built_in.chain(odd_models()) {
        let has_them = |methods, precision| {
            let purpose = Purpose { methods, precision, expected: 256 };
            let source =
                code(&Program::new(&model, &purpose, &limits(true)).expect("a program").0.source).to_lowercase();
            ["mma.", "tf32", "asm", "tensor"].map(|word| source.contains(word))
        };
        use dpsgd_fused::plan::Method::{Ghost, Kept};
        for methods in [Methods::Cheapest, Methods::Only(Kept), Methods::Only(Ghost)] {
            assert_eq!(has_them(methods, Precision::F32), [false; 4], "{}: {methods:?}", model.name);
            assert_eq!(has_them(methods, Precision::Tf32), [true; 4], "{}: {methods:?}", model.name);
        }
    }
}

#[test]
fn a_device_without_them_says_so() {
    let model = ModelSpec::built_in("ffnn").expect("built in");
    let purpose = Purpose { precision: Precision::Tf32, expected: 8, ..Purpose::default() };
    let error = Program::new(&model, &purpose, &limits(false)).expect_err("an error").to_string();
    assert!(error.contains("unsupported") && error.contains("8.0"), "{error}");
}
