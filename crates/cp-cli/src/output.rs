//! What the commands print: text for people, one line of JSON for programs; files that are whole or absent; errors.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, bail};
use cp_net::AtomicFile;
use serde::Serialize;

/// The answer of a command: its fields are the JSON.
pub(crate) trait Report: Serialize {
    /// The same for people.
    fn text(&self, to: &mut dyn Write) -> io::Result<()>;
}

/// Prints `report` to standard output.
pub(crate) fn print(report: &impl Report, json: bool) -> anyhow::Result<()> {
    let mut to = BufWriter::new(io::stdout().lock());
    if json {
        serde_json::to_writer(&mut to, report)
            .map_err(io::Error::from)
            .context("standard output")?;
        writeln!(to).context("standard output")?;
    } else {
        report.text(&mut to).context("standard output")?;
    }
    to.flush().context("standard output")
}

/// Prints a warning to standard error.
pub(crate) fn warn(message: &str) {
    // A closed standard error is no reason to stop.
    let _ = writeln!(io::stderr(), "warning: {}", printable(message));
}

/// Prints what a user should know, and need not act on, to standard error.
pub(crate) fn note(message: &str) {
    let _ = writeln!(io::stderr(), "note: {}", printable(message));
}

/// Whether `error` only says that nobody reads standard output any more.
pub(crate) fn reader_left(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// The chain of causes in one line, as a terminal may show it.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    printable(&cp_train::causes_in_words(error.as_ref()))
}

/// Letters of a message; names of megabytes are cut.
const MOST_LETTERS: usize = 4000;

/// `text` as a terminal may show it: what files hold cannot move the cursor, change colors or turn the direction of writing. Line ends
/// stay.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(MOST_LETTERS));
    for (at, letter) in text.chars().enumerate() {
        if at == MOST_LETTERS {
            let rest = text.chars().count() - at;
            shown.push_str(&format!("… ({rest} more letters)"));
            break;
        }
        let turns = matches!(letter, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if letter == '\n' || !(letter.is_control() || turns) {
            shown.push(letter);
        } else {
            shown.extend(letter.escape_default());
        }
    }
    shown
}

/// A file that appears under its name only when it is complete. Made before the work, so that a folder that cannot be
/// written to is found out first.
pub(crate) struct OutFile(AtomicFile);

impl OutFile {
    /// Opens a hidden file beside `path`.
    pub(crate) fn new(path: &Path) -> anyhow::Result<Self> {
        if path.is_dir() {
            bail!("{}: is a folder; give the name of a file to write", path.display());
        }
        // A device would be replaced by the file.
        if path.exists() && !path.is_file() {
            bail!("{}: is not an ordinary file; give the name of one to write", path.display());
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            bail!(
                "{}: the folder {} does not exist; make it first",
                path.display(),
                folder.display()
            );
        }
        let file = AtomicFile::create(path).with_context(|| {
            format!(
                "{}: cannot write to the folder {}; choose another one",
                path.display(),
                folder.display()
            )
        })?;
        Ok(Self(file))
    }

    /// Lets `write` fill the file and puts it in place.
    pub(crate) fn write(
        self,
        write: impl FnOnce(&mut File) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let named = self.0.path().display().to_string();
        self.0.write(write).with_context(|| named)
    }
}

/// Refuses to write `out` over one of the files that are read; each is told by what it is called.
pub(crate) fn refuse_same_file<'a>(
    read: impl IntoIterator<Item = (&'a str, &'a Path)>,
    out: &Path,
) -> anyhow::Result<()> {
    let Ok(place) = out.canonicalize() else { return Ok(()) };
    for (what, input) in read {
        let Ok(input) = input.canonicalize() else { continue };
        if input == place {
            bail!("{} would overwrite {what}; choose another name", out.display());
        }
    }
    Ok(())
}

/// A table in aligned columns; the first column to the left, the rest as `columns` says.
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

/// A column: its heading and its side.
pub(crate) enum Column {
    /// Words.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

impl Table {
    /// An empty table.
    pub(crate) fn new(columns: impl Into<Vec<Column>>) -> Self {
        Self { columns: columns.into(), rows: Vec::new() }
    }

    /// Adds a row of as many cells as there are columns.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| printable(&cell).replace('\n', "\\n")).into());
    }

    /// Writes the table.
    pub(crate) fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let heading = |column: &Column| match column {
            Column::Left(name) | Column::Right(name) => (*name).to_owned(),
        };
        let headings: Vec<String> = self.columns.iter().map(heading).collect();
        let lines = || std::iter::once(&headings).chain(&self.rows);
        let widths: Vec<usize> = (0..headings.len())
            .map(|i| {
                lines()
                    .filter_map(|cells| cells.get(i))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        for cells in lines() {
            let mut line = String::new();
            for ((cell, &width), column) in cells.iter().zip(&widths).zip(&self.columns) {
                match column {
                    Column::Left(_) => line.push_str(&format!("{cell:<width$}  ")),
                    Column::Right(_) => line.push_str(&format!("{cell:>width$}  ")),
                }
            }
            writeln!(to, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A count with thin groups of three digits: 61,100,840.
pub(crate) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A fraction as a percentage with one decimal.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.1} %", 100.0 * fraction)
}

/// A shape: 3×224×224.
pub(crate) fn shape(sizes: &[usize]) -> String {
    sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join("×")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_by_three() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1000), "1,000");
        assert_eq!(count(61_100_840), "61,100,840");
    }

    #[test]
    fn a_cause_that_is_already_told_is_not_told_again() {
        let inner = io::Error::other("disk full");
        let error = anyhow::Error::new(inner).context("a.npz: disk full").context("saving");
        assert_eq!(describe(&error), "saving: a.npz: disk full");
        let error = anyhow::Error::new(io::Error::other("disk full")).context("a.npz");
        assert_eq!(describe(&error), "a.npz: disk full");
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new([Column::Left("layer"), Column::Right("n")]);
        table.row(["a".into(), "1000".into()]);
        table.row(["longer".into(), "1".into()]);
        let mut text = Vec::new();
        table.write(&mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "layer      n\na       1000\nlonger     1\n");
    }
}
