//! `runner setup`: finds or installs what the contenders need, and builds them.

use super::Outcome;
use crate::cli::{EXIT_OK, SetupArgs};
use crate::config::read_registry;
use crate::setup::{Host, Toolbox};

/// Prepares the contenders asked for, or all. Fails when one of them can't be had.
pub fn run(args: &SetupArgs) -> Outcome {
    let registry = read_registry(args.places.registry.as_deref())?;
    let wanted =
        registry.entries_named(args.strategies.as_deref()).map_err(|reason| format!("--strategies: {reason}"))?;
    let host = Host::of(&args.places)?;
    let toolbox = Toolbox::prepare(&host, &wanted);
    let mut missing = Vec::new();
    for entry in wanted {
        match toolbox.launcher(&entry.name) {
            Ok(launcher) => println!("{:<10} ready: {}", entry.name, launcher.program.display()),
            Err(reason) => {
                println!("{:<10} unavailable: {reason}", entry.name);
                missing.push(entry.name.as_str());
            }
        }
    }
    if missing.is_empty() { Ok(EXIT_OK) } else { Err(format!("unavailable: {}; see above", missing.join(", ")).into()) }
}
