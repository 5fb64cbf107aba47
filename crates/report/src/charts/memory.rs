//! Peak memory: of the process, and of the GPU where one was used.

use dpsgd_protocol::results::Cell;

use crate::axis::Axis;
use crate::charts::{NOTHING, heading, subtitle};
use crate::figure::{Figure, Group, Row, Rows, title};
use crate::scene::Scene;
use crate::units;
use crate::view::{self, View};

pub fn draw(view: &View) -> Scene {
    let mode = view.main_mode();
    let mut figure = Figure::new(title(view, "peak memory", Some(view::mode(mode))), &subtitle(view, "Least first."));
    let resident = draw_kind(view, &mut figure, |cell| cell.peak_rss_bytes, "peak resident memory of the process");
    let gpu = draw_kind(view, &mut figure, |cell| cell.gpu_peak_bytes, "peak GPU memory");
    if !resident && !gpu {
        let timed = view.batch_sizes().into_iter().any(|size| !view.timed(mode, size).is_empty());
        figure.note(if timed { "No contender's memory was measured." } else { NOTHING });
    }
    let mut caption =
        format!("Largest peak of {} per contender; the runtime and the data are in it.", view.replicates());
    if gpu {
        caption.push_str(" GPU memory is sampled from outside the process.");
    }
    figure.finish(&view.absent(&[mode]), &caption, &view.machine())
}

/// Draws one kind of memory; whether any contender has it.
fn draw_kind(view: &View, figure: &mut Figure, kind: impl Fn(&Cell) -> Option<u64>, what: &str) -> bool {
    let mode = view.main_mode();
    let group = |batch_size| {
        let mut cells: Vec<(u64, &Cell)> =
            view.timed(mode, batch_size).into_iter().filter_map(|cell| Some((kind(cell)?, cell))).collect();
        cells.sort_by_key(|(bytes, _)| *bytes);
        let row = |(bytes, cell): (u64, &Cell)| {
            let name = cell.contender();
            (Row { look: view.look(&name), name, figure: units::bytes(bytes) }, bytes as f64)
        };
        Group { heading: heading(view, batch_size), rows: cells.into_iter().map(row).collect() }
    };
    let groups: Vec<Group<f64>> =
        view.batch_sizes().into_iter().map(group).filter(|group| !group.rows.is_empty()).collect();
    let values: Vec<f64> = groups.iter().flat_map(|group| &group.rows).map(|(_, bytes)| *bytes).collect();
    if values.is_empty() {
        return false;
    }
    let (unit, name) = units::byte_unit(values.iter().copied().fold(0.0, f64::max));
    Rows {
        axis: &|from, to| Axis::from_zero(values.iter().copied(), unit, from, to, 75.0),
        tick: &|bytes| units::plain(bytes / unit),
        axis_title: &format!("{what}, {name}"),
        reference: None,
        draw: &|scene, axis, y, row, bytes: &f64| {
            scene.rectangle((axis.at(0.0), y - 6.0), (axis.at(*bytes), y + 6.0), row.look.color);
        },
    }
    .draw(figure, &groups);
    true
}
