//! Plots, tables and a page from a results file alone.
//!
//! [`plots`] writes nine plots per workload, each as SVG and PNG, and an `index.html` that shows them all. [`table`] is
//! for a terminal, [`markdown`] for a document. Contenders that failed are listed in all of them, and all end with the
//! talk's [`claims`]. [`figures::fill`] comes from raw epochs to the figures of rows. [`targets`] holds figures against what they are meant to be.
//!
//! A plot is first a list of marks in logical pixels, which charts make from one workload's cells, and is then
//! drawn by plotters twice. Text is measured and drawn with an embedded font, so that a bare machine makes the same
//! files.

#[cfg(test)]
extern crate self as dpsgd_report;

mod axis;
mod charts;
mod claims;
mod compared;
mod fastest;
mod figure;
pub mod figures;
mod font;
#[cfg(test)]
mod layout_tests;
mod page;
mod palette;
mod render;
mod scene;
mod summary;
mod table;
pub mod targets;
mod units;
mod view;

use std::fs;
use std::path::{Path, PathBuf};

use dpsgd_protocol::results::{Results, write_whole};

use crate::view::View;

pub use crate::claims::{Claim, Verdict, claims};
pub use crate::compared::Compared;
pub use crate::table::{markdown, table};
pub use crate::view::device;

/// Plots that can't be written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ReportError {
    /// The file or folder.
    pub path: String,
    /// What went wrong.
    pub reason: String,
}

/// Writes the plots of every workload of `results` to `dir`, which is made if it is missing, and `index.html` with all of
/// them; the paths are returned, the page last.
///
/// Files are `<workload>-median`, `-median-vs-mean`, `-epochs`, `-memory`, `-utilization`, `-timeline`, `-private-ratio`,
/// `-roofline` and `-noise`, each as `.svg` and `.png`. Each file is written whole or not at all, and replaces one of the same name.
pub fn plots(results: &Results, dir: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let results = &*figures::filled(results);
    fs::create_dir_all(dir).map_err(|e| failed(dir, e))?;
    let (mut paths, mut drawn) = (Vec::new(), Vec::new());
    for workload in view::workloads(results) {
        let view = View::new(results, workload);
        let mut svgs = Vec::new();
        for chart in charts::CHARTS {
            let scene = (chart.draw)(&view);
            let path = dir.join(format!("{}-{}.svg", file_name(workload), chart.name));
            let svg = render::svg(&scene).map_err(|e| failed(&path, e))?;
            write(&path, svg.as_bytes())?;
            svgs.push(svg);
            paths.push(path.clone());
            let path = path.with_extension("png");
            let png = render::png(&scene).map_err(|e| failed(&path, e))?;
            write(&path, &png)?;
            paths.push(path);
        }
        drawn.push((workload.to_string(), svgs));
    }
    let path = dir.join("index.html");
    write(&path, page::page(results, &drawn).as_bytes())?;
    paths.push(path);
    Ok(paths)
}

/// A workload's name as part of a file's: what is not a letter, a digit, `-`, `_` or `.` becomes `_`.
fn file_name(workload: &str) -> String {
    workload.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect()
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    write_whole(path, bytes).map_err(|e| failed(path, e))
}

fn failed(path: &Path, reason: impl ToString) -> ReportError {
    ReportError { path: path.display().to_string(), reason: reason.to_string() }
}
