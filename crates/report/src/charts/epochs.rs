//! Epoch time by epoch of processes that ran alone, from the cold: the warm-up. Those that were timed in alternation have
//! thousands of epochs, and begin theirs in the middle of other contenders' turns.

use dpsgd_protocol::results::Cell;
use dpsgd_stats::median;

use crate::axis::Axis;
use crate::charts::{NOTHING, heading, subtitle};
use crate::figure::{Figure, MARGIN, ROW, TEXT, WIDTH, title};
use crate::figures::cold;
use crate::font;
use crate::scene::{AXIS, Align, GRAY, GRID, INK, Scene};
use crate::units;
use crate::view::{self, View};

const HEIGHT: f64 = 250.0;
/// Distance of the names beside the lines.
const NAME: f64 = 16.0;
const LONGEST_NAME: f64 = 230.0;

pub fn draw(view: &View) -> Scene {
    let mode = view.main_mode();
    let rest = "Processes that ran alone. Line: median over them; faint dots: each of them.";
    let mut figure = Figure::new(title(view, "epoch time by epoch", Some(view::mode(mode))), &subtitle(view, rest));
    let panels: Vec<(usize, Vec<&Cell>)> = view
        .batch_sizes()
        .into_iter()
        .map(|size| (size, view.timed(mode, size)))
        .filter(|(_, cells)| !cells.is_empty())
        .collect();
    if panels.is_empty() {
        figure.note(NOTHING);
    }
    let cells = || panels.iter().flat_map(|(_, cells)| cells);
    let names = cells().map(|cell| font::width(&cell.contender(), TEXT, false)).fold(0.0, f64::max).min(LONGEST_NAME);
    let epochs = cells().flat_map(|cell| cold(cell)).map(|process| process.epochs_s.len()).max().unwrap_or(1);
    let times = cells().flat_map(|cell| cold(cell).flat_map(|process| process.epochs_s.iter().copied()));
    let times: Vec<f64> = times.collect();
    for (batch_size, cells) in &panels {
        let heading = heading(view, *batch_size);
        panel(&mut figure, view, &heading, cells, Extent { names, epochs, times: &times });
    }
    let same = if panels.len() > 1 { " Both axes are the same in all panels." } else { "" };
    let caption = format!("{} per contender.{same}", view.replicates());
    figure.finish(&view.absent(&[mode]), &caption, &view.machine())
}

/// What all panels have in common.
struct Extent<'a> {
    names: f64,
    epochs: usize,
    times: &'a [f64],
}

fn panel(figure: &mut Figure, view: &View, heading: &str, cells: &[&Cell], extent: Extent) {
    let (left, right) = (MARGIN + 62.0, WIDTH - MARGIN - extent.names - 30.0);
    figure.y += 24.0;
    let scene = &mut figure.scene;
    let mut x = MARGIN;
    if !heading.is_empty() {
        scene.bold((x, figure.y), heading, TEXT, INK, Align::Left);
        x += font::width(heading, TEXT, true) + 14.0;
    }
    scene.text((x, figure.y), "time of an epoch, log scale", TEXT - 1.0, GRAY, Align::Left);
    let top = figure.y + 14.0;
    let bottom = top + HEIGHT.max(cells.len() as f64 * NAME + ROW);
    let y_axis = Axis::logarithmic(extent.times.iter().copied(), bottom, top, 34.0);
    let x_axis = Axis::whole(1, extent.epochs, left + 10.0, right - 6.0, 40.0);
    for tick in &y_axis.ticks {
        let y = y_axis.at(*tick);
        scene.line(&[(left, y), (right, y)], GRID, 1.0);
        scene.text((left - 8.0, y), units::time_tick(*tick), TEXT - 1.0, GRAY, Align::Right);
    }
    scene.line(&[(left, top), (left, bottom), (right, bottom)], AXIS, 1.0);
    for tick in &y_axis.minor {
        scene.line(&[(left - 3.0, y_axis.at(*tick)), (left, y_axis.at(*tick))], AXIS, 1.0);
    }
    for tick in &x_axis.ticks {
        let x = x_axis.at(*tick);
        scene.line(&[(x, bottom), (x, bottom + 4.0)], AXIS, 1.0);
        scene.text((x, bottom + 14.0), units::plain(*tick), TEXT - 1.0, GRAY, Align::Center);
    }
    let place = |epoch: usize, time: f64| (x_axis.at((epoch + 1) as f64), y_axis.at(time));
    for cell in cells {
        let look = view.look(&cell.contender());
        for process in cold(cell) {
            for (epoch, time) in process.epochs_s.iter().enumerate().filter(|(_, time)| drawable(**time)) {
                scene.disc(place(epoch, *time), 1.6, look.color.faint(0.3));
            }
        }
    }
    let mut ends = Vec::new();
    for cell in cells {
        let look = view.look(&cell.contender());
        let points: Vec<(f64, f64)> = medians(cell).into_iter().map(|(epoch, time)| place(epoch, time)).collect();
        scene.line(&points, look.color, 1.6);
        for point in points.iter().step_by(points.len().div_ceil(25).max(1)) {
            look.mark(scene, *point, 2.8);
        }
        if let Some(end) = points.last() {
            ends.push((*end, cell.contender(), look));
        }
    }
    names_beside(scene, ends, (top, bottom), right, extent.names);
    figure.y = bottom + 32.0;
    figure.scene.text(((left + right) / 2.0, figure.y), "epoch", TEXT - 1.0, GRAY, Align::Center);
    figure.y += 2.0;
}

fn drawable(time: f64) -> bool {
    time.is_finite() && time > 0.0
}

/// The median over processes of each epoch that any process has.
fn medians(cell: &Cell) -> Vec<(usize, f64)> {
    let longest = cold(cell).map(|process| process.epochs_s.len()).max().unwrap_or(0);
    let of_epoch = |epoch: usize| {
        let times: Vec<f64> = cold(cell).filter_map(|p| p.epochs_s.get(epoch).copied()).collect();
        median(&times.into_iter().filter(|time| drawable(*time)).collect::<Vec<_>>())
    };
    (0..longest).filter_map(|epoch| Some((epoch, of_epoch(epoch)?))).collect()
}

/// Names right of the lines they belong to, moved apart where lines end close to each other.
fn names_beside(
    scene: &mut Scene,
    mut ends: Vec<((f64, f64), String, crate::palette::Look)>,
    (top, bottom): (f64, f64),
    right: f64,
    room: f64,
) {
    ends.sort_by(|a, b| a.0.1.total_cmp(&b.0.1));
    let wanted: Vec<f64> = ends.iter().map(|(end, ..)| end.1).collect();
    let places = apart(&wanted, NAME, (top, bottom));
    for ((end, name, look), y) in ends.into_iter().zip(places) {
        let x = right + 14.0;
        scene.line(&[(end.0 + 4.0, end.1), (right + 2.0, end.1), (x - 3.0, y)], look.color.faint(0.45), 0.8);
        look.mark(scene, (x + 3.0, y), 3.4);
        scene.text((x + 12.0, y), font::fit(&name, TEXT, false, room + 0.5), TEXT, INK, Align::Left);
    }
}

/// Places in the same order as `wanted` (ascending), at least `gap` apart, within `low..=high` if they fit, each as near
/// to where it is wanted as its cluster allows.
fn apart(wanted: &[f64], gap: f64, (low, high): (f64, f64)) -> Vec<f64> {
    // Clusters of names that touch: their middle and how many they are.
    let mut clusters: Vec<(f64, usize)> = Vec::new();
    for place in wanted {
        let mut cluster = (*place, 1_usize);
        while let Some((middle, count)) = clusters.last().copied() {
            let reach = (count + cluster.1) as f64 / 2.0 * gap;
            if cluster.0 - middle >= reach {
                break;
            }
            let total = count + cluster.1;
            cluster = ((middle * count as f64 + cluster.0 * cluster.1 as f64) / total as f64, total);
            clusters.pop();
        }
        clusters.push(cluster);
    }
    let mut places = Vec::with_capacity(wanted.len());
    for (middle, count) in clusters {
        let first = middle - (count - 1) as f64 / 2.0 * gap;
        places.extend((0..count).map(|i| first + i as f64 * gap));
    }
    for i in 0..places.len() {
        let least = if i == 0 { low } else { places[i - 1] + gap };
        places[i] = places[i].max(least);
    }
    for i in (0..places.len()).rev() {
        let most = if i + 1 == places.len() { high } else { places[i + 1] - gap };
        places[i] = places[i].min(most);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_order_and_distance_and_stay_inside() {
        let cases: [&[f64]; 4] = [&[10.0, 10.0, 10.0], &[0.0, 50.0, 55.0, 100.0], &[99.0, 99.5, 100.0], &[5.0]];
        for wanted in cases {
            let places = apart(wanted, 16.0, (0.0, 100.0));
            assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= 16.0 - 1e-9), "{wanted:?}: {places:?}");
            assert!(places.iter().all(|place| (-1e-9..=100.0 + 1e-9).contains(place)), "{wanted:?}: {places:?}");
        }
        assert_eq!(apart(&[10.0, 60.0], 16.0, (0.0, 100.0)), [10.0, 60.0]);
    }
}
