//! What the contenders train on: real data where it can be had, synthetic data of the same shape where not, and the
//! batches of each epoch.
//!
//! [`load`] is the one way in. All of Adult and the first 4,096 images of MNIST are embedded in this crate (see
//! `assets/README.md` for source and license), so that real data needs no download. The full MNIST, CIFAR-10, IMDb and
//! Adult are read from a folder that the user names. CIFAR-10 and IMDb without such a folder are replaced by
//! [synthetic data](synthetic) of the same shape, and [`Loaded::real`] says so.
//!
//! Where files are looked for under the named folder, first match first:
//!
//! | data set | places |
//! |---|---|
//! | `adult`, `adult-age` | `adult/adult.data`, `adult.data` |
//! | `mnist` | `mnist/`, `MNIST/raw/`, `./`: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, also with `.idx` for `-idx`, plain or gzipped |
//! | `cifar10` | `cifar10/`, `cifar10/cifar-10-batches-bin/`, `cifar-10-batches-bin/`, `./`: `data_batch_1.bin` to `data_batch_5.bin` |
//! | `imdb` | `imdb/aclImdb/`, `imdb/`, `aclImdb/`, `./`: `train/pos/*.txt`, `train/neg/*.txt` |

mod adult;
mod catalog;
mod cifar10;
mod error;
mod idx;
mod imdb;
mod mnist;
mod schedule;
mod source;
pub mod synthetic;

pub use catalog::{Loaded, load, names};
pub use error::DataError;
pub use schedule::{Batches, BatchesError, Order, batches};
