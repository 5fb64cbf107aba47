//! One module per subcommand, each with its own `run`.

pub mod bundle;
pub mod doctor;
pub mod list;
mod means;
mod plans;
pub mod plot;
pub mod repeat;
pub mod run;
pub mod setup;
pub mod targets;
pub mod verify;

/// How a subcommand ended: its exit status, or why it failed, in one line.
pub type Outcome = Result<u8, Box<dyn std::error::Error>>;
