//! The worker of the strategy `fused`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dpsgd_protocol::worker_main::<dpsgd_fused::Fused>()
}
