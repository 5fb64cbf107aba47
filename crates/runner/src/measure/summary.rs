//! From the raw epochs of a cell's processes to its row.

use std::collections::BTreeMap;

use dpsgd_core::Kernels;
use dpsgd_protocol::results::{Cell, GpuWindow, ProcessRun};
use dpsgd_stats as stats;

/// Fills every figure of `cell` that is derived from `cell.processes`, and its warnings.
pub fn summarize(cell: &mut Cell, wanted_processes: usize, seed: u64) {
    let per_process: Vec<Vec<f64>> = cell.processes.iter().map(|process| process.epochs_s.clone()).collect();
    let epochs = per_process.concat();
    cell.median_epoch_s = stats::median(&epochs);
    cell.mean_epoch_s = stats::mean(&epochs);
    cell.warm_ci95_s = stats::bootstrap_median_ci95(&per_process, seed);
    cell.warm_epoch_s = cell.median_epoch_s;
    cell.examples_per_s = cell.median_epoch_s.map(|seconds| cell.examples_per_epoch as f64 / seconds);
    cell.first_step_s = median_of(cell, |process| process.first_step_s);
    cell.first_epoch_s = median_of(cell, |process| process.epochs_s.first().copied());
    cell.kernels = kernels(cell);
    cell.warm_up_s = median_of(cell, |process| stats::warm_up(&process.epochs_s));
    cell.peak_rss_bytes = cell.processes.iter().filter_map(|process| process.peak_rss_bytes).max();
    cell.cpu_utilization = median_of(cell, |process| process.cpu_utilization);
    cell.gpu_peak_bytes = cell.processes.iter().filter_map(|process| process.gpu_peak_bytes).max();
    cell.gpu_utilization = median_of(cell, |process| process.gpu_utilization);
    cell.energy_j = median_of(cell, |process| process.energy_j);
    cell.gpu_power_w = median_of(cell, |process| window(process)?.power_w);
    cell.warnings = warnings(cell, wanted_processes);
}

fn median_of(cell: &Cell, figure: impl Fn(&ProcessRun) -> Option<f64>) -> Option<f64> {
    let figures: Vec<f64> = cell.processes.iter().filter_map(figure).collect();
    stats::median(&figures)
}

/// Medians over the processes that compiled, and over those that only read the cache. Where there is none of these,
/// what those that compiled took to read back what they had just written stands in.
fn kernels(cell: &Cell) -> Option<Kernels> {
    let compile_s = median_of(cell, |process| process.kernels?.compile_s);
    let only_read = |process: &ProcessRun| process.kernels.filter(|kernels| kernels.compile_s.is_none())?.cached_s;
    let cached_s = median_of(cell, only_read).or_else(|| median_of(cell, |process| process.kernels?.cached_s));
    Some(Kernels { compile_s, cached_s }).filter(|kernels| *kernels != Kernels::default())
}

fn window(process: &ProcessRun) -> Option<&GpuWindow> {
    process.gpu.as_ref()?.window.as_ref()
}

/// The epochs of a process after its warm-up, if it settled.
fn steady_epochs(process: &ProcessRun) -> Option<Vec<f64>> {
    stats::steady_state(&process.epochs_s).map(|first| process.epochs_s[first..].to_vec())
}

/// Chance of a drift warning about a process that does not drift.
const DRIFT_SIGNIFICANCE: f64 = 0.01;
/// Least relative change that a drift warning is worth.
const DRIFT_WORTH_SAYING: f64 = 0.1;

fn warnings(cell: &Cell, wanted_processes: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    let done = cell.processes.len();
    if done < wanted_processes {
        warnings.push(format!("{done} of {wanted_processes} processes measured; finish with --resume"));
    }
    let capped = cell.processes.iter().filter(|process| process.capped).count();
    if capped > 0 {
        let epochs: usize = cell.processes.iter().map(|process| process.epochs_s.len()).sum();
        warnings.push(format!(
            "capped: the row's time limit ended {capped} of {done} processes early; {epochs} whole epochs are kept, and \
             with fewer of them the first weighs more in the mean"
        ));
    }
    // Between processes, not within one: a first epoch that compiles is no noise.
    let medians: Vec<f64> = cell.processes.iter().filter_map(|process| stats::median(&process.epochs_s)).collect();
    let least = medians.iter().copied().fold(f64::INFINITY, f64::min);
    let most = medians.iter().copied().fold(0.0, f64::max);
    if medians.len() > 1 && most > 1.25 * least {
        warnings.push(format!(
            "process medians spread by {:.0}%: quiet the machine, or use more --processes",
            (most / least - 1.0) * 100.0
        ));
    }
    let steady: Vec<Vec<f64>> = cell.processes.iter().filter_map(steady_epochs).collect();
    let outliers: usize =
        steady.iter().filter_map(|epochs| stats::outliers(epochs)).map(|outliers| outliers.high + outliers.low).sum();
    if outliers > 0 {
        let epochs: usize = steady.iter().map(Vec::len).sum();
        warnings.push(format!(
            "{outliers} of {epochs} steady epochs are outliers: something else used the machine; quiet it, or use more \
             --epochs"
        ));
    }
    let drifting = steady
        .iter()
        .filter_map(|epochs| stats::drift(epochs))
        .filter(|drift| drift.p_value < DRIFT_SIGNIFICANCE && drift.relative_change.abs() > DRIFT_WORTH_SAYING);
    if let Some(drift) = drifting.max_by(|a, b| a.relative_change.abs().total_cmp(&b.relative_change.abs())) {
        warnings.push(format!(
            "epoch times of a process drift by {:+.0}% from first to last steady epoch: let the machine cool or settle",
            drift.relative_change * 100.0
        ));
    }
    if done > 0 && cell.warm_up_s.is_none() {
        warnings.push("epoch times never settled: use more --epochs".into());
    }
    let mut throttled: BTreeMap<&str, f64> = BTreeMap::new();
    for (reason, share) in cell.processes.iter().filter_map(window).flat_map(|window| &window.throttled) {
        let most = throttled.entry(reason).or_default();
        *most = most.max(*share);
    }
    if !throttled.is_empty() {
        let reasons: Vec<String> =
            throttled.iter().map(|(reason, share)| format!("{reason} ({:.0}% of looks)", share * 100.0)).collect();
        warnings.push(format!("the GPU's clocks were held down: {}", reasons.join(", ")));
    }
    let left_out: u64 = cell.processes.iter().map(|process| process.non_finite_examples).sum();
    if left_out > 0 {
        warnings.push(format!("{left_out} examples with a NaN or an infinity in their gradient contributed nothing"));
    }
    warnings
}
