//! CIFAR-10, binary version: five files of 10,000 records, each a label and 3 x 32 x 32 pixels.
//!
//! Pixels are scaled to [0, 1], then normalized per channel by the training set's customary mean (0.4914, 0.4822,
//! 0.4465) and standard deviation (0.2470, 0.2435, 0.2616).
//!
//! No SHA-256 of the single files is published. Their sizes, the range of the labels and the 5,000 images per class
//! that the authors state are checked instead, over all five files whatever the cap on examples.

use std::path::{Path, PathBuf};

use dpsgd_core::Inputs;

use crate::DataError;
use crate::catalog::{Examples, Request, folder_with, grouped, listed};
use crate::source::Source;

/// Shape of one image.
pub(crate) const SHAPE: [usize; 3] = [3, 32, 32];
/// Number of training images.
pub(crate) const EXAMPLES: usize = 50_000;
const RECORDS: usize = 10_000;
const RECORD: usize = 1 + 3 * 32 * 32;
const MEAN: [f64; 3] = [0.4914, 0.4822, 0.4465];
const STD: [f64; 3] = [0.2470, 0.2435, 0.2616];
const FIX: &str = "download CIFAR-10's binary version and unpack it there, or name no folder to use synthetic data";

/// Reads the set from the user's folder.
pub(crate) fn load(request: &Request, root: &Path) -> Result<Examples, DataError> {
    let shape = request.shape(&SHAPE)?;
    let (folder, files) = locate(root)?;
    for file in &files {
        let size = std::fs::metadata(file).map_err(|e| DataError::file(file, e))?.len();
        if size != (RECORDS * RECORD) as u64 {
            return Err(DataError::Content {
                path: file.display().to_string(),
                found: format!("{size} bytes"),
                expected: format!("{} ({RECORDS} records of {RECORD})", RECORDS * RECORD),
                fix: "download the file again",
            });
        }
    }

    let count = request.limit.min(EXAMPLES);
    let normalized: Vec<[f32; 256]> = MEAN.iter().zip(STD).map(|(mean, std)| normalization(*mean, std)).collect();
    let mut classes = Vec::with_capacity(count);
    let mut values = Vec::with_capacity(count * (RECORD - 1));
    let mut per_class = [0; 10];
    let mut record = [0; RECORD];
    for file in &files {
        let mut source = Source::open(file)?;
        for position in 0..RECORDS {
            if source.fill(&mut record)? < RECORD {
                return Err(source.wrong(format!("its end in record {position}"), format!("{RECORDS} records")));
            }
            let (label, pixels) = (record[0], &record[1..]);
            let Some(images) = per_class.get_mut(usize::from(label)) else {
                return Err(source.wrong(format!("label {label} in record {position}"), "labels from 0 to 9"));
            };
            *images += 1;
            if classes.len() < count {
                classes.push(i32::from(label));
                for (channel, normalized) in pixels.chunks_exact(32 * 32).zip(&normalized) {
                    values.extend(channel.iter().map(|pixel| normalized[usize::from(*pixel)]));
                }
            }
        }
    }

    let mut warnings = Vec::new();
    if per_class != [EXAMPLES / 10; 10] {
        let folder = folder.display();
        warnings.push(format!(
            "{folder}: unrecognized content, used as it is: {per_class:?} images per class, not 5000 each"
        ));
    }
    let source = format!("CIFAR-10: {} of {} images, {}", grouped(count), grouped(EXAMPLES), folder.display());
    Ok(Examples { shape, inputs: Inputs::F32(values), targets: request.classes(classes, 10)?, source, warnings })
}

fn normalization(mean: f64, std: f64) -> [f32; 256] {
    std::array::from_fn(|pixel| ((pixel as f64 / 255.0 - mean) / std) as f32)
}

fn locate(root: &Path) -> Result<(PathBuf, Vec<PathBuf>), DataError> {
    let unpacked = "cifar-10-batches-bin";
    let folders = [root.join("cifar10"), root.join("cifar10").join(unpacked), root.join(unpacked), root.to_path_buf()];
    let files =
        |folder: &Path| -> Vec<PathBuf> { (1..=5).map(|n| folder.join(format!("data_batch_{n}.bin"))).collect() };
    let missing =
        |looked_at: &[PathBuf]| DataError::Missing { name: "cifar10", looked_at: listed(looked_at), fix: FIX };
    let Some(folder) = folder_with(&folders, |folder| files(folder).iter().any(|file| file.is_file())) else {
        return Err(missing(&folders.map(|folder| folder.join("data_batch_1.bin"))));
    };
    let files = files(&folder);
    let absent: Vec<PathBuf> = files.iter().filter(|file| !file.is_file()).cloned().collect();
    if absent.is_empty() { Ok((folder, files)) } else { Err(missing(&absent)) }
}
