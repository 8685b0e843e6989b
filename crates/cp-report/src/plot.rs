//! What can be plotted: curves and points over two axes, and bars.

use crate::ReportError;
use crate::maps::MapPlot;

/// A plot.
#[derive(Debug, Clone)]
pub enum Plot {
    /// Curves and points over two axes.
    Xy(XyPlot),
    /// Horizontal bars, grouped by category.
    Bars(BarPlot),
    /// Matrices as colors.
    Maps(MapPlot),
}

/// Curves and points over two axes.
#[derive(Debug, Clone)]
#[must_use]
pub struct XyPlot {
    pub(crate) title: String,
    pub(crate) note: Option<String>,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    /// The axis at the right; the left one where it is missing.
    pub(crate) right: Option<Axis>,
    pub(crate) series: Vec<Series>,
    pub(crate) references: Vec<Reference>,
}

/// At which side of a plot with two vertical axes the numbers of a series stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// An axis: what it shows, and how.
#[derive(Debug, Clone)]
#[must_use]
pub struct Axis {
    pub(crate) label: String,
    pub(crate) format: TickFormat,
    pub(crate) log: bool,
    pub(crate) include: Vec<f64>,
}

/// What the numbers at an axis look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TickFormat {
    /// Any number.
    Number,
    /// Whole numbers: epochs, parameters. Large ones are shortened (250k, 1.5M).
    Count,
    /// Fractions, shown as percentages.
    Percent,
    /// Factors, shown with a times sign.
    Ratio,
}

/// Points that belong together.
#[derive(Debug, Clone)]
#[must_use]
pub struct Series {
    pub(crate) name: String,
    pub(crate) style: SeriesStyle,
    pub(crate) side: Side,
    pub(crate) points: Vec<Point>,
}

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SeriesStyle {
    /// A line alone, for curves of many points.
    Line,
    /// Markers alone.
    Points,
    /// Markers joined by a line.
    Both,
}

/// A point of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// In the units of the x axis.
    pub x: f64,
    /// In the units of the y axis, or of the right one.
    pub y: f64,
    /// Half the length of the error bar, for instance one standard deviation; 0 draws none.
    pub error: f64,
}

/// A horizontal line to compare with.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) side: Side,
    pub(crate) y: f64,
}

/// Horizontal bars from zero, one group per category. There is no logarithmic variant: bars compare by length.
#[derive(Debug, Clone)]
#[must_use]
pub struct BarPlot {
    pub(crate) title: String,
    pub(crate) note: Option<String>,
    pub(crate) axis: Axis,
    pub(crate) digits: usize,
    pub(crate) categories: Vec<String>,
    pub(crate) series: Vec<(String, Vec<Option<f64>>)>,
}

impl Plot {
    /// The title, from which the name of the file is made.
    pub(crate) fn title(&self) -> &str {
        match self {
            Self::Xy(plot) => &plot.title,
            Self::Bars(plot) => &plot.title,
            Self::Maps(plot) => &plot.title,
        }
    }

    /// Checks that every series of bars has a value, or `None`, for every category, and every row of maps one for every column.
    pub(crate) fn check(&self) -> Result<(), ReportError> {
        let (expected, counts): (usize, Vec<(&String, usize)>) = match self {
            Self::Xy(_) => return Ok(()),
            Self::Bars(plot) => {
                let series = plot.series.iter().map(|(name, values)| (name, values.len()));
                (plot.categories.len(), series.collect())
            }
            Self::Maps(plot) => {
                let rows = plot.rows.iter().map(|(name, maps)| (name, maps.len()));
                (plot.columns.len(), rows.collect())
            }
        };
        match counts.into_iter().find(|(_, got)| *got != expected) {
            None => Ok(()),
            Some((series, got)) => Err(ReportError::BarCount {
                plot: self.title().to_owned(),
                series: series.clone(),
                expected,
                got,
            }),
        }
    }

    /// The remark below the plot; says also how many points could not be drawn.
    pub(crate) fn note(&self) -> Option<String> {
        let (note, left_out) = match self {
            Self::Xy(plot) => (&plot.note, plot.left_out()),
            Self::Bars(plot) => (&plot.note, plot.left_out()),
            Self::Maps(plot) => (&plot.note, 0),
        };
        let remark = match left_out {
            0 => None,
            1 => Some("One value is not shown, being infinite, NaN or, on a logarithmic axis, not positive.".to_owned()),
            n => Some(format!(
                "{n} values are not shown, being infinite, NaN or, on a logarithmic axis, not positive."
            )),
        };
        match (note, remark) {
            (Some(note), Some(remark)) => Some(format!("{note} {remark}")),
            (note, remark) => note.clone().or(remark),
        }
    }
}

impl XyPlot {
    /// A plot with nothing in it.
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Self {
        Self {
            title: title.into(),
            note: None,
            x,
            y,
            right: None,
            series: Vec::new(),
            references: Vec::new(),
        }
    }

    /// Adds a second vertical axis at the right, for the series that are [`on_right`](Series::on_right). Both axes have their own ticks,
    /// and the grid is that of the left one.
    pub fn right(mut self, axis: Axis) -> Self {
        self.right = Some(axis);
        self
    }

    /// Adds a series. Colors and markers follow the order of adding.
    pub fn series(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    /// Adds a dashed horizontal line at `y`, in the units of the y axis, such as the accuracy of the dense network.
    pub fn reference(mut self, name: impl Into<String>, y: f64) -> Self {
        self.references.push(Reference { name: name.into(), side: Side::Left, y });
        self
    }

    /// [`reference`](Self::reference) in the units of the right axis.
    pub fn reference_on_right(mut self, name: impl Into<String>, y: f64) -> Self {
        self.references.push(Reference { name: name.into(), side: Side::Right, y });
        self
    }

    /// A remark below the plot.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// The vertical axis of a side.
    pub(crate) fn vertical(&self, side: Side) -> &Axis {
        match (side, &self.right) {
            (Side::Right, Some(right)) => right,
            _ => &self.y,
        }
    }

    /// Whether a point of a series at that side has a place on both axes.
    pub(crate) fn drawable(&self, side: Side, point: &Point) -> bool {
        self.x.has(point.x) && self.vertical(side).has(point.y)
    }

    fn left_out(&self) -> usize {
        let points = self.series.iter().flat_map(|series| {
            series.points.iter().filter(|point| !self.drawable(series.side, point))
        });
        let references = self.references.iter();
        points.count() + references.filter(|one| !self.vertical(one.side).has(one.y)).count()
    }
}

impl BarPlot {
    /// A plot with categories, and no bars yet. Values stand at the ends of the bars with `digits` decimals.
    pub fn new(
        title: impl Into<String>,
        axis: Axis,
        digits: usize,
        categories: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            title: title.into(),
            note: None,
            axis: Axis { log: false, ..axis },
            digits,
            categories: categories.into_iter().map(Into::into).collect(),
            series: Vec::new(),
        }
    }

    /// Adds one bar per category; `None` leaves a place empty. `values` are in the units of the axis, as many and in the
    /// order of the categories; another number of them is an error of [`Report::write`](crate::Report::write).
    pub fn series(
        mut self,
        name: impl Into<String>,
        values: impl IntoIterator<Item = impl Into<Option<f64>>>,
    ) -> Self {
        self.series.push((name.into(), values.into_iter().map(Into::into).collect()));
        self
    }

    /// A remark below the plot.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    fn left_out(&self) -> usize {
        self.series
            .iter()
            .flat_map(|(_, values)| values)
            .flatten()
            .filter(|value| !value.is_finite())
            .count()
    }
}

impl Axis {
    /// An axis of numbers. Units belong in the label: `"Latency (ms)"`.
    pub fn number(label: impl Into<String>) -> Self {
        Self { label: label.into(), format: TickFormat::Number, log: false, include: Vec::new() }
    }

    /// An axis of whole numbers: epochs, parameters.
    pub fn count(label: impl Into<String>) -> Self {
        Self { format: TickFormat::Count, ..Self::number(label) }
    }

    /// An axis of fractions, shown as percentages: 0.9 stands at `90%`.
    pub fn percent(label: impl Into<String>) -> Self {
        Self { format: TickFormat::Percent, ..Self::number(label) }
    }

    /// An axis of factors, shown as `2×`.
    pub fn ratio(label: impl Into<String>) -> Self {
        Self { format: TickFormat::Ratio, ..Self::number(label) }
    }

    /// Makes the axis logarithmic. Values that are not positive have no place on it, and the plot's note counts them.
    pub fn log(mut self) -> Self {
        self.log = true;
        self
    }

    /// Makes the axis reach at least to `value`, in the units of the axis.
    pub fn include(mut self, value: f64) -> Self {
        self.include.push(value);
        self
    }

    /// Whether a value has a place on this axis.
    pub(crate) fn has(&self, value: f64) -> bool {
        value.is_finite() && (!self.log || value > 0.0)
    }
}

impl Series {
    /// A line without markers, for curves of many points.
    pub fn line(
        name: impl Into<String>,
        points: impl IntoIterator<Item = impl Into<Point>>,
    ) -> Self {
        Self::with(name, SeriesStyle::Line, points)
    }

    /// Markers without a line.
    pub fn points(
        name: impl Into<String>,
        points: impl IntoIterator<Item = impl Into<Point>>,
    ) -> Self {
        Self::with(name, SeriesStyle::Points, points)
    }

    /// Markers joined by a line, in the order given.
    pub fn both(
        name: impl Into<String>,
        points: impl IntoIterator<Item = impl Into<Point>>,
    ) -> Self {
        Self::with(name, SeriesStyle::Both, points)
    }

    fn with(
        name: impl Into<String>,
        style: SeriesStyle,
        points: impl IntoIterator<Item = impl Into<Point>>,
    ) -> Self {
        let points = points.into_iter().map(Into::into).collect();
        Self { name: name.into(), style, side: Side::Left, points }
    }

    /// The same series in the units of the axis at the [right](XyPlot::right).
    pub fn on_right(mut self) -> Self {
        self.side = Side::Right;
        self
    }
}

impl From<(f64, f64)> for Point {
    fn from((x, y): (f64, f64)) -> Self {
        Self { x, y, error: 0.0 }
    }
}

impl From<(f64, f64, f64)> for Point {
    fn from((x, y, error): (f64, f64, f64)) -> Self {
        Self { x, y, error }
    }
}

impl From<XyPlot> for Plot {
    fn from(plot: XyPlot) -> Self {
        Self::Xy(plot)
    }
}

impl From<MapPlot> for Plot {
    fn from(plot: MapPlot) -> Self {
        Self::Maps(plot)
    }
}

impl From<BarPlot> for Plot {
    fn from(plot: BarPlot) -> Self {
        Self::Bars(plot)
    }
}
