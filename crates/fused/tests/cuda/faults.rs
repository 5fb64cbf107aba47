//! The comparison with the oracle finds kernels that are wrong: faults are put into their sources, one at a time, and each
//! must be seen.

use std::panic::{AssertUnwindSafe, catch_unwind};

use dpsgd_conformance::{odd_models, plain_steps_match_the_oracle, private_steps_match_the_oracle};
use dpsgd_core::{Layer, Loss, ModelInput, ModelSpec, Pair, Strategy};

use crate::emulator::{Emulated, Settings, is_available, with};
use crate::precision::{check_lengths, ghosts};

/// A convolution with several positions, and two linear layers.
fn images() -> ModelSpec {
    let pair = |n| Pair { h: n, w: n };
    ModelSpec {
        name: "images".into(),
        input: ModelInput::Image([2, 6, 6]),
        loss: Loss::CrossEntropy,
        layers: vec![
            Layer::Conv2d { in_channels: 2, out_channels: 3, kernel_size: pair(3), stride: pair(1), padding: pair(1) },
            Layer::MaxPool2d { kernel_size: pair(2), stride: None },
            Layer::Flatten,
            Layer::Linear { in_features: 27, out_features: 8 },
            Layer::Relu,
            Layer::Linear { in_features: 8, out_features: 3 },
        ],
    }
}

/// Whether private or plain steps are found to be wrong, and not because something else broke.
fn is_found(model: &ModelSpec, variant: &str) -> bool {
    let steps = || {
        private_steps_match_the_oracle::<Emulated>(model, Some(variant), 9);
        plain_steps_match_the_oracle::<Emulated>(model, Some(variant), 9);
    };
    let Err(payload) = catch_unwind(AssertUnwindSafe(steps)) else { return false };
    let message = payload.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(message.contains(": error "), "something else failed: {message}");
    true
}

/// Each: a place in the source, what is put there instead, by what way steps are taken.
fn check(model: &ModelSpec, settings: Settings, faults: &[(&'static str, &'static str, &str)]) {
    if !is_available() {
        return;
    }
    for variant in Emulated::VARIANTS.iter().filter(|variant| faults.iter().any(|(.., way)| way == *variant)) {
        with(settings, || assert!(!is_found(model, variant), "without a fault, {variant} is right"));
    }
    for (right, wrong, variant) in faults {
        let found = with(Settings { fault: Some((right, wrong)), ..settings }, || is_found(model, variant));
        assert!(found, "nobody saw `{wrong}` in place of `{right}`");
    }
}

#[test]
fn faults_in_kernels_over_chunks_are_found() {
    let settings = Settings { resident: false, chunk: Some(4), cache_bytes: 4 * 500, ..Settings::new() };
    let faults = [
        // A product leaves out its last step, or takes its first twice.
        ("if (m >= rows || k >= L::D) return 0.0f;", "if (m >= rows || k >= L::D - 1) return 0.0f;", "ghost"),
        ("sums[i] = 0.0f;", "sums[i] = 1e-3f;", "ghost"),
        // Sums leave out a part, a group's last example, or what was summed before.
        ("part < parts; part++", "part < parts - 1; part++", "ghost"),
        ("e < s.group_examples; e++", "e < s.group_examples - 1; e++", "kept"),
        (
            "float sum = s.accumulate ? s.sums[L::START + i] : 0.0f;\n        for (int e",
            "float sum = 0.0f;\n        for (int e",
            "kept",
        ),
        // Norms without the bias, with each pair once, or of one position alone.
        ("(a + (L::HAS_BIAS ? 1.0 : 0.0)) * g", "a * g", "ghost"),
        ("(t == u ? 1.0 : 2.0)", "1.0", "ghost"),
        ("norm += s.squares[example * SLOTS + slot];", "norm = s.squares[example * SLOTS + slot];", "kept"),
        // Clipped gradients, of another example's factor.
        ("float factor = factors ? factors[example] : 1.0f;", "float factor = factors ? factors[0] : 1.0f;", "ghost"),
        // The gradient of what was not the maximum.
        ("s.marks[L::MARKS + output] == pixel", "s.marks[L::MARKS + output] != pixel", "ghost"),
        // A batch that is longer than what kernels are told.
        (
            "within(s.varying->examples - s.first, s.examples)",
            "within(s.varying->examples - 1 - s.first, s.examples)",
            "ghost",
        ),
    ];
    check(&images(), settings, &faults);
    // What a convolution gives to the one before.
    let mut model = images();
    let Layer::Conv2d { out_channels, .. } = model.layers[0] else { unreachable!("the first is one") };
    let mut second = model.layers[0].clone();
    if let Layer::Conv2d { in_channels, .. } = &mut second {
        *in_channels = out_channels;
    }
    model.layers.insert(1, second);
    let fault = ("pixel / L::W + L::PH - tap / L::KW", "pixel / L::W + L::PH - tap % L::KW", "ghost");
    check(&model, settings, &[fault]);
}

#[test]
fn faults_in_kernels_that_take_whole_examples_are_found() {
    let settings = Settings { multiprocessors: 4, ..Settings::new() };
    let faults = [
        ("block < s.group_examples; block++", "block < s.group_examples - 1; block++", "best"),
        ("for (int j = 0; j < LANES; j++) {", "for (int j = 1; j < LANES; j++) {", "best"),
        (
            "for (int t = 0; t < L::T; t++) {\n            float inputs",
            "for (int t = 1; t < L::T; t++) {\n            float inputs",
            "best",
        ),
        ("return (a + 1.0) * block_sum(g, scratch);", "return a * block_sum(g, scratch);", "best"),
        ("dy[own] = sum != sum ? sum : -others;", "dy[own] = sum != sum ? sum : 1.0f - others;", "best"),
        ("norm > clip_norm ? clip_norm / norm : 1.0", "norm > 1.01 * clip_norm ? clip_norm / norm : 1.01", "best"),
    ];
    check(&images(), settings, &faults);
}

#[test]
fn faults_in_kernels_of_tokens_are_found() {
    let odd = |name: &str| odd_models().into_iter().find(|model| model.name == name).expect("an odd model");
    let faults = [
        ("float before = t > 0 ? cell[k - 2 * L::H] : 0.0f, c_tanh", "float before = cell[k], c_tanh", "best"),
        ("int u = t - L::SHIFT;", "int u = t;", "best"),
        ("if (repeated[t]) continue;", "", "best"),
        (
            "if (own % EMBEDDING_WARPS != warp ||",
            "if (own % EMBEDDING_WARPS != warp || (int)(hit % L::TIME) == 0 ||",
            "best",
        ),
    ];
    check(&odd("two LSTMs"), Settings::new(), &faults);
}

#[test]
fn clipped_sums_of_rounded_products_are_found() {
    if !is_available() {
        return;
    }
    // In the layer whose norm is a sum over pairs of positions, and in no other.
    let right = "sum_of_part<L, Fma>(s);";
    let wrong = "if (L::T > 1) sum_of_part<L, Products>(s); else sum_of_part<L, Fma>(s);";
    for model in ghosts() {
        let lengths = || check_lengths::<Emulated>([model.clone()]);
        with(Settings::new(), lengths);
        let faulty = || catch_unwind(AssertUnwindSafe(lengths));
        let found = with(Settings { fault: Some((right, wrong)), ..Settings::new() }, faulty);
        let payload = found.expect_err("nobody saw it");
        let message = payload.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(message.contains("clip norms"), "something else failed: {message}");
    }
}
