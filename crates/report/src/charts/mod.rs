//! The plots of one workload.

mod epochs;
mod mean;
mod median;
mod memory;
mod ratio;

use dpsgd_core::Mode;
use dpsgd_protocol::results::Cell;

use crate::scene::Scene;
use crate::view::View;

/// Every plot: the ending of its file's name, and how it is drawn.
pub const CHARTS: [(&str, fn(&View) -> Scene); 5] = [
    ("median", median::draw),
    ("median-vs-mean", mean::draw),
    ("epochs", epochs::draw),
    ("memory", memory::draw),
    ("private-ratio", ratio::draw),
];

const NOTHING: &str = "No contender has a time that counts.";

/// `4,096 examples per epoch, batch size 64. ` before what else there is to say.
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
fn groups<T>(
    view: &View,
    mode: Mode,
    row: impl Fn(&Cell) -> Option<(crate::figure::Row, T)>,
) -> Vec<crate::figure::Group<T>> {
    let of_size = |batch_size: usize| crate::figure::Group {
        heading: heading(view, batch_size),
        rows: view.timed(mode, batch_size).into_iter().filter_map(&row).collect(),
    };
    view.batch_sizes().into_iter().map(of_size).filter(|group| !group.rows.is_empty()).collect()
}
