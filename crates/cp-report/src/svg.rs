//! Plots as SVG, drawn by plotters.
//!
//! What stands where is decided here in CSS pixels; `legend.rs` sets the legend, `pen.rs` draws lines, markers and text.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use crate::cell::{Cell, fixed};
use crate::legend::{Key, Legend};
use crate::maps;
use crate::pen::*;
use crate::plot::{BarPlot, Plot, Point, SeriesStyle, Side, TickFormat, XyPlot};
use crate::ticks::{Scale, Tick};

/// Generic names alone: a report has to look alike wherever it is opened, and may load nothing.
const FONT: &str = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif";

/// How large a plot is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// As wide as a page.
    Wide,
    /// As wide as half a page or a phone, with the same size of text.
    Compact,
}

impl Size {
    /// Width, in CSS pixels.
    pub(crate) fn width(self) -> f64 {
        match self {
            Self::Wide => 900.0,
            Self::Compact => 436.0,
        }
    }

    /// Height of a plot with two axes, without its title, in CSS pixels. What the legend takes is lost to the area
    /// between the axes, so that plots side by side are level.
    fn height(self) -> f64 {
        match self {
            Self::Wide => 420.0,
            Self::Compact => 350.0,
        }
    }
}

/// Draws a plot. One that has to stand alone (`titled`) has its title and a margin; in the page it has neither.
pub(crate) fn draw(plot: &Plot, size: Size, titled: bool) -> Result<String, Error> {
    let margin = if titled { 14.0 } else { 1.0 };
    let title = if titled {
        wrap(plot.title(), BOLD * TITLE_SIZE, size.width() - 2.0 * margin)
    } else {
        Vec::new()
    };
    let body = match plot {
        Plot::Xy(plot) => Body::xy(plot, size, margin),
        Plot::Bars(plot) => Body::bars(plot, size, margin),
        // They have no axes.
        Plot::Maps(plot) => return Ok(maps::draw(plot, size, titled)),
    };
    let head = margin + title.len() as f64 * 1.35 * TITLE_SIZE + if titled { 8.0 } else { 0.0 };
    let pixels = (size.width(), (head + body.height() + margin).ceil());

    let mut svg = String::new();
    {
        let root =
            SVGBackend::with_string(&mut svg, (units(pixels.0) as u32, units(pixels.1) as u32))
                .into_drawing_area();
        root.fill(&PAPER)?;
        let mut title_font = font(TITLE_SIZE, &INK, HPos::Left, VPos::Top);
        title_font.font = title_font.font.style(FontStyle::Bold);
        for (line, text) in title.iter().enumerate() {
            let at = (margin, margin + 1.35 * TITLE_SIZE * line as f64);
            write(&root, text, at, &title_font)?;
        }
        body.legend.draw(&root, head)?;
        match plot {
            Plot::Xy(plot) => draw_xy(plot, &body, &root, head)?,
            Plot::Bars(plot) => draw_bars(plot, &body, &root, head)?,
            Plot::Maps(_) => {}
        }
        root.present()?;
    }
    // plotters writes the opening tag as the first line. Ours scales with the page, and has a name for screen readers.
    let rest = svg.split_once('\n').map_or("", |(_, rest)| rest);
    let label = maud::html! { (plot.title()) }.into_string().replace('"', "&quot;");
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {} {}\" role=\"img\" \
         aria-label=\"{label}\" font-family=\"{FONT}\" stroke-linejoin=\"round\">\n{rest}",
        pixels.0,
        pixels.1,
        units(pixels.0),
        units(pixels.1),
    ))
}

/// What has to be known before a plot can be drawn: the room that each part takes, in CSS pixels.
struct Body {
    size: Size,
    margin: f64,
    legend: Legend,
    /// Of the line above the plot, with the label of the vertical axis.
    above: f64,
    left: f64,
    right: f64,
    plot: f64,
    below: f64,
    x: Scale,
    x_ticks: Vec<Tick>,
    y: Scale,
    y_ticks: Vec<Tick>,
    /// The second vertical axis.
    at_right: Option<(Scale, Vec<Tick>)>,
}

impl Body {
    fn height(&self) -> f64 {
        self.legend.height() + self.above + self.plot + self.below
    }

    fn xy(plot: &XyPlot, size: Size, margin: f64) -> Self {
        let drawable = || {
            plot.series.iter().flat_map(|series| {
                let points = series.points.iter().map(move |point| (series.side, point));
                points.filter(|(side, point)| plot.drawable(*side, point))
            })
        };
        let x = Scale::new(&plot.x, drawable().map(|(_, point)| point.x));
        // A bar of error that would reach below zero on a logarithmic axis has no place in the extent.
        let extent = |Point { y, error, .. }: &Point| [*y, y - error, y + error];
        let vertical = |side: Side| {
            // Without an axis at the right, all stand at the left.
            let here = move |of: Side| of == side || plot.right.is_none();
            let ys = drawable().filter(|(of, _)| here(*of)).flat_map(|(_, point)| extent(point));
            let references = plot.references.iter().filter(|one| here(one.side));
            Scale::new(plot.vertical(side), ys.chain(references.map(|reference| reference.y)))
        };
        let y = vertical(Side::Left);

        let entries = plot
            .series
            .iter()
            .enumerate()
            .map(|(i, series)| (Key::Series(i, series.style), series.name.clone()))
            .chain(
                plot.references.iter().map(|reference| (Key::Reference, reference.name.clone())),
            );
        let legend = Legend::new(entries, margin, size.width() - margin);
        let (above, below) = (28.0, BELOW);
        let height = (size.height() - legend.height() - above - below).max(160.0);
        let rows = (height / 52.0) as usize;
        let labels =
            |ticks: &[Tick]| widest(ticks.iter().map(|tick| tick.label.as_str()), TICK_SIZE) + 9.0;
        let y_ticks = y.ticks(rows);
        let left = margin + labels(&y_ticks);
        let at_right = plot.right.is_some().then(|| vertical(Side::Right));
        let at_right = at_right.map(|scale| {
            let ticks = scale.ticks(rows);
            (scale, ticks)
        });
        let right = margin + at_right.as_ref().map_or(14.0, |(_, ticks)| labels(ticks));
        let width = size.width() - left - right;
        let x_ticks = fitting(x.ticks((width / 82.0) as usize), &x, width);
        Self {
            size,
            margin,
            legend,
            above,
            left,
            right,
            plot: height,
            below,
            x,
            x_ticks,
            y,
            y_ticks,
            at_right,
        }
    }

    /// Where a value of a vertical axis stands, in the units of the left one's range.
    fn vertical(&self, side: Side, value: f64) -> f64 {
        match (side, &self.at_right) {
            (Side::Right, Some((right, _))) => self.seen_at_left(right, right.position(value)),
            _ => self.y.position(value),
        }
    }

    /// A position on the `right` axis as one on the left.
    fn seen_at_left(&self, right: &Scale, position: f64) -> f64 {
        let (ours, own) = (self.y.range(), right.range());
        let share = (position - own.start) / (own.end - own.start);
        ours.start + share * (ours.end - ours.start)
    }

    fn bars(plot: &BarPlot, size: Size, margin: f64) -> Self {
        let values = || plot.series.iter().flat_map(|(_, values)| values).flatten().copied();
        let x = Scale::from_zero(&plot.axis, values());
        let left_limit = 0.4 * size.width();
        let left = margin
            + widest(plot.categories.iter().map(String::as_str), TICK_SIZE).min(left_limit)
            + 8.0;
        let labels: Vec<String> = values().map(|value| bar_label(plot, value)).collect();
        let right = margin + widest(labels.iter().map(String::as_str), TICK_SIZE);
        let width = size.width() - left - right;
        let x_ticks = fitting(x.ticks((width / 82.0) as usize), &x, width);
        let named = plot.series.iter().enumerate().filter(|_| plot.series.len() > 1);
        let legend = Legend::new(
            named.map(|(i, (name, _))| (Key::Bar(i), name.clone())),
            margin,
            size.width() - margin,
        );
        let rows = plot.categories.len().max(1);
        let y = Scale::from_zero(&crate::plot::Axis::count(""), [rows as f64]);
        let height = rows as f64 * (plot.series.len().max(1) as f64 * BAR + BAR_GAP);
        Self {
            size,
            margin,
            legend,
            above: 4.0,
            left,
            right,
            plot: height,
            below: BELOW,
            x,
            x_ticks,
            y,
            y_ticks: Vec::new(),
            at_right: None,
        }
    }
}

/// Height of what is below the axes, ticks and label, in CSS pixels.
const BELOW: f64 = 44.0;
/// Thickness of a bar, in CSS pixels.
const BAR: f64 = 15.0;
/// Space between two groups of bars, in CSS pixels.
const BAR_GAP: f64 = 10.0;

/// One direction of the drawing, with the ticks that were chosen for it rather than those of plotters.
struct Direction {
    /// From the left or from the bottom.
    range: Range<f64>,
    ticks: Vec<f64>,
}

impl Direction {
    fn new(range: Range<f64>, ticks: &[Tick]) -> Self {
        Self { range, ticks: ticks.iter().map(|tick| tick.at).collect() }
    }
}

impl Ranged for Direction {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, position: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (position - self.range.start) / (self.range.end - self.range.start);
        from + (f64::from(to - from) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Direction, Direction>>;

/// Axes, ticks and grid below the legend.
fn axes<'a>(
    body: &Body,
    root: &Area<'a>,
    head: f64,
    x_label: &str,
    y: Range<f64>,
    grid: Grid,
) -> Result<Chart<'a>, Error> {
    let mut chart = ChartBuilder::on(root)
        .margin_top(units(head + body.legend.height() + body.above))
        .margin_right(units(body.right))
        .margin_bottom(units(body.below - 28.0 + body.margin))
        .set_label_area_size(LabelAreaPosition::Left, units(body.left))
        .set_label_area_size(LabelAreaPosition::Bottom, units(28.0))
        .build_cartesian_2d(
            Direction::new(body.x.range(), &body.x_ticks),
            Direction::new(y, &body.y_ticks),
        )?;
    let x_format = |value: &f64| name(&body.x_ticks, *value);
    let y_format = |value: &f64| name(&body.y_ticks, *value);
    let mut mesh = chart.configure_mesh();
    match grid {
        Grid::Horizontal => mesh.disable_x_mesh(),
        // The line at zero takes the place of the axis.
        Grid::Vertical => mesh.disable_y_mesh().disable_y_axis(),
    };
    mesh.bold_line_style(stroke(GRID, 1.0))
        .light_line_style(TRANSPARENT)
        .axis_style(stroke(AXIS, 1.0))
        .x_label_style(font(TICK_SIZE, &MUTED, HPos::Center, VPos::Top))
        .y_label_style(font(TICK_SIZE, &MUTED, HPos::Right, VPos::Center))
        .x_label_formatter(&x_format)
        .y_label_formatter(&y_format)
        .set_all_tick_mark_size(units(3.5))
        .draw()?;
    let below = head + body.legend.height() + body.above + body.plot;
    let middle = 0.5 * (body.left + body.size.width() - body.right);
    write(root, x_label, (middle, below + 24.0), &font(TEXT_SIZE, &INK, HPos::Center, VPos::Top))?;
    Ok(chart)
}

/// Which lines of the grid are drawn: those across the direction in which values are compared.
enum Grid {
    Horizontal,
    Vertical,
}

/// The label of the tick at that position.
fn name(ticks: &[Tick], position: f64) -> String {
    ticks
        .iter()
        .find(|tick| (tick.at - position).abs() <= 1e-12 * position.abs())
        .map_or_else(String::new, |tick| tick.label.clone())
}

fn draw_xy(plot: &XyPlot, body: &Body, root: &Area<'_>, head: f64) -> Result<(), Error> {
    // The label of the vertical axis stands above it: read without turning the head, and no loss of width on a phone.
    let at = (body.margin, head + body.legend.height() + body.above - 10.0);
    write(root, &plot.y.label, at, &font(TEXT_SIZE, &INK, HPos::Left, VPos::Bottom))?;
    let chart = axes(body, root, head, &plot.x.label, body.y.range(), Grid::Horizontal)?;
    draw_right(plot, body, root, &chart)?;

    let ends = body.x.range();
    for reference in &plot.references {
        if plot.vertical(reference.side).has(reference.y) {
            let y = body.vertical(reference.side, reference.y);
            let ends = [ends.start, ends.end].map(|x| chart.backend_coord(&(x, y)));
            dashed(root, ends[0], ends[1])?;
        }
    }
    for (i, series) in plot.series.iter().enumerate() {
        let (color, side) = (PALETTE[i % PALETTE.len()], series.side);
        let place =
            |x: f64, y: f64| chart.backend_coord(&(body.x.position(x), body.vertical(side, y)));
        // A point without a place, such as the loss of a diverged epoch, breaks the line.
        for run in series.points.split(|point| !plot.drawable(side, point)) {
            let path: Vec<_> = run.iter().map(|point| place(point.x, point.y)).collect();
            if path.len() > 1 && series.style != SeriesStyle::Points {
                root.draw(&PathElement::new(path, stroke(color, 1.75)))?;
            } else if path.len() == 1 && series.style == SeriesStyle::Line {
                marker(root, i, path[0])?;
            }
        }
        for point in series.points.iter().filter(|point| plot.drawable(side, point)) {
            if point.error > 0.0 && point.error.is_finite() {
                let top = place(point.x, point.y + point.error);
                let bottom = if plot.vertical(side).has(point.y - point.error) {
                    place(point.x, point.y - point.error)
                } else {
                    chart.backend_coord(&(body.x.position(point.x), body.y.range().start))
                };
                error_bar(root, top, bottom, color)?;
            }
            if series.style != SeriesStyle::Line {
                marker(root, i, place(point.x, point.y))?;
            }
        }
    }
    Ok(())
}

/// The second vertical axis: its line, ticks and label, the label above its end.
fn draw_right(plot: &XyPlot, body: &Body, root: &Area<'_>, chart: &Chart<'_>) -> Result<(), Error> {
    let (Some(axis), Some((scale, ticks))) = (&plot.right, &body.at_right) else {
        return Ok(());
    };
    let (end, range) = (body.x.range().end, body.y.range());
    let [bottom, top] = [range.start, range.end].map(|y| chart.backend_coord(&(end, y)));
    root.draw(&PathElement::new([bottom, top], stroke(AXIS, 1.0)))?;
    for tick in ticks {
        let (x, y) = chart.backend_coord(&(end, body.seen_at_left(scale, tick.at)));
        root.draw(&PathElement::new([(x, y), (x + units(3.5), y)], stroke(AXIS, 1.0)))?;
        let place = (f64::from(x) / UNIT + 6.0, f64::from(y) / UNIT);
        write(root, &tick.label, place, &font(TICK_SIZE, &MUTED, HPos::Left, VPos::Center))?;
    }
    let place = (body.size.width() - body.margin, f64::from(top.1) / UNIT - 10.0);
    write(root, &axis.label, place, &font(TEXT_SIZE, &INK, HPos::Right, VPos::Bottom))
}

fn draw_bars(plot: &BarPlot, body: &Body, root: &Area<'_>, head: f64) -> Result<(), Error> {
    let rows = plot.categories.len().max(1) as f64;
    // The first category is on top.
    let chart = axes(body, root, head, &plot.axis.label, rows..0.0, Grid::Vertical)?;
    let top = head + body.legend.height() + body.above;
    let group = plot.series.len().max(1) as f64 * BAR + BAR_GAP;
    let (zero, _) = chart.backend_coord(&(0.0, 0.0));
    for (row, category) in plot.categories.iter().enumerate() {
        let middle = top + group * (row as f64 + 0.5);
        let text = shorten(category, TICK_SIZE, body.left - body.margin - 8.0);
        write(
            root,
            &text,
            (body.left - 8.0, middle),
            &font(TICK_SIZE, &INK, HPos::Right, VPos::Center),
        )?;
        for (i, (_, values)) in plot.series.iter().enumerate() {
            let y = top + group * row as f64 + 0.5 * BAR_GAP + BAR * i as f64;
            let value = values.get(row).copied().flatten();
            let end = match value.filter(|value| value.is_finite()) {
                Some(value) => {
                    let (end, _) = chart.backend_coord(&(value, 0.0));
                    let corners =
                        [(zero.min(end), units(y + 1.0)), (zero.max(end), units(y + BAR - 1.0))];
                    root.draw(&Rectangle::new(corners, PALETTE[i % PALETTE.len()].filled()))?;
                    end
                }
                None => zero,
            };
            let label =
                value.map_or_else(|| Cell::missing().to_string(), |value| bar_label(plot, value));
            // At the free end; to the right of zero for bars that go left, where there is room for certain.
            let x = f64::from(end.max(zero)) / UNIT + 5.0;
            write(
                root,
                &label,
                (x, y + 0.5 * BAR),
                &font(TICK_SIZE, &MUTED, HPos::Left, VPos::Center),
            )?;
        }
    }
    root.draw(&PathElement::new(
        [(zero, units(top)), (zero, units(top + body.plot))],
        stroke(AXIS, 1.0),
    ))
}

/// The number at the end of a bar.
fn bar_label(plot: &BarPlot, value: f64) -> String {
    match plot.axis.format {
        TickFormat::Percent => format!("{}%", fixed(100.0 * value, plot.digits)),
        TickFormat::Ratio => format!("{}×", fixed(value, plot.digits)),
        TickFormat::Number | TickFormat::Count => fixed(value, plot.digits),
    }
}

/// Leaves out ticks whose labels would touch the one before.
fn fitting(ticks: Vec<Tick>, scale: &Scale, width: f64) -> Vec<Tick> {
    let range = scale.range();
    let mut free = f64::NEG_INFINITY;
    ticks
        .into_iter()
        .filter(|tick| {
            let middle = (tick.at - range.start) / (range.end - range.start) * width;
            let half = 0.5 * text_width(&tick.label, TICK_SIZE);
            let fits = middle - half >= free;
            if fits {
                free = middle + half + 6.0;
            }
            fits
        })
        .collect()
}
