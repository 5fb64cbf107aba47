//! `runner list`.

use super::Outcome;
use crate::cli::ListArgs;

/// Runs the subcommand.
pub fn run(_args: &ListArgs) -> Outcome {
    todo!()
}
