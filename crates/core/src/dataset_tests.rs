use super::*;

fn built_in(name: &str) -> ModelSpec {
    ModelSpec::built_in(name).unwrap()
}

/// Three examples for `name`, whose targets fit its loss.
fn three_for(name: &str) -> (Dataset, ModelSpec) {
    let model = built_in(name);
    let example_shape = model.input.dimensions();
    let count = 3 * example_shape.iter().product::<usize>();
    let inputs = match model.input {
        ModelInput::Tokens { vocabulary, .. } => Inputs::Tokens((0..count).map(|i| (i % vocabulary) as i32).collect()),
        _ => Inputs::F32((0..count).map(|i| i as f32 / 7.0).collect()),
    };
    let targets = match model.loss {
        Loss::CrossEntropy => Targets::Class(vec![0, 1, 1]),
        Loss::BceWithLogits => Targets::Value(vec![0.0, 1.0, 1.0]),
        Loss::Mse => Targets::Value(vec![-2.5, 0.0, 7.25]),
    };
    (Dataset { example_shape, inputs, targets }, model)
}

fn misfit(dataset: &Dataset, model: &ModelSpec) -> String {
    let message = dataset.check_fits(model).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    let start = format!("data set does not fit model `{}`: ", model.name);
    message.strip_prefix(&start).expect("the model is named").to_string()
}

#[test]
fn every_kind_of_data_survives_a_file_and_fits_its_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    for name in ModelSpec::built_in_names() {
        let (dataset, model) = three_for(name);
        dataset.save(&path).unwrap();
        let loaded = Dataset::load(&path).unwrap();
        assert_eq!(loaded, dataset, "{name}");
        loaded.check_fits(&model).unwrap();
    }
}

#[test]
fn an_empty_data_set_survives_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    let (mut dataset, model) = three_for("mnist-cnn");
    dataset.truncate(0);
    assert!(dataset.is_empty());
    dataset.save(&path).unwrap();
    assert_eq!(Dataset::load(&path).unwrap(), dataset);
    dataset.check_fits(&model).unwrap();
}

#[test]
fn truncation_keeps_the_first_examples() {
    for name in ["ffnn", "lstm"] {
        let (whole, _) = three_for(name);
        let mut dataset = whole.clone();
        dataset.truncate(5);
        assert_eq!(dataset, whole);
        dataset.truncate(2);
        assert_eq!((dataset.len(), dataset.example_len()), (2, whole.example_len()));
        let kept = 2 * whole.example_len();
        match (&dataset.inputs, &whole.inputs) {
            (Inputs::F32(kept_values), Inputs::F32(values)) => assert_eq!(kept_values[..], values[..kept]),
            (Inputs::Tokens(kept_tokens), Inputs::Tokens(tokens)) => assert_eq!(kept_tokens[..], tokens[..kept]),
            _ => panic!("truncation changed the kind of inputs"),
        }
        assert_eq!(dataset.targets, Targets::Class(vec![0, 1]));
    }
}

#[test]
fn a_misfit_names_what_differs_on_both_sides() {
    let (dataset, ffnn) = three_for("ffnn");
    assert_eq!(misfit(&dataset, &built_in("mnist-cnn")), "examples have shape [104], the model takes [1, 28, 28]");

    let (tokens, lstm) = three_for("lstm");
    let of_numbers = Dataset { inputs: Inputs::F32(vec![0.0; 3 * 256]), ..tokens.clone() };
    assert_eq!(misfit(&of_numbers, &lstm), "the data has numbers, the model takes tokens");
    let of_tokens = Dataset { inputs: Inputs::Tokens(vec![0; 3 * 104]), ..dataset.clone() };
    assert_eq!(misfit(&of_tokens, &ffnn), "the data has tokens, the model takes numbers");

    let short = Dataset { inputs: Inputs::F32(vec![0.0; 3 * 104 - 1]), ..dataset.clone() };
    assert_eq!(misfit(&short, &ffnn), "311 input values for 3 examples of 104");
}

#[test]
fn tokens_and_targets_out_of_range_are_named() {
    let (dataset, lstm) = three_for("lstm");
    for bad in [-1, 10_004] {
        let mut tokens = vec![0; 3 * 256];
        tokens[700] = bad;
        let dataset = Dataset { inputs: Inputs::Tokens(tokens), ..dataset.clone() };
        assert_eq!(misfit(&dataset, &lstm), format!("token {bad} is outside the vocabulary of 10004"));
    }
    let (dataset, ffnn) = three_for("ffnn");
    for bad in [-1, 2] {
        let dataset = Dataset { targets: Targets::Class(vec![0, bad, 1]), ..dataset.clone() };
        assert_eq!(misfit(&dataset, &ffnn), format!("class {bad} is outside the model's 2 outputs"));
    }
    let (dataset, logreg) = three_for("logreg");
    for bad in [0.5, f32::NAN] {
        let dataset = Dataset { targets: Targets::Value(vec![0.0, bad, 1.0]), ..dataset.clone() };
        assert_eq!(misfit(&dataset, &logreg), format!("target {bad}: bce_with_logits takes 0 or 1"));
    }
}

#[test]
fn targets_of_the_wrong_kind_are_named_with_the_loss() {
    let (dataset, ffnn) = three_for("ffnn");
    let of_numbers = Dataset { targets: Targets::Value(vec![0.0, 1.0, 1.0]), ..dataset };
    let expected = "the data has numbers as targets, loss cross_entropy takes classes";
    assert_eq!(misfit(&of_numbers, &ffnn), expected);
    let (dataset, logreg) = three_for("logreg");
    let of_classes = Dataset { targets: Targets::Class(vec![0, 1, 1]), ..dataset };
    assert_eq!(misfit(&of_classes, &logreg), "the data has classes, loss bce_with_logits takes numbers");
}

#[test]
fn an_input_that_is_not_a_number_is_legal() {
    let (mut dataset, model) = three_for("ffnn");
    dataset.inputs = Inputs::F32(vec![f32::NAN; 3 * 104]);
    dataset.check_fits(&model).unwrap();
}

#[test]
fn a_file_that_is_not_a_data_set_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    let load = || {
        let message = Dataset::load(&path).unwrap_err().to_string();
        assert!(!message.contains('\n'), "{message}");
        message.strip_prefix(&format!("{}: ", path.display())).expect("the file is named").to_string()
    };
    assert!(load().contains("No such file"));
    std::fs::write(&path, b"garbage").unwrap();
    assert!(!load().is_empty());

    let save = |inputs: (Dtype, &[usize], &[u8]), targets: (Dtype, &[usize], &[u8])| {
        let view = |(dtype, shape, bytes): (Dtype, &[usize], &'_ [u8])| (dtype, shape.to_vec(), bytes.to_vec());
        let (inputs, targets) = (view(inputs), view(targets));
        let tensors = [
            ("inputs", TensorView::new(inputs.0, inputs.1, &inputs.2).unwrap()),
            ("targets", TensorView::new(targets.0, targets.1, &targets.2).unwrap()),
        ];
        safetensors::serialize_to_file(tensors, None, &path).unwrap();
    };
    save((Dtype::F64, &[1, 1], &[0; 8]), (Dtype::F32, &[1], &[0; 4]));
    assert_eq!(load(), "tensor `inputs` is F64: must be F32 or I32");
    save((Dtype::F32, &[1, 2], &[0; 8]), (Dtype::U8, &[1], &[0; 1]));
    assert_eq!(load(), "tensor `targets` is U8: must be F32 or I32");
    save((Dtype::F32, &[2, 1], &[0; 8]), (Dtype::I32, &[1], &[0; 4]));
    assert_eq!(load(), "inputs [2, 1] and targets [1] disagree");
    save((Dtype::F32, &[1, 1], &[0; 4]), (Dtype::I32, &[1, 1], &[0; 4]));
    assert_eq!(load(), "inputs [1, 1] and targets [1, 1] disagree");

    let tensors = [("inputs", TensorView::new(Dtype::F32, vec![1, 1], &[0; 4]).unwrap())];
    safetensors::serialize_to_file(tensors, None, &path).unwrap();
    assert!(load().starts_with("tensor `targets`: "));
}
