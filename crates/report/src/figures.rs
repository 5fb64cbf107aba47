//! From the raw epochs of a row's processes to its figures.
//!
//! The runner calls [`fill`] before it writes its file, and the report for files that were written before there were warm
//! figures: so there is one way to come from epochs to a figure, and a figure in a file is never another than the one shown.

use std::borrow::Cow;
use std::collections::BTreeMap;

use dpsgd_core::Kernels;
use dpsgd_protocol::results::{Cell, GpuWindow, ProcessRun, Results, RunConfig, Serves, Status};
use dpsgd_stats::{self as stats, Estimate, Pool};

/// A row with this many processes has a variance of its own that needs no help from other rows.
const ENOUGH_PROCESSES: usize = 10;

/// Fills every figure of every row that is derived from its processes, and its warnings; `warm_from` of processes that
/// have none. What only the machine's peak decides, `roofline_fraction`, is left alone.
///
/// It takes time in proportion to the number of epochs: a fraction of a second for a million.
pub fn fill(results: &mut Results) {
    for cell in &mut results.cells {
        for process in cell.processes.iter_mut().filter(|process| process.warm_from.is_none()) {
            process.warm_from = stats::steady_state(&process.epochs_s);
        }
    }
    let rows: Vec<Vec<f64>> = results.cells.iter().map(warm_figures).collect();
    let mut of_kind: BTreeMap<&str, Vec<&[f64]>> = BTreeMap::new();
    for (cell, figures) in results.cells.iter().zip(&rows).filter(|(cell, _)| cell.status == Status::Ok) {
        of_kind.entry(&cell.strategy).or_default().push(figures);
    }
    let pools: BTreeMap<String, Pool> =
        of_kind.into_iter().filter_map(|(kind, rows)| Some((kind.to_string(), Pool::of(rows)?))).collect();
    for (cell, figures) in results.cells.iter_mut().zip(&rows) {
        let pool = pools.get(&cell.strategy).filter(|_| figures.len() < ENOUGH_PROCESSES);
        let estimate = match pool {
            Some(pool) => Estimate::pooled(figures, pool),
            None => Estimate::of(figures),
        };
        fill_row(cell, estimate, &results.config);
    }
}

/// The results with all figures: as they are, or filled where a row lacks its warm figure, as in files of version 1.
pub(crate) fn filled(results: &Results) -> Cow<'_, Results> {
    let lacks = |cell: &Cell| cell.warm_epoch_s.is_none() && !cell.processes.is_empty();
    if !results.cells.iter().any(lacks) {
        return Cow::Borrowed(results);
    }
    let mut filled = results.clone();
    fill(&mut filled);
    Cow::Owned(filled)
}

/// The processes whose warm epochs count: those that were timed for them; where there is none, all.
pub(crate) fn warm(cell: &Cell) -> impl Iterator<Item = &ProcessRun> + Clone {
    let any = cell.processes.iter().any(|process| process.serves != Serves::Cold);
    cell.processes.iter().filter(move |process| !any || process.serves != Serves::Cold)
}

/// The processes that ran alone, from the cold; where there is none, all.
pub(crate) fn cold(cell: &Cell) -> impl Iterator<Item = &ProcessRun> + Clone {
    let any = cell.processes.iter().any(|process| process.serves != Serves::Warm);
    cell.processes.iter().filter(move |process| !any || process.serves != Serves::Warm)
}

/// A process's median warm epoch in seconds; `None` if that is not positive and finite.
pub(crate) fn figure(process: &ProcessRun) -> Option<f64> {
    stats::process_figure(&process.epochs_s, process.warm_from).filter(|s| s.is_finite() && *s > 0.0)
}

/// How many of these processes settled, and how many they are.
pub(crate) fn settled<'a>(processes: impl Iterator<Item = &'a ProcessRun> + Clone) -> [usize; 2] {
    [processes.clone().filter(|process| process.warm_from.is_some()).count(), processes.count()]
}

/// Seconds that a process's epochs before steady state take beyond its figure; `None` if it did not settle.
pub(crate) fn warm_up(process: &ProcessRun) -> Option<f64> {
    stats::warm_up(&process.epochs_s, process.warm_from?)
}

fn warm_figures(cell: &Cell) -> Vec<f64> {
    warm(cell).filter_map(figure).collect()
}

fn fill_row(cell: &mut Cell, estimate: Option<Estimate>, config: &RunConfig) {
    cell.warm_epoch_s = estimate.map(|estimate| estimate.value);
    cell.warm_ci95_s = estimate.and_then(|estimate| estimate.ci95);
    cell.warm_ci95_pooled = estimate.is_some_and(|estimate| estimate.pooled && estimate.ci95.is_some());
    cell.settled = Some(settled(cell.processes.iter())).filter(|[_, all]| *all > 0);
    let epochs: Vec<f64> = cold(cell).flat_map(|process| process.epochs_s.iter().copied()).collect();
    cell.median_epoch_s = stats::median(&epochs);
    cell.mean_epoch_s = stats::mean(&epochs);
    cell.examples_per_s = cell.warm_epoch_s.map(|seconds| cell.examples_per_epoch as f64 / seconds);
    cell.first_step_s = median_of(cold(cell), |process| process.first_step_s);
    cell.first_epoch_s = median_of(cold(cell), |process| process.epochs_s.first().copied());
    cell.kernels = kernels(cell);
    cell.warm_up_s = median_of(cold(cell), warm_up);
    cell.peak_rss_bytes = cold(cell).filter_map(|process| process.peak_rss_bytes).max();
    // Cold processes may be too short to have one.
    cell.cpu_utilization = median_of(cold(cell), |process| process.cpu_utilization)
        .or_else(|| median_of(cell.processes.iter(), |process| process.cpu_utilization));
    cell.gpu_peak_bytes = cell.processes.iter().filter_map(|process| process.gpu_peak_bytes).max();
    cell.gpu_utilization = median_of(cell.processes.iter(), |process| process.gpu_utilization);
    cell.energy_j = median_of(cell.processes.iter(), |process| process.energy_j);
    cell.gpu_power_w = median_of(cell.processes.iter(), |process| window(process)?.power_w);
    cell.warnings = warnings(cell, config);
}

fn median_of<'a>(
    processes: impl Iterator<Item = &'a ProcessRun>,
    figure: impl Fn(&ProcessRun) -> Option<f64>,
) -> Option<f64> {
    stats::median(&processes.filter_map(figure).collect::<Vec<_>>())
}

/// Medians over the processes that compiled, and over those that only read the cache. If no process only read the cache,
/// the compiling processes' read-back time stands in.
fn kernels(cell: &Cell) -> Option<Kernels> {
    let of = |figure: &dyn Fn(&ProcessRun) -> Option<f64>| median_of(cell.processes.iter(), figure);
    let compile_s = of(&|process| process.kernels?.compile_s);
    let only_read = |process: &ProcessRun| process.kernels.filter(|kernels| kernels.compile_s.is_none())?.cached_s;
    let cached_s = of(&only_read).or_else(|| of(&|process| process.kernels?.cached_s));
    Some(Kernels { compile_s, cached_s }).filter(|kernels| *kernels != Kernels::default())
}

fn window(process: &ProcessRun) -> Option<&GpuWindow> {
    process.gpu.as_ref()?.window.as_ref()
}

/// The epochs of a process after its warm-up, if it settled.
fn steady_epochs(process: &ProcessRun) -> Option<&[f64]> {
    Some(stats::warm_epochs(&process.epochs_s, Some(process.warm_from?)))
}

/// Chance of a drift warning about a process that does not drift.
const DRIFT_SIGNIFICANCE: f64 = 0.01;
/// Least relative change that a drift warning is worth.
const DRIFT_WORTH_SAYING: f64 = 0.1;
/// Share of outliers among steady epochs up to which nothing is said: of thousands there are always some.
const OUTLIERS_WORTH_SAYING: f64 = 0.05;
/// Share of a processor that a process may use while it waits and others are timed.
const IDLE_WORTH_SAYING: f64 = 0.02;
/// Share of the processors' time that other machines may take.
const STEAL_WORTH_SAYING: f64 = 0.05;

fn warnings(cell: &Cell, config: &RunConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    let done = cell.processes.len();
    let of = |serves: &[Serves]| cell.processes.iter().filter(|process| serves.contains(&process.serves)).count();
    for (kind, measured, wanted) in [
        ("", of(&[Serves::Warm, Serves::Both]), config.processes),
        ("cold ", of(&[Serves::Cold]), config.cold_processes),
    ] {
        if measured < wanted {
            warnings.push(format!("{measured} of {wanted} {kind}processes measured; finish with --resume"));
        }
    }
    let capped = cell.processes.iter().filter(|process| process.capped).count();
    if capped > 0 {
        let epochs: usize = cell.processes.iter().map(|process| process.epochs_s.len()).sum();
        warnings.push(format!(
            "capped: the row's time limit ended {capped} of {done} processes early; {epochs} whole epochs are kept, and \
             with fewer of them the first weighs more in the mean"
        ));
    }
    let single = warm(cell).filter(|process| process.epochs_s.len() == 1).count();
    if single > 0 {
        warnings.push(format!(
            "{single} of {} processes have a single epoch: their warm figure is a cold one; raise row_limit_s or --epochs",
            warm(cell).count()
        ));
    }
    let figures = warm_figures(cell);
    let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let most = figures.iter().copied().fold(0.0, f64::max);
    if figures.len() > 1 && most > 1.25 * least {
        warnings.push(format!(
            "process medians spread by {:.0}%: quiet the machine, or use more --processes",
            (most / least - 1.0) * 100.0
        ));
    }
    warnings.extend(unsteady(cell));
    let [settled, all] = settled(warm(cell));
    if all > 0 && settled == 0 {
        warnings.push("epoch times never settled: use more --epochs".into());
    } else if settled < all {
        let missed = all - settled;
        warnings.push(format!("epoch times of {missed} of {all} processes never settled; all but their first count"));
    }
    let most = |figure: fn(&ProcessRun) -> Option<f64>| warm(cell).filter_map(figure).fold(0.0, f64::max);
    let (idle, steal) = (most(|process| process.idle_cpu), most(|process| process.steal));
    if idle > IDLE_WORTH_SAYING {
        warnings.push(format!("used up to {:.0}% of a processor while others were timed", idle * 100.0));
    }
    if steal > STEAL_WORTH_SAYING {
        warnings.push(format!("other machines took up to {:.0}% of the processors' time meanwhile", steal * 100.0));
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

/// Outliers among the steady epochs, and epochs that drift.
fn unsteady(cell: &Cell) -> Vec<String> {
    let steady: Vec<&[f64]> = warm(cell).filter_map(steady_epochs).collect();
    let mut warnings = Vec::new();
    let outliers: usize =
        steady.iter().filter_map(|epochs| stats::outliers(epochs)).map(|outliers| outliers.high + outliers.low).sum();
    let epochs: usize = steady.iter().map(|epochs| epochs.len()).sum();
    if outliers as f64 > OUTLIERS_WORTH_SAYING * epochs as f64 {
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
    warnings
}
