use std::path::Path;

use dpsgd_core::{Layer, Loss, ModelInput, ModelSpec, Targets};
use dpsgd_data::load;

use super::{assert_contains, built_in, classes, error_of, tokens};

fn model(time: usize, vocabulary: usize, loss: Loss) -> ModelSpec {
    let out_features = if loss == Loss::CrossEntropy { 2 } else { 1 };
    ModelSpec {
        name: "tiny".into(),
        input: ModelInput::Tokens { time, vocabulary },
        loss,
        layers: vec![
            Layer::Embedding { num_embeddings: vocabulary, embedding_dim: 2 },
            Layer::MeanOverTime,
            Layer::Linear { in_features: 2, out_features },
        ],
    }
}

fn write(folder: &Path, reviews: &[(&str, &str)]) {
    for (name, text) in reviews {
        let path = folder.join("train").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

const REVIEWS: [(&str, &str); 5] = [
    ("pos/2_9.txt", "good good good film"),
    ("pos/10_7.txt", "A Film<br />good"),
    ("neg/0_1.txt", "bad film, bad film!"),
    ("neg/1_3.txt", "dull"),
    ("neg/notes.md", "not a review"),
];

#[test]
fn words_are_numbered_by_frequency_and_reviews_alternate() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("aclImdb"), &REVIEWS);
    // good 4, film 4, bad 2, a 1, dull 1: ties in byte order give film, good, bad, a, dull; there is room for four.
    let (film, good, bad, a, unknown) = (4, 5, 6, 7, 2);
    let loaded = load("imdb", &model(6, 8, Loss::CrossEntropy), None, Some(root.path()), 0).unwrap();
    assert!(loaded.real);
    assert_contains(&loaded.source, &["4 of 4 reviews", "aclImdb"]);
    assert_contains(&loaded.warnings.join("\n"), &["2 positive and 2 negative reviews, not 12500 each"]);
    // In turn, by number: pos/2, neg/0, pos/10, neg/1; padded at the front.
    assert_eq!(classes(&loaded.dataset), [1, 0, 1, 0]);
    let expected = [
        [0, 1, good, good, good, film],
        [0, 1, bad, film, bad, film],
        [0, 0, 1, a, film, good],
        [0, 0, 0, 0, 1, unknown],
    ];
    assert_eq!(tokens(&loaded.dataset), expected.concat());
}

#[test]
fn a_long_review_keeps_its_end_and_a_cap_keeps_the_numbering() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("imdb"), &REVIEWS);
    let loaded = load("imdb", &model(2, 8, Loss::BceWithLogits), Some(2), Some(root.path()), 0).unwrap();
    assert_eq!(tokens(&loaded.dataset), [5, 4, 6, 4]);
    assert_eq!(loaded.dataset.targets, Targets::Value(vec![1.0, 0.0]));
}

#[test]
fn missing_and_empty_folders_are_named() {
    let root = tempfile::tempdir().unwrap();
    let model = model(4, 8, Loss::CrossEntropy);
    assert_contains(&error_of("imdb", &model, root.path()), &["aclImdb/train/pos", "imdb/train/pos", "synthetic"]);
    std::fs::create_dir_all(root.path().join("aclImdb/train/pos")).unwrap();
    assert_contains(&error_of("imdb", &model, root.path()), &["aclImdb/train/pos", "no .txt file", "aclImdb there"]);
    write(&root.path().join("aclImdb"), &REVIEWS[..1]);
    assert_contains(&error_of("imdb", &model, root.path()), &["aclImdb/train/neg", "No such file"]);
}

#[test]
fn without_a_folder_it_is_synthetic_and_says_so() {
    let loaded = load("imdb", &built_in("lstm"), None, None, 0).unwrap();
    assert!(!loaded.real);
    assert_contains(&loaded.source, &["synthetic stand-in for IMDb", "25,000 examples", "[256]"]);
    assert_eq!(tokens(&loaded.dataset).len(), 25_000 * 256);
    let error = load("imdb", &built_in("ffnn"), None, None, 0).unwrap_err().to_string();
    assert_contains(&error, &["examples are tokens", "features [104]"]);
    let error = load("imdb", &model(4, 4, Loss::CrossEntropy), None, None, 0).unwrap_err().to_string();
    assert_contains(&error, &["vocabulary is 4", "above 4"]);
}
