//! The answer first: on each workload, which contender is fastest, by how much, how sure that is, and what it costs cold and
//! in memory.

use dpsgd_core::Mode;
use dpsgd_protocol::results::{Cell, Results};

use crate::claims::Verdict;
use crate::fastest::judge;
use crate::figures::cold;
use crate::table::Grid;
use crate::units;
use crate::view::{self, View, interval, name};

/// A row per workload and batch size, of private steps where there are any.
pub fn summary(results: &Results) -> Grid {
    let header = vec![
        "workload, batch size",
        "fastest",
        "warm epoch [95% CI]",
        "times as fast as the next strategy",
        "sure",
        "same program twice",
        "cold cost",
        "peak memory",
    ];
    let of_workload = |workload| {
        let view = View::new(results, workload);
        let mode = view.main_mode();
        let sizes = view.batch_sizes();
        sizes.into_iter().filter_map(|size| row(&view, mode, size)).collect::<Vec<_>>()
    };
    Grid { header, rows: view::workloads(results).into_iter().flat_map(of_workload).collect() }
}

fn row(view: &View, mode: Mode, batch_size: usize) -> Option<Vec<String>> {
    let timed = view.timed(mode, batch_size);
    let fastest = *timed.first()?;
    let (own, others): (Vec<&Cell>, Vec<&Cell>) = timed.iter().partition(|cell| cell.strategy == fastest.strategy);
    let (lead, sure) = match judge(&others, &own) {
        Some(judged) => {
            let sure = match judged.compared.above(1.0) {
                Verdict::Holds => "yes".into(),
                Verdict::DoesNotHold => "no: other rounds disagree".into(),
                _ => judged.compared.no_interval().unwrap_or_else(|| "no: the interval has 1".into()),
            };
            (format!("{} {}", judged.compared.figure(), judged.slow.contender()), sure)
        }
        None => ("–".into(), "nothing to compare with".into()),
    };
    let noise = view.noise(mode, batch_size).map_or_else(|| "–".into(), |(_, compared)| compared.figure());
    let start = dpsgd_stats::median(&cold(fastest).map(|process| process.start_s + process.load_s).collect::<Vec<_>>());
    let cost = match fastest.warm_up_s {
        Some(warm_up) => units::time(start.map(|start| start + warm_up)),
        None => format!("{} and a warm-up that never settled", units::time(start)),
    };
    let seconds = fastest.warm_epoch_s?;
    Some(vec![
        format!("{}, {batch_size}", view.workload),
        name(fastest),
        units::time_with_interval(seconds, interval(fastest)),
        lead,
        sure,
        noise,
        cost,
        units::bytes(fastest.peak_rss_bytes),
    ])
}

/// What the columns are.
pub const LEGEND: &str = "Private steps, unless a run has none. The lead is the ratio of warm epochs of processes that ran side by \
                          side, with its 95% interval; sure is whether all of it is above 1. Strategies stand by their \
                          fastest variants, which are chosen by other rounds than those that judge them. The same program \
                          twice says what noise does to such a ratio. Cold cost is the time from the start of a process to \
                          its first epoch, and what its warm-up takes beyond warm epochs; memory is of processes that ran \
                          alone.";
