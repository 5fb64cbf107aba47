//! The verification gate's cases: batches whose right update the float64 oracle knows.
//!
//! A pool of examples is generated for the model; the oracle computes each one's gradient once, and every case is a
//! batch drawn from the pool. The learning rate of a case makes the update 30 times as long as the parameters, so that
//! reading the update off two sets of f32 parameters costs it no accuracy. Examples near a kink (a ReLU's input almost
//! 0, two almost equal maxima), which f32 and float64 may decide differently, are avoided; see [`pool`].

mod cases;
mod epoch;
mod measured;
mod pool;
mod sum;

use std::path::{Path, PathBuf};

use dpsgd_core::oracle::Oracle;
use dpsgd_core::{DpSgd, Mode, ModelSpec, Params};
use dpsgd_protocol::checksum;
use serde::{Deserialize, Serialize};

use super::{DATASET_FILE, PARAMS_FILE, PrepareError, ScheduleFile};
pub use measured::PartsCase;
use pool::Pool;
pub use sum::Bounds;

/// What a strategy must be able to do for a case to apply to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Needs {
    /// Any strategy.
    Nothing,
    /// A batch in which every slot is masked.
    EmptyBatch,
    /// Leaving out, and counting, an example whose gradient is not finite.
    NonFinite,
}

/// One batch, the step to take on it from the initial parameters, and the right answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    /// Shown when it fails.
    pub name: String,
    /// Rows of the pool.
    pub indices: Vec<u32>,
    /// Which slots count.
    pub mask: Vec<bool>,
    /// Hyperparameters; in private mode without noise.
    pub dp: DpSgd,
    /// What a strategy must support.
    pub needs: Needs,
    /// File of the float64 `theta_0 - theta_1`, all scalars in order; `None` when the parameters must not change.
    pub expected: Option<PathBuf>,
    /// What the error is measured by.
    pub bounds: Bounds,
    /// How many examples must be counted as not finite.
    pub non_finite: u64,
}

/// Everything that the gate needs for one model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reference {
    /// The pool.
    pub dataset: PathBuf,
    /// The checksum that a worker which was given the pool reports.
    pub data_sha256: String,
    /// Initial parameters.
    pub params: PathBuf,
    /// The cases.
    pub cases: Vec<Case>,
    /// Batches of the sizes measured that the oracle knows, of different examples.
    pub measured: Vec<Case>,
    /// Batches of the sizes measured that are too large for the oracle.
    pub parts: Vec<PartsCase>,
    /// Several steps in a row, one for each mode.
    pub epochs: Vec<EpochCase>,
    /// A step with a noise of about the size of the parameters.
    pub noise: DpSgd,
}

/// A few steps in a row through the `epoch` request, from the hyperparameters given at load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EpochCase {
    /// Hyperparameters; in private mode without noise.
    pub dp: DpSgd,
    /// The batches, rows of the pool.
    pub schedule: ScheduleFile,
    /// How many batches.
    pub steps: u64,
    /// How many examples in all of them.
    pub examples: u64,
    /// File of the float64 difference between the first and the last parameters, all scalars in order.
    pub expected: PathBuf,
    /// What the error is measured by, over all steps.
    pub bounds: Bounds,
}

/// Computes and writes it all; `batch_sizes` are those measured.
pub(super) fn prepare(
    model: &ModelSpec,
    seed: u64,
    batch_sizes: &[usize],
    out: &Path,
) -> Result<Reference, PrepareError> {
    model.validate().map_err(PrepareError::new)?;
    let params = Params::init(model, seed);
    let oracle = Oracle::new(model, &params).map_err(PrepareError::new)?;
    let pool = Pool::generate(model, &oracle, seed);
    let (params_file, dataset_file) = (out.join(PARAMS_FILE), out.join(DATASET_FILE));
    params.save(&params_file).map_err(PrepareError::new)?;
    let cases = cases::work_out(model, length(&params), &pool, out)?;
    let epochs = epoch::work_out(model, &params, &pool, out)?;
    let clip_norm = pool.median_norm();
    let job = measured::Job {
        model,
        oracle: &oracle,
        pool: &pool,
        length: length(&params),
        seed,
        out,
        known: measured::affordable(model)?,
    };
    let measured = job.work_out(batch_sizes)?;
    let dataset = pool::concatenate([pool.dataset, measured.dataset]);
    dataset.save(&dataset_file).map_err(PrepareError::new)?;
    let noise = DpSgd {
        mode: Mode::Private,
        clip_norm,
        noise_multiplier: 1.3,
        learning_rate: EXPECTED_BATCH_SIZE / clip_norm,
        expected_batch_size: EXPECTED_BATCH_SIZE,
    };
    Ok(Reference {
        dataset: dataset_file,
        data_sha256: checksum::of_dataset(&dataset),
        params: params_file,
        cases,
        measured: measured.cases,
        parts: measured.parts,
        epochs,
        noise,
    })
}

/// The L2 norm of all parameters together, at least 1.
fn length(params: &Params) -> f64 {
    params.values().map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt().max(1.0)
}

fn write(file: &Path, update: impl Iterator<Item = f64>) -> Result<(), PrepareError> {
    let bytes: Vec<u8> = update.flat_map(f64::to_le_bytes).collect();
    std::fs::write(file, bytes).map_err(|e| PrepareError(format!("{}: {e}", file.display())))
}

fn read(file: &Path) -> std::io::Result<Vec<f64>> {
    let bytes = std::fs::read(file)?;
    Ok(bytes.as_chunks::<8>().0.iter().map(|chunk| f64::from_le_bytes(*chunk)).collect())
}

/// Not the number of examples in any batch, so that a strategy that mixes the two up is found out.
const EXPECTED_BATCH_SIZE: f64 = 12.0;

impl Case {
    /// The expected `theta_0 - theta_1`; `None` when the parameters must not change.
    pub fn expected_update(&self) -> std::io::Result<Option<Vec<f64>>> {
        self.expected.as_deref().map(read).transpose()
    }
}

impl EpochCase {
    /// The expected difference between the first and the last parameters.
    pub fn expected_update(&self) -> std::io::Result<Vec<f64>> {
        read(&self.expected)
    }
}

#[cfg(test)]
mod tests {
    use crate::verify::bounds::{FLOOR, compare};

    use super::*;

    /// Whether each tensor is among those of which a missing thousandth is found, and the largest share of what is allowed
    /// that an update rounded to f32 parameters takes.
    fn found_and_share(model: &str) -> (Vec<bool>, f64) {
        let model = ModelSpec::built_in(model).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let reference = prepare(&model, 1, &[16], folder.path()).unwrap();
        let initial = Params::load(&reference.params, &model).unwrap();
        let mut found = vec![false; initial.tensors.len()];
        let mut share = 0.0_f64;
        for case in reference.cases.iter().chain(&reference.measured) {
            let Some(expected) = case.expected_update().unwrap() else { continue };
            let rounded = initial.values().zip(&expected).map(|(old, update)| {
                let new = (f64::from(old) - update) as f32;
                f64::from(old) - f64::from(new)
            });
            let rounded: Vec<f64> = rounded.collect();
            let right = compare(&rounded, &expected, &initial, &case.bounds, FLOOR);
            assert_eq!(right.wrong, None, "{}", case.name);
            share = share.max(right.share);
            let mut begin = 0;
            for (found, tensor) in found.iter_mut().zip(&initial.tensors) {
                let mut short = rounded.clone();
                short[begin..begin + tensor.values.len()].iter_mut().for_each(|update| *update *= 0.999);
                begin += tensor.values.len();
                *found |= compare(&short, &expected, &initial, &case.bounds, FLOOR).wrong.is_some();
            }
        }
        (found, share)
    }

    #[test]
    fn a_thousandth_of_any_tensor_that_is_missing_is_found_and_what_f32_parameters_blur_is_not() {
        for model in ["logreg", "ffnn", "ffnn-regression", "mnist-cnn"] {
            let (found, share) = found_and_share(model);
            assert!(found.iter().all(|found| *found), "{model}: {found:?}");
            assert!(share < 0.1, "{model}: {share}");
        }
    }

    #[test]
    #[ignore = "takes a minute with --release"]
    fn a_thousandth_of_any_tensor_of_a_large_network_that_is_missing_is_found() {
        for model in ["embedding", "cifar10-cnn", "lstm"] {
            let (found, share) = found_and_share(model);
            assert!(found.iter().all(|found| *found) && share < 0.1, "{model}: {found:?}, {share}");
        }
    }

    #[test]
    fn a_batch_too_large_for_the_oracle_is_cut_into_parts_of_different_examples() {
        let model = ModelSpec::built_in("mnist-cnn").unwrap();
        let params = Params::init(&model, 1);
        let oracle = Oracle::new(&model, &params).unwrap();
        let pool = Pool::generate(&model, &oracle, 1);
        let folder = tempfile::tempdir().unwrap();
        let job = measured::Job {
            model: &model,
            oracle: &oracle,
            pool: &pool,
            length: length(&params),
            seed: 1,
            out: folder.path(),
            known: measured::PART,
        };
        let measured = job.work_out(&[16, 200]).unwrap();
        let sizes: Vec<usize> = measured.cases.iter().map(|case| case.indices.len()).collect();
        assert_eq!(sizes, [16, 16, 64, 64], "private and plain");
        let parts: Vec<usize> = measured.parts.iter().map(|case| case.indices.len()).collect();
        assert_eq!(parts, [200, 200]);
        let (length, targets) = (
            measured.dataset.example_len(),
            match &measured.dataset.targets {
                dpsgd_core::Targets::Class(classes) => classes,
                _ => panic!("classes"),
            },
        );
        let dpsgd_core::Inputs::F32(inputs) = &measured.dataset.inputs else { panic!("images") };
        let mut examples: Vec<(Vec<u32>, i32)> = inputs
            .chunks(length)
            .zip(targets)
            .map(|(image, class)| (image.iter().map(|value| value.to_bits()).collect(), *class))
            .collect();
        examples.sort();
        examples.dedup();
        assert_eq!(examples.len(), 200, "no two are the same");
    }
}
