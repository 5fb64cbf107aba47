//! The font of all plots: DejaVu Sans, embedded, so that a machine without fonts draws the same PNG.

use std::sync::Once;

use plotters::style::{FontDesc, FontFamily, FontStyle, register_font};

/// The family as SVG names it, with what a viewer without it may use instead. Verdana has the same widths.
pub const FAMILY: &str = "DejaVu Sans, Verdana, Arial, sans-serif";

/// Height of a line over its em size: ascender and descender of DejaVu Sans, which is what ab_glyph calls its size.
pub const LINE_PER_EM: f64 = (1901.0 + 483.0) / 2048.0;

static REGULAR: &[u8] = include_bytes!("../assets/DejaVuSans.ttf");
static BOLD: &[u8] = include_bytes!("../assets/DejaVuSans-Bold.ttf");

/// Makes the font known to plotters; needed before anything is measured or drawn.
pub fn register() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        for (style, bytes) in [(FontStyle::Normal, REGULAR), (FontStyle::Bold, BOLD)] {
            assert!(register_font(FAMILY, style, bytes).is_ok(), "the embedded font is a font");
        }
    });
}

/// The font at an em size in the pixels of a bitmap.
pub fn of_em(em: f64, bold: bool) -> FontDesc<'static> {
    register();
    let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
    FontDesc::new(FontFamily::Name(FAMILY), em * LINE_PER_EM, style)
}

/// Width of `text` at em size `size`, in the unit of `size`.
pub fn width(text: &str, size: f64, bold: bool) -> f64 {
    // plotters rounds to whole pixels: measure large.
    let (width, _) = of_em(1000.0, bold).box_size(text).expect("the font is registered");
    f64::from(width) * size / 1000.0
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
