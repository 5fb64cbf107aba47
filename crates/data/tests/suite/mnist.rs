use std::io::Write;
use std::path::Path;

use dpsgd_core::{Layer, Loss, ModelInput, ModelSpec};
use dpsgd_data::load;
use flate2::{Compression, write::GzEncoder};

use super::{assert_contains, built_in, classes, error_of, numbers};

const IMAGES: &str = "train-images-idx3-ubyte";
const LABELS: &str = "train-labels-idx1-ubyte";

fn idx(magic: u32, sizes: &[u32], content: &[u8]) -> Vec<u8> {
    let header = std::iter::once(&magic).chain(sizes).flat_map(|word| word.to_be_bytes());
    header.chain(content.iter().copied()).collect()
}

/// Three images, the k-th all k, with labels 7, 8, 9.
fn images() -> Vec<u8> {
    let pixels: Vec<u8> = (0..3).flat_map(|image| [image; 784]).collect();
    idx(0x803, &[3, 28, 28], &pixels)
}

fn labels() -> Vec<u8> {
    idx(0x801, &[3], &[7, 8, 9])
}

fn write(folder: &Path, images: &[u8], labels: &[u8]) {
    std::fs::write(folder.join(IMAGES), images).unwrap();
    std::fs::write(folder.join(LABELS), labels).unwrap();
}

fn normalized(pixel: f64) -> f32 {
    ((pixel / 255.0 - 0.1307) / 0.3081) as f32
}

#[test]
fn the_embedded_sample_is_the_beginning_of_mnist() {
    let loaded = load("mnist", &built_in("mnist-cnn"), None, None, 0).unwrap();
    assert!(loaded.real && loaded.warnings.is_empty());
    assert_contains(&loaded.source, &["4,096 of 4,096", "embedded sample of the 60,000"]);
    assert_eq!(loaded.dataset.example_shape, [1, 28, 28]);
    assert_eq!(classes(&loaded.dataset)[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
    // Counts per digit and sums of the raw pixels, computed with Python from the package's uncut file.
    let digits: Vec<usize> =
        (0..10).map(|digit| classes(&loaded.dataset).iter().filter(|class| **class == digit).count()).collect();
    assert_eq!(digits, [388, 456, 405, 400, 435, 360, 415, 443, 383, 411]);
    let raw = |value: &f32| ((f64::from(*value) * 0.3081 + 0.1307) * 255.0).round() as u64;
    let values = numbers(&loaded.dataset);
    assert_eq!(values.len(), 4096 * 784);
    assert_eq!(values[..784].iter().map(raw).sum::<u64>(), 27_525);
    assert_eq!(values.iter().map(raw).sum::<u64>(), 106_206_853);
    assert_eq!(values[28 * 5 + 12..28 * 5 + 16].iter().map(raw).collect::<Vec<_>>(), [3, 18, 18, 18]);
}

#[test]
fn a_cap_keeps_the_first_images() {
    let few = load("mnist", &built_in("mnist-cnn"), Some(64), None, 0).unwrap().dataset;
    let mut all = load("mnist", &built_in("mnist-cnn"), None, None, 0).unwrap().dataset;
    all.truncate(64);
    assert_eq!(few, all);
}

#[test]
fn a_model_of_784_features_takes_flat_images() {
    let model = ModelSpec {
        name: "softmax".into(),
        input: ModelInput::Features(784),
        loss: Loss::CrossEntropy,
        layers: vec![Layer::Linear { in_features: 784, out_features: 10 }],
    };
    let loaded = load("mnist", &model, Some(2), None, 0).unwrap();
    assert_eq!(loaded.dataset.example_shape, [784]);
}

#[test]
fn files_are_found_in_every_documented_place_and_form() {
    for folder in ["mnist", "MNIST/raw", "."] {
        for (infix, gzipped) in [("-", false), ("-", true), (".", false), (".", true)] {
            let root = tempfile::tempdir().unwrap();
            let place = root.path().join(folder);
            std::fs::create_dir_all(&place).unwrap();
            for (name, content) in [(IMAGES, images()), (LABELS, labels())] {
                let name = name.replace("-idx", &format!("{infix}idx"));
                if gzipped {
                    let mut file = GzEncoder::new(Vec::new(), Compression::fast());
                    file.write_all(&content).unwrap();
                    std::fs::write(place.join(name + ".gz"), file.finish().unwrap()).unwrap();
                } else {
                    std::fs::write(place.join(name), content).unwrap();
                }
            }
            let loaded = load("mnist", &built_in("mnist-cnn"), Some(2), Some(root.path()), 0).unwrap();
            assert_eq!(classes(&loaded.dataset), [7, 8]);
            assert_eq!(numbers(&loaded.dataset)[..784], [normalized(0.0); 784]);
            assert_eq!(numbers(&loaded.dataset)[784..], [normalized(1.0); 784]);
            assert_contains(&loaded.source, &["2 of 3 images"]);
            assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
            assert_contains(&loaded.warnings[0], &["images", "unrecognized content", "published ba891046e650"]);
        }
    }
}

#[test]
fn a_folder_without_mnist_is_a_warning_and_half_of_it_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let loaded = load("mnist", &built_in("mnist-cnn"), Some(1), Some(root.path()), 0).unwrap();
    assert_contains(&loaded.warnings.join("\n"), &["holds no MNIST", "embedded sample"]);
    std::fs::write(root.path().join(IMAGES), images()).unwrap();
    let error = error_of("mnist", &built_in("mnist-cnn"), root.path());
    assert_contains(&error, &["data set `mnist`", LABELS, "train-labels.idx1-ubyte.gz"]);
}

#[test]
fn a_corrupt_file_is_named_with_what_was_found_and_expected() {
    let root = tempfile::tempdir().unwrap();
    let fails = |images: &[u8], labels: &[u8]| {
        write(root.path(), images, labels);
        error_of("mnist", &built_in("mnist-cnn"), root.path())
    };
    let swapped = fails(&labels(), &labels());
    assert_contains(&swapped, &[IMAGES, "magic number 0x00000801 (a file of labels)", "expected 0x00000803"]);
    assert_contains(&fails(&images(), b"<htm"), &[LABELS, "magic number 0x3c68746d", "expected 0x00000801"]);
    assert_contains(&fails(&images()[..11], &labels()), &[IMAGES, "11 bytes", "a header of 16 bytes", "again"]);
    assert_contains(&fails(&images(), b""), &[LABELS, "0 bytes", "a header of 8 bytes"]);
    let truncated = fails(&images()[..16 + 1000], &labels());
    assert_contains(&truncated, &["found 1000 bytes", "expected 2352 (3 records of 784, as its header says)"]);
    let longer = fails(&[images(), vec![0; 5]].concat(), &labels());
    assert_contains(&longer, &["found 2357 bytes", "expected 2352"]);
    let small = fails(&idx(0x803, &[3, 14, 56], &[0; 3 * 784]), &labels());
    assert_contains(&small, &["records of [14, 56]", "[28, 28]"]);
    let mismatch = fails(&images(), &idx(0x801, &[2], &[1, 2]));
    assert_contains(&mismatch, &[LABELS, "2 labels", "3, as many as there are images in", IMAGES]);
    let label = fails(&images(), &idx(0x801, &[3], &[7, 10, 9]));
    assert_contains(&label, &["label 10 at position 1", "labels from 0 to 9"]);
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&images()).unwrap();
    let packed = packed.finish().unwrap();
    assert_contains(&fails(&packed[..packed.len() / 2], &labels()), &[IMAGES, "download the file again"]);
}
