//! Small maps side by side: the numbers of matrices as colors.

use maud::html;

use crate::svg::Size;

/// Rows of small maps, such as the kernels of a layer or what its terms make of some pictures.
///
/// Zero is white, positive numbers are red, negative ones blue, each map relative to its largest number.
#[derive(Debug, Clone)]
#[must_use]
pub struct MapPlot {
    pub(crate) title: String,
    pub(crate) note: Option<String>,
    /// Over the columns.
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<(String, Vec<Map>)>,
}

/// One map: its rows of numbers, the first on top.
pub type Map = Vec<Vec<f32>>;

impl MapPlot {
    /// A plot with no row yet.
    pub fn new<S: Into<String>>(
        title: impl Into<String>,
        columns: impl IntoIterator<Item = S>,
    ) -> Self {
        let columns = columns.into_iter().map(Into::into).collect();
        Self { title: title.into(), note: None, columns, rows: Vec::new() }
    }

    /// Adds a row with a map for every column.
    pub fn row(mut self, name: impl Into<String>, maps: impl IntoIterator<Item = Map>) -> Self {
        self.rows.push((name.into(), maps.into_iter().collect()));
        self
    }

    /// A remark below the plot.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }
}

/// Room for the names of rows, and the height of a line of text, in CSS pixels.
const NAMES: f64 = 120.0;
const LINE: f64 = 18.0;

/// The plot as an SVG file; with its title where it is to stand alone.
pub(crate) fn draw(plot: &MapPlot, size: Size, titled: bool) -> String {
    let columns = plot.columns.len().max(1);
    // Of few cells, such as those of a kernel, little room says as much.
    let cells = plot.rows.iter().flat_map(|(_, maps)| maps).map(|map| map.len().max(width(map)));
    let most = if cells.max().unwrap_or(0) > 12 { 110.0 } else { 44.0 };
    let side = ((size.width() - NAMES) / columns as f64 - 6.0).clamp(24.0, most);
    let head = LINE + if titled { 1.5 * LINE } else { 0.0 };
    let height = head + plot.rows.len() as f64 * (side + 6.0) + 4.0;
    let text = |x: f64, y: f64, text: &str, anchor: &str| {
        html! {
            text x=(format!("{x:.1}")) y=(format!("{y:.1}")) text-anchor=(anchor) font-size="12" fill="#333" { (text) }
        }
        .into_string()
    };
    let mut parts = Vec::new();
    if titled {
        parts.push(text(4.0, LINE, &plot.title, "start"));
    }
    for (column, name) in plot.columns.iter().enumerate() {
        let middle = NAMES + column as f64 * (side + 6.0) + side / 2.0;
        parts.push(text(middle, head - 5.0, name, "middle"));
    }
    for (row, (name, maps)) in plot.rows.iter().enumerate() {
        let top = head + row as f64 * (side + 6.0);
        parts.push(text(4.0, top + side / 2.0 + 4.0, name, "start"));
        for (column, map) in maps.iter().enumerate() {
            let left = NAMES + column as f64 * (side + 6.0);
            parts.push(draw_map(map, left, top, side));
        }
    }
    let label = html! { (plot.title) }.into_string().replace('"', "&quot;");
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1:.0}\" viewBox=\"0 0 {0} {1:.0}\" role=\"img\" \
         aria-label=\"{label}\" font-family=\"sans-serif\" shape-rendering=\"crispEdges\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{2}\n</svg>\n",
        size.width(),
        height,
        parts.join("\n")
    )
}

/// The cells of one map in a square; neighbors of one color in a row are one rectangle.
fn draw_map(map: &Map, left: f64, top: f64, side: f64) -> String {
    let wide = width(map).max(1);
    let cell = side / wide.max(map.len()) as f64;
    let largest = map.iter().flatten().filter(|value| value.is_finite());
    let largest = largest.fold(0.0_f32, |most, value| most.max(value.abs()));
    let mut drawn = format!(
        "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#fff\" stroke=\"#999\"/>",
        cell * wide as f64,
        cell * map.len() as f64
    );
    for (row, values) in map.iter().enumerate() {
        let steps: Vec<i32> = values.iter().map(|&value| step(value, largest)).collect();
        let mut column = 0;
        for run in steps.chunk_by(|a, b| a == b) {
            if run[0] != 0 {
                let (x, y) = (left + column as f64 * cell, top + row as f64 * cell);
                let width = run.len() as f64 * cell;
                drawn += &format!(
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{cell:.1}\" fill=\"{}\"/>",
                    color(run[0])
                );
            }
            column += run.len();
        }
    }
    drawn
}

/// Cells of the longest row.
fn width(map: &Map) -> usize {
    map.iter().map(Vec::len).max().unwrap_or(0)
}

/// Steps of a color from white to full.
const STEPS: i32 = 10;

fn step(value: f32, largest: f32) -> i32 {
    if largest > 0.0 && value.is_finite() {
        (value / largest * STEPS as f32).round() as i32
    } else {
        0
    }
}

fn color(step: i32) -> String {
    // What is left of white: from 255 down to the full color.
    let fade = |full: i32| 255 - (255 - full) * step.abs() / STEPS;
    let [red, green, blue] = if step > 0 { [178, 24, 43] } else { [33, 102, 172] }.map(fade);
    format!("#{red:02x}{green:02x}{blue:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_run_from_blue_by_white_to_red() {
        assert_eq!([step(-2.0, 2.0), step(0.0, 2.0), step(1.0, 2.0)], [-10, 0, 5]);
        assert_eq!([step(1.0, 0.0), step(f32::NAN, 1.0)], [0, 0]);
        assert_eq!([color(10), color(-10), color(0)], ["#b2182b", "#2166ac", "#ffffff"]);
    }

    #[test]
    fn neighbors_of_one_color_are_one_rectangle() {
        let plot = MapPlot::new("Kernels <of> conv", ["a & b"])
            .row("term 1", [vec![vec![1.0, 1.0, -1.0], vec![0.0, 0.0, 0.0]]]);
        let svg = draw(&plot, Size::Wide, true);
        // The page, the frame, one run of two and one of one.
        assert_eq!(svg.matches("<rect").count(), 4, "{svg}");
        assert!(svg.contains("a &amp; b") && svg.contains("Kernels &lt;of&gt; conv"));
        assert!(!draw(&plot, Size::Compact, false).contains("<text x=\"4.0\" y=\"18.0\""));
    }
}
