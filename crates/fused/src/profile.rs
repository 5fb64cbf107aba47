//! The command `profile`: what the kernels of a step on a CUDA device take, on data that mean nothing.

use std::ffi::OsString;
use std::path::Path;

use dpsgd_core::cost::{self, Cost};
use dpsgd_core::{
    BatchRef, Dataset, Device, DpSgd, Inputs, Load, Loss, Mode, ModelInput, ModelSpec, Params, Settings, Strategy,
    Targets,
};
use dpsgd_fused::Fused;

const MISSING: &str = "profile: MODEL or BATCH_SIZE is missing: write them behind it, such as `profile mnist-cnn 256`";
/// Steps of each kind.
const STEPS: usize = 50;

/// Batches in the data set, and at most so many examples unless a batch has more.
const BATCHES: usize = 8;
const MOST_EXAMPLES: usize = 1 << 15;

/// What to profile.
#[derive(Debug, PartialEq)]
struct Asked {
    model: ModelSpec,
    batch_size: usize,
    mode: Mode,
    variant: Option<String>,
    device: Device,
}

/// The profile that the words after `profile` ask for, as a text.
pub fn run(words: &[OsString]) -> Result<String, String> {
    let Asked { model, batch_size, mode, variant, device } = asked(words)?;
    let dp = DpSgd {
        mode,
        clip_norm: 1.0,
        noise_multiplier: 1.0,
        // Small, so that any number of steps stays finite.
        learning_rate: 1e-6,
        expected_batch_size: batch_size as f64,
    };
    let settings = Settings { variant, device, threads: 1, noise_seed: None };
    let examples = (BATCHES * batch_size).min(MOST_EXAMPLES.max(batch_size));
    let (params, dataset) = (Params::init(&model, 1), dataset(&model, examples)?);
    let failed = |error: dpsgd_core::StrategyError| error.to_string();
    let mut fused = Fused::load(Load { model: model.clone(), params, dataset, dp, settings }).map_err(failed)?;
    // One of many rows each, none twice.
    let indices: Vec<u32> = (0..batch_size).map(|slot| (slot * examples / batch_size) as u32).rev().collect();
    let batch = BatchRef { indices: &indices, mask: &vec![true; batch_size] };
    let profile = fused.profile(&batch, STEPS).map_err(failed)?;
    let mut text = format!(
        "{}, {}, batches of {batch_size}, on {}: medians of {STEPS} steps\n{profile}",
        model.name,
        mode.name(),
        profile.device
    );
    let Cost { flops, bytes } = cost::step(&model, batch_size, mode).map_err(|error| error.to_string())?;
    if let Some(peak) = profile.peak {
        text.push_str(&format!(
            "a step's floors: {:.2} us for {:.2} MFLOP at {:.1} TFLOP/s of f32, {:.2} us for {:.3} MB at {:.0} GB/s of memory\n",
            1e6 * flops / peak.flops,
            flops / 1e6,
            peak.flops / 1e12,
            1e6 * bytes / peak.bytes_per_s,
            bytes / 1e6,
            peak.bytes_per_s / 1e9,
        ));
    }
    Ok(text)
}

/// `MODEL BATCH_SIZE [private|non_private] [VARIANT] [cuda:N]`.
fn asked(words: &[OsString]) -> Result<Asked, String> {
    let [model, rest @ ..] = words else { return Err(MISSING.into()) };
    let model = match model.to_str().and_then(ModelSpec::built_in) {
        Some(model) => model,
        None if Path::new(model).exists() => ModelSpec::read(Path::new(model)).map_err(|error| error.to_string())?,
        None => {
            let known: Vec<&str> = ModelSpec::built_in_names().collect();
            return Err(format!("model `{}`: neither a file nor built in: {}", model.display(), known.join(", ")));
        }
    };
    let rest: Vec<_> = rest.iter().map(|word| word.to_string_lossy()).collect();
    let [batch_size, rest @ ..] = rest.as_slice() else { return Err(MISSING.into()) };
    let batch_size = batch_size
        .parse()
        .ok()
        .filter(|size| (1..=1 << 16).contains(size))
        .ok_or_else(|| format!("batch size `{batch_size}`: must be from 1 to 65536"))?;
    let mut asked = Asked { model, batch_size, mode: Mode::Private, variant: None, device: Device::Cuda(0) };
    for word in rest {
        match word.as_ref() {
            "private" => asked.mode = Mode::Private,
            "non_private" => asked.mode = Mode::NonPrivate,
            device if device.starts_with("cuda:") => asked.device = device.parse()?,
            variant if Fused::VARIANTS.contains(&variant) => asked.variant = Some(variant.into()),
            _ => return Err(format!("`{word}`: must be private, non_private, a variant of fused or cuda:N")),
        }
    }
    Ok(asked)
}

/// Inputs between -1 and 1, tokens of which some come often, targets of every kind: always the same numbers.
fn dataset(model: &ModelSpec, examples: usize) -> Result<Dataset, String> {
    let example_shape = model.input.dimensions();
    let count = examples * example_shape.iter().product::<usize>();
    // Weyl's sequence of the golden ratio.
    let mut state = 0u32;
    let mut random = move || {
        state = state.wrapping_add(0x9e37_79b9);
        f64::from(state) / f64::from(u32::MAX)
    };
    let inputs = match model.input {
        ModelInput::Tokens { vocabulary, .. } => {
            let token = |uniform: f64| (uniform * uniform * (vocabulary - 1) as f64) as i32;
            Inputs::Tokens((0..count).map(|_| token(random())).collect())
        }
        _ => Inputs::F32((0..count).map(|_| (2.0 * random() - 1.0) as f32).collect()),
    };
    let outputs = model.outputs().map_err(|error| error.to_string())? as i32;
    let targets = match model.loss {
        Loss::CrossEntropy => Targets::Class((0..examples as i32).map(|example| example % outputs).collect()),
        Loss::BceWithLogits => Targets::Value((0..examples).map(|example| (example % 2) as f32).collect()),
        Loss::Mse => Targets::Value((0..examples).map(|_| random() as f32).collect()),
    };
    Ok(Dataset { example_shape, inputs, targets })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn what_is_asked_for_is_read_in_any_order_and_what_is_wrong_is_named() {
        let found = asked(&words("lstm 64 cuda:1 non_private tf32")).unwrap();
        assert_eq!((found.model.name.as_str(), found.batch_size, found.mode), ("lstm", 64, Mode::NonPrivate));
        assert_eq!((found.variant.as_deref(), found.device), (Some("tf32"), Device::Cuda(1)));
        for (text, wrong) in [
            ("lstm", "BATCH_SIZE"),
            ("no-such 64", "`no-such`: neither a file nor built in: "),
            ("", "MODEL"),
            ("lstm 0", "batch size `0`"),
            ("lstm many", "batch size `many`"),
            ("lstm 64 fast", "`fast`: must be"),
            ("lstm 64 cuda:x", "device `cuda:x`"),
        ] {
            let error = asked(&words(text)).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn data_fit_every_model_that_is_built_in() {
        for model in ModelSpec::built_in_names().map(|name| ModelSpec::built_in(name).unwrap()) {
            let dataset = dataset(&model, 20).unwrap();
            dataset.check_fits(&model).unwrap();
            if let Inputs::Tokens(tokens) = &dataset.inputs {
                let most = tokens.iter().max().unwrap();
                assert!(*most > 100, "{}: tokens up to {most} only", model.name);
            }
        }
    }
}
