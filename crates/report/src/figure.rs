//! What all plots share: title, caption, the list of those not shown, and the chart of rows that most of them are.

use crate::axis::Axis;
use crate::font;
use crate::palette::Look;
use crate::scene::{AXIS, Align, Color, GRAY, GRID, GUIDE, INK, Scene};
use crate::view::View;

/// Width of every plot in logical pixels.
pub const WIDTH: f64 = 920.0;
/// Left and right of everything.
pub const MARGIN: f64 = 24.0;
/// Em size of names, figures and ticks.
pub const TEXT: f64 = 12.0;
const SMALL: f64 = 10.5;
const TITLE: f64 = 16.0;
/// Height of a row.
pub const ROW: f64 = 22.0;
/// Names longer than this are shortened in the middle.
const LONGEST_NAME: f64 = 270.0;

/// A plot while it is being drawn from top to bottom.
pub struct Figure {
    pub scene: Scene,
    /// The lowest pixel used.
    pub y: f64,
    /// Whether there is text in the place of a chart, which needs no legend.
    noted: bool,
}

impl Figure {
    /// Starts with a title and a line below it.
    pub fn new(title: String, subtitle: &str) -> Self {
        let mut scene = Scene { title: title.clone(), width: WIDTH, height: 0.0, marks: Vec::new() };
        let room = WIDTH - 2.0 * MARGIN;
        scene.bold((MARGIN, 28.0), font::fit(&title, TITLE, true, room), TITLE, INK, Align::Left);
        let mut y = 50.0;
        for line in font::wrap(subtitle, TEXT, room) {
            scene.text((MARGIN, y), line, TEXT, GRAY, Align::Left);
            y += 17.0;
        }
        Self { scene, y: y - 6.0, noted: false }
    }

    /// Text in the place of a chart.
    pub fn note(&mut self, text: &str) {
        self.noted = true;
        self.y += 34.0;
        for line in font::wrap(text, TEXT + 1.0, WIDTH - 2.0 * MARGIN) {
            self.scene.text((MARGIN, self.y), line, TEXT + 1.0, INK, Align::Left);
            self.y += 20.0;
        }
    }

    /// Ends with those not shown, what marks mean, and the machine.
    pub fn finish(mut self, absent: &[String], legend: &str, machine: &str) -> Scene {
        let room = WIDTH - 2.0 * MARGIN;
        self.y += 14.0;
        self.scene.line(&[(MARGIN, self.y), (WIDTH - MARGIN, self.y)], GRID, 1.0);
        self.y += 16.0;
        if !absent.is_empty() {
            self.scene.bold((MARGIN, self.y), "Not shown", SMALL, INK, Align::Left);
            self.y += 15.0;
            for line in absent {
                let line = font::cut(line, SMALL, room);
                self.scene.text((MARGIN, self.y), line, SMALL, INK, Align::Left);
                self.y += 15.0;
            }
            self.y += 5.0;
        }
        for paragraph in [legend, machine].into_iter().skip(usize::from(self.noted)) {
            for line in font::wrap(paragraph, SMALL, room) {
                self.scene.text((MARGIN, self.y), line, SMALL, GRAY, Align::Left);
                self.y += 15.0;
            }
        }
        self.scene.height = self.y + 8.0;
        self.scene
    }
}

/// `mnist-cnn: median epoch time, private, synthetic data`
pub fn title(view: &View, what: &str, mode: Option<&str>) -> String {
    let mut title = format!("{}: {what}", view.workload);
    if let Some(mode) = mode {
        title.push_str(", ");
        title.push_str(mode);
    }
    if view.synthetic() {
        title.push_str(", synthetic data");
    }
    title
}

/// A row of a chart: a contender, and the figure that stands at its right end.
pub struct Row {
    pub name: String,
    pub look: Look,
    pub figure: String,
}

/// Rows under one heading.
pub struct Group<T> {
    pub heading: String,
    /// Rows and what to draw in them.
    pub rows: Vec<(Row, T)>,
}

/// How the rows of a chart are drawn.
pub struct Rows<'a, T> {
    /// From the left and the right end of the axis to the axis.
    pub axis: &'a dyn Fn(f64, f64) -> Axis,
    /// The label of a tick.
    pub tick: &'a dyn Fn(f64) -> String,
    /// What the axis shows, its unit and scale.
    pub axis_title: &'a str,
    /// A figure with a line across all rows.
    pub reference: Option<f64>,
    /// Draws a row at this height.
    pub draw: &'a dyn Fn(&mut Scene, &Axis, f64, &Row, &T),
}

impl<T> Rows<'_, T> {
    /// Draws all groups below each other on one axis: names left, marks between, figures right.
    pub fn draw(&self, figure: &mut Figure, groups: &[Group<T>]) {
        let rows = || groups.iter().flat_map(|group| &group.rows).map(|(row, _)| row);
        let widest = |texts: &mut dyn Iterator<Item = f64>| texts.fold(0.0, f64::max);
        let names = widest(&mut rows().map(|row| font::width(&row.name, TEXT, false))).min(LONGEST_NAME);
        let figures = widest(&mut rows().map(|row| font::width(&row.figure, TEXT - 1.0, false)));
        let (left, right) = (MARGIN + names + 16.0, WIDTH - MARGIN - figures - 14.0);
        let axis = (self.axis)(left, right);
        for group in groups.iter().filter(|group| !group.rows.is_empty()) {
            self.draw_group(figure, group, &axis, names);
        }
        figure.y += 20.0;
        figure.scene.text(((left + right) / 2.0, figure.y), self.axis_title, TEXT - 1.0, GRAY, Align::Center);
        figure.y += 4.0;
    }

    fn draw_group(&self, figure: &mut Figure, group: &Group<T>, axis: &Axis, names: f64) {
        let (left, right) = axis.ends();
        let scene = &mut figure.scene;
        if !group.heading.is_empty() {
            figure.y += 24.0;
            scene.bold((left, figure.y), group.heading.as_str(), TEXT, INK, Align::Left);
        }
        let top = figure.y + 12.0;
        let bottom = top + group.rows.len() as f64 * ROW + 4.0;
        let line_at = |scene: &mut Scene, x: f64, color: Color, width: f64| {
            scene.line(&[(x, top), (x, bottom)], color, width);
        };
        for tick in &axis.ticks {
            line_at(scene, axis.at(*tick), GRID, 1.0);
        }
        for (i, _) in group.rows.iter().enumerate() {
            let y = top + 2.0 + (i as f64 + 0.5) * ROW;
            scene.line(&[(left, y), (right, y)], GUIDE, 1.0);
        }
        if let Some(reference) = self.reference {
            line_at(scene, axis.at(reference), AXIS, 1.5);
        }
        scene.line(&[(left, bottom), (right, bottom)], AXIS, 1.0);
        for tick in &axis.minor {
            scene.line(&[(axis.at(*tick), bottom), (axis.at(*tick), bottom + 3.0)], AXIS, 1.0);
        }
        for tick in &axis.ticks {
            scene.line(&[(axis.at(*tick), bottom), (axis.at(*tick), bottom + 5.0)], AXIS, 1.0);
            scene.text((axis.at(*tick), bottom + 14.0), (self.tick)(*tick), TEXT - 1.0, GRAY, Align::Center);
        }
        for (i, (row, content)) in group.rows.iter().enumerate() {
            let y = top + 2.0 + (i as f64 + 0.5) * ROW;
            let name = font::fit(&row.name, TEXT, false, names + 0.5);
            scene.text((left - 12.0, y), name, TEXT, INK, Align::Right);
            (self.draw)(scene, axis, y, row, content);
            scene.text((WIDTH - MARGIN, y), row.figure.as_str(), TEXT - 1.0, INK, Align::Right);
        }
        figure.y = bottom + 18.0;
    }
}

/// An interval as a band with a line through it: it shows on both sides of a mark even where it is narrower.
pub fn interval(scene: &mut Scene, axis: &Axis, y: f64, [low, high]: [f64; 2], color: Color) {
    let (from, to) = (axis.at(low), axis.at(high));
    let middle = (from + to) / 2.0;
    let half = ((to - from) / 2.0).max(0.75);
    scene.rectangle((middle - half, y - 8.0), (middle + half, y + 8.0), color.faint(0.4));
    scene.line(&[(from, y), (to, y)], color, 1.5);
}
