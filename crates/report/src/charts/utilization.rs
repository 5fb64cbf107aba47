//! How busy a contender keeps the processor and the GPU, and what energy its epochs take there.

use dpsgd_protocol::results::Cell;

use crate::charts::bars::Bars;
use crate::charts::{NOTHING, subtitle};
use crate::figure::{Figure, title};
use crate::scene::Scene;
use crate::units;
use crate::view::{self, View};

pub fn draw(view: &View) -> Scene {
    let mode = view.main_mode();
    let rest = "Highest first; busy is not the same as fast.";
    let mut figure = Figure::new(title(view, "utilization", Some(view::mode(mode))), &subtitle(view, rest));
    let gpu = share(view, &mut figure, &|cell| cell.gpu_utilization, "share of time in which the GPU was busy");
    let energy = Bars {
        value: &|cell| cell.energy_j,
        shown: &joules,
        ascending: true,
        unit: 1.0,
        tick: &units::plain,
        axis_title: "energy of the GPU per epoch, joules; least first",
        reference: None,
    }
    .draw(view, &mut figure);
    let what = format!("CPU time over wall time and threads ({}); 100%: all are busy", view.results.config.threads);
    let cpu = share(view, &mut figure, &|cell| cell.cpu_utilization, &what);
    if !gpu && !energy && !cpu {
        let timed = view.batch_sizes().into_iter().any(|size| !view.timed(mode, size).is_empty());
        figure.note(if timed { "No contender's utilization was measured." } else { NOTHING });
    }
    let mut caption = format!(
        "CPU: median of {} per contender, while epochs ran; where they took less than a tenth of a second there is no \
         figure.",
        view.replicates()
    );
    if gpu || energy {
        caption.push_str(
            " GPU: of further epochs without a pause, by the driver's meters; it is busy while any kernel runs, however \
             small.",
        );
    }
    figure.finish(&view.absent(&[mode]), &caption, &view.machine())
}

fn joules(joules: f64) -> String {
    format!("{} J", units::digits(joules))
}

/// Draws shares of time; whether any contender has one.
fn share(view: &View, figure: &mut Figure, value: &dyn Fn(&Cell) -> Option<f64>, what: &str) -> bool {
    Bars {
        value,
        shown: &|share| units::percent(share),
        ascending: false,
        unit: 0.01,
        tick: &|share| format!("{}%", units::plain(share * 100.0)),
        axis_title: what,
        reference: Some(1.0),
    }
    .draw(view, figure)
}
