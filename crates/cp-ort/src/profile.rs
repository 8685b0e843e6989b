//! Where the time of a run goes.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::{Inputs, Model, OrtError, Session, SessionOptions};

/// The time of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeTime {
    /// Its name, after optimization: fused nodes have a name of the library's making.
    pub name: String,
    /// Its op, such as `Conv` or `FusedConv`.
    pub op: String,
    /// Seconds, summed over calls; those of the nodes inside of an `If` or `Loop` are among those of the `If` or `Loop`, too.
    pub seconds: f64,
    /// How many calls.
    pub calls: usize,
}

/// The times of the nodes of a model: `warmup` runs that do not count, then `runs` that do. The slowest node comes first.
///
/// The library's own record goes into [`SessionOptions::profile`], or is thrown away where that is not set.
///
/// # Errors
/// As [`Session::new`], [`Session::run_prepared`] and [`Session::node_times`].
pub fn profile<'a>(
    model: impl Into<Model<'a>>,
    options: &SessionOptions,
    inputs: &Inputs,
    warmup: usize,
    runs: usize,
) -> Result<Vec<NodeTime>, OrtError> {
    let temporary = tempfile::tempdir()
        .map_err(|error| OrtError::Io { path: std::env::temp_dir(), reason: error.to_string() })?;
    let folder = options.profile.clone().unwrap_or_else(|| temporary.path().to_owned());
    let options = SessionOptions { profile: Some(folder), ..options.clone() };
    let mut session = Session::new(model, &options)?;
    for _ in 0..warmup + runs {
        session.run_prepared(inputs)?;
    }
    session.node_times(warmup)
}

/// What is read of an event of the record; times in microseconds.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    cat: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    ts: f64,
    #[serde(default)]
    dur: f64,
    #[serde(default)]
    args: Args,
}

#[derive(Default, Deserialize)]
struct Args {
    #[serde(default)]
    op_name: String,
}

/// Reads the record of a session, without its first `skip` runs.
pub(crate) fn node_times(path: &Path, skip: usize) -> Result<Vec<NodeTime>, OrtError> {
    let text = fs::read(path)
        .map_err(|error| OrtError::Io { path: path.to_owned(), reason: error.to_string() })?;
    let wrong = |reason: String| OrtError::Profile { path: path.to_owned(), reason };
    let events: Vec<Event> =
        serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    sum(&events, skip).map_err(wrong)
}

fn sum(events: &[Event], skip: usize) -> Result<Vec<NodeTime>, String> {
    let runs = events.iter().filter(|event| event.cat == "Session" && event.name == "model_run");
    let mut ends: Vec<f64> = runs.map(|event| event.ts + event.dur).collect();
    ends.sort_by(f64::total_cmp);
    if ends.len() < skip {
        return Err(format!("{} runs, of which {skip} were to be skipped", ends.len()));
    }
    let start = if skip == 0 { f64::NEG_INFINITY } else { ends[skip - 1] };
    let mut times: HashMap<(&str, &str), NodeTime> = HashMap::new();
    for event in events.iter().filter(|event| event.cat == "Node" && event.ts >= start) {
        // Waiting before and after a node has events of its own.
        let Some(name) = event.name.strip_suffix("_kernel_time") else { continue };
        let op = event.args.op_name.as_str();
        let time = times.entry((name, op)).or_insert_with(|| NodeTime {
            name: name.to_owned(),
            op: op.to_owned(),
            seconds: 0.0,
            calls: 0,
        });
        time.seconds += event.dur * 1e-6;
        time.calls += 1;
    }
    let mut times: Vec<NodeTime> = times.into_values().collect();
    times.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then_with(|| a.name.cmp(&b.name)));
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"[
        {"cat": "Session", "name": "model_loading_from_saved_proto", "ts": 1, "dur": 9, "ph": "X", "args": {}},
        {"cat": "Node", "name": "a_kernel_time", "ts": 20, "dur": 900, "args": {"op_name": "Conv", "node_index": "1"}},
        {"cat": "Session", "name": "model_run", "ts": 15, "dur": 1000, "args": {}},
        {"cat": "Node", "name": "a_fence_before", "ts": 1100, "dur": 7, "args": {"op_name": "Conv"}},
        {"cat": "Node", "name": "a_kernel_time", "ts": 1110, "dur": 30, "args": {"op_name": "Conv"}},
        {"cat": "Node", "name": "b_kernel_time", "ts": 1140, "dur": 50, "args": {"op_name": "Relu"}},
        {"cat": "Session", "name": "model_run", "ts": 1095, "dur": 100},
        {"cat": "Node", "name": "a_kernel_time", "ts": 1200, "dur": 40, "args": {"op_name": "Conv"}},
        {"cat": "Node", "name": "b_kernel_time", "ts": 1240, "dur": 10, "args": {"op_name": "Relu"}},
        {"cat": "Session", "name": "model_run", "ts": 1197, "dur": 100}
    ]"#;

    fn times(skip: usize) -> Vec<(String, String, u64, usize)> {
        let events: Vec<Event> = serde_json::from_str(RECORD).unwrap();
        let times = sum(&events, skip).unwrap();
        let micros = |time: &NodeTime| (time.seconds * 1e6).round() as u64;
        times.iter().map(|t| (t.name.clone(), t.op.clone(), micros(t), t.calls)).collect()
    }

    #[test]
    fn times_are_summed_by_node_and_the_slowest_comes_first() {
        let node = |name: &str, op: &str, micros, calls| (name.into(), op.into(), micros, calls);
        assert_eq!(times(0), [node("a", "Conv", 970, 3), node("b", "Relu", 60, 2)]);
        assert_eq!(times(1), [node("a", "Conv", 70, 2), node("b", "Relu", 60, 2)]);
        assert_eq!(times(2), [node("a", "Conv", 40, 1), node("b", "Relu", 10, 1)]);
        assert_eq!(times(3), []);
        let events: Vec<Event> = serde_json::from_str(RECORD).unwrap();
        assert!(sum(&events, 4).unwrap_err().contains("3 runs, of which 4"));
    }

    #[test]
    fn a_record_that_is_none_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.json");
        assert!(matches!(node_times(&path, 0), Err(OrtError::Io { .. })));
        fs::write(&path, "[{\"cat\" : \"Node\"").unwrap();
        assert!(matches!(node_times(&path, 0), Err(OrtError::Profile { .. })));
    }
}
