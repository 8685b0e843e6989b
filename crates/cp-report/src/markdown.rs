//! The report as Markdown (`summary.md`), aligned so that it reads well in a terminal too.

use crate::cell::Cell;
use crate::table::{Align, Row, Table};
use crate::{Block, Report};

/// The whole report; plots are links to files, whose names are given in their order.
pub(crate) fn render(report: &Report, plots: &[String]) -> String {
    let mut plots = plots.iter();
    let mut parts = vec![format!("# {}", inline(&report.title))];
    parts.extend(paragraphs(&report.verdict));
    for block in &report.blocks {
        match block {
            Block::Heading(title) => parts.push(format!("## {}", inline(title))),
            Block::Text(text) => parts.extend(paragraphs(text)),
            Block::Cards(cards) => {
                let lines = cards.iter().map(|card| {
                    let note = card
                        .note
                        .as_ref()
                        .map_or_else(String::new, |note| format!(" ({})", inline(note)));
                    format!("- {}: **{}**{note}", inline(&card.label), plain(card.value.as_str()))
                });
                parts.push(lines.collect::<Vec<_>>().join("\n"));
            }
            Block::Table(content) => table(content, &mut parts),
            Block::Plot(plot) => {
                let file = plots.next().map_or("", String::as_str);
                parts.push(format!("![{}](plots/{file})", plain(plot.title())));
                parts.extend(plot.note().map(|note| format!("*{}*", inline(&note))));
            }
            Block::Provenance(entries) => {
                parts.push("## Provenance".to_owned());
                let entries = entries.iter().map(|(key, value)| {
                    let mut lines = value.lines().map(plain);
                    match (lines.next(), lines.next()) {
                        (Some(one), None) => format!("- {}: {one}", plain(key)),
                        _ => {
                            let lines: String = value
                                .lines()
                                .map(|line| format!("\n  - {}", plain(line)))
                                .collect();
                            format!("- {}:{lines}", plain(key))
                        }
                    }
                });
                parts.push(entries.collect::<Vec<_>>().join("\n"));
            }
            Block::Code { title, text } => {
                // A fence has to be longer than any run of backticks within.
                let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
                let fence = "`".repeat(longest.max(2) + 1);
                parts.push(format!("<details>\n<summary>{}</summary>", html_text(title)));
                parts.push(format!("{fence}text\n{}\n{fence}", text.trim_end()));
                parts.push("</details>".to_owned());
            }
        }
    }
    let mut text = parts.join("\n\n");
    text.push('\n');
    text
}

fn table(table: &Table, parts: &mut Vec<String>) {
    if !table.caption.is_empty() {
        parts.push(format!("**{}**", plain(&table.caption)));
    }
    let header: Vec<String> = table
        .columns
        .iter()
        .map(|column| match &column.unit {
            Some(unit) => format!("{} ({})", plain(&column.title), plain(unit)),
            None => plain(&column.title),
        })
        .collect();
    let rows: Vec<Vec<String>> =
        table.rows.iter().map(|row| row.cells.iter().map(|c| cell(c, row)).collect()).collect();
    let widths: Vec<usize> = (0..header.len())
        .map(|i| {
            rows.iter()
                .filter_map(|row| row.get(i))
                .chain([&header[i]])
                .map(|t| t.chars().count())
                .max()
        })
        .map(|width| width.unwrap_or(0).max(3))
        .collect();
    let line = |cells: &[String]| {
        let padded =
            cells.iter().zip(&widths).zip(&table.columns).map(|((cell, &width), column)| {
                match column.align {
                    Align::Left => format!("{cell:<width$}"),
                    Align::Right => format!("{cell:>width$}"),
                }
            });
        format!("| {} |", padded.collect::<Vec<_>>().join(" | "))
    };
    let rule = widths.iter().zip(&table.columns).map(|(&width, column)| match column.align {
        Align::Left => "-".repeat(width),
        Align::Right => format!("{}:", "-".repeat(width - 1)),
    });
    let rule = format!("| {} |", rule.collect::<Vec<_>>().join(" | "));
    let lines = [line(&header), rule].into_iter().chain(rows.iter().map(|row| line(row)));
    parts.push(lines.collect::<Vec<_>>().join("\n"));
    parts.extend(table.note.as_ref().map(|note| inline(note)));
}

fn cell(cell: &Cell, row: &Row) -> String {
    let text = plain(cell.as_str());
    if (cell.strong || row.total) && !text.is_empty() { format!("**{text}**") } else { text }
}

fn paragraphs(text: &str) -> Vec<String> {
    crate::paragraphs(text).map(inline).collect()
}

/// Text in which pairs of backticks set code.
fn inline(text: &str) -> String {
    let pieces = crate::code_spans(text);
    pieces.map(|(code, piece)| if code { format!("`{piece}`") } else { plain(piece) }).collect()
}

/// Text as it is: what Markdown or HTML would take for markup is escaped, line breaks become spaces.
fn plain(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut escaped = String::with_capacity(text.len());
    for (i, &c) in chars.iter().enumerate() {
        let word = |j: Option<usize>| {
            j.and_then(|j| chars.get(j)).is_some_and(|c: &char| c.is_alphanumeric())
        };
        match c {
            '\n' | '\r' => escaped.push(' '),
            '<' if chars
                .get(i + 1)
                .is_some_and(|next| next.is_alphabetic() || "/!?".contains(*next)) =>
            {
                escaped.push_str("&lt;");
            }
            '&' if chars.get(i + 1).is_some_and(|next| next.is_alphanumeric() || *next == '#') => {
                escaped.push_str("&amp;");
            }
            // Within a word an underscore is only itself.
            '_' if word(i.checked_sub(1)) && word(Some(i + 1)) => escaped.push('_'),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' => escaped.extend(['\\', c]),
            _ => escaped.push(c),
        }
    }
    escaped
}

fn html_text(text: &str) -> String {
    maud::html! { (text) }.into_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Column;

    #[test]
    fn markup_is_escaped_and_names_stay_readable() {
        assert_eq!(plain("a|b *c* <d> & `e`"), "a\\|b \\*c\\* &lt;d> & \\`e\\`");
        assert_eq!(plain("a < b && c &lt; R&D"), "a < b && c &amp;lt; R&amp;D");
        assert_eq!(plain("layer1.0.conv_a"), "layer1.0.conv_a");
        assert_eq!(plain("_init_\nx"), "\\_init\\_ x");
        assert_eq!(inline("run `a_b|c` on *"), "run `a_b|c` on \\*");
    }

    #[test]
    fn columns_are_aligned_in_plain_text() {
        let mut content =
            Table::new("Ranks", [Column::text("Layer"), Column::number("Parameters").unit("k")]);
        content.row([Cell::text("conv1"), Cell::count(7)]);
        content.total([Cell::text("all"), Cell::count(61_100_840)]);
        let mut parts = Vec::new();
        table(&content, &mut parts);
        let expected = "| Layer   | Parameters (k) |\n\
                        | ------- | -------------: |\n\
                        | conv1   |              7 |\n\
                        | **all** | **61,100,840** |";
        assert_eq!(parts, ["**Ranks**", expected]);
    }

    #[test]
    fn code_fences_outlast_their_content() {
        let mut report = Report::new("t", "v");
        report.add(Block::code("Notes", "a\n````\nb"));
        let text = render(&report, &[]);
        assert!(text.contains("`````text\na\n````\nb\n`````"), "{text}");
    }
}
