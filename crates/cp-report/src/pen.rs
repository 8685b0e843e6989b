//! What every plot is drawn with: lengths, inks, lines, markers and text.
//!
//! Text stays text. Colors are those of Okabe & Ito, which can be told apart with any common color vision, and every
//! series has a marker of its own shape besides. The inks are also the hooks by which the style sheet of the page
//! recolors an embedded plot in dark mode (`svg [fill="#24292F"]`).

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// What plotters says when it cannot draw.
pub(crate) type Error = DrawingAreaErrorKind<std::io::Error>;
/// What is drawn on.
pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Units of the drawing per CSS pixel: plotters rounds coordinates to integers, so a pixel has to be several.
pub(crate) const UNIT: f64 = 4.0;

/// Of names, titles and labels.
pub(crate) const INK: RGBColor = RGBColor(0x24, 0x29, 0x2F);
/// Of numbers at axes and bars, and of lines to compare with.
pub(crate) const MUTED: RGBColor = RGBColor(0x59, 0x63, 0x6E);
pub(crate) const AXIS: RGBColor = RGBColor(0x8C, 0x95, 0x9F);
pub(crate) const GRID: RGBColor = RGBColor(0xE3, 0xE7, 0xEB);
pub(crate) const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);

/// Okabe & Ito (2008), "Color Universal Design", without black (text) and yellow (too faint on white).
pub(crate) const PALETTE: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0x56, 0xB4, 0xE9),
];

/// Text sizes, in CSS pixels.
pub(crate) const TITLE_SIZE: f64 = 16.0;
/// How much wider bold text is, about.
pub(crate) const BOLD: f64 = 1.15;
pub(crate) const TEXT_SIZE: f64 = 13.0;
pub(crate) const TICK_SIZE: f64 = 12.0;

/// CSS pixels in units of the drawing.
pub(crate) fn units(pixels: f64) -> i32 {
    (pixels * UNIT).round() as i32
}

/// A line of that color and width.
pub(crate) fn stroke(color: RGBColor, width: f64) -> ShapeStyle {
    color.stroke_width(units(width) as u32)
}

/// Text of that size and color, and which of its corners stands at the place where it is written.
pub(crate) fn font(size: f64, color: &'static RGBColor, h: HPos, v: VPos) -> TextStyle<'static> {
    // plotters takes the height of a line; its SVG backend divides by 1.24 to get the size of the font.
    TextStyle::from(("inherit", 1.24 * size * UNIT)).color(color).pos(Pos::new(h, v))
}

/// Writes a text at a place given in CSS pixels.
pub(crate) fn write(
    root: &Area<'_>,
    text: &str,
    (x, y): (f64, f64),
    style: &TextStyle<'_>,
) -> Result<(), Error> {
    root.draw_text(text, style, (units(x), units(y)))
}

/// Width of a text in CSS pixels, as an upper estimate: which font the reader has cannot be known.
pub(crate) fn text_width(text: &str, size: f64) -> f64 {
    let em = |c: char| match c {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' | '(' | ')'
        | '[' | ']' | '/' => 0.36,
        'f' | 't' | 'r' | '-' => 0.42,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.95,
        c if c.is_uppercase() => 0.72,
        c if c.is_ascii() => 0.62,
        _ => 0.85,
    };
    size * text.chars().map(em).sum::<f64>()
}

/// Width of the widest text in CSS pixels.
pub(crate) fn widest<'a>(texts: impl IntoIterator<Item = &'a str>, size: f64) -> f64 {
    texts.into_iter().map(|text| text_width(text, size)).fold(0.0, f64::max)
}

/// The text, cut with an ellipsis where it is wider than `width` pixels.
pub(crate) fn shorten(text: &str, size: f64, width: f64) -> String {
    if text_width(text, size) <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    for c in text.chars() {
        if text_width(&short, size) + text_width("w…", size) > width {
            break;
        }
        short.push(c);
    }
    format!("{}…", short.trim_end())
}

/// Lines no wider than `width` pixels, broken between words.
pub(crate) fn wrap(text: &str, size: f64, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line)
                if text_width(line, size) + text_width(" ", size) + text_width(word, size)
                    <= width =>
            {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The marker of a series, with a rim in the color of the paper that keeps it apart from lines and other markers.
pub(crate) fn marker(root: &Area<'_>, series: usize, (x, y): (i32, i32)) -> Result<(), Error> {
    for (radius, color) in [(5.25, PAPER), (4.0, PALETTE[series % PALETTE.len()])] {
        let polygon = |corners: &[(f64, f64)]| {
            let corner = |(dx, dy): &(f64, f64)| (x + units(radius * dx), y + units(radius * dy));
            root.draw(&Polygon::new(corners.iter().map(corner).collect::<Vec<_>>(), color.filled()))
        };
        // Shapes of about the same area.
        match series % 5 {
            0 => root.draw(&Circle::new((x, y), units(radius) as u32, color.filled()))?,
            1 => polygon(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)])?,
            2 => polygon(&[(0.0, -1.25), (1.15, 0.8), (-1.15, 0.8)])?,
            3 => polygon(&[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)])?,
            _ => polygon(&[(0.0, 1.25), (1.15, -0.8), (-1.15, -0.8)])?,
        }
    }
    Ok(())
}

/// A bar with caps, unless a marker in its middle hides it.
pub(crate) fn error_bar(
    root: &Area<'_>,
    top: (i32, i32),
    bottom: (i32, i32),
    color: RGBColor,
) -> Result<(), Error> {
    if bottom.1 - top.1 < units(2.0 * 5.5) {
        return Ok(());
    }
    root.draw(&PathElement::new([top, bottom], stroke(color, 1.25)))?;
    for (x, y) in [top, bottom] {
        root.draw(&PathElement::new(
            [(x - units(3.0), y), (x + units(3.0), y)],
            stroke(color, 1.25),
        ))?;
    }
    Ok(())
}

/// A line to compare with.
pub(crate) fn dashed(root: &Area<'_>, from: (i32, i32), to: (i32, i32)) -> Result<(), Error> {
    root.draw(&plotters::element::DashedPathElement::new(
        [from, to],
        units(5.0),
        units(4.0),
        stroke(MUTED, 1.5),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_and_wrapped() {
        assert_eq!(shorten("features.3", TICK_SIZE, 200.0), "features.3");
        let cut = shorten("inception_4a/5x5_reduce/batchnorm", TICK_SIZE, 100.0);
        assert!(cut.ends_with('…') && text_width(&cut, TICK_SIZE) <= 100.0, "{cut}");
        let lines = wrap("Accuracy against parameters for all three networks", TITLE_SIZE, 180.0);
        assert!(lines.len() > 1 && lines.join(" ").ends_with("networks"));
    }
}
