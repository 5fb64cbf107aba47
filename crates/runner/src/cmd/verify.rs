//! `runner verify`: every contender through the verification gate, untimed.

use std::path::PathBuf;

use dpsgd_protocol::results::Status;

use super::Outcome;
use crate::cli::{EXIT_DISQUALIFIED, EXIT_ERROR, EXIT_OK, VerifyArgs};
use crate::config::{Config, read_registry};
use crate::measure::bench::{Bench, device_missing, log_file};
use crate::prepare;
use crate::registry::Contender;
use crate::setup::{Host, Toolbox};
use crate::worker::Guard;

/// Carries out `runner verify`; status 4 if a contender is disqualified, 2 if one could not be verified for another
/// reason than being unavailable or if none was.
pub fn run(args: &VerifyArgs) -> Outcome {
    let registry = read_registry(args.places.registry.as_deref())?;
    let config = Config::of_verification(&args.selection, &registry)?;
    let host = Host::of(&args.places)?;
    if let Some(reason) = device_missing(&config) {
        return Err(reason.into());
    }
    let toolbox = Toolbox::prepare(&host, &config.entries(&registry));
    let guard = Guard::start()?;
    let bench = Bench { config: &config, registry: &registry, toolbox: &toolbox, guard: &guard, device_missing: None };
    let scratch = tempfile::tempdir()?;
    std::fs::create_dir(scratch.path().join("logs"))?;
    let (mut passed, mut disqualified, mut unavailable, mut broken) = (0, 0, 0, 0);
    for workload in &config.workloads {
        let folder = scratch.path().join(&workload.name);
        std::fs::create_dir(&folder)?;
        let reference = prepare::reference(&workload.model, config.seed, bench.widest(), &folder)?;
        let takes_part = |contender: &&Contender| !bench.modes(contender).is_empty();
        let log = |contender: &Contender| scratch.path().join(log_file(&[&workload.name, &contender.name()]));
        let contenders = config.contenders.iter().filter(takes_part).map(|contender| (contender, log(contender)));
        let contenders: Vec<(&Contender, PathBuf)> = contenders.collect();
        bench.verify(workload, &contenders, &reference, &folder, |contender, verdict| {
            let line = match verdict {
                Ok(verdict) => {
                    let right = verdict.modes.iter().all(|(_, verification)| verification.passed);
                    *if right { &mut passed } else { &mut disqualified } += 1;
                    verdict.to_string()
                }
                Err(error) if error.interrupted => return Err(error.reason),
                Err(error) => {
                    *if error.status == Status::Unavailable { &mut unavailable } else { &mut broken } += 1;
                    format!("{}: {}", error.status.name(), error.reason)
                }
            };
            println!("{:16} {:20} {line}", workload.name, contender.name());
            Ok(())
        })?;
        std::fs::remove_dir_all(&folder)?;
    }
    println!("{passed} passed, {disqualified} disqualified, {unavailable} unavailable, {broken} broken");
    Ok(match (passed, disqualified, broken) {
        (_, 1.., _) => EXIT_DISQUALIFIED,
        (1.., 0, 0) => EXIT_OK,
        _ => EXIT_ERROR,
    })
}
