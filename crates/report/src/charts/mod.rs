//! The plots of one workload.

mod bars;
mod epochs;
mod mean;
mod median;
mod memory;
mod noise;
mod ratio;
mod roofline;
mod timeline;
mod utilization;

use dpsgd_core::Mode;
use dpsgd_protocol::results::Cell;

use crate::figure::{Group, Row};
use crate::scene::Scene;
use crate::view::View;

/// A plot of a workload.
pub struct Chart {
    /// The ending of its file's name.
    pub name: &'static str,
    pub draw: fn(&View) -> Scene,
}

/// Every plot, in the order shown.
pub const CHARTS: [Chart; 9] = [
    Chart { name: "median", draw: median::draw },
    Chart { name: "median-vs-mean", draw: mean::draw },
    Chart { name: "epochs", draw: epochs::draw },
    Chart { name: "memory", draw: memory::draw },
    Chart { name: "utilization", draw: utilization::draw },
    Chart { name: "timeline", draw: timeline::draw },
    Chart { name: "private-ratio", draw: ratio::draw },
    Chart { name: "roofline", draw: roofline::draw },
    Chart { name: "noise", draw: noise::draw },
];

const NOTHING: &str = "No contender has a time that counts.";

/// What else there is to say, after `4,096 examples per epoch, batch size 64.`
fn subtitle(view: &View, rest: &str) -> String {
    let mut parts: Vec<String> = view.examples().into_iter().collect();
    if let [only] = view.batch_sizes()[..] {
        parts.push(format!("batch size {only}"));
    }
    let rest = rest.to_string();
    if parts.is_empty() { rest } else { format!("{}. {rest}", parts.join(", ")) }
}

/// The heading of a batch size; nothing if there is only one, which the subtitle names.
fn heading(view: &View, batch_size: usize) -> String {
    if view.batch_sizes().len() == 1 { String::new() } else { format!("batch size {batch_size}") }
}

/// Rows of `mode` per batch size, made of each cell whose time counts, fastest first.
fn groups<T>(view: &View, mode: Mode, row: impl Fn(&Cell) -> Option<(Row, T)>) -> Vec<Group<T>> {
    let of_size = |batch_size: usize| Group {
        heading: heading(view, batch_size),
        rows: view.timed(mode, batch_size).into_iter().filter_map(&row).collect(),
    };
    view.batch_sizes().into_iter().map(of_size).filter(|group| !group.rows.is_empty()).collect()
}
