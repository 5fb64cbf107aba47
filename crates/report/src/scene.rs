//! A picture as a list of marks in logical pixels: what the charts make and [`crate::render`] draws.
//!
//! Keeping the picture apart from its drawing lets one description become both SVG and PNG, and lets tests ask where
//! the text is instead of looking at pixels.

use crate::font;

/// A point in logical pixels from the upper left.
pub type Point = (f64, f64);

/// A colour with opacity, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Color {
    pub rgb: (u8, u8, u8),
    pub alpha: f64,
}

impl Color {
    pub const fn new(red: u8, green: u8, blue: u8) -> Self {
        Self { rgb: (red, green, blue), alpha: 1.0 }
    }

    pub const fn faint(self, alpha: f64) -> Self {
        Self { rgb: self.rgb, alpha }
    }
}

/// Text and dots of the first rank.
pub const INK: Color = Color::new(0x1f, 0x23, 0x28);
/// Captions and secondary figures.
pub const GRAY: Color = Color::new(0x5b, 0x63, 0x6e);
/// Axes.
pub const AXIS: Color = Color::new(0x8b, 0x93, 0x9c);
/// Grid lines.
pub const GRID: Color = Color::new(0xe3, 0xe6, 0xea);
/// Guides from a name to its mark.
pub const GUIDE: Color = Color::new(0xf1, 0xf3, 0xf5);
/// The page.
pub const WHITE: Color = Color::new(0xff, 0xff, 0xff);

/// Which end of a text is at its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Center,
    Right,
}

/// A line of text; its point is at half the height of its lower-case letters.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    pub at: Point,
    pub text: String,
    /// Em size in logical pixels.
    pub size: f64,
    pub bold: bool,
    pub color: Color,
    pub align: Align,
}

impl Text {
    /// Where it starts.
    pub fn left(&self) -> f64 {
        let width = font::width(&self.text, self.size, self.bold);
        match self.align {
            Align::Left => self.at.0,
            Align::Center => self.at.0 - width / 2.0,
            Align::Right => self.at.0 - width,
        }
    }

    /// Left, top, right and bottom of what is drawn.
    #[cfg(test)]
    pub fn bounds(&self) -> [f64; 4] {
        let left = self.left();
        let right = left + font::width(&self.text, self.size, self.bold);
        [left, self.at.1 - 0.5 * self.size, right, self.at.1 + 0.5 * self.size]
    }
}

/// One thing drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// A line through the points.
    Line { points: Vec<Point>, color: Color, width: f64 },
    /// A filled polygon.
    Area { points: Vec<Point>, color: Color },
    /// A filled disc.
    Disc { at: Point, radius: f64, color: Color },
    /// A line of text.
    Text(Text),
}

/// A picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// What it shows, for readers who can't see it.
    pub title: String,
    pub width: f64,
    pub height: f64,
    pub marks: Vec<Mark>,
}

impl Scene {
    pub fn line(&mut self, points: &[Point], color: Color, width: f64) {
        self.marks.push(Mark::Line { points: points.to_vec(), color, width });
    }

    pub fn area(&mut self, points: &[Point], color: Color) {
        self.marks.push(Mark::Area { points: points.to_vec(), color });
    }

    pub fn rectangle(&mut self, (left, top): Point, (right, bottom): Point, color: Color) {
        self.area(&[(left, top), (right, top), (right, bottom), (left, bottom)], color);
    }

    pub fn disc(&mut self, at: Point, radius: f64, color: Color) {
        self.marks.push(Mark::Disc { at, radius, color });
    }

    pub fn text(&mut self, at: Point, text: impl Into<String>, size: f64, color: Color, align: Align) {
        self.marks.push(Mark::Text(Text { at, text: text.into(), size, bold: false, color, align }));
    }

    pub fn bold(&mut self, at: Point, text: impl Into<String>, size: f64, color: Color, align: Align) {
        self.marks.push(Mark::Text(Text { at, text: text.into(), size, bold: true, color, align }));
    }

    /// Every text.
    pub fn texts(&self) -> impl Iterator<Item = &Text> {
        self.marks.iter().filter_map(|mark| match mark {
            Mark::Text(text) => Some(text),
            _ => None,
        })
    }
}
