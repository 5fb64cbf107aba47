//! Bars of one figure of every contender and batch size.

use dpsgd_protocol::results::Cell;

use crate::axis::Axis;
use crate::charts::heading;
use crate::figure::{Figure, Group, Row, Rows};
use crate::view::{self, View};

/// What the bars are of.
pub struct Bars<'a> {
    pub value: &'a dyn Fn(&Cell) -> Option<f64>,
    /// The figure beside a bar.
    pub shown: &'a dyn Fn(f64) -> String,
    /// Least first, or largest first.
    pub ascending: bool,
    /// Ticks are at round multiples of it.
    pub unit: f64,
    pub tick: &'a dyn Fn(f64) -> String,
    pub axis_title: &'a str,
    /// A figure with a line across all rows.
    pub reference: Option<f64>,
}

/// The values of all rows of a plot that are numbers.
pub fn values(view: &View, value: &dyn Fn(&Cell) -> Option<f64>) -> Vec<f64> {
    let timed = view.batch_sizes().into_iter().flat_map(|size| view.timed(view.main_mode(), size));
    timed.filter_map(value).filter(|value| value.is_finite() && *value >= 0.0).collect()
}

impl Bars<'_> {
    /// Draws them; whether there are any.
    pub fn draw(&self, view: &View, figure: &mut Figure) -> bool {
        let values = values(view, self.value);
        if values.is_empty() {
            return false;
        }
        let group = |batch_size| {
            let timed = view.timed(view.main_mode(), batch_size);
            let finite = |cell| (self.value)(cell).filter(|value| value.is_finite() && *value >= 0.0);
            let mut cells: Vec<(f64, &Cell)> =
                timed.into_iter().filter_map(|cell| Some((finite(cell)?, cell))).collect();
            cells.sort_by(|(a, _), (b, _)| if self.ascending { a.total_cmp(b) } else { b.total_cmp(a) });
            let row = |(value, cell): (f64, &Cell)| {
                let name = view::name(cell);
                (Row { look: view.look(&cell.contender()), name, figure: (self.shown)(value) }, value)
            };
            Group { heading: heading(view, batch_size), rows: cells.into_iter().map(row).collect() }
        };
        let groups: Vec<Group<f64>> =
            view.batch_sizes().into_iter().map(group).filter(|group| !group.rows.is_empty()).collect();
        Rows {
            axis: &|from, to| Axis::from_zero(values.iter().copied().chain(self.reference), self.unit, from, to, 75.0),
            tick: self.tick,
            axis_title: self.axis_title,
            reference: self.reference,
            draw: &|scene, axis, y, row, value: &f64| {
                scene.rectangle((axis.at(0.0), y - 6.0), (axis.at(*value), y + 6.0), row.look.color);
            },
        }
        .draw(figure, &groups);
        true
    }
}
