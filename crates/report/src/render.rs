//! Draws a [`Scene`] with plotters, as SVG or as PNG.

use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontDesc, FontFamily, FontStyle, RGBAColor, ShapeStyle, TextStyle};

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

/// The scene as an SVG document.
pub fn svg(scene: &Scene) -> Result<String, String> {
    let (width, height) = (scene.width.ceil(), scene.height.ceil());
    let mut svg = String::new();
    let size = ((width * SVG_SCALE) as u32, (height * SVG_SCALE) as u32);
    {
        let mut backend = SVGBackend::with_string(&mut svg, size);
        draw_shapes(&mut backend, scene, SVG_SCALE)?;
        for text in scene.texts() {
            draw_text(&mut backend, text)?;
        }
        backend.present().map_err(|e| e.to_string())?;
    }
    let header = format!("<svg width=\"{}\" height=\"{}\"", size.0, size.1);
    let title = escape(&scene.title);
    let logical = format!("<svg role=\"img\" aria-label=\"{title}\" width=\"{width}\" height=\"{height}\"");
    // A line break at the end of a text would count as a space in some viewers.
    Ok(svg.replacen(&header, &logical, 1).replace("\n</text>", "</text>"))
}

/// The scene as a PNG file.
pub fn png(scene: &Scene) -> Result<Vec<u8>, String> {
    let (width, height) = (scene.width.ceil() as usize * PNG_SCALE, scene.height.ceil() as usize * PNG_SCALE);
    let mut fine = Bitmap::white(width * OVERSAMPLING, height * OVERSAMPLING);
    let scale = (PNG_SCALE * OVERSAMPLING) as f64;
    {
        let mut backend = BitMapBackend::with_buffer(&mut fine.rgb, (fine.width as u32, fine.height as u32));
        draw_shapes(&mut backend, scene, scale)?;
        backend.present().map_err(|e| e.to_string())?;
    }
    for text in scene.texts() {
        let (left, middle) = (text.left() * scale, text.at.1 * scale);
        font::rasterize(&printable(&text.text), text.size * scale, text.bold, left, middle, |x, y, covered| {
            fine.mix(x, y, text.color, covered);
        });
    }
    encode(&fine.average()).map_err(|e| e.to_string())
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

/// Draws the page and all marks but text, which lies on top of them.
fn draw_shapes<B: DrawingBackend>(backend: &mut B, scene: &Scene, scale: f64) -> Result<(), String> {
    let at = |(x, y): (f64, f64)| ((x * scale).round() as i32, (y * scale).round() as i32);
    let page = filled(crate::scene::WHITE);
    backend.draw_rect((0, 0), at((scene.width.ceil(), scene.height.ceil())), &page, true).map_err(|e| e.to_string())?;
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
            Mark::Text(_) => Ok(()),
        }
        .map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn draw_text(backend: &mut SVGBackend, text: &Text) -> Result<(), String> {
    let anchor = match text.align {
        Align::Left => HPos::Left,
        Align::Center => HPos::Center,
        Align::Right => HPos::Right,
    };
    let face = if text.bold { FontStyle::Bold } else { FontStyle::Normal };
    let font = FontDesc::new(FontFamily::Name(font::FAMILY), text.size * SVG_SCALE * SVG_FONT_DIVISOR, face);
    let color = rgba(text.color);
    let style = TextStyle::from(font).color(&color).pos(Pos::new(anchor, VPos::Center));
    let (x, y) = ((text.at.0 * SVG_SCALE).round() as i32, (text.at.1 * SVG_SCALE).round() as i32);
    backend.draw_text(&printable(&text.text), &style, (x, y)).map_err(|e| e.to_string())
}

fn filled(color: Color) -> ShapeStyle {
    ShapeStyle { color: rgba(color), filled: true, stroke_width: 1 }
}

fn rgba(color: Color) -> RGBAColor {
    let (red, green, blue) = color.rgb;
    RGBAColor(red, green, blue, color.alpha)
}

/// Rows of pixels of three bytes.
struct Bitmap {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Bitmap {
    fn white(width: usize, height: usize) -> Self {
        Self { width, height, rgb: vec![0xff; width * height * 3] }
    }

    /// Covers a share of a pixel with a colour; pixels outside are left out.
    fn mix(&mut self, x: i32, y: i32, color: Color, covered: f32) {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return };
        if x >= self.width || y >= self.height {
            return;
        }
        let alpha = covered.clamp(0.0, 1.0) * color.alpha as f32;
        let at = (y * self.width + x) * 3;
        let (red, green, blue) = color.rgb;
        for (byte, channel) in self.rgb[at..at + 3].iter_mut().zip([red, green, blue]) {
            *byte = (f32::from(*byte) * (1.0 - alpha) + f32::from(channel) * alpha).round() as u8;
        }
    }

    /// Each pixel of the final size as the mean of its samples.
    fn average(&self) -> Self {
        let (width, height) = (self.width / OVERSAMPLING, self.height / OVERSAMPLING);
        let mut rgb = Vec::with_capacity(width * height * 3);
        for y in 0..height {
            for x in 0..width {
                for channel in 0..3 {
                    let sample = |dx: usize, dy: usize| {
                        let at = (y * OVERSAMPLING + dy) * self.width + x * OVERSAMPLING + dx;
                        usize::from(self.rgb[at * 3 + channel])
                    };
                    let sum: usize = (0..OVERSAMPLING)
                        .flat_map(|dy| (0..OVERSAMPLING).map(move |dx| (dx, dy)))
                        .map(|(dx, dy)| sample(dx, dy))
                        .sum();
                    let samples = OVERSAMPLING * OVERSAMPLING;
                    rgb.push(((sum + samples / 2) / samples) as u8);
                }
            }
        }
        Self { width, height, rgb }
    }
}

fn encode(bitmap: &Bitmap) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, bitmap.width as u32, bitmap.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Default);
    encoder.set_filter(png::FilterType::NoFilter);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&bitmap.rgb)?;
    writer.finish()?;
    Ok(bytes)
}
