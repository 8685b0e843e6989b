//! The report as one HTML file that needs nothing else: style and plots are inside.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::cell::Cell;
use crate::table::{Align, Row, Table};
use crate::{Block, Card, Drawn, Report};

const STYLE: &str = include_str!("report.css");

/// The whole page; `plots` are the drawings in their order.
pub(crate) fn render(report: &Report, plots: &[Drawn]) -> String {
    let mut numbers = Numbers { table: 0, figure: 0 };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content="Polyad";
                title { (report.title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    header {
                        h1 { (inline(&report.title)) }
                        div.verdict { (paragraphs(&report.verdict)) }
                    }
                    (blocks(&report.blocks, plots, &mut numbers))
                }
            }
        }
    };
    page.into_string()
}

/// Tables and figures are counted over the whole page.
struct Numbers {
    table: usize,
    figure: usize,
}

fn blocks(blocks: &[Block], plots: &[Drawn], numbers: &mut Numbers) -> Markup {
    let mut markup = Vec::new();
    // Plots that follow each other stand side by side.
    for group in blocks.chunk_by(|a, b| matches!((a, b), (Block::Plot(_), Block::Plot(_)))) {
        markup.push(match &group[0] {
            Block::Heading(title) => html! { h2 { (inline(title)) } },
            Block::Text(text) => paragraphs(text),
            Block::Cards(content) => cards(content),
            Block::Table(content) => {
                numbers.table += 1;
                table(content, numbers.table)
            }
            Block::Plot(_) => {
                let first = numbers.figure;
                numbers.figure += group.len();
                figures(&plots[first..numbers.figure], first)
            }
            Block::Provenance(entries) => provenance(entries),
            Block::Code { title, text } => html! {
                details {
                    summary { (inline(title)) }
                    pre { code { (text) } }
                }
            },
        });
    }
    html! { @for part in markup { (part) } }
}

fn cards(cards: &[Card]) -> Markup {
    html! {
        div.cards {
            @for card in cards {
                div.card {
                    div.label { (inline(&card.label)) }
                    div.value { (card.value.as_str()) }
                    @if let Some(note) = &card.note { div.note { (inline(note)) } }
                }
            }
        }
    }
}

fn table(table: &Table, number: usize) -> Markup {
    let class = |i: usize| {
        let column = &table.columns[i];
        let number = if column.align == Align::Right { "num" } else { "" };
        let published = if column.published { "published" } else { "" };
        format!("{number} {published}").trim().to_owned()
    };
    let row = |row: &Row| {
        html! {
            tr.total[row.total] {
                @for (i, cell) in row.cells.iter().enumerate() {
                    @if i == 0 {
                        th scope="row" class=[some(class(i))] { (value(cell)) }
                    } @else {
                        td class=[some(class(i))] { (value(cell)) }
                    }
                }
            }
        }
    };
    html! {
        figure.table {
            figcaption { b { "Table " (number) "." } " " (inline(&table.caption)) }
            // Can be scrolled sideways on narrow screens, by keyboard too.
            div.scroll tabindex="0" role="region" aria-label=(table.caption) {
                table {
                    thead {
                        tr {
                            @for (i, column) in table.columns.iter().enumerate() {
                                th scope="col" class=[some(class(i))] {
                                    // A hyphen is no place to break a word of a header.
                                    span.word[!column.title.contains(' ')] { (inline(&column.title)) }
                                    @if let Some(unit) = &column.unit { " " span.unit { (unit) } }
                                }
                            }
                        }
                    }
                    tbody { @for content in &table.rows { (row(content)) } }
                }
            }
            @if let Some(note) = &table.note { p.note { (inline(note)) } }
        }
    }
}

/// No attribute at all rather than an empty one.
fn some(class: String) -> Option<String> {
    (!class.is_empty()).then_some(class)
}

fn value(cell: &Cell) -> Markup {
    html! { @if cell.strong { strong { (cell.as_str()) } } @else { (cell.as_str()) } }
}

fn figures(plots: &[Drawn], first: usize) -> Markup {
    let single = plots.len() == 1;
    html! {
        div.plots.single[single] {
            @for (i, plot) in plots.iter().enumerate() {
                figure.plot {
                    // Two drawings, of which the style sheet shows one: text keeps its size on a phone.
                    @if single { div.wide { (PreEscaped(&plot.wide)) } }
                    div.compact { (PreEscaped(&plot.compact)) }
                    figcaption {
                        b { "Figure " (first + i + 1) "." } " " (inline(&plot.title))
                        @if let Some(note) = &plot.note { span.note { ". " (inline(note)) } }
                    }
                }
            }
        }
    }
}

fn provenance(entries: &[(String, String)]) -> Markup {
    html! {
        section.provenance {
            h2 { "Provenance" }
            dl {
                @for (key, value) in entries {
                    div { dt { (key) } dd { @for line in value.lines() { span { (line) } } } }
                }
            }
        }
    }
}

fn paragraphs(text: &str) -> Markup {
    html! { @for paragraph in crate::paragraphs(text) { p { (inline(paragraph)) } } }
}

/// Text in which pairs of backticks set code.
fn inline(text: &str) -> Markup {
    html! { @for (code, piece) in crate::code_spans(text) { @if code { code { (piece) } } @else { (piece) } } }
}
