//! Whole reports: what is in the files, and that they are well-formed.

use std::path::Path;

use quick_xml::Reader;
use quick_xml::events::Event;

use super::*;

/// Elements of HTML that are never closed.
const VOID: [&str; 6] = ["meta", "link", "br", "hr", "img", "input"];

/// A report with every kind of block, and with text that has to be escaped.
fn example() -> Report {
    let mut table = Table::new(
        "Ranks & sizes <published>",
        [
            Column::text("Layer"),
            Column::number("Parameters"),
            Column::number("Top-1").unit("%"),
            Column::number("Paper").unit("%").published(),
        ],
    );
    table.row([
        Cell::text("conv1|\"a\"<b>"),
        Cell::count(23_296),
        Cell::text("91.5 ± 0.4 (n = 3)"),
        Cell::missing(),
    ]);
    table.total([
        Cell::text("all"),
        Cell::count(61_100_840),
        Cell::percent(0.5498, 2),
        Cell::number(54.98, 2),
    ]);
    table.note("Ranks as in `plan.toml`.");

    let mut report =
        Report::new("AlexNet & <friends>", "It is `6.94×` smaller.\n\nA second paragraph.");
    report
        .add(Block::cards([
            Card::new("Parameters", Cell::ratio(6.9434, 2)).note("61,100,840 → 8,799,651")
        ]))
        .add(Block::heading("Sizes"))
        .add(Block::text("if a < b && c > d"))
        .add(table)
        .add(
            XyPlot::new(
                "Accuracy & \"size\" <log>",
                Axis::count("Parameters <n>").log(),
                Axis::percent("Top-1").include(1.0),
            )
            .series(Series::both(
                "CP-3 & CP-4",
                [(1e5, 0.5, 0.02), (1e6, 0.8, 0.0), (0.0, 0.1, 0.0)],
            ))
            .series(Series::line("a < b", [(1e5, 0.4), (1e6, f64::NAN), (2e6, 0.6)]))
            .reference("dense", 0.9)
            .note("One seed."),
        )
        .add(
            BarPlot::new("Latency", Axis::number("Latency (ms)"), 1, ["conv1", "conv<2>"])
                .series("dense", [11.8, 3.5]),
        )
        .add(Block::provenance([("Commit", "0123abcd"), ("Data", "aa  a.bin\nbb  b.bin")]))
        .add(Block::code("config.toml", "lr = 0.1 # <peak> & \"quoted\"\n"));
    report
}

/// Checks that tags are closed in order; returns the text.
#[track_caller]
fn well_formed(markup: &str) -> String {
    let mut reader = Reader::from_str(markup);
    reader.config_mut().check_end_names = false;
    let mut open: Vec<String> = Vec::new();
    let mut content = String::new();
    loop {
        match reader.read_event().unwrap() {
            Event::Start(tag) => {
                for attribute in tag.html_attributes() {
                    // Escapes only what has to be, so that this also checks the values.
                    attribute.unwrap().unescape_value().unwrap();
                }
                let name = String::from_utf8(tag.name().as_ref().to_vec()).unwrap();
                if !VOID.contains(&name.as_str()) {
                    open.push(name);
                }
            }
            Event::End(tag) => {
                let name = String::from_utf8(tag.name().as_ref().to_vec()).unwrap();
                assert_eq!(open.pop(), Some(name), "at byte {}", reader.buffer_position());
            }
            Event::Text(text) => {
                content.push_str(&text.decode().unwrap());
                content.push(' ');
            }
            Event::GeneralRef(entity) => content.push_str(match &*entity.decode().unwrap() {
                "amp" => "&",
                "lt" => "<",
                "gt" => ">",
                "quot" => "\"",
                "apos" => "'",
                other => panic!("unknown entity {other}"),
            }),
            Event::Eof => break,
            _ => {}
        }
    }
    assert!(open.is_empty(), "not closed: {open:?}");
    content.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_page_is_well_formed_and_complete() {
    let dir = tempfile::tempdir().unwrap();
    example().write(dir.path()).unwrap();
    let page = read(&dir.path().join("report.html"));
    assert!(page.starts_with("<!DOCTYPE html>"));
    let content = well_formed(&page);
    for text in [
        "AlexNet &",
        "Table 1.",
        "Ranks &",
        "61,100,840",
        "91.5 ± 0.4 (n = 3)",
        "Figure 1.",
        "Figure 2.",
        "2 values are not shown",
        "Provenance",
        "0123abcd",
        "Latency (ms)",
    ] {
        assert!(content.contains(text), "no '{text}' in {content}");
    }
    assert!(page.contains("lr = 0.1 # &lt;peak&gt; &amp; &quot;quoted&quot;"));
    assert!(
        page.contains("conv1|&quot;a&quot;&lt;b&gt;")
            && !page.contains("<b>\"")
            && !page.contains("<friends>")
    );
}

#[test]
fn the_page_loads_nothing() {
    let dir = tempfile::tempdir().unwrap();
    example().write(dir.path()).unwrap();
    let page = read(&dir.path().join("report.html"));
    let page = page.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http:", "https:", "src=", "href=", "url(", "@import", "<script"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn plots_are_files_with_selectable_text() {
    let dir = tempfile::tempdir().unwrap();
    example().write(dir.path()).unwrap();
    let summary = read(&dir.path().join("summary.md"));
    for (name, texts) in [
        (
            "accuracy-size-log.svg",
            &["Accuracy &", "CP-3 & CP-4", "Top-1", "100%", "1M", "dense"][..],
        ),
        ("latency.svg", &["Latency", "conv1", "11.8", "3.5", "10"]),
    ] {
        assert!(summary.contains(&format!("](plots/{name})")), "{summary}");
        let svg = read(&dir.path().join("plots").join(name));
        let content = well_formed(&svg);
        for text in texts {
            assert!(content.contains(text), "no '{text}' in {content}");
        }
    }
}

#[test]
fn the_summary_has_the_same_numbers() {
    let dir = tempfile::tempdir().unwrap();
    example().write(dir.path()).unwrap();
    let summary = read(&dir.path().join("summary.md"));
    for text in [
        "# AlexNet & &lt;friends>",
        "- Parameters: **6.94×** (61,100,840 → 8,799,651)",
        "| Layer            |     Parameters |          Top-1 (%) | Paper (%) |",
        "| conv1\\|\"a\"&lt;b> |         23,296 | 91.5 ± 0.4 (n = 3) |         – |",
        "| **all**          | **61,100,840** |          **54.98** | **54.98** |",
        "Ranks as in `plan.toml`.",
        "*One seed. 2 values are not shown",
        "- Commit: 0123abcd\n- Data:\n  - aa  a.bin\n  - bb  b.bin\n",
        "if a < b && c > d\n",
        "```text\nlr = 0.1 # <peak> & \"quoted\"\n```",
    ] {
        assert!(summary.contains(text), "no '{text}' in\n{summary}");
    }
}

#[test]
fn a_report_replaces_its_predecessor_and_leaves_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("results/demo/run");
    example().write(&dir).unwrap();
    Report::new("Second", "v").write(&dir).unwrap();
    assert!(read(&dir.join("summary.md")).starts_with("# Second"));
    let names = |dir: &Path| {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&dir), ["report.html", "summary.md"]);
    // What is no plot stays.
    example().write(&dir).unwrap();
    std::fs::write(dir.join("plots/notes.txt"), "mine").unwrap();
    Report::new("Third", "v").write(&dir).unwrap();
    assert_eq!(names(&dir.join("plots")), ["notes.txt"]);
}

/// How far apart the two markers of the first series stand; circles are drawn for no other.
fn apart(svg: &str) -> i32 {
    let circles = svg.split("<circle ").skip(1);
    let height = |circle: &str| circle.split("cy=\"").nth(1)?.split('"').next()?.parse().ok();
    let mut heights: Vec<i32> = circles.filter_map(height).collect();
    // A ring of paper and the marker itself.
    heights.dedup();
    assert_eq!(heights.len(), 3, "the legend and two points: {heights:?}");
    heights[1] - heights[2]
}

#[test]
fn series_stand_at_the_axis_that_they_belong_to() {
    let plot = |right: bool| {
        let plot = XyPlot::new("P", Axis::count("rank"), Axis::percent("accuracy").include(160.0));
        let loss = Series::points("loss", [(1.0, 40.0), (2.0, 80.0), (3.0, f64::NAN)]);
        let accuracy = Series::points("accuracy", [(1.0, 0.25)]);
        match right {
            true => plot
                .right(Axis::number("loss in nats").include(0.0))
                .series(loss.on_right())
                .series(accuracy)
                .reference_on_right("loss of the dense network", 60.0),
            false => plot.series(loss).series(accuracy),
        }
    };
    let draw = |plot: XyPlot| {
        let dir = tempfile::tempdir().unwrap();
        let mut report = Report::new("R", "v");
        report.add(plot).write(dir.path()).unwrap();
        let summary = read(&dir.path().join("summary.md"));
        assert!(summary.contains("One value is not shown"), "{summary}");
        let svg = read(&dir.path().join("plots/p.svg"));
        well_formed(&svg);
        svg
    };
    let two = draw(plot(true));
    for text in ["accuracy", "loss in nats", "80", "25"] {
        assert!(two.contains(text), "{text}: {two}");
    }
    // From 40 to 80 is half of the axis at the right, which ends at 80, and a quarter of that at the left, which ends at 160.
    let (two, one) = (apart(&two), apart(&draw(plot(false))));
    assert!((two - 2 * one).abs() <= 2 && one > 0, "{two} {one}");
}

#[test]
fn titles_give_distinct_file_names() {
    let mut taken = HashSet::new();
    assert_eq!(file_name("Top-1 & top-5", &mut taken), "top-1-top-5.svg");
    assert_eq!(file_name("Top-1, top-5!", &mut taken), "top-1-top-5-2.svg");
    assert_eq!(file_name("…", &mut taken), "plot.svg");
    assert_eq!(file_name("../../etc", &mut taken), "etc.svg");
    assert!(file_name(&"long words ".repeat(20), &mut taken).len() < 70);
}

#[test]
fn what_does_not_fit_is_an_error_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = Table::new("T", [Column::text("a"), Column::text("b")]);
    table.row([Cell::text("1"), Cell::text("2")]);
    table.row([Cell::text("1")]);
    let mut report = example();
    report.add(table);
    let error = report.write(dir.path()).unwrap_err();
    assert!(matches!(error, ReportError::RowLength { row: 1, expected: 2, got: 1, .. }), "{error}");

    let mut report = example();
    report.add(BarPlot::new("B", Axis::number("x"), 0, ["a", "b"]).series("s", [1.0]));
    let error = report.write(dir.path()).unwrap_err();
    assert_eq!(error.to_string(), "plot 'B': series 's' has 1 values for 2 categories or columns");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = example().write(&file).unwrap_err();
    assert!(matches!(&error, ReportError::Io { path, .. } if path.starts_with(&file)), "{error}");
}

#[test]
fn plots_with_little_in_them_can_be_drawn() {
    let mut report = Report::new("t", "v");
    let axes = || (Axis::number("x").log(), Axis::percent("y"));
    report.add(XyPlot::new("nothing", axes().0, axes().1));
    report.add(
        XyPlot::new("no place", axes().0, axes().1).series(Series::both("s", [(-1.0, f64::NAN)])),
    );
    report.add(
        XyPlot::new("one", axes().0, axes().1)
            .series(Series::line("s", [(3.0, 0.5)]))
            .reference("r", f64::NAN),
    );
    report.add(BarPlot::new("no bars", Axis::number("x"), 0, Vec::<String>::new()));
    report.add(BarPlot::new("missing", Axis::number("x"), 0, ["a"]).series("s", [None]));
    report.add(BarPlot::new("infinite", Axis::number("x"), 0, ["a"]).series("s", [f64::INFINITY]));
    let dir = tempfile::tempdir().unwrap();
    report.write(dir.path()).unwrap();
    let content = well_formed(&read(&dir.path().join("report.html")));
    assert_eq!(content.matches("One value is not shown").count(), 3, "{content}");
}

#[test]
fn backticks_set_code_in_pairs() {
    let spans = |text| code_spans(text).collect::<Vec<_>>();
    assert_eq!(spans("a `b` c"), [(false, "a "), (true, "b"), (false, " c")]);
    assert_eq!(spans("`b`"), [(true, "b")]);
    assert_eq!(spans("it`s"), [(false, "it`s")]);
    assert_eq!(spans("`a` `b"), [(true, "a"), (false, " `b")]);
    assert_eq!(spans(""), []);
}
