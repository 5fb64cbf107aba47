//! The files that a measured workload needs: data set, initial parameters, and a schedule for every batch size and epoch.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dpsgd_core::{ModelSpec, Params};
use dpsgd_data::Order;
use dpsgd_protocol::checksum;
use dpsgd_protocol::schedule::Schedule;
use serde::{Deserialize, Serialize};

use super::{DATASET_FILE, PARAMS_FILE, PrepareError, ScheduleFile};

/// What to prepare.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DataJob {
    /// The model, which the data must fit.
    pub model: ModelSpec,
    /// A name of [`dpsgd_data::names`].
    pub dataset: String,
    /// The user's folder of full data sets.
    pub data_dir: Option<PathBuf>,
    /// At most this many examples.
    pub examples: Option<usize>,
    /// The order of the examples.
    pub order: Order,
    /// Batch sizes.
    pub batch_sizes: Vec<usize>,
    /// Epochs, each with its own order.
    pub epochs: usize,
    /// Seed of parameters, synthetic data and orders.
    pub seed: u64,
    /// The folder to write into, which must exist.
    pub out: PathBuf,
}

/// What was prepared.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PreparedData {
    /// Examples in the data set.
    pub examples: usize,
    /// Whether the data is real rather than synthetic.
    pub real: bool,
    /// One line: what it is and where it came from.
    pub source: String,
    /// What the user should know about the data.
    pub warnings: Vec<String>,
    /// The checksum that a worker which was given this data set reports.
    pub data_sha256: String,
    /// For each batch size, the batches of each epoch.
    pub schedules: BTreeMap<usize, Vec<ScheduleFile>>,
}

impl PreparedData {
    /// Steps of an epoch with this batch size, and examples of all of them: what is left over is no batch.
    pub fn work(&self, batch_size: usize) -> (u64, u64) {
        let steps = self.examples / batch_size;
        (steps as u64, (steps * batch_size) as u64)
    }
}

pub(super) fn prepare(job: &DataJob) -> Result<PreparedData, PrepareError> {
    let loaded = dpsgd_data::load(&job.dataset, &job.model, job.examples, job.data_dir.as_deref(), job.seed)
        .map_err(PrepareError::new)?;
    loaded.dataset.check_fits(&job.model).map_err(PrepareError::new)?;
    let examples = loaded.dataset.len();
    let mut schedules = BTreeMap::new();
    for batch_size in &job.batch_sizes {
        if *batch_size == 0 || *batch_size > examples {
            let name = &job.model.name;
            return Err(PrepareError(format!(
                "batch_sizes: {batch_size} for workload `{name}`: must be 1 to {examples}, the examples in an epoch"
            )));
        }
        let epoch = |epoch| {
            let batches = dpsgd_data::batches(job.order, examples, *batch_size, job.seed, epoch as u64)
                .map_err(PrepareError::new)?;
            let schedule = Schedule { width: batches.width, indices: batches.indices, mask: batches.mask };
            ScheduleFile::save(&schedule, job.out.join(format!("schedule-{batch_size}-{epoch}.safetensors")))
        };
        schedules.insert(*batch_size, (0..job.epochs).map(epoch).collect::<Result<_, _>>()?);
    }
    loaded.dataset.save(&job.out.join(DATASET_FILE)).map_err(PrepareError::new)?;
    Params::init(&job.model, job.seed).save(&job.out.join(PARAMS_FILE)).map_err(PrepareError::new)?;
    Ok(PreparedData {
        examples,
        real: loaded.real,
        source: loaded.source,
        warnings: loaded.warnings,
        data_sha256: checksum::of_dataset(&loaded.dataset),
        schedules,
    })
}
