//! What every strategy must do, as checks that its tests call: one suite, many strategies.
//!
//! Every check takes steps through the [`Strategy`] trait alone and panics on a deviation. The reference is the float64
//! [`Oracle`]. Without noise, the parameters move by the clipped sum times eta / B.

use dpsgd_core::oracle::{Gradient, Oracle, clipped_sum, sum};
use dpsgd_core::{
    BatchRef, Description, Device, DpSgd, Inputs, Layer, Load, Loss, Mode, ModelInput, ModelSpec, Pair, Params,
    Strategy, StrategyError,
};

pub mod synthetic;

/// Relative L2 error over all parameters that a step in f32 is allowed.
const TOLERANCE: f64 = 1e-5;
/// Examples nearer to a kink than this are left out: see [`dpsgd_core::oracle::Example::margin`].
const MARGIN: f64 = 1e-5;
/// How far a checked step moves the parameters: far, so that the update is not lost in their rounding.
const DISTANCE: f64 = 1e4;

/// Every built-in model, with as many examples as the oracle gets through quickly.
pub fn built_in_models() -> impl Iterator<Item = (ModelSpec, usize)> {
    ModelSpec::built_in_names().map(|name| {
        let examples = if ["lstm", "cifar10-cnn"].contains(&name) { 2 } else { 9 };
        (ModelSpec::built_in(name).expect("built in"), examples)
    })
}

/// Small models that between them have every layer, odd sizes, uneven windows, and layers in unusual places.
pub fn odd_models() -> Vec<ModelSpec> {
    let pair = |h, w| Pair { h, w };
    let linear = |in_features, out_features| Layer::Linear { in_features, out_features };
    let conv = |i, o, kernel_size, stride, padding| Layer::Conv2d {
        in_channels: i,
        out_channels: o,
        kernel_size,
        stride,
        padding,
    };
    let max = |kernel_size, stride| Layer::MaxPool2d { kernel_size, stride };
    let average = |kernel_size, stride| Layer::AvgPool2d { kernel_size, stride };
    let embedding = |num_embeddings, embedding_dim| Layer::Embedding { num_embeddings, embedding_dim };
    let lstm = |input_size, hidden_size| Layer::Lstm { input_size, hidden_size };
    let tokens = |time, vocabulary| ModelInput::Tokens { time, vocabulary };
    use Layer::{Flatten, GlobalAvgPool2d, MeanOverTime, Relu};
    use Loss::{BceWithLogits, CrossEntropy, Mse};
    let model = |name: &str, input, loss, layers| ModelSpec { name: name.into(), input, loss, layers };
    vec![
        model("one number", ModelInput::Features(1), Mse, vec![linear(1, 1)]),
        model("ReLU first", ModelInput::Features(5), BceWithLogits, vec![Relu, linear(5, 3), Relu, linear(3, 1)]),
        model(
            "uneven windows",
            ModelInput::Image([2, 9, 11]),
            CrossEntropy,
            vec![
                conv(2, 3, pair(3, 2), pair(2, 1), pair(1, 2)),
                Relu,
                max(pair(2, 3), Some(pair(1, 2))),
                conv(3, 5, pair(1, 3), pair(1, 1), pair(0, 1)),
                average(pair(2, 1), None),
                Flatten,
                Relu,
                linear(60, 7),
            ],
        ),
        model(
            "one channel, means",
            ModelInput::Image([1, 5, 5]),
            Mse,
            vec![
                conv(1, 1, pair(2, 2), pair(1, 1), pair(0, 0)),
                average(pair(2, 2), Some(pair(1, 1))),
                conv(1, 4, pair(3, 3), pair(1, 1), pair(1, 1)),
                GlobalAvgPool2d,
                linear(4, 1),
            ],
        ),
        model(
            "a window for the whole image",
            ModelInput::Image([3, 4, 3]),
            CrossEntropy,
            vec![conv(3, 2, pair(4, 3), pair(1, 1), pair(0, 0)), Flatten],
        ),
        model("few tokens", tokens(7, 3), Mse, vec![embedding(3, 5), Relu, MeanOverTime, linear(5, 1)]),
        model("one step", tokens(1, 4), CrossEntropy, vec![embedding(4, 3), lstm(3, 2), MeanOverTime]),
        model(
            "two LSTMs",
            tokens(6, 5),
            CrossEntropy,
            vec![embedding(5, 3), lstm(3, 4), lstm(4, 2), MeanOverTime, linear(2, 3)],
        ),
    ]
}

/// Private steps of `model` on `examples` examples against the oracle: none clipped, some, all, a batch of one, repeated
/// examples, padding.
pub fn private_steps_match_the_oracle<S: Strategy>(model: &ModelSpec, variant: Option<&str>, examples: usize) {
    let case = Case::new(model, examples);
    let mut norms: Vec<f64> = case.gradients.iter().map(Gradient::norm).collect();
    norms.sort_by(f64::total_cmp);
    let median = norms[norms.len() / 2];
    let all: Vec<usize> = (0..case.chosen.len()).collect();
    let mut strategy = case.load::<S>(Mode::Private, variant);
    for clip_norm in [median * 1e3, median, median * 1e-3] {
        case.check(&mut strategy, Mode::Private, clip_norm, &all, &[]);
    }
    case.check(&mut strategy, Mode::Private, median, &all[..1], &[]);
    case.check(&mut strategy, Mode::Private, median * 0.5, &[0, 0, all.len() - 1, 0], &[]);
    case.check(&mut strategy, Mode::Private, median, &all, &[0, all.len() - 1]);
}

/// Non-private steps of `model` against the oracle: a whole batch, a batch of one, padding.
pub fn plain_steps_match_the_oracle<S: Strategy>(model: &ModelSpec, variant: Option<&str>, examples: usize) {
    let case = Case::new(model, examples);
    let all: Vec<usize> = (0..case.chosen.len()).collect();
    let mut strategy = case.load::<S>(Mode::NonPrivate, variant);
    case.check(&mut strategy, Mode::NonPrivate, 1.0, &all, &[]);
    case.check(&mut strategy, Mode::NonPrivate, 1.0, &all[..1], &[]);
    case.check(&mut strategy, Mode::NonPrivate, 1.0, &all, &[1]);
}

/// A NaN or an infinity in an example: it contributes zero and is counted, and the others are summed as if it weren't
/// there; in a padded slot it does nothing at all.
pub fn a_non_finite_example_contributes_nothing<S: Strategy>(model: &ModelSpec, variant: Option<&str>) {
    for poison in [f32::NAN, f32::INFINITY] {
        let mut case = Case::new(model, 5);
        let Inputs::F32(values) = &mut case.job.dataset.inputs else { panic!("tokens can't be NaN") };
        let length = case.job.dataset.example_shape.iter().product::<usize>();
        values[case.chosen[2] * length] = poison;
        let mut strategy = case.load::<S>(Mode::Private, variant);
        case.gradients[2] = Gradient::zeros(model);
        case.check(&mut strategy, Mode::Private, 0.1, &[0, 1, 2, 3, 4], &[]);
        assert_eq!(strategy.non_finite_examples().unwrap(), 1, "{}: {variant:?}", model.name);
        case.check(&mut strategy, Mode::Private, 0.1, &[2], &[]);
        assert_eq!(strategy.non_finite_examples().unwrap(), 2, "{}: {variant:?}", model.name);
        case.check(&mut strategy, Mode::Private, 0.1, &[0, 1, 2, 3, 4], &[2]);
        assert_eq!(strategy.non_finite_examples().unwrap(), 2, "{}: {variant:?}", model.name);
    }
}

/// Equal maxima in a window: the first in row-major order gets the gradient; and ReLU's gradient at exactly 0 is 0.
///
/// The convolution adds two channels of small whole numbers, so that pre-activations tie exactly while the inputs, and
/// with them the weights' gradients, differ.
pub fn ties_go_to_the_first_position<S: Strategy>(variant: Option<&str>) {
    let one = Pair { h: 1, w: 1 };
    let model = ModelSpec {
        name: "ties".into(),
        input: ModelInput::Image([2, 7, 6]),
        loss: Loss::CrossEntropy,
        layers: vec![
            Layer::Conv2d {
                in_channels: 2,
                out_channels: 3,
                kernel_size: one,
                stride: one,
                padding: Pair { h: 0, w: 0 },
            },
            Layer::MaxPool2d { kernel_size: Pair { h: 2, w: 3 }, stride: Some(one) },
            Layer::Relu,
            Layer::MaxPool2d { kernel_size: Pair { h: 3, w: 2 }, stride: Some(one) },
            Layer::Flatten,
            Layer::Linear { in_features: 36, out_features: 2 },
        ],
    };
    let case = Case::with(&model, 6, |job| {
        job.params.tensors[0].values.fill(1.0);
        job.params.tensors[1].values.copy_from_slice(&[0.0, -1.0, -5.0]);
        let Inputs::F32(values) = &mut job.dataset.inputs else { unreachable!("an image is numbers") };
        values.iter_mut().for_each(|value| *value = (*value * 2.5).round());
    });
    case.check(&mut case.load::<S>(Mode::Private, variant), Mode::Private, 1e3, &[0, 1, 2, 3, 4, 5], &[]);
    case.check(&mut case.load::<S>(Mode::NonPrivate, variant), Mode::NonPrivate, 1.0, &[0, 1, 2, 3, 4, 5], &[]);
}

/// A batch with no example moves the parameters by noise in private mode and not at all in plain mode.
pub fn an_empty_batch_adds_noise_and_nothing_else<S: Strategy>(model: &ModelSpec, variant: Option<&str>) {
    let case = Case::new(model, 3);
    let empty = BatchRef { indices: &[0, 1], mask: &[false, false] };
    let mut strategy = case.load::<S>(Mode::NonPrivate, variant);
    strategy.step(&empty).unwrap();
    assert_eq!(strategy.params().unwrap(), case.job.params);
    let full = BatchRef { indices: &[0, 1], mask: &[true, true] };
    let mut dp = DpSgd { mode: Mode::Private, ..case.job.dp };
    for (noise_multiplier, moves) in [(0.0, false), (1.0, true)] {
        dp.noise_multiplier = noise_multiplier;
        strategy.set_dp(&dp).unwrap();
        // A sum left over from the step before must not come back.
        strategy.step(&full).unwrap();
        strategy.set_params(&case.job.params).unwrap();
        strategy.step(&empty).unwrap();
        assert_eq!(strategy.params().unwrap() != case.job.params, moves, "noise multiplier {noise_multiplier}");
    }
}

/// A CUDA device that the machine does not have is refused by its name.
pub fn a_missing_cuda_device_is_unsupported<S: Strategy>() {
    let model = ModelSpec::built_in("logreg").expect("built in");
    let mut job = synthetic::job(&model, 1, Mode::Private, None);
    job.settings.device = Device::Cuda(1000);
    match S::load(job) {
        Err(StrategyError::Unsupported(message)) => assert!(message.contains("cuda:1000"), "{message}"),
        other => panic!("{:?}", other.map(|strategy| strategy.describe())),
    }
}

/// Device and threads are those in force, and the default variant is the first. Returns the description, for what only
/// its strategy can check: the versions of what it is made of.
pub fn the_description_tells_what_is_in_force<S: Strategy>() -> Description {
    let model = ModelSpec::built_in("logreg").expect("built in");
    let mut job = synthetic::job(&model, 1, Mode::Private, None);
    job.settings.threads = 2;
    let description = S::load(job).expect("loads").describe();
    assert_eq!((description.device.as_str(), description.threads), ("cpu", 2));
    assert_eq!(description.variant.as_deref(), S::VARIANTS.first().copied());
    description
}

/// The noise of a step without examples: N(0, (eta sigma C / B)^2) in every parameter, fresh at every step, the same for
/// the same seed. Where a strategy draws from a generator of its process, as those on libtorch do, nothing else may run
/// meanwhile.
pub fn noise_is_normal_fresh_and_seeded<S: Strategy>(variant: Option<&str>) {
    let model = ModelSpec::built_in("mnist-cnn").expect("built in");
    let noise = |seed: Option<u64>, steps: usize| -> Vec<Vec<f64>> {
        let mut job = synthetic::job(&model, 1, Mode::Private, variant);
        job.settings.noise_seed = seed;
        job.dp = DpSgd {
            clip_norm: 0.5,
            noise_multiplier: 3.0,
            learning_rate: 8.0,
            expected_batch_size: 4.0,
            mode: Mode::Private,
        };
        let start = Params { tensors: zeroed(&job.params) };
        let mut strategy = S::load(job).unwrap();
        let step = |_| {
            strategy.set_params(&start).unwrap();
            strategy.step(&BatchRef { indices: &[0], mask: &[false] }).unwrap();
            strategy.params().unwrap().values().map(|value| f64::from(value) / 3.0).collect()
        };
        (0..steps).map(step).collect()
    };
    let steps = noise(Some(7), 2);
    for z in &steps {
        let count = z.len() as f64;
        let moment = |power: i32| z.iter().map(|z| z.powi(power)).sum::<f64>() / count;
        // Five standard errors of each sample moment of a standard normal: variances 1, 2 and 96 over the count.
        for (power, expected, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (4, 3.0, 96.0)] {
            let (found, bound) = (moment(power), 5.0 * f64::sqrt(variance / count));
            assert!((found - expected).abs() < bound, "moment {power}: {found}, not {expected} within {bound}");
        }
        assert!(z.iter().all(|z| *z != 0.0), "a parameter without noise");
    }
    assert_ne!(steps[0], steps[1], "the same noise at two steps");
    assert_eq!(noise(Some(7), 2), steps, "other noise from the same seed");
    assert_ne!(noise(Some(8), 1)[0], steps[0], "the same noise from two seeds");
    assert_ne!(noise(None, 1), noise(None, 1), "the same noise from the operating system's entropy");
}

/// A model with the examples that its checks use, and what the oracle says of them.
struct Case {
    job: Load,
    /// Rows of the data set.
    chosen: Vec<usize>,
    /// The gradient of each, in the same order.
    gradients: Vec<Gradient>,
}

impl Case {
    /// Takes the first `examples` examples that are far enough from a kink.
    fn new(model: &ModelSpec, examples: usize) -> Case {
        Case::with(model, examples, |_| ())
    }

    /// The same after a change to the parameters or the data.
    fn with(model: &ModelSpec, examples: usize, change: impl FnOnce(&mut Load)) -> Case {
        model.validate().expect("a valid model");
        let mut job = synthetic::job(model, 4 * examples, Mode::Private, None);
        change(&mut job);
        let oracle = Oracle::new(model, &job.params).expect("a valid model");
        let (mut chosen, mut gradients) = (Vec::new(), Vec::new());
        for row in 0..4 * examples {
            let example = oracle.example(&job.dataset, row);
            if chosen.len() < examples && example.margin > MARGIN {
                chosen.push(row);
                gradients.push(example.gradient);
            }
        }
        assert_eq!(chosen.len(), examples, "{}: too few examples away from kinks", model.name);
        Case { job, chosen, gradients }
    }

    fn load<S: Strategy>(&self, mode: Mode, variant: Option<&str>) -> S {
        let mut job = self.job.clone();
        job.dp.mode = mode;
        job.settings.variant = variant.map(str::to_string);
        S::load(job).unwrap()
    }

    /// One step on the examples at `slots` (positions in `chosen`), those at `padding` (positions in `slots`) masked,
    /// against the oracle.
    fn check<S: Strategy>(&self, strategy: &mut S, mode: Mode, clip_norm: f64, slots: &[usize], padding: &[usize]) {
        let indices: Vec<u32> = slots.iter().map(|slot| self.chosen[*slot] as u32).collect();
        let mask: Vec<bool> = (0..slots.len()).map(|position| !padding.contains(&position)).collect();
        let counted: Vec<&Gradient> =
            slots.iter().zip(&mask).filter(|(_, counts)| **counts).map(|(slot, _)| &self.gradients[*slot]).collect();
        let model = &self.job.model;
        let expected = match mode {
            Mode::Private => clipped_sum(counted.iter().copied(), clip_norm, model),
            Mode::NonPrivate => sum(counted.iter().copied(), model),
        };
        let rate = if expected.norm() > 0.0 { DISTANCE / expected.norm() } else { 1.0 };
        let divisor = match mode {
            Mode::Private => 8.0,
            Mode::NonPrivate => counted.len() as f64,
        };
        let dp =
            DpSgd { mode, clip_norm, noise_multiplier: 0.0, learning_rate: rate * divisor, expected_batch_size: 8.0 };
        strategy.set_dp(&dp).unwrap();
        strategy.set_params(&self.job.params).unwrap();
        strategy.step(&BatchRef { indices: &indices, mask: &mask }).unwrap();
        strategy.synchronize().unwrap();
        let after = strategy.params().unwrap();
        let moved = self.job.params.tensors.iter().zip(&after.tensors).map(|(before, after)| {
            let pairs = before.values.iter().zip(&after.values);
            pairs.map(|(before, after)| (f64::from(*before) - f64::from(*after)) / rate).collect()
        });
        let error = Gradient(moved.collect()).relative_error(&expected);
        let name = &model.name;
        assert!(error <= TOLERANCE, "{name} {mode:?} C = {clip_norm} {slots:?} without {padding:?}: error {error:e}");
    }
}

fn zeroed(params: &Params) -> Vec<dpsgd_core::Tensor> {
    let zeros =
        |tensor: &dpsgd_core::Tensor| dpsgd_core::Tensor { values: vec![0.0; tensor.values.len()], ..tensor.clone() };
    params.tensors.iter().map(zeros).collect()
}
