//! The command line of dpsgd-bench as a library: it plans what to measure, finds or installs what the contenders need,
//! runs each in a process of its own, verifies it, times it, and writes the results file.
//!
//! [`cli`] is the command line, [`config`] what to measure, [`registry`] who takes part, [`setup`] what must be
//! installed and built for that, and [`cmd`] holds one module per subcommand.

pub mod calibrate;
pub mod checkout;
pub mod cli;
pub mod cmd;
pub mod config;
pub mod measure;
pub mod out;
mod parallel;
pub mod prepare;
pub mod registry;
pub mod session;
pub mod setup;
pub mod targets;
pub mod verify;
pub mod worker;
