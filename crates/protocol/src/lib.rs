//! How the runner and a worker talk, and what a run leaves behind.
//!
//! A worker is one process that runs one strategy. It reads requests as lines of JSON on stdin and writes one reply to
//! each on a descriptor of its own ([`REPLY_FD`]), because libraries print on stdout. Tensors travel as safetensors
//! files named in the messages. When stdin closes, the worker ends at once, whatever it is doing.
//!
//! [`messages`] are the requests and replies, [`serve`] is the worker's side of them, [`schedule`] is the file of
//! batches that all contenders run, [`checksum`] is how the runner knows that they did, and [`results`] is the file that a
//! run writes.

pub mod checksum;
pub mod messages;
pub mod results;
pub mod schedule;
mod serve;

pub use serve::{serve, worker_main};

/// The environment variable that names the descriptor to write replies to.
pub const REPLY_FD: &str = "DPSGD_REPLY_FD";

/// The environment variable that names a folder for machine code that a worker compiles. The runner gives every row
/// that it measures one of its own, empty for the row's first process in a run and kept for the later ones, and every
/// gate an empty one; else the variable is not set.
pub const KERNEL_CACHE: &str = "DPSGD_KERNEL_CACHE";
