//! `runner verify`: every contender through the verification gate, untimed.

use std::path::PathBuf;

use super::Outcome;
use super::means::{Asked, Means, Scratch, Tally};
use crate::cli::{EXIT_DISQUALIFIED, VerifyArgs};
use crate::config::Config;
use crate::measure::bench::log_file;
use crate::prepare;
use crate::registry::Contender;

/// Carries out `runner verify`; status 4 if a contender is disqualified, 2 if one could not be verified for another
/// reason than being unavailable or if none was.
pub fn run(args: &VerifyArgs) -> Outcome {
    let asked = Asked::read(&args.places, |registry| Config::of_verification(&args.selection, registry))?;
    let means = Means::on_the_device(asked)?;
    let scratch = Scratch::new()?;
    let (bench, config) = (means.bench(), &means.config);
    let mut tally = Tally::default();
    for workload in &config.workloads {
        let folder = scratch.folder(workload)?;
        let reference = prepare::reference(&workload.model, config.seed, &config.batch_sizes, &folder)?;
        let takes_part = |contender: &&Contender| !bench.modes(contender).is_empty();
        let log = |contender: &Contender| scratch.path().join(log_file(&[&workload.name, &contender.name()]));
        let contenders = config.contenders.iter().filter(takes_part).map(|contender| (contender, log(contender)));
        let contenders: Vec<(&Contender, PathBuf)> = contenders.collect();
        bench.verify(workload, &contenders, &reference, &folder, |contender, verdict| {
            let line = match verdict {
                Ok(verdict) => {
                    let right = verdict.modes.iter().all(|(_, verification)| verification.passed);
                    *if right { &mut tally.right } else { &mut tally.wrong } += 1;
                    verdict.to_string()
                }
                Err(error) if error.interrupted => return Err(error.reason),
                Err(error) => tally.count_failure(&error),
            };
            println!("{:16} {:21} {line}", workload.name, contender.name());
            Ok::<(), String>(())
        })?;
        std::fs::remove_dir_all(&folder)?;
    }
    println!("{}", tally.line("passed", "disqualified"));
    Ok(tally.exit_status(EXIT_DISQUALIFIED))
}
