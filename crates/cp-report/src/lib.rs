//! Reports: `summary.md`, a self-contained `report.html` and the plots as SVG files.
//!
//! An experiment or a command turns its results into a [`Report`], a title, a verdict and a list of [`Block`]s, and writes
//! it with [`Report::write`]. Nothing here measures or computes; numbers are formatted by [`Cell`]s.
//!
//! ```
//! use cp_report::{Axis, Cell, Column, Report, Series, Table, XyPlot};
//!
//! let mut sizes = Table::new("Sizes", [Column::text("layer"), Column::number("parameters")]);
//! sizes.row([Cell::text("conv1"), Cell::count(23_296)]);
//! sizes.total([Cell::text("all"), Cell::count(61_100_840)]);
//!
//! let curve = Series::both("CP-3", [(2.0, 0.571), (4.0, 0.565), (8.0, 0.549)]); // accuracies are fractions
//! let plot = XyPlot::new("Accuracy by ratio", Axis::ratio("fewer parameters").log(), Axis::percent("top-1"))
//!     .series(curve)
//!     .reference("dense", 0.572);
//!
//! let mut report = Report::new("AlexNet", "Four times smaller for less than a point.");
//! report.add(sizes).add(plot);
//!
//! let dir = tempfile::tempdir()?;
//! report.write(dir.path())?;
//! assert!(dir.path().join("summary.md").exists());
//! assert!(dir.path().join("report.html").exists());
//! assert!(dir.path().join("plots/accuracy-by-ratio.svg").exists());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Conventions
//! - In titles, texts and notes a pair of backticks sets code; in texts an empty line begins a new paragraph. All else is
//!   shown as it is.
//! - Fractions go in as fractions and come out as percentages: 0.915 is shown as `91.5`. [`Cell::millis`] takes seconds. The
//!   other values of a plot are in the units that the label of the axis names.
//! - What has no value is an en dash; what is not finite says so in a table, and is counted in the note of a plot.
//! - The page loads nothing: style and plots are inside.

mod cell;
mod html;
mod legend;
mod maps;
mod markdown;
mod pen;
mod plot;
mod svg;
mod table;
#[cfg(test)]
mod tests;
mod ticks;

use std::collections::HashSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

pub use cell::Cell;
pub use maps::{Map, MapPlot};
pub use plot::{Axis, BarPlot, Plot, Point, Series, XyPlot};
pub use table::{Column, Table};

/// What an experiment or a command has to say.
#[derive(Debug, Clone)]
pub struct Report {
    title: String,
    verdict: String,
    blocks: Vec<Block>,
}

/// A part of a report. Plots that follow each other stand side by side.
#[derive(Debug, Clone)]
pub enum Block {
    /// The title of a section.
    Heading(String),
    /// Paragraphs.
    Text(String),
    /// The figures to remember.
    Cards(Vec<Card>),
    /// A table.
    Table(Table),
    /// A plot.
    Plot(Plot),
    /// Where the results come from: commit, command, machine, seed, checksums; lines of a value stay lines.
    Provenance(Vec<(String, String)>),
    /// Long text that is folded away: the configuration, a log.
    Code {
        /// What it is.
        title: String,
        /// The text, as it is.
        text: String,
    },
}

/// A figure to remember.
#[derive(Debug, Clone)]
#[must_use]
pub struct Card {
    label: String,
    value: Cell,
    note: Option<String>,
}

/// What keeps a report from being written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A row does not fit its table.
    #[error("table '{table}': row {row} has {got} cells, but there are {expected} columns")]
    RowLength {
        /// The caption of the table.
        table: String,
        /// The row, counted from 0.
        row: usize,
        /// How many columns there are.
        expected: usize,
        /// How many cells the row has.
        got: usize,
    },
    /// A bar plot has more or fewer values than categories, or a row of maps than columns.
    #[error(
        "plot '{plot}': series '{series}' has {got} values for {expected} categories or columns"
    )]
    BarCount {
        /// The title of the plot.
        plot: String,
        /// The name of the series.
        series: String,
        /// How many categories there are.
        expected: usize,
        /// How many values the series has.
        got: usize,
    },
    /// A plot could not be drawn.
    #[error("plot '{plot}' could not be drawn: {message}")]
    Plot {
        /// The title of the plot.
        plot: String,
        /// What plotters said.
        message: String,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A plot as drawn.
struct Drawn {
    title: String,
    note: Option<String>,
    /// Name of its file.
    file: String,
    /// With its title, to stand alone.
    alone: String,
    wide: String,
    compact: String,
}

impl Report {
    /// A report with nothing but a title and the one paragraph that a hurried reader needs.
    pub fn new(title: impl Into<String>, verdict: impl Into<String>) -> Self {
        Self { title: title.into(), verdict: verdict.into(), blocks: Vec::new() }
    }

    /// Appends a block; tables and plots can be given as they are.
    pub fn add(&mut self, block: impl Into<Block>) -> &mut Self {
        self.blocks.push(block.into());
        self
    }

    /// Writes `report.html`, `summary.md` and `plots/*.svg` into `dir`, which is made where it is missing.
    ///
    /// Each file replaces its predecessor in one step. Everything is drawn before the first file is touched.
    ///
    /// # Errors
    /// A row that does not fit its table, a series that does not fit its categories, a file that cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), ReportError> {
        let plots = self.draw()?;
        let files: Vec<String> = plots.iter().map(|plot| plot.file.clone()).collect();
        let summary = markdown::render(self, &files);
        let page = html::render(self, &plots);
        let folder = dir.join("plots");
        let made = if plots.is_empty() { dir } else { &folder };
        std::fs::create_dir_all(made)
            .map_err(|source| ReportError::Io { path: made.to_owned(), source })?;
        for plot in &plots {
            replace(&folder.join(&plot.file), &plot.alone)?;
        }
        replace(&dir.join("summary.md"), &summary)?;
        replace(&dir.join("report.html"), &page)?;
        remove_others(&folder, &files)
    }

    /// Checks tables and plots, and draws the plots.
    fn draw(&self) -> Result<Vec<Drawn>, ReportError> {
        let mut plots = Vec::new();
        let mut names = HashSet::new();
        for block in &self.blocks {
            match block {
                Block::Table(table) => table.check()?,
                Block::Plot(plot) => {
                    plot.check()?;
                    let draw = |size, titled| {
                        svg::draw(plot, size, titled).map_err(|error| ReportError::Plot {
                            plot: plot.title().to_owned(),
                            message: error.to_string(),
                        })
                    };
                    plots.push(Drawn {
                        title: plot.title().to_owned(),
                        note: plot.note(),
                        file: file_name(plot.title(), &mut names),
                        alone: draw(svg::Size::Wide, true)?,
                        wide: draw(svg::Size::Wide, false)?,
                        compact: draw(svg::Size::Compact, false)?,
                    });
                }
                _ => {}
            }
        }
        Ok(plots)
    }
}

impl Block {
    /// The title of a section.
    pub fn heading(title: impl Into<String>) -> Self {
        Self::Heading(title.into())
    }

    /// Paragraphs.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The figures to remember.
    pub fn cards(cards: impl Into<Vec<Card>>) -> Self {
        Self::Cards(cards.into())
    }

    /// Where the results come from, as names and values.
    pub fn provenance(
        entries: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Self {
        Self::Provenance(
            entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
        )
    }

    /// Long text that is folded away.
    pub fn code(title: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Code { title: title.into(), text: text.into() }
    }
}

impl From<Table> for Block {
    fn from(table: Table) -> Self {
        Self::Table(table)
    }
}

impl<P: Into<Plot>> From<P> for Block {
    fn from(plot: P) -> Self {
        Self::Plot(plot.into())
    }
}

impl Card {
    /// A figure: what it is, and how much.
    pub fn new(label: impl Into<String>, value: impl Into<Cell>) -> Self {
        Self { label: label.into(), value: value.into(), note: None }
    }

    /// Small print below: before and after, or what the paper reports.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }
}

/// A file name made from a title, unlike those given out before.
fn file_name(title: &str, taken: &mut HashSet<String>) -> String {
    let mut stem = String::new();
    for word in title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        if !stem.is_empty() && stem.len() + word.len() >= 60 {
            break;
        }
        if !stem.is_empty() {
            stem.push('-');
        }
        stem.push_str(&word.to_ascii_lowercase());
    }
    if stem.is_empty() {
        stem.push_str("plot");
    }
    let mut names = std::iter::once(stem.clone()).chain((2..).map(|i| format!("{stem}-{i}")));
    let name = names.find(|name| !taken.contains(name)).unwrap_or(stem);
    taken.insert(name.clone());
    format!("{name}.svg")
}

/// Puts `text` in the place of a file in one step, so that a reader sees the old one or the new one.
fn replace(path: &Path, text: &str) -> Result<(), ReportError> {
    let write = || -> std::io::Result<()> {
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        {
            // Temporary files are private by default; the user's umask decides about reports.
            use std::os::unix::fs::PermissionsExt as _;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let mut file = builder.tempfile_in(path.parent().unwrap_or(Path::new(".")))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|source| ReportError::Io { path: path.to_owned(), source })
}

/// Removes the plots of an earlier report from `folder`, and the folder where nothing else is in it.
fn remove_others(folder: &Path, plots: &[String]) -> Result<(), ReportError> {
    // Without plots now and before, there is no folder.
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let is_plot = path.extension().is_some_and(|kind| kind == "svg");
        let is_ours = path.file_name().is_some_and(|name| plots.iter().any(|plot| name == &**plot));
        if is_plot && !is_ours {
            std::fs::remove_file(&path)
                .map_err(|source| ReportError::Io { path: path.clone(), source })?;
        }
    }
    if plots.is_empty() {
        // Fails where something else is in it, which then stays.
        let _ = std::fs::remove_dir(folder);
    }
    Ok(())
}

/// The paragraphs of a text, which empty lines keep apart.
fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty())
}

/// Pieces of a text, each with whether it stood between backticks. A backtick without a partner is itself.
fn code_spans(text: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut rest = text;
    let mut code = false;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = match (code, rest.find('`')) {
                (false, Some(open)) if rest[open + 1..].contains('`') => open,
                (true, Some(close)) => close,
                _ => rest.len(),
            };
            let (piece, after) = (&rest[..end], &rest[(end + 1).min(rest.len())..]);
            let was = code;
            code = !code;
            rest = after;
            if !piece.is_empty() {
                return Some((was, piece));
            }
        }
        None
    })
}
