use dpsgd_core::{Dataset, Inputs, Layer, Loss, ModelInput, ModelSpec, Targets};
use dpsgd_data::{load, synthetic};

use super::{built_in, classes, tokens, values};

fn model(input: ModelInput, loss: Loss, outputs: usize) -> ModelSpec {
    let features = match input {
        ModelInput::Features(n) => n,
        ModelInput::Image([c, h, w]) => c * h * w,
        ModelInput::Tokens { .. } => 2,
    };
    let mut layers = match input {
        ModelInput::Features(_) => vec![],
        ModelInput::Image(_) => vec![Layer::Flatten],
        ModelInput::Tokens { vocabulary, .. } => {
            vec![Layer::Embedding { num_embeddings: vocabulary, embedding_dim: 2 }, Layer::MeanOverTime]
        }
    };
    layers.push(Layer::Linear { in_features: features, out_features: outputs });
    let model = ModelSpec { name: "probe".into(), input, loss, layers };
    model.validate().unwrap();
    model
}

fn inputs() -> [ModelInput; 4] {
    [
        ModelInput::Features(20),
        ModelInput::Image([2, 6, 5]),
        ModelInput::Tokens { time: 64, vocabulary: 60 },
        ModelInput::Tokens { time: 64, vocabulary: 8 },
    ]
}

/// One row of numbers per example: the input itself, or how often each token occurs.
fn rows(dataset: &Dataset, vocabulary: usize) -> Vec<Vec<f64>> {
    let size = dataset.example_len();
    match &dataset.inputs {
        Inputs::F32(values) => {
            values.chunks_exact(size).map(|row| row.iter().map(|v| f64::from(*v)).collect()).collect()
        }
        Inputs::Tokens(tokens) => {
            let histogram = |row: &[i32]| {
                let mut counts = vec![0.0; vocabulary];
                row.iter().for_each(|token| counts[*token as usize] += 1.0 / (size as f64).sqrt());
                counts
            };
            tokens.chunks_exact(size).map(histogram).collect()
        }
    }
}

/// Fits each column of `wanted` linearly on the first half by gradient descent; returns the predictions for the second.
fn linear_probe(rows: &[Vec<f64>], wanted: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let half = rows.len() / 2;
    let (features, outputs) = (rows[0].len(), wanted[0].len());
    let mut weights = vec![vec![0.0; features + 1]; outputs];
    let predict = |weights: &[f64], row: &[f64]| -> f64 {
        weights[features] + weights.iter().zip(row).map(|(w, x)| w * x).sum::<f64>()
    };
    // A step of 1 / (largest squared length) can't diverge.
    let largest = rows.iter().map(|row| 1.0 + row.iter().map(|x| x * x).sum::<f64>()).fold(0.0, f64::max);
    for _ in 0..30 {
        for (row, wanted) in rows[..half].iter().zip(wanted) {
            for (weights, wanted) in weights.iter_mut().zip(wanted) {
                let step = (wanted - predict(weights, row)) * 0.3 / largest;
                weights.iter_mut().zip(row).for_each(|(w, x)| *w += step * x);
                weights[features] += step;
            }
        }
    }
    rows[half..].iter().map(|row| weights.iter().map(|w| predict(w, row)).collect()).collect()
}

#[test]
fn a_linear_probe_tells_the_classes_of_unseen_examples() {
    for input in inputs() {
        let model = model(input.clone(), Loss::CrossEntropy, 3);
        let dataset = synthetic::generate(&model, 2000, 5).unwrap();
        let classes = classes(&dataset);
        let wanted: Vec<Vec<f64>> =
            classes.iter().map(|class| (0..3).map(|k| f64::from(u8::from(k == *class))).collect()).collect();
        let found = linear_probe(&rows(&dataset, 60), &wanted);
        let best = |scores: &Vec<f64>| (0..3).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap() as i32;
        let right = found.iter().zip(&classes[1000..]).filter(|(scores, class)| best(scores) == **class).count();
        assert!(right > 800, "{input:?}: {right} of 1000 right, chance is 333");
    }
}

#[test]
fn a_linear_probe_predicts_the_targets_of_unseen_examples() {
    for input in inputs() {
        let dataset = synthetic::generate(&model(input.clone(), Loss::Mse, 1), 2000, 5).unwrap();
        let wanted: Vec<Vec<f64>> = values(&dataset).iter().map(|value| vec![f64::from(*value)]).collect();
        let found = linear_probe(&rows(&dataset, 60), &wanted);
        let error: f64 = found.iter().zip(&wanted[1000..]).map(|(f, w)| (f[0] - w[0]).powi(2)).sum::<f64>() / 1000.0;
        let mean: f64 = wanted[1000..].iter().map(|w| w[0].powi(2)).sum::<f64>() / 1000.0;
        assert!(error < 0.5 * mean, "{input:?}: error {error}, predicting 0 has {mean}");
    }
}

#[test]
fn every_loss_gets_its_kind_of_target_in_balance() {
    for input in inputs() {
        let softmax = synthetic::generate(&model(input.clone(), Loss::CrossEntropy, 4), 4000, 1).unwrap();
        for class in 0..4 {
            let count = classes(&softmax).iter().filter(|c| **c == class).count();
            assert!((850..1150).contains(&count), "{input:?}: class {class} has {count} of 4000");
        }
        let logistic = synthetic::generate(&model(input.clone(), Loss::BceWithLogits, 1), 4000, 1).unwrap();
        let ones = values(&logistic).iter().filter(|value| **value == 1.0).count();
        assert!((1800..2200).contains(&ones));
        assert_eq!(values(&logistic).iter().filter(|value| **value == 0.0).count(), 4000 - ones);
        let regression = synthetic::generate(&model(input, Loss::Mse, 1), 4000, 1).unwrap();
        let mean = values(&regression).iter().sum::<f32>() / 4000.0;
        assert!(mean.abs() < 0.1 && matches!(regression.targets, Targets::Value(_)));
    }
}

#[test]
fn every_built_in_model_gets_examples_that_fit() {
    for name in ModelSpec::built_in_names() {
        let loaded = load("synthetic", &built_in(name), Some(32), None, 9).unwrap();
        assert!(!loaded.real);
        loaded.dataset.check_fits(&built_in(name)).unwrap();
    }
}

#[test]
fn a_smaller_set_is_the_beginning_of_a_larger_one_and_seeds_differ() {
    for name in ["ffnn", "mnist-cnn", "lstm"] {
        let small = synthetic::generate(&built_in(name), 10, 1).unwrap();
        let mut large = synthetic::generate(&built_in(name), 30, 1).unwrap();
        large.truncate(10);
        assert_eq!(small, large);
        assert_ne!(small.inputs, synthetic::generate(&built_in(name), 10, 2).unwrap().inputs);
    }
}

#[test]
fn sequences_look_like_padded_text() {
    let dataset = synthetic::generate(&built_in("lstm"), 400, 1).unwrap();
    let mut words = vec![0usize; 10_004];
    for review in tokens(&dataset).chunks_exact(256) {
        let padding = review.iter().take_while(|token| **token == 0).count();
        assert!(padding <= 128 && review[padding] == 1, "{review:?}");
        assert!(review[padding + 1..].iter().all(|token| (4..10_004).contains(token)));
        review[padding + 1..].iter().for_each(|token| words[*token as usize] += 1);
    }
    // Frequencies fall as 1/rank: each tenfold range of ranks gets about as many words as the next.
    let decade = |from: usize, to: usize| words[4 + from..4 + to].iter().sum::<usize>() as f64;
    let ratio = decade(9, 99) / decade(999, 9_999);
    assert!((0.8..1.25).contains(&ratio), "{ratio}");
}

#[test]
fn the_smallest_models_get_examples_too() {
    let one_word = model(ModelInput::Tokens { time: 1, vocabulary: 1 }, Loss::CrossEntropy, 2);
    let dataset = synthetic::generate(&one_word, 5, 0).unwrap();
    assert_eq!(tokens(&dataset), [0; 5]);
    let one_pixel = model(ModelInput::Image([1, 1, 1]), Loss::Mse, 1);
    synthetic::generate(&one_pixel, 5, 0).unwrap().check_fits(&one_pixel).unwrap();
}
