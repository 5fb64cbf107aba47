//! The batches of an epoch.
//!
//! Every batch has the same width. The ragged tail of an epoch is dropped: a last batch of another shape would make a
//! just-in-time compiler compile twice, and its cost would hide in the median.

use std::fmt;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

/// The order in which an epoch visits the examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// As stored; the same in every epoch.
    Sequential,
    /// A uniformly random permutation, another in every epoch.
    Shuffle,
}

impl Order {
    /// All orders.
    pub const ALL: [Order; 2] = [Order::Sequential, Order::Shuffle];

    /// The name in config files: `sequential` or `shuffle`.
    pub fn name(self) -> &'static str {
        match self {
            Order::Sequential => "sequential",
            Order::Shuffle => "shuffle",
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `steps` batches of `width` slots each, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batches {
    /// Slots per batch, at least 1.
    pub width: usize,
    /// `[steps * width]` rows of the data set.
    pub indices: Vec<u32>,
    /// `[steps * width]`: which slots count. All, in the orders on offer.
    pub mask: Vec<bool>,
}

impl Batches {
    /// Number of batches.
    pub fn steps(&self) -> usize {
        self.indices.len() / self.width
    }
}

/// A batch size that gives no batch.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("batch size {batch_size}: must be from 1 to the number of examples, {examples}")]
pub struct BatchesError {
    /// The batch size found.
    pub batch_size: usize,
    /// The number of examples there are.
    pub examples: usize,
}

/// The batches of epoch `epoch`: `examples / batch_size`, rounded down, full ones in which no example comes twice.
///
/// The same arguments give the same batches on every machine. The first `k * batch_size` examples of a shuffle are those of
/// the same shuffle at any other batch size.
///
/// # Panics
/// If `examples` is above `u32::MAX`.
pub fn batches(
    order: Order,
    examples: usize,
    batch_size: usize,
    seed: u64,
    epoch: u64,
) -> Result<Batches, BatchesError> {
    if batch_size == 0 || batch_size > examples {
        return Err(BatchesError { batch_size, examples });
    }
    let count = u32::try_from(examples).expect("row numbers are u32");
    let mut indices: Vec<u32> = (0..count).collect();
    if order == Order::Shuffle {
        // One stream per epoch: epochs are independent of each other and of how many came before. Fisher-Yates is spelled
        // out since a library's shuffle may change with its version, and with it every stored result.
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        rng.set_stream(epoch);
        for position in 0..count - 1 {
            let other = rng.random_range(position..count);
            indices.swap(position as usize, other as usize);
        }
    }
    indices.truncate(examples / batch_size * batch_size);
    let mask = vec![true; indices.len()];
    Ok(Batches { width: batch_size, indices, mask })
}
