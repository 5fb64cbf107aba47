//! MNIST: an embedded sample of 4,096 training images, or all 60,000 from IDX files.
//!
//! Pixels are scaled to [0, 1], then normalized by the training set's mean and standard deviation as is customary:
//! `(x - 0.1307) / 0.3081`.

use std::path::{Path, PathBuf};

use dpsgd_core::Inputs;

use crate::catalog::{Examples, Request, folder_with, grouped};
use crate::source::Source;
use crate::{DataError, idx};

/// SHA-256 of the decompressed files as published.
const IMAGES_SHA256: &str = "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db";
const LABELS_SHA256: &str = "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5";
const IMAGES_NAMES: [&str; 4] =
    ["train-images-idx3-ubyte", "train-images-idx3-ubyte.gz", "train-images.idx3-ubyte", "train-images.idx3-ubyte.gz"];
const LABELS_NAMES: [&str; 4] =
    ["train-labels-idx1-ubyte", "train-labels-idx1-ubyte.gz", "train-labels.idx1-ubyte", "train-labels.idx1-ubyte.gz"];
const FIX: &str = "put the training images and labels of MNIST there, both, in IDX form";

/// Shape of one image.
pub(crate) const SHAPE: [usize; 3] = [1, 28, 28];

/// The full set from the user's folder if it is there, otherwise the embedded sample.
pub(crate) fn load(request: &Request) -> Result<Examples, DataError> {
    let shape = request.shape(&SHAPE)?;
    let mut warnings = Vec::new();
    let found = match request.data_dir {
        Some(root) => locate(root, &mut warnings)?,
        None => None,
    };
    let (mut images, mut labels) = match &found {
        Some((images, labels)) => (Source::open(images)?, Source::open(labels)?),
        None => (
            Source::embedded(
                "mnist-4096-images-idx3-ubyte.gz",
                include_bytes!("../assets/mnist-4096-images-idx3-ubyte.gz"),
            ),
            Source::embedded(
                "mnist-4096-labels-idx1-ubyte.gz",
                include_bytes!("../assets/mnist-4096-labels-idx1-ubyte.gz"),
            ),
        ),
    };

    let mut classes = Vec::new();
    let label_count =
        idx::read(&mut labels, idx::LABELS, &[], request.limit, |label| classes.push(i32::from(label[0])))?;
    if let Some(position) = classes.iter().position(|class| *class > 9) {
        return Err(labels.wrong(format!("label {} at position {position}", classes[position]), "labels from 0 to 9"));
    }
    let normalized: Vec<f32> = (0..256).map(|pixel| ((f64::from(pixel) / 255.0 - 0.1307) / 0.3081) as f32).collect();
    let mut values = Vec::with_capacity(classes.len() * 28 * 28);
    let image_count = idx::read(&mut images, idx::IMAGES, &[28, 28], request.limit, |image| {
        values.extend(image.iter().map(|pixel| normalized[usize::from(*pixel)]));
    })?;
    if image_count != label_count {
        let expected = format!("{image_count}, as many as there are images in {}", images.name);
        return Err(labels.wrong(format!("{label_count} labels"), expected));
    }

    let place = match &found {
        Some((path, _)) => {
            warnings.extend(images.unrecognized(IMAGES_SHA256));
            warnings.extend(labels.unrecognized(LABELS_SHA256));
            path.parent().unwrap_or(path).display().to_string()
        }
        None => "embedded sample of the 60,000 training images".into(),
    };
    let source = format!("MNIST: {} of {} images, {place}", grouped(classes.len()), grouped(image_count));
    Ok(Examples { shape, inputs: Inputs::F32(values), targets: request.classes(classes, 10)?, source, warnings })
}

/// Images and labels under the user's folder; nothing, with a warning, if there is no sign of either.
fn locate(root: &Path, warnings: &mut Vec<String>) -> Result<Option<(PathBuf, PathBuf)>, DataError> {
    let folders = [root.join("mnist"), root.join("MNIST").join("raw"), root.to_path_buf()];
    let is_mnist = |folder: &Path| IMAGES_NAMES.iter().chain(&LABELS_NAMES).any(|name| folder.join(name).is_file());
    let Some(folder) = folder_with(&folders, is_mnist) else {
        let root = root.display();
        warnings.push(format!("{root}: holds no MNIST (looked in mnist/, MNIST/raw/, ./): using the embedded sample"));
        return Ok(None);
    };
    let file = |names: &[&str]| {
        names.iter().map(|name| folder.join(name)).find(|path| path.is_file()).ok_or_else(|| DataError::Missing {
            name: "mnist",
            looked_at: names.iter().map(|n| folder.join(n).display().to_string()).collect::<Vec<_>>().join(", "),
            fix: FIX,
        })
    };
    Ok(Some((file(&IMAGES_NAMES)?, file(&LABELS_NAMES)?)))
}
