//! Peak memory: of the process, and of the GPU where one was used.

use dpsgd_protocol::results::Cell;

use crate::charts::bars::{self, Bars};
use crate::charts::{NOTHING, subtitle};
use crate::figure::{Figure, title};
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
        let hidden = view.batch_sizes().into_iter().flat_map(|size| view.timed(mode, size)).any(processes_are_hidden);
        caption.push_str(if hidden {
            " GPU memory is sampled from outside: what the device held above its level before, as its driver did not name \
             the process."
        } else {
            " GPU memory is sampled from outside: what the driver says that the process held."
        });
    }
    figure.finish(&view.absent(&[mode]), &caption, &view.machine())
}

/// Whether the driver told the memory of the device alone.
fn processes_are_hidden(cell: &Cell) -> bool {
    let uses = cell.processes.iter().filter_map(|process| process.gpu.as_ref());
    cell.gpu_peak_bytes.is_some() && uses.clone().all(|gpu| gpu.process_peak_bytes.is_none())
}

/// Draws one kind of memory; whether any contender has it.
fn draw_kind(view: &View, figure: &mut Figure, kind: impl Fn(&Cell) -> Option<u64>, what: &str) -> bool {
    let value = |cell: &Cell| kind(cell).map(|bytes| bytes as f64);
    let most = bars::values(view, &value).into_iter().fold(0.0, f64::max);
    let (unit, name) = units::byte_unit(most);
    Bars {
        value: &value,
        shown: &|bytes| units::bytes(bytes as u64),
        ascending: true,
        unit,
        tick: &|bytes| units::plain(bytes / unit),
        axis_title: &format!("{what}, {name}"),
        reference: None,
    }
    .draw(view, figure)
}
