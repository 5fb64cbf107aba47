use super::*;
use crate::Layer;

fn built_in(name: &str) -> ModelSpec {
    ModelSpec::built_in(name).unwrap()
}

/// Saves `params`, loads them as those of `model`, and cuts the file's name from an error.
fn reload(params: &Params, model: &ModelSpec) -> Result<Params, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("params.safetensors");
    params.save(&path).unwrap();
    Params::load(&path, model).map_err(|error| without(&path, &error))
}

fn without(path: &Path, error: &ParamsError) -> String {
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message}");
    message.strip_prefix(&format!("{}: ", path.display())).expect("the file is named").to_string()
}

#[test]
fn parameters_survive_a_file_bit_by_bit_in_the_models_order() {
    for name in ModelSpec::built_in_names() {
        let model = built_in(name);
        let mut params = Params::init(&model, 5);
        params.tensors[0].values[0] = -0.0;
        params.tensors[0].values[1] = f32::from_bits(1);
        let loaded = reload(&params, &model).unwrap();
        let bits = |params: &Params| params.values().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(&loaded), bits(&params), "{name}");
        let specs: Vec<String> = model.params().into_iter().map(|spec| spec.name).collect();
        assert_eq!(loaded.tensors.iter().map(|tensor| tensor.name.clone()).collect::<Vec<_>>(), specs);
    }
}

#[test]
fn a_missing_an_extra_and_a_misshapen_tensor_are_named() {
    let model = built_in("ffnn");
    let params = Params::init(&model, 0);

    let mut missing = params.clone();
    missing.tensors.remove(1);
    let message = reload(&missing, &model).unwrap_err();
    assert!(message.starts_with("tensor `0.bias`: "), "{message}");

    let mut extra = params.clone();
    extra.tensors.push(Tensor { name: "9.weight".into(), shape: vec![1], values: vec![0.0] });
    assert_eq!(reload(&extra, &model).unwrap_err(), "tensor `9.weight` is no parameter of model `ffnn`");

    let mut misshapen = params.clone();
    misshapen.tensors[0].shape.reverse();
    let expected = "tensor `0.weight` is F32 [104, 50]: the model has F32 [50, 104]";
    assert_eq!(reload(&misshapen, &model).unwrap_err(), expected);
}

#[test]
fn a_file_that_is_none_or_cut_short_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let model = built_in("logreg");
    let load = |path: &Path| without(path, &Params::load(path, &model).unwrap_err());
    let path = folder.path().join("absent");
    assert!(load(&path).contains("No such file"));
    let path = folder.path().join("params.safetensors");
    Params::init(&model, 0).save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 4, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert!(!load(&path).is_empty());
    }
    let unwritable = folder.path().join("absent").join("params");
    assert!(without(&unwritable, &Params::init(&model, 0).save(&unwritable).unwrap_err()).contains("No such file"));
}

#[test]
fn the_same_seed_gives_the_same_parameters_and_another_seed_others() {
    for name in ModelSpec::built_in_names() {
        let model = built_in(name);
        let params = Params::init(&model, 1);
        assert_eq!(params, Params::init(&model, 1));
        let other = Params::init(&model, 2);
        assert!(params.values().zip(other.values()).filter(|(a, b)| a == b).count() < params.len() / 100);
    }
}

#[test]
fn the_first_numbers_of_a_seed_never_change() {
    // Results are comparable only between runs from the same parameters.
    let params = Params::init(&built_in("ffnn"), 0);
    assert_eq!(&params.tensors[0].values[..3], &FIRST_UNIFORM);
    let params = Params::init(&built_in("embedding"), 0);
    assert_eq!(&params.tensors[0].values[..3], &FIRST_NORMAL);
}

const FIRST_UNIFORM: [f32; 3] = [0.059121024, 0.045325063, 0.010843036];
const FIRST_NORMAL: [f32; 3] = [0.712813, 0.85833144, -2.4362438];

#[test]
fn uniform_parameters_fill_their_bounds_evenly() {
    for name in ["logreg", "ffnn", "mnist-cnn", "cifar10-cnn", "lstm"] {
        let model = built_in(name);
        let params = Params::init(&model, 3);
        for tensor in &params.tensors {
            let position: usize = tensor.name.split_once('.').unwrap().0.parse().unwrap();
            let fan_in = match model.layers[position] {
                Layer::Linear { in_features, .. } => in_features,
                Layer::Conv2d { in_channels, kernel_size, .. } => in_channels * kernel_size.h * kernel_size.w,
                Layer::Lstm { hidden_size, .. } => hidden_size,
                _ => continue,
            };
            let bound = 1.0 / (fan_in as f32).sqrt();
            let largest = tensor.values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            assert!(largest <= bound, "{name} {}: {largest} beyond {bound}", tensor.name);
            if tensor.values.len() >= 1000 {
                // Uniform in +-b has variance b^2 / 3; the estimates' deviations over n are about b / sqrt(3n), b^2 / sqrt(11n).
                let count = tensor.values.len() as f64;
                let mean = tensor.values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
                let square = tensor.values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / count;
                let bound = f64::from(bound);
                assert!(mean.abs() < 5.0 * bound / (3.0 * count).sqrt(), "{name} {}: mean {mean}", tensor.name);
                let deviation = (square - bound * bound / 3.0).abs();
                assert!(deviation < 5.0 * bound * bound / (11.0 * count).sqrt(), "{name} {}: {deviation}", tensor.name);
            }
        }
    }
}

#[test]
fn an_embedding_is_standard_normal() {
    let params = Params::init(&built_in("embedding"), 3);
    let values = &params.tensors[0].values;
    let count = values.len() as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
    let variance = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / count;
    let beyond_two = values.iter().filter(|v| v.abs() > 2.0).count() as f64 / count;
    // Five standard deviations of each estimate.
    assert!(mean.abs() < 5.0 / count.sqrt(), "mean {mean}");
    assert!((variance - 1.0).abs() < 5.0 * (2.0 / count).sqrt(), "variance {variance}");
    assert!((beyond_two - 0.0455).abs() < 5.0 * (0.0455 / count).sqrt(), "beyond two: {beyond_two}");
}

#[test]
fn an_untrained_tensor_list_is_empty() {
    assert!(Params::default().is_empty());
    assert_eq!(Params::init(&built_in("logreg"), 0).len(), 105);
}
