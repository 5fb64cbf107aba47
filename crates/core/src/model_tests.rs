use super::*;

#[test]
fn every_built_in_model_is_named_after_its_file_and_fits_together() {
    for name in ModelSpec::built_in_names() {
        let model = ModelSpec::built_in(name).unwrap();
        assert_eq!(model.name, name);
        model.validate().unwrap();
    }
    assert_eq!(ModelSpec::built_in("resnet"), None);
}

#[test]
fn parameter_counts_are_those_of_the_paper() {
    assert_eq!(count("logreg"), 105);
    assert_eq!(count("ffnn"), 104 * 50 + 50 + 50 * 2 + 2);
    assert_eq!(count("mnist-cnn"), 26_010);
    assert_eq!(count("embedding"), 10_004 * 16 + 34);
    assert_eq!(count("lstm"), 10_004 * 100 + 400 * 200 + 400 + 202);
}

fn count(name: &str) -> usize {
    let model = ModelSpec::built_in(name).unwrap();
    model.params().iter().map(|param| param.shape.iter().product::<usize>()).sum()
}

/// Reads `text` as a model file with this ending; the error without its folder.
fn read(ending: &str, text: &str) -> Result<ModelSpec, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("model.{ending}"));
    std::fs::write(&path, text).unwrap();
    ModelSpec::read(&path).map_err(|error| {
        let message = error.to_string();
        assert!(!message.contains('\n'), "more than one line: {message}");
        message.strip_prefix(&format!("{}/", folder.path().display())).expect("the file is named").to_string()
    })
}

/// The error of a model that takes `input` and has these layers, as TOML and as JSON; they say the same but for the
/// place.
fn error(input: &str, loss: &str, layers: &[&str]) -> String {
    let text = format!(r#"{{"name": "m", "input": {input}, "loss": "{loss}", "layers": [{}]}}"#, layers.join(", "));
    let json = read("json", &text).unwrap_err();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let toml = read("toml", &toml::to_string(&value).unwrap()).unwrap_err();
    let reason = |message: &str| message.split_once(": ").unwrap().1.to_string();
    let without_place = |message: String| match (message.find(" at line "), message.find("; did you mean")) {
        (Some(begin), Some(end)) => format!("{}{}", &message[..begin], &message[end..]),
        (Some(begin), None) => message[..begin].to_string(),
        _ => message,
    };
    assert!(json.starts_with("model.json"), "{json}");
    assert!(toml.starts_with("model.toml"), "{toml}");
    assert_eq!(without_place(reason(&json)), reason(&toml));
    reason(&toml)
}

const IMAGE: &str = r#"{"image": [2, 6, 5]}"#;
const TOKENS: &str = r#"{"tokens": {"time": 4, "vocabulary": 9}}"#;

#[test]
fn layers_that_do_not_fit_are_named_with_both_shapes() {
    let cases: &[(&str, &[&str], &str)] = &[
        (
            IMAGE,
            &[r#"{"kind": "relu"}"#, r#"{"kind": "linear", "in_features": 60, "out_features": 1}"#],
            "layer 1 (linear): takes features [60], the layer before gives image [2, 6, 5]",
        ),
        (
            IMAGE,
            &[r#"{"kind": "flatten"}"#, r#"{"kind": "linear", "in_features": 59, "out_features": 1}"#],
            "layer 1 (linear): takes features [59], the layer before gives features [60]",
        ),
        (
            IMAGE,
            &[r#"{"kind": "conv2d", "in_channels": 3, "out_channels": 1, "kernel_size": 1}"#],
            "layer 0 (conv2d): takes image [3, H, W], the layer before gives image [2, 6, 5]",
        ),
        (
            IMAGE,
            &[r#"{"kind": "conv2d", "in_channels": 2, "out_channels": 1, "kernel_size": [3, 8], "padding": 1}"#],
            "layer 0 (conv2d): window [3, 8] does not fit in image [2, 6, 5], padded to [8, 7]",
        ),
        (
            IMAGE,
            &[r#"{"kind": "max_pool2d", "kernel_size": [7, 1]}"#],
            "layer 0 (max_pool2d): window [7, 1] does not fit in image [2, 6, 5], padded to [6, 5]",
        ),
        (
            TOKENS,
            &[r#"{"kind": "embedding", "num_embeddings": 8, "embedding_dim": 3}"#],
            "layer 0 (embedding): takes tokens [time] of 8, the layer before gives tokens [4] of 9",
        ),
        (TOKENS, &[r#"{"kind": "relu"}"#], "layer 0 (relu): takes numbers, the layer before gives tokens [4] of 9"),
        (
            TOKENS,
            &[
                r#"{"kind": "embedding", "num_embeddings": 9, "embedding_dim": 3}"#,
                r#"{"kind": "lstm", "input_size": 4, "hidden_size": 2}"#,
            ],
            "layer 1 (lstm): takes sequence [time, 4], the layer before gives sequence [4, 3]",
        ),
        (
            IMAGE,
            &[r#"{"kind": "mean_over_time"}"#],
            "layer 0 (mean_over_time): takes sequence [time, D], the layer before gives image [2, 6, 5]",
        ),
        (
            TOKENS,
            &[r#"{"kind": "global_avg_pool2d"}"#],
            "layer 0 (global_avg_pool2d): takes image [C, H, W], the layer before gives tokens [4] of 9",
        ),
    ];
    for (input, layers, expected) in cases {
        assert_eq!(error(input, "mse", layers), format!("model `m`: {expected}"));
    }
}

#[test]
fn unknown_names_are_answered_with_the_nearest_valid_one() {
    let ends = |message: String, name: &str| {
        assert!(message.ends_with(&format!("; did you mean `{name}`?")), "{message}");
    };
    let conv = |kind: &str, key: &str| format!(r#"{{"kind": "{kind}", "{key}": 1}}"#);
    ends(error(IMAGE, "mse", &[&conv("conv2", "in_channels")]), "conv2d");
    ends(error(IMAGE, "mse", &[&conv("conv2d", "in_channel")]), "in_channels");
    ends(error(IMAGE, "mse", &[&conv("maxpool2d", "kernel_size")]), "max_pool2d");
    ends(error(IMAGE, "bce_with_logit", &[]), "bce_with_logits");
    ends(error(r#"{"feature": 3}"#, "mse", &[]), "features");
    let unknown = r#"name = "m""#.to_string() + "\ninput = { features = 3 }\nloss = \"mse\"\nlayer = []\n";
    let expected = "unknown field `layer`, expected one of `name`, `input`, `loss`, `layers`; did you mean `layers`?";
    assert_eq!(read("toml", &unknown).unwrap_err(), format!("model.toml:4: {expected}"));
    let vocab = "name = 'm'\ninput = { tokens = { time = 3, vocab = 9 } }\nloss = 'mse'\nlayers = []\n";
    ends(read("toml", vocab).unwrap_err(), "vocabulary");
}

#[test]
fn a_layer_without_settings_takes_none() {
    for kind in ["relu", "flatten", "global_avg_pool2d", "mean_over_time"] {
        let message = error(IMAGE, "mse", &[&format!(r#"{{"kind": "{kind}", "inplace": true}}"#)]);
        assert_eq!(message, format!("layer 0 ({kind}): unknown field `inplace`, there are no fields"));
    }
}

#[test]
fn a_missing_or_mistyped_key_is_named_with_its_layer_and_line() {
    let with = |layer: &str| {
        let text = format!(
            "name = 'm'\ninput = {{ image = [2, 6, 5] }}\nloss = 'mse'\nlayers = [\n{{ kind = 'relu' }},\n{layer},\n]\n"
        );
        read("toml", &text).unwrap_err()
    };
    let linear = with("{ kind = 'linear', in_features = 3 }");
    assert_eq!(linear, "model.toml:4: layer 1 (linear): missing field `out_features`");
    assert_eq!(with("{ in_features = 3 }"), "model.toml:4: layer 1: missing field `kind`");
    for size in ["[1, 2, 3]", "'3'", "-3", "1.5"] {
        let conv = format!("{{ kind = 'conv2d', in_channels = 2, out_channels = 1, kernel_size = {size} }}");
        let expected = "layer 1 (conv2d): must be a whole number, or two as [height, width]";
        assert_eq!(with(&conv), format!("model.toml:4: {expected}"), "{size}");
    }
}

#[test]
fn a_size_of_zero_or_beyond_all_bounds_is_named() {
    let sizes: &[(&str, &str, &str)] = &[
        (IMAGE, r#"{"kind": "linear", "in_features": 0, "out_features": 1}"#, "in_features"),
        (IMAGE, r#"{"kind": "linear", "in_features": 1, "out_features": 0}"#, "out_features"),
        (IMAGE, r#"{"kind": "conv2d", "in_channels": 0, "out_channels": 1, "kernel_size": 1}"#, "in_channels"),
        (IMAGE, r#"{"kind": "conv2d", "in_channels": 2, "out_channels": 0, "kernel_size": 1}"#, "out_channels"),
        (IMAGE, r#"{"kind": "conv2d", "in_channels": 2, "out_channels": 1, "kernel_size": [1, 0]}"#, "kernel_size"),
        (
            IMAGE,
            r#"{"kind": "conv2d", "in_channels": 2, "out_channels": 1, "kernel_size": 1, "stride": [0, 1]}"#,
            "stride",
        ),
        (IMAGE, r#"{"kind": "max_pool2d", "kernel_size": [0, 2]}"#, "kernel_size"),
        (IMAGE, r#"{"kind": "avg_pool2d", "kernel_size": 2, "stride": 0}"#, "stride"),
        (TOKENS, r#"{"kind": "embedding", "num_embeddings": 9, "embedding_dim": 0}"#, "embedding_dim"),
        (TOKENS, r#"{"kind": "lstm", "input_size": 3, "hidden_size": 0}"#, "hidden_size"),
    ];
    for (input, layer, key) in sizes {
        let message = error(input, "mse", &[layer]);
        assert!(message.ends_with(&format!("{key} = 0: must be from 1 to 16777216")), "{message}");
    }
    for (input, key) in [
        (r#"{"features": 0}"#, "features"),
        (r#"{"image": [1, 0, 5]}"#, "size in image"),
        (r#"{"tokens": {"time": 0, "vocabulary": 9}}"#, "time"),
        (r#"{"tokens": {"time": 4, "vocabulary": 0}}"#, "vocabulary"),
    ] {
        let message = error(input, "mse", &[]);
        assert_eq!(message, format!("model `m`: input: {key} = 0: must be from 1 to 16777216"));
    }
    let huge = i64::MAX;
    let padded =
        format!(r#"{{"kind": "conv2d", "in_channels": 2, "out_channels": 1, "kernel_size": 1, "padding": {huge}}}"#);
    let expected = format!("model `m`: layer 0 (conv2d): padding = {huge}: must be from 0 to 16777216");
    assert_eq!(error(IMAGE, "mse", &[&padded]), expected);
}

#[test]
fn tensors_too_large_to_count_are_refused() {
    // The weight's shape is [16777216, 2, 12, 11].
    let large =
        r#"{"kind": "conv2d", "in_channels": 2, "out_channels": 16777216, "kernel_size": [12, 11], "padding": 3}"#;
    let linear = r#"{"kind": "linear", "in_features": 7, "out_features": 1}"#;
    let several = r#"{"kind": "linear", "in_features": 16777216, "out_features": 128}"#;
    let reason = "output or parameters of more than 2147483647 numbers";
    assert_eq!(error(IMAGE, "mse", &[large, linear]), format!("model `m`: layer 0 (conv2d): {reason}"));
    let message = error(r#"{"features": 16777216}"#, "cross_entropy", &[several]);
    assert_eq!(message, format!("model `m`: layer 0 (linear): {reason}"));
    let message = error(r#"{"image": [16777216, 16777216, 16777216]}"#, "mse", &[]);
    assert!(message.ends_with("has more than 2147483647 numbers"), "{message}");
}

#[test]
fn a_loss_must_fit_the_outputs() {
    let linear = |outputs: usize| format!(r#"{{"kind": "linear", "in_features": 3, "out_features": {outputs}}}"#);
    let features = r#"{"features": 3}"#;
    assert_eq!(
        error(features, "cross_entropy", &[&linear(1)]),
        "model `m`: loss: the last layer gives features [1], cross_entropy takes features [2] or more"
    );
    for loss in ["mse", "bce_with_logits"] {
        assert_eq!(
            error(features, loss, &[&linear(2)]),
            format!("model `m`: loss: the last layer gives features [2], {loss} takes features [1]")
        );
    }
    let conv = r#"{"kind": "conv2d", "in_channels": 2, "out_channels": 1, "kernel_size": 1}"#;
    assert_eq!(
        error(IMAGE, "mse", &[conv]),
        "model `m`: loss: the last layer gives image [1, 6, 5], a loss takes features [K]"
    );
}

#[test]
fn a_model_without_parameters_is_refused() {
    for layers in [&[][..], &[r#"{"kind": "relu"}"#]] {
        let expected = "model `m`: layers: no layer has parameters: there is nothing to train";
        assert_eq!(error(r#"{"features": 1}"#, "mse", layers), expected);
    }
}

#[test]
fn shapes_are_those_of_pytorch() {
    let shapes = |name: &str| -> Vec<String> {
        ModelSpec::built_in(name).unwrap().shapes().unwrap().iter().map(Shape::to_string).collect()
    };
    assert_eq!(
        shapes("mnist-cnn"),
        [
            "image [1, 28, 28]",
            "image [16, 14, 14]",
            "image [16, 14, 14]",
            "image [16, 13, 13]",
            "image [32, 5, 5]",
            "image [32, 5, 5]",
            "image [32, 4, 4]",
            "features [512]",
            "features [32]",
            "features [32]",
            "features [10]"
        ]
    );
    assert_eq!(
        shapes("lstm"),
        ["tokens [256] of 10004", "sequence [256, 100]", "sequence [256, 100]", "features [100]", "features [2]"]
    );
    assert_eq!(ModelSpec::built_in("cifar10-cnn").unwrap().outputs(), Ok(10));
}

#[test]
fn a_stride_defaults_to_one_in_a_convolution_and_to_the_window_in_pooling() {
    let text = "name = 'm'\nloss = 'mse'\ninput = { image = [1, 9, 8] }\nlayers = [
        { kind = 'conv2d', in_channels = 1, out_channels = 2, kernel_size = [2, 3] },
        { kind = 'avg_pool2d', kernel_size = [3, 2] },
        { kind = 'flatten' },
        { kind = 'linear', in_features = 12, out_features = 1 },
    ]";
    let shapes = read("toml", text).unwrap().shapes().unwrap();
    assert_eq!(shapes[1], Shape::Image { c: 2, h: 8, w: 6 });
    assert_eq!(shapes[2], Shape::Image { c: 2, h: 2, w: 3 });
}

#[test]
fn parameters_are_named_and_shaped_as_in_a_pytorch_sequential() {
    let params = |name: &str| -> Vec<(String, Vec<usize>)> {
        let params = ModelSpec::built_in(name).unwrap().params();
        params.into_iter().map(|param| (param.name, param.shape)).collect()
    };
    let named = |list: &[(&str, &[usize])]| -> Vec<(String, Vec<usize>)> {
        list.iter().map(|(name, shape)| (name.to_string(), shape.to_vec())).collect()
    };
    assert_eq!(
        params("mnist-cnn")[..3],
        named(&[("0.weight", &[16, 1, 8, 8]), ("0.bias", &[16]), ("3.weight", &[32, 16, 4, 4])])
    );
    assert_eq!(
        params("lstm"),
        named(&[
            ("0.weight", &[10_004, 100]),
            ("1.weight_ih", &[400, 100]),
            ("1.weight_hh", &[400, 100]),
            ("1.bias", &[400]),
            ("3.weight", &[2, 100]),
            ("3.bias", &[2]),
        ])
    );
}

#[test]
fn every_model_survives_a_round_trip_through_toml_and_json() {
    let mut models: Vec<ModelSpec> =
        ModelSpec::built_in_names().map(|name| ModelSpec::built_in(name).unwrap()).collect();
    let text = "name = 'm'\nloss = 'mse'\ninput = { image = [1, 9, 8] }\nlayers = [
        { kind = 'conv2d', in_channels = 1, out_channels = 2, kernel_size = [2, 3], stride = [1, 2], padding = [0, 1] },
        { kind = 'max_pool2d', kernel_size = [3, 2], stride = [2, 1] },
        { kind = 'global_avg_pool2d' },
        { kind = 'linear', in_features = 2, out_features = 1 },
    ]";
    models.push(read("toml", text).unwrap());
    for model in models {
        let toml = toml::to_string(&model).unwrap();
        let from_toml = read("toml", &toml).unwrap();
        assert_eq!(from_toml, model, "{toml}");
        let json = serde_json::to_string(&from_toml).unwrap();
        assert_eq!(read("json", &json).unwrap(), model, "{json}");
    }
}
