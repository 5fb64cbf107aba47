//! `runner setup`.

use super::Outcome;
use crate::cli::SetupArgs;

/// Runs the subcommand.
pub fn run(_args: &SetupArgs) -> Outcome {
    todo!()
}
