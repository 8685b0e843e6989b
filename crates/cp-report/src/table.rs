//! Tables: columns with units, rows of cells.

use crate::ReportError;
use crate::cell::Cell;

/// A table with a caption.
#[derive(Debug, Clone)]
pub struct Table {
    pub(crate) caption: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
    pub(crate) note: Option<String>,
}

/// A column: its header, and how its cells are set.
#[derive(Debug, Clone)]
#[must_use]
pub struct Column {
    pub(crate) title: String,
    pub(crate) unit: Option<String>,
    pub(crate) align: Align,
    pub(crate) published: bool,
}

/// How the cells of a column are aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers, so that digits of the same weight stand below each other.
    Right,
}

/// One row, as long as there are columns.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) cells: Vec<Cell>,
    pub(crate) total: bool,
}

impl Table {
    /// An empty table. The first column names the rows, and stays in sight when the table is scrolled sideways.
    pub fn new(caption: impl Into<String>, columns: impl Into<Vec<Column>>) -> Self {
        Self { caption: caption.into(), columns: columns.into(), rows: Vec::new(), note: None }
    }

    /// Appends a row, one cell per column. A row of another length than the header is an error of [`Report::write`](crate::Report::write).
    pub fn row(&mut self, cells: impl Into<Vec<Cell>>) -> &mut Self {
        self.rows.push(Row { cells: cells.into(), total: false });
        self
    }

    /// Appends a row that sums up those above, one cell per column: bold, with a rule above it.
    pub fn total(&mut self, cells: impl Into<Vec<Cell>>) -> &mut Self {
        self.rows.push(Row { cells: cells.into(), total: true });
        self
    }

    /// A remark below the table: how it was measured, what an abbreviation means.
    pub fn note(&mut self, note: impl Into<String>) -> &mut Self {
        self.note = Some(note.into());
        self
    }

    /// Checks that every row fits the header.
    pub(crate) fn check(&self) -> Result<(), ReportError> {
        let expected = self.columns.len();
        match self.rows.iter().position(|row| row.cells.len() != expected) {
            None => Ok(()),
            Some(row) => Err(ReportError::RowLength {
                table: self.caption.clone(),
                row,
                expected,
                got: self.rows[row].cells.len(),
            }),
        }
    }
}

impl Column {
    /// A column of words.
    pub fn text(title: impl Into<String>) -> Self {
        Self { title: title.into(), unit: None, align: Align::Left, published: false }
    }

    /// A column of numbers.
    pub fn number(title: impl Into<String>) -> Self {
        Self { align: Align::Right, ..Self::text(title) }
    }

    /// The unit of the numbers (`%`, `ms`, `M`), shown in the header.
    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = Some(unit.into());
        self
    }

    /// The figures of a publication, not our own: set apart from what was measured here.
    pub fn published(mut self) -> Self {
        self.published = true;
        self
    }
}
