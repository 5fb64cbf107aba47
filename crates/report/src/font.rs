//! The font of all plots: DejaVu Sans, embedded, so that a machine without fonts draws the same PNG.
//!
//! Text is laid out and rasterized here and not by plotters, whose own use of ab_glyph leaves out the space that a glyph
//! has at its left: letters would stand unevenly.

use std::sync::OnceLock;

use ab_glyph::{Font, FontRef, ScaleFont, point};

/// The family as SVG names it, with what a viewer without it may use instead. Verdana is as wide.
pub const FAMILY: &str = "DejaVu Sans, Verdana, Arial, sans-serif";

/// Height of lower-case letters over the em size.
const X_HEIGHT: f64 = 1120.0 / 2048.0;

/// The regular or the bold face.
fn face(bold: bool) -> &'static FontRef<'static> {
    static FACES: OnceLock<[FontRef<'static>; 2]> = OnceLock::new();
    let faces = FACES.get_or_init(|| {
        let files: [&[u8]; 2] =
            [include_bytes!("../assets/DejaVuSans.ttf"), include_bytes!("../assets/DejaVuSans-Bold.ttf")];
        files.map(|file| FontRef::try_from_slice(file).expect("the embedded font is a font"))
    });
    &faces[usize::from(bold)]
}

/// What ab_glyph calls the size of a face at an em of `size` pixels: from its highest ascender to its lowest descender.
fn ab_glyph_size(face: &FontRef, size: f64) -> f32 {
    let units = f64::from(face.units_per_em().expect("a scalable font"));
    (size * f64::from(face.height_unscaled()) / units) as f32
}

/// Width of `text` at em size `size`, in the unit of `size`.
pub fn width(text: &str, size: f64, bold: bool) -> f64 {
    let face = face(bold);
    let scaled = face.as_scaled(ab_glyph_size(face, size));
    let mut pen = 0.0;
    let mut last = None;
    for c in text.chars() {
        let glyph = scaled.glyph_id(c);
        pen += last.map_or(0.0, |last| scaled.kern(last, glyph)) + scaled.h_advance(glyph);
        last = Some(glyph);
    }
    f64::from(pen)
}

/// Gives `pixel` each pixel that `text` touches and how much of it is covered. The text starts at x = `left`, and half
/// the height of its lower-case letters is at y = `middle`.
pub fn rasterize(text: &str, size: f64, bold: bool, left: f64, middle: f64, mut pixel: impl FnMut(i32, i32, f32)) {
    let face = face(bold);
    let scaled = face.as_scaled(ab_glyph_size(face, size));
    let baseline = (middle + 0.5 * X_HEIGHT * size) as f32;
    let mut pen = left as f32;
    let mut last = None;
    for c in text.chars() {
        let id = scaled.glyph_id(c);
        pen += last.map_or(0.0, |last| scaled.kern(last, id));
        let glyph = id.with_scale_and_position(scaled.scale(), point(pen, baseline));
        if let Some(outline) = scaled.outline_glyph(glyph) {
            let corner = outline.px_bounds().min;
            outline.draw(|x, y, covered| pixel(corner.x as i32 + x as i32, corner.y as i32 + y as i32, covered));
        }
        pen += scaled.h_advance(id);
        last = Some(id);
    }
}

/// `text`, shortened in its middle to `room`: names of variants differ at both ends.
pub fn fit(text: &str, size: f64, bold: bool, room: f64) -> String {
    shorten(text, size, bold, room, |chars, keep| {
        let head: String = chars[..keep.div_ceil(2)].iter().collect();
        let tail: String = chars[chars.len() - keep / 2..].iter().collect();
        format!("{head}…{tail}")
    })
}

/// `text`, cut at its end to `room`: sentences.
pub fn cut(text: &str, size: f64, room: f64) -> String {
    shorten(text, size, false, room, |chars, keep| format!("{}…", chars[..keep].iter().collect::<String>().trim_end()))
}

fn shorten(text: &str, size: f64, bold: bool, room: f64, keep: impl Fn(&[char], usize) -> String) -> String {
    if width(text, size, bold) <= room {
        return text.to_string();
    }
    let chars: Vec<char> = text.chars().collect();
    let (mut low, mut high) = (0, chars.len().saturating_sub(1));
    while low < high {
        let middle = (low + high).div_ceil(2);
        if width(&keep(&chars, middle), size, bold) <= room {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    keep(&chars, low)
}

/// `text` broken between words into lines no wider than `room`.
pub fn wrap(text: &str, size: f64, room: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(&format!("{line} {word}"), size, false) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(fit(word, size, false, room)),
        }
    }
    lines
}
