//! `runner doctor`.

use super::Outcome;
use crate::cli::DoctorArgs;

/// Runs the subcommand.
pub fn run(_args: &DoctorArgs) -> Outcome {
    todo!()
}
