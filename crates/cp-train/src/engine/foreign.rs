//! ONNX models of other people's, run as they are: the sizes of their values, and how far two of them are apart.

use std::collections::BTreeMap;

use cp_net::TemporaryFolder;
use cp_onnx::{ExportOptions, Model};
use cp_ort::{Optimize, Session, SessionOptions, Tensor};
use ndarray::ArrayD;
use serde::Serialize;

use super::onnxruntime::drawn;
use super::{Inputs, Subject};
use crate::error::TrainError;
use crate::timing;

/// The shapes of `values` of the main graph for one example of the inputs `given`, without the batch axis: from one run of the
/// model. Those whose first axis is not the batch have all their axes.
///
/// # Errors
/// Where there is no ONNX Runtime, an input's shape stays open, or the model does not run.
pub fn value_shapes(
    model: &Model,
    values: &[String],
    given: &BTreeMap<String, Vec<usize>>,
) -> Result<BTreeMap<String, Vec<usize>>, TrainError> {
    let folder = TemporaryFolder::create().map_err(TrainError::io(std::env::temp_dir()))?;
    let path = folder.path().join("model.onnx");
    let names: Vec<&str> = values.iter().map(String::as_str).collect();
    model.taps(&names)?.save(&path)?;
    let mut session = Session::new(&path, &options())?;
    let inputs = Inputs { shapes: given.clone(), batch: 1 };
    let inputs = drawn(session.inputs(), &inputs)?;
    let mut shapes: BTreeMap<String, Vec<usize>> =
        inputs.iter().map(|(name, x)| (name.clone(), x.shape().to_vec())).collect();
    let given: Vec<(&str, Tensor)> =
        inputs.iter().map(|(name, x)| (name.as_str(), x.clone())).collect();
    let outputs = session.run(&given)?;
    shapes.extend(outputs.into_iter().map(|(name, x)| (name, x.shape().to_vec())));
    let asked = values.iter().filter_map(|value| {
        let shape = shapes.get(value)?;
        let shape = if shape.first() == Some(&1) { &shape[1..] } else { &shape[..] };
        Some((value.clone(), shape.to_vec()))
    });
    Ok(asked.collect())
}

/// How far an output of a compressed model is from that of the dense one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// The output.
    pub output: String,
    /// ‖y − ŷ‖ / ‖y‖ over all examples.
    pub relative: f64,
    /// max |y − ŷ| / max |y|.
    pub largest: f64,
}

/// How far the outputs of `after` are from those of `before`, on the same drawn example of the shapes `given`, in ONNX Runtime without
/// optimizations.
///
/// # Errors
/// Where one of them does not run.
pub fn changes(
    before: Subject<'_>,
    after: Subject<'_>,
    given: &BTreeMap<String, Vec<usize>>,
) -> Result<Vec<Change>, TrainError> {
    let mut sessions = [open(before)?, open(after)?];
    let inputs = drawn(sessions[0].inputs(), &Inputs { shapes: given.clone(), batch: 1 })?;
    let inputs: Vec<(&str, Tensor)> =
        inputs.iter().map(|(name, x)| (name.as_str(), x.clone())).collect();
    let [before, after] = &mut sessions;
    let (before, after) = (before.run(&inputs)?, after.run(&inputs)?);
    let after: BTreeMap<String, Tensor> = after.into_iter().collect();
    let mut found = Vec::new();
    for (output, y) in before {
        let (Some(y), Some(other)) = (numbers(&y), after.get(&output).and_then(numbers)) else {
            continue;
        };
        if y.shape() != other.shape() {
            // As many boxes as there are: no distance.
            continue;
        }
        let (mut square, mut whole, mut largest, mut most) = (0.0, 0.0, 0.0_f64, 0.0_f64);
        for (a, b) in y.iter().zip(&other) {
            square += (a - b).powi(2);
            whole += a.powi(2);
            largest = largest.max((a - b).abs());
            most = most.max(a.abs());
        }
        let share = |part: f64, all: f64| if part == 0.0 { 0.0 } else { part / all };
        let relative = share(f64::sqrt(square), f64::sqrt(whole));
        found.push(Change { output, relative, largest: share(largest, most) });
    }
    Ok(found)
}

fn open(subject: Subject<'_>) -> Result<Session, TrainError> {
    Ok(match subject {
        Subject::Model(path) => Session::new(path, &options())?,
        Subject::Network(network) => Session::new(
            &cp_onnx::export(network, &ExportOptions::default())?.encode(),
            &options(),
        )?,
    })
}

fn options() -> SessionOptions {
    let threads = timing::set_threads(0);
    SessionOptions { threads, optimize: Optimize::None, ..SessionOptions::default() }
}

/// The values of a floating-point output.
fn numbers(tensor: &Tensor) -> Option<ArrayD<f64>> {
    match tensor {
        Tensor::F32(x) => Some(x.mapv(f64::from)),
        Tensor::F64(x) => Some(x.clone()),
        Tensor::F16(x) => Some(x.mapv(f64::from)),
        _ => None,
    }
}
