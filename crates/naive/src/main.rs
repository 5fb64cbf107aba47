//! The worker of the strategy `naive`; started by the runner.

use std::process::ExitCode;

fn main() -> ExitCode {
    dpsgd_protocol::worker_main::<dpsgd_naive::Naive>()
}
