//! Where and when a run took place.

use std::path::Path;
use std::process::Command;

use dpsgd_protocol::results::Environment;
use jiff::Timestamp;

use super::bench::cpus;
use crate::checkout::Checkout;
use crate::worker::recorded;

/// The machine and the software of a run of `threads` threads that begins now.
pub fn environment(started: Timestamp, threads: usize) -> Environment {
    let machine = dpsgd_meter::machine();
    let cpu_ids = cpus(threads);
    let processors = dpsgd_meter::processors(cpu_ids.first().copied().unwrap_or(0));
    Environment {
        started: utc(started),
        version: env!("CARGO_PKG_VERSION").into(),
        commit: Checkout::find().and_then(|checkout| match checkout.bundle() {
            Some(bundle) => bundle.commit,
            None => commit(checkout.root()),
        }),
        os: machine.os,
        cpu: machine.cpu,
        cpus: machine.cpus,
        cpu_features: machine.cpu_features,
        cpu_ids,
        governor: processors.governor,
        turbo: processors.turbo,
        cpu_quota: processors.quota,
        variables: recorded(),
        memory_bytes: machine.memory_bytes,
        gpus: machine.gpus,
        gpu_driver: machine.gpu_driver,
        contenders: Vec::new(),
        calibrations: Vec::new(),
    }
}

/// A moment as results files have it: UTC, RFC 3339, whole seconds.
pub fn utc(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A folder name for a run without `--out`: `<UTC time>-<machine>`.
pub fn run_name(started: Timestamp) -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let legal: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(30).collect();
    let machine = if legal.is_empty() { "machine".to_string() } else { legal };
    format!("{}-{machine}", started.strftime("%Y-%m-%dT%H-%M-%SZ"))
}

/// The commit of the checkout at `root`, marked if files differ from it; `None` without git.
pub fn commit(root: &Path) -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if dirty.is_empty() { commit } else { format!("{commit}-dirty") })
}
