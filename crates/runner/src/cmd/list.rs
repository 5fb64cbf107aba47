//! `runner list`: who can take part, on what, and which configs there are; or, with `--plan`, what the strategies mean to
//! do. Installs and builds nothing.

use std::path::Path;

use super::{Outcome, plans};
use crate::checkout::Checkout;
use crate::cli::{EXIT_OK, ListArgs};
use crate::config::{Workload, built_in_workloads, check_data_folder, read_registry};
use crate::registry::{Entry, Environment, Registry};
use crate::setup::{Host, environment, interpreter, libtorch};

/// Prints the lists, or the plans.
pub fn run(args: &ListArgs) -> Outcome {
    let registry = read_registry(args.places.registry.as_deref())?;
    check_data_folder(args.data.as_deref())?;
    let host = Host::of(&args.places)?;
    if args.plan {
        return plans::run(&host, &registry, args.workloads.as_deref());
    }
    println!("Strategies ({}):", registry.path().display());
    strategies(&host, &registry);
    println!("\nWorkloads:");
    for workload in built_in_workloads() {
        println!("  {:<16} {}", workload.name, describe(&workload, args.data.as_deref()));
    }
    println!("\nConfigs:");
    configs(&host.checkout)?;
    Ok(EXIT_OK)
}

fn strategies(host: &Host, registry: &Registry) {
    for entry in registry.entries() {
        let devices: Vec<&str> = entry.devices.iter().map(|device| device.name()).collect();
        println!("  {:<16} {}", entry.name, entry.description);
        for variant in &entry.variants {
            let only = variant.devices.iter().flatten().map(|device| device.name()).collect::<Vec<&str>>();
            let only = if only.is_empty() { String::new() } else { format!(" (only on {})", only.join(", ")) };
            println!("    {:<14} {}{only}", format!(":{}", variant.name), variant.description);
        }
        println!("    runs on {}; {}", devices.join(", "), availability(host, entry));
    }
}

/// Whether a strategy could run now, as far as that can be told without building it.
fn availability(host: &Host, entry: &Entry) -> String {
    let missing = match entry.environment {
        Environment::None => None,
        Environment::Torch | Environment::Jax | Environment::Tf if host.python.is_some() => None,
        Environment::Torch | Environment::Jax | Environment::Tf => {
            let spec = interpreter::spec(entry.environment).expect("these have one");
            match (environment::is_current(host, spec), host.which("python3")) {
                (true, _) => None,
                (false, None) => Some("no python3 to run it with".to_string()),
                (false, Some(_)) => {
                    let (name, gigabytes) = (spec.name, spec.gigabytes);
                    return format!(
                        "environment {name} ({gigabytes} GB) is installed by the first run, or by `runner setup`"
                    );
                }
            }
        }
        Environment::Libtorch => match libtorch::find(host) {
            Ok(Some(_)) => None,
            Ok(None) if host.python().is_none() => Some("no libtorch, and no python3 to get it with".to_string()),
            Ok(None) => return "libtorch is found or installed by the first run, or by `runner setup`".into(),
            Err(reason) => Some(reason),
        },
    };
    match missing {
        Some(reason) => format!("unavailable: {reason}; `runner doctor` says more"),
        None if entry.build.is_some() && host.workers.is_none() && host.cargo.is_none() => {
            "unavailable: no cargo to build it with; `runner doctor` says more".into()
        }
        None => "available".into(),
    }
}

fn describe(workload: &Workload, data: Option<&Path>) -> String {
    let parameters: usize = workload.model.params().iter().map(|param| param.shape.iter().product::<usize>()).sum();
    // One example says whether the data is real.
    let kind = match dpsgd_data::load(&workload.dataset, &workload.model, Some(1), data, 0) {
        Ok(loaded) if loaded.real => "real".to_string(),
        Ok(_) => "synthetic; --data DIR for the real set".to_string(),
        Err(error) => format!("unusable: {error}"),
    };
    format!("{parameters:>9} parameters, data {} ({kind})", workload.dataset)
}

/// The configs with the first sentence of each one's leading comment. The registry and the targets are none.
fn configs(checkout: &Checkout) -> std::io::Result<()> {
    let mut files: Vec<_> =
        std::fs::read_dir(checkout.bench_configs())?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let others = [checkout.registry(), checkout.targets()];
    files.retain(|file| file.extension().is_some_and(|e| e == "toml") && !others.contains(file));
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let comment: Vec<&str> = text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim).collect();
        let comment = comment.join(" ");
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        println!("  {name:<16} {}", comment.split(". ").next().unwrap_or_default().trim_end_matches('.'));
    }
    Ok(())
}
