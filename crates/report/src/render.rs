//! Draws a [`Scene`] with plotters, as SVG or as PNG.

use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{RGBAColor, ShapeStyle, TextStyle};

use crate::font;
use crate::scene::{Align, Color, Mark, Scene, Text};

/// plotters has whole coordinates: units of an SVG per logical pixel.
const SVG_SCALE: f64 = 10.0;
/// Pixels of a PNG per logical pixel: sharp on dense displays.
const PNG_SCALE: usize = 2;
/// Samples of a PNG's pixel in each direction: plotters does not smooth every edge itself.
const OVERSAMPLING: usize = 2;
/// plotters' SVG backend divides font sizes by this.
const SVG_FONT_DIVISOR: f64 = 1.24;
/// plotters puts text of an SVG lower than that of a bitmap: the difference of the two, in ems, with this font.
const BITMAP_BASELINE: f64 = 0.161;

/// The scene as an SVG document.
pub fn svg(scene: &Scene) -> Result<String, String> {
    font::register();
    let (width, height) = (scene.width.ceil(), scene.height.ceil());
    let mut text = String::new();
    let size = ((width * SVG_SCALE) as u32, (height * SVG_SCALE) as u32);
    {
        let mut backend = SVGBackend::with_string(&mut text, size);
        let style = |t: &Text| (t.size * SVG_SCALE * SVG_FONT_DIVISOR, 0.0);
        draw(&mut backend, scene, SVG_SCALE, style)?;
        backend.present().map_err(|e| e.to_string())?;
    }
    let header = format!("<svg width=\"{}\" height=\"{}\"", size.0, size.1);
    let title = escape(&scene.title);
    let logical = format!("<svg role=\"img\" aria-label=\"{title}\" width=\"{width}\" height=\"{height}\"");
    // Trailing newlines inside text elements would count as a space in some viewers.
    Ok(text.replacen(&header, &logical, 1).replace("\n</text>", "</text>"))
}

/// The scene as a PNG file.
pub fn png(scene: &Scene) -> Result<Vec<u8>, String> {
    font::register();
    let (width, height) = (scene.width.ceil() as usize * PNG_SCALE, scene.height.ceil() as usize * PNG_SCALE);
    let (wide, high) = (width * OVERSAMPLING, height * OVERSAMPLING);
    let mut fine = vec![0xff_u8; wide * high * 3];
    {
        let mut backend = BitMapBackend::with_buffer(&mut fine, (wide as u32, high as u32));
        let scale = (PNG_SCALE * OVERSAMPLING) as f64;
        let style = |t: &Text| (t.size * scale * font::LINE_PER_EM, t.size * scale * BITMAP_BASELINE);
        draw(&mut backend, scene, scale, style)?;
        backend.present().map_err(|e| e.to_string())?;
    }
    encode(&average(&fine, width, height), width, height).map_err(|e| e.to_string())
}

/// Text that can stand in XML.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Control characters, which XML forbids and an error message may hold, as spaces.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || c == '\u{fffe}' || c == '\u{ffff}' { ' ' } else { c }).collect()
}

/// `font` gives the size that the backend wants for a text and how far to move it down.
fn draw<B: DrawingBackend>(
    backend: &mut B,
    scene: &Scene,
    scale: f64,
    font: impl Fn(&Text) -> (f64, f64),
) -> Result<(), String> {
    let at = |(x, y): (f64, f64)| ((x * scale).round() as i32, (y * scale).round() as i32);
    let (right, bottom) = at((scene.width.ceil(), scene.height.ceil()));
    let page = filled(crate::scene::WHITE);
    backend.draw_rect((0, 0), (right, bottom), &page, true).map_err(|e| e.to_string())?;
    for mark in &scene.marks {
        match mark {
            Mark::Line { points, color, width } => {
                let style = filled(*color).stroke_width((width * scale).round().max(1.0) as u32);
                backend.draw_path(points.iter().map(|p| at(*p)), &style)
            }
            Mark::Area { points, color } => backend.fill_polygon(points.iter().map(|p| at(*p)), &filled(*color)),
            Mark::Disc { at: centre, radius, color } => {
                backend.draw_circle(at(*centre), (radius * scale).round() as u32, &filled(*color), true)
            }
            Mark::Text(text) => {
                let (size, down) = font(text);
                let anchor = match text.align {
                    Align::Left => HPos::Left,
                    Align::Center => HPos::Center,
                    Align::Right => HPos::Right,
                };
                let color = rgba(text.color);
                let style = TextStyle::from(font::of_em(size / font::LINE_PER_EM, text.bold))
                    .color(&color)
                    .pos(Pos::new(anchor, VPos::Center));
                let (x, y) = at(text.at);
                backend.draw_text(&printable(&text.text), &style, (x, y + down.round() as i32))
            }
        }
        .map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn filled(color: Color) -> ShapeStyle {
    ShapeStyle { color: rgba(color), filled: true, stroke_width: 1 }
}

fn rgba(color: Color) -> RGBAColor {
    let (red, green, blue) = color.rgb;
    RGBAColor(red, green, blue, color.alpha)
}

/// Each pixel as the mean of its samples.
fn average(fine: &[u8], width: usize, height: usize) -> Vec<u8> {
    let stride = width * OVERSAMPLING * 3;
    let mut coarse = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3 {
                let mut sum = 0_u32;
                for dy in 0..OVERSAMPLING {
                    for dx in 0..OVERSAMPLING {
                        let at = (y * OVERSAMPLING + dy) * stride + (x * OVERSAMPLING + dx) * 3 + channel;
                        sum += u32::from(fine[at]);
                    }
                }
                let samples = (OVERSAMPLING * OVERSAMPLING) as u32;
                coarse.push(((sum + samples / 2) / samples) as u8);
            }
        }
    }
    coarse
}

fn encode(pixels: &[u8], width: usize, height: usize) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Best);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}
