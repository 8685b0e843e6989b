//! docs/network.md is right: its examples are networks, and its tables say of every op what the op says of itself.
//!
//! A table of ops begins with the column `op`. In `settings` stand items like `` `stride` list = 1 ``, in `parameters` items like
//! `` `bias` `[T]`, with `bias` ``, with semicolons between them.
#![allow(clippy::unwrap_used, reason = "clippy allows it in tests, but not in their helpers")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cp_net::{Architecture, Draw, Op, Sample};
use serde_json::Value;

const SEEDS: u64 = 100;

/// The row of an op: its cells by the column's title.
type Row = BTreeMap<String, String>;

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/network.md");
    fs::read_to_string(path).unwrap()
}

/// The cells of a line of a table.
fn cells(line: &str) -> Vec<String> {
    let line = line.replace("\\|", "¦");
    line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_string()).collect()
}

/// The rows of all tables of ops.
fn rows() -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    let mut titles = Vec::new();
    for line in document().lines() {
        if !line.starts_with('|') {
            titles.clear();
        } else if line.starts_with("| op |") {
            titles = cells(line);
        } else if !titles.is_empty() && !line.starts_with("|---") {
            let row: Row = titles.iter().cloned().zip(cells(line)).collect();
            assert_eq!(row.len(), titles.len(), "{line}");
            let op = row["op"].trim_matches('`').to_string();
            assert!(rows.insert(op, row).is_none(), "a second row: {line}");
        }
    }
    rows
}

/// What stands between backquotes.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The items of a cell, by the name that each begins with.
fn items<'a>(row: &'a Row, title: &str) -> BTreeMap<&'a str, &'a str> {
    let cell = row[title].as_str();
    let items = cell.split("; ").filter(|item| *item != "–");
    let items: Vec<(&str, &str)> =
        items.map(|item| item.strip_prefix('`').unwrap().split_once('`').unwrap()).collect();
    let by_name: BTreeMap<&str, &str> = items.iter().copied().collect();
    assert_eq!(by_name.len(), items.len(), "twice the same in {cell}");
    by_name
}

fn samples(kind: &str) -> impl Iterator<Item = Sample<Op>> + '_ {
    (0..SEEDS).map(|seed| Op::sample(kind, &mut Draw::new(seed)).unwrap())
}

/// The settings of an op as in a file.
fn settings(op: &Op) -> serde_json::Map<String, Value> {
    let Value::Object(mut fields) = serde_json::to_value(op).unwrap() else { unreachable!() };
    fields.remove("op");
    fields
}

#[test]
fn every_op_has_a_row() {
    let rows = rows();
    let documented: BTreeSet<&str> = rows.keys().map(String::as_str).collect();
    assert_eq!(documented, Op::KINDS.iter().copied().collect());
}

#[test]
fn numbers_of_inputs() {
    let rows = rows();
    for kind in Op::KINDS {
        let arity = samples(kind).next().unwrap().op.arity();
        let expected = match (*arity.start(), *arity.end()) {
            (least, usize::MAX) => format!("{least} or more"),
            (least, most) if least == most => least.to_string(),
            (least, most) => format!("{least} to {most}"),
        };
        let documented = rows[*kind].get("inputs").map_or("1", String::as_str);
        assert_eq!(documented, expected, "{kind}");
    }
}

#[test]
fn every_setting_has_its_type_and_default() {
    let rows = rows();
    for kind in Op::KINDS {
        let documented = items(&rows[*kind], "settings");
        let mut values: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for sample in samples(kind) {
            for (setting, value) in settings(&sample.op) {
                let text = documented.get(setting.as_str());
                let text = text.unwrap_or_else(|| panic!("{kind}: '{setting}' is not documented"));
                let default = text.split_once(" = ").map(|(_, default)| default);
                check_default(&sample, &setting, default);
                values.entry(setting).or_default().push(value);
            }
        }
        for (setting, text) in documented {
            let values = values.get(setting);
            let values = values.unwrap_or_else(|| panic!("{kind} has no setting '{setting}'"));
            check_type(
                text.split(" = ").next().unwrap().trim(),
                values,
                &format!("{kind}: {setting}"),
            );
        }
    }
}

/// Whether `values` are of the documented type; where that is a list of words, all of them occur.
fn check_type(documented: &str, values: &[Value], setting: &str) {
    let is_integer = |value: &Value| value.is_i64() || value.is_u64();
    let list = |value: &Value, of: fn(&Value) -> bool| {
        value.as_array().is_some_and(|items| items.iter().all(of))
    };
    let fits = |value: &Value| match documented {
        "integer" => is_integer(value),
        "number" => value.is_f64(),
        "true/false" => value.is_boolean(),
        "list" => list(value, |item| item.is_i64() || item.is_u64()),
        "list of numbers" => list(value, Value::is_f64),
        "padding" => value.is_array() || value == "same" || value == "same_lower",
        words => value.as_str().is_some_and(|value| code(words).any(|word| word == value)),
    };
    if let Some(value) = values.iter().find(|value| !fits(value)) {
        panic!("{setting}: {value} is no {documented}");
    }
    for word in code(documented) {
        assert!(values.iter().any(|value| value == word), "{setting} is never '{word}'");
    }
}

/// What becomes of `setting` where it is left out is what is documented; where nothing is, it must not be left out.
fn check_default(sample: &Sample<Op>, setting: &str, documented: Option<&str>) {
    let kind = sample.op.kind();
    let mut fields = serde_json::to_value(&sample.op).unwrap();
    fields.as_object_mut().unwrap().remove(setting);
    let op = serde_json::from_value::<Op>(fields);
    let (mut op, documented) = match (op, documented) {
        (Ok(op), Some(documented)) => (op, documented),
        (Err(_), None) => return,
        (Ok(_), None) => panic!("{kind}: the default of '{setting}' is not documented"),
        (Err(error), Some(_)) => panic!("{kind}: '{setting}' has no default: {error}"),
    };
    let inputs: Vec<&[usize]> = sample.inputs.iter().map(Vec::as_slice).collect();
    op.complete(&inputs);
    let got = settings(&op).remove(setting);
    let fits = match (documented, &got) {
        ("none", got) => got.is_none(),
        ("the input's", Some(got)) => inputs[0].iter().any(|size| got == size),
        (documented, Some(got)) => says(documented, got),
        (_, None) => false,
    };
    assert!(fits, "{kind}: '{setting}' is {got:?} by default, not {documented}");
}

/// Whether `text` is this value, or that of every item of a list.
fn says(text: &str, value: &Value) -> bool {
    match value {
        Value::Array(items) => !items.is_empty() && items.iter().all(|item| says(text, item)),
        Value::String(word) => word == text,
        Value::Number(number) => {
            let (above, below) = text.split_once('/').unwrap_or((text, "1"));
            let parse = |part: &str| part.parse::<f64>().unwrap_or(f64::NAN);
            number.as_f64() == Some(parse(above) / parse(below))
        }
        Value::Bool(flag) => text.parse() == Ok(*flag),
        Value::Null | Value::Object(_) => false,
    }
}

#[test]
fn every_parameter_is_there() {
    let rows = rows();
    for kind in Op::KINDS {
        let documented = items(&rows[*kind], "parameters");
        for sample in samples(kind) {
            let settings = settings(&sample.op);
            // `with` names settings that must be true, `over` says how many axes the kernel has at least.
            let asked = |(slot, text): (&&str, &&str)| {
                let flags = text.split_once(", with ").map_or("", |(_, flags)| flags);
                let axes = text.split_once(", over ").map_or(0, |(_, axes)| {
                    axes.split(' ').next().and_then(|axes| axes.parse().ok()).unwrap()
                });
                let has_axes = axes == 0 || settings["kernel"].as_array().unwrap().len() >= axes;
                let is_asked = has_axes && code(flags).all(|flag| settings[flag] == true);
                is_asked.then(|| slot.to_string())
            };
            let expected: BTreeSet<String> = documented.iter().filter_map(asked).collect();
            let got = sample.op.params().iter().map(|spec| spec.slot.to_string()).collect();
            assert_eq!(expected, got, "{:?}", sample.op);
        }
    }
}

/// The blocks of code of a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|block| block.split("```").next().unwrap()).collect()
}

#[test]
fn examples_are_networks() {
    let text = document();
    let blocks = blocks(&text, "json");
    assert!(blocks.len() >= 4, "{}", blocks.len());
    for block in blocks {
        let arch =
            Architecture::from_json(block).unwrap_or_else(|error| panic!("{error}:\n{block}"));
        // What is written out in full is the same network.
        assert_eq!(Architecture::from_json(&arch.to_json().unwrap()).unwrap(), arch);
        arch.initialize(1).unwrap();
    }
}
