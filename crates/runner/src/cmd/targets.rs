//! `runner targets RESULTS...`: figures of finished runs against a file of targets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use dpsgd_core::Device;
use dpsgd_protocol::results::Results;
use dpsgd_report::targets::{Held, Standing, hold, lines, tally};

use super::Outcome;
use crate::cli::{EXIT_ABSENT, EXIT_MISSED, EXIT_OK, TargetsArgs};
use crate::out::results_file;
use crate::registry::DeviceKind;
use crate::targets::{Targets, read_targets};

/// Carries out `runner targets`; status 1 if a target is missed or a row that it needs failed, else 3 if one was not
/// measured, or its interval leaves it open.
pub fn run(args: &TargetsArgs) -> Outcome {
    let targets = read_targets(args.targets.as_deref())?;
    let files: Vec<PathBuf> = args.results.iter().map(|named| results_file(named)).collect();
    let runs = files.iter().map(|file| Results::load(file)).collect::<Result<Vec<_>, _>>()?;
    for (file, run) in files.iter().zip(&runs) {
        check_device(&targets, run).map_err(|reason| format!("{}: {reason}", file.display()))?;
    }
    check_apart(&files, &runs)?;
    for device in runs.iter().map(dpsgd_report::device).collect::<BTreeSet<String>>() {
        println!("device: {device}");
    }
    let held = hold(targets.targets(), targets.batch_sizes(), &runs);
    for line in lines(&held) {
        println!("{line}");
    }
    println!("{}", tally(&held));
    Ok(exit_status(&held))
}

/// Checks that a run was on the kind of device that the targets are for.
fn check_device(targets: &Targets, run: &Results) -> Result<(), String> {
    let device: Device = run.config.device.parse()?;
    let (wanted, file) = (targets.device(), targets.path().display());
    if DeviceKind::of(device) == wanted {
        return Ok(());
    }
    let fix = "name results of that, or other targets with --targets";
    Err(format!("measured on device {device}, but {file} is for {}: {fix}", wanted.name()))
}

/// Checks that no two runs have rows of the same workload and batch size: times are compared within one run, and of
/// several there is no saying which counts.
fn check_apart(files: &[PathBuf], runs: &[Results]) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    for (i, run) in runs.iter().enumerate() {
        for cell in &run.cells {
            let first = *seen.entry((&cell.workload, cell.batch_size)).or_insert(i);
            if first != i {
                let (first, second) = (files[first].display(), files[i].display());
                let what = format!("{}, batch size {}", cell.workload, cell.batch_size);
                return Err(format!("{first} and {second}: both have rows of {what}; name one of them"));
            }
        }
    }
    Ok(())
}

fn exit_status(held: &[Held]) -> u8 {
    let any = |standings: &[Standing]| held.iter().any(|held| standings.contains(&held.standing));
    if any(&[Standing::Missed, Standing::Failed]) {
        EXIT_MISSED
    } else if any(&[Standing::Absent, Standing::Inconclusive]) {
        EXIT_ABSENT
    } else {
        EXIT_OK
    }
}
