use std::path::Path;

use dpsgd_core::{Layer, Loss, ModelInput, ModelSpec};
use dpsgd_data::load;

use super::{assert_contains, built_in, classes, error_of, numbers};

const RECORD: usize = 3073;

/// Five files of 10,000 records; record r of file f has label r mod 10 and pixels that tell file, channel and position.
fn write(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    for file in 1..=5u8 {
        let mut content = vec![0; 10_000 * RECORD];
        for (position, record) in content.chunks_exact_mut(RECORD).enumerate() {
            record[0] = (position % 10) as u8;
            record[1] = file;
            record[1 + 1024] = 100;
            record[1 + 2048 + 33] = 200;
        }
        std::fs::write(folder.join(format!("data_batch_{file}.bin")), content).unwrap();
    }
}

/// Takes CIFAR-10's shape.
fn model() -> ModelSpec {
    ModelSpec {
        name: "tiny".into(),
        input: ModelInput::Image([3, 32, 32]),
        loss: Loss::CrossEntropy,
        layers: vec![Layer::GlobalAvgPool2d, Layer::Linear { in_features: 3, out_features: 10 }],
    }
}

#[test]
fn files_are_read_in_order_and_normalized_per_channel() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("cifar-10-batches-bin"));
    let loaded = load("cifar10", &built_in("cifar10-cnn"), Some(10_002), Some(root.path()), 0).unwrap();
    assert!(loaded.real && loaded.warnings.is_empty());
    assert_contains(&loaded.source, &["10,002 of 50,000 images", "cifar-10-batches-bin"]);
    assert_eq!(loaded.dataset.example_shape, [3, 32, 32]);
    assert_eq!(classes(&loaded.dataset)[9_998..], [8, 9, 0, 1]);
    let image = |position: usize| &numbers(&loaded.dataset)[position * 3072..(position + 1) * 3072];
    let close = |found: f32, pixel: f64, mean: f64, std: f64| {
        let expected = (pixel / 255.0 - mean) / std;
        assert!((f64::from(found) - expected).abs() < 1e-6, "{found} is not {expected}");
    };
    close(image(0)[0], 1.0, 0.4914, 0.2470);
    close(image(10_000)[0], 2.0, 0.4914, 0.2470);
    close(image(0)[1], 0.0, 0.4914, 0.2470);
    close(image(0)[1024], 100.0, 0.4822, 0.2435);
    close(image(0)[2048 + 33], 200.0, 0.4465, 0.2616);
}

#[test]
fn a_missing_folder_or_file_is_named() {
    let root = tempfile::tempdir().unwrap();
    let error = error_of("cifar10", &model(), root.path());
    assert_contains(&error, &["cifar10/data_batch_1.bin", "cifar-10-batches-bin/data_batch_1.bin", "synthetic"]);
    let folder = root.path().join("cifar10");
    write(&folder);
    std::fs::remove_file(folder.join("data_batch_4.bin")).unwrap();
    let error = error_of("cifar10", &model(), root.path());
    assert_contains(&error, &["data_batch_4.bin", "download"]);
    assert!(!error.contains("data_batch_3.bin"), "{error}");
}

#[test]
fn a_file_of_the_wrong_size_or_with_a_wrong_label_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    write(root.path());
    let file = root.path().join("data_batch_2.bin");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, &good[..5000]).unwrap();
    let error = error_of("cifar10", &model(), root.path());
    assert_contains(&error, &["data_batch_2.bin", "found 5000 bytes", "expected 30730000 (10000 records of 3073)"]);
    let mut bad = good;
    bad[17 * RECORD] = 23;
    std::fs::write(&file, &bad).unwrap();
    let error = error_of("cifar10", &model(), root.path());
    assert_contains(&error, &["data_batch_2.bin", "label 23 in record 17", "labels from 0 to 9"]);
    bad[17 * RECORD] = 8;
    std::fs::write(&file, &bad).unwrap();
    let loaded = load("cifar10", &model(), Some(10), Some(root.path()), 0).unwrap();
    assert_contains(&loaded.warnings.join("\n"), &["unrecognized content", "4999, 5001"]);
}

#[test]
fn without_a_folder_it_is_synthetic_and_says_so() {
    let loaded = load("cifar10", &built_in("cifar10-cnn"), Some(20), None, 3).unwrap();
    assert!(!loaded.real);
    assert_contains(&loaded.source, &["synthetic stand-in for CIFAR-10", "20 examples", "[3, 32, 32]", "seed 3"]);
    assert_eq!(loaded.dataset.len(), 20);
    let error = load("cifar10", &built_in("mnist-cnn"), Some(20), None, 3).unwrap_err().to_string();
    assert_contains(&error, &["[3, 32, 32]", "image [1, 28, 28]"]);
}
