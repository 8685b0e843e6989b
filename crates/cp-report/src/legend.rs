//! The legend of a plot.

use plotters::element::{PathElement, Rectangle};
use plotters::style::Color as _;
use plotters::style::text_anchor::{HPos, VPos};

use crate::pen::{
    Area, Error, INK, PALETTE, TEXT_SIZE, dashed, font, marker, shorten, stroke, text_width, units,
    write,
};
use crate::plot::SeriesStyle;

/// Height of one line of the legend, in CSS pixels.
const LEGEND_LINE: f64 = 22.0;

/// What stands before a name in the legend.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Key {
    Series(usize, SeriesStyle),
    Bar(usize),
    Reference,
}

impl Key {
    /// Room for the key and the space after it, in CSS pixels.
    fn width(self) -> f64 {
        match self {
            Self::Series(_, SeriesStyle::Points) => 16.0,
            Self::Series(..) | Self::Reference => 29.0,
            Self::Bar(_) => 19.0,
        }
    }
}

/// The legend: above the plot, where it can cover no point, in as many lines as it takes.
pub(crate) struct Legend {
    /// Left edge, line, key and text of every entry.
    entries: Vec<(f64, usize, Key, String)>,
    lines: usize,
}

impl Legend {
    pub(crate) fn new(
        entries: impl IntoIterator<Item = (Key, String)>,
        left: f64,
        right: f64,
    ) -> Self {
        let (mut x, mut line) = (left, 0);
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(key, name)| {
                let name = shorten(&name, TEXT_SIZE, right - left - key.width());
                let width = key.width() + text_width(&name, TEXT_SIZE);
                if x > left && x + width > right {
                    (x, line) = (left, line + 1);
                }
                let at = x;
                x += width + 18.0;
                (at, line, key, name)
            })
            .collect();
        let lines = if entries.is_empty() { 0 } else { line + 1 };
        Self { entries, lines }
    }

    pub(crate) fn height(&self) -> f64 {
        self.lines as f64 * LEGEND_LINE + if self.lines > 0 { 4.0 } else { 0.0 }
    }

    pub(crate) fn draw(&self, root: &Area<'_>, top: f64) -> Result<(), Error> {
        for (x, line, key, name) in &self.entries {
            let y = top + (*line as f64 + 0.5) * LEGEND_LINE;
            let (from, to) = ((units(*x), units(y)), (units(x + 22.0), units(y)));
            match *key {
                Key::Reference => dashed(root, from, to)?,
                Key::Bar(i) => {
                    let corners = [(units(*x), units(y - 6.0)), (units(x + 12.0), units(y + 6.0))];
                    root.draw(&Rectangle::new(corners, PALETTE[i % PALETTE.len()].filled()))?;
                }
                Key::Series(i, style) => {
                    if style != SeriesStyle::Points {
                        let stroke = stroke(PALETTE[i % PALETTE.len()], 1.75);
                        root.draw(&PathElement::new([from, to], stroke))?;
                    }
                    if style != SeriesStyle::Line {
                        let middle = if style == SeriesStyle::Points { x + 5.0 } else { x + 11.0 };
                        marker(root, i, (units(middle), units(y)))?;
                    }
                }
            }
            write(
                root,
                name,
                (x + key.width(), y),
                &font(TEXT_SIZE, &INK, HPos::Left, VPos::Center),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_legend_breaks_into_lines() {
        let entries = (0..7).map(|i| (Key::Bar(i), format!("a series with a name, {i}")));
        let legend = Legend::new(entries, 40.0, 400.0);
        assert!(legend.lines > 2);
        for (x, _, key, name) in &legend.entries {
            assert!(x + key.width() + text_width(name, TEXT_SIZE) <= 400.0);
        }
    }
}
