//! The worker of the strategy `batched`; started by the runner.

use std::process::ExitCode;

fn main() -> ExitCode {
    dpsgd_protocol::worker_main::<dpsgd_batched::Batched>()
}
