//! ONNX models of other people's, run as they are: the sizes of their values, and how far two of them are apart.

use std::collections::BTreeMap;

use cp_net::TemporaryFolder;
use cp_onnx::{ExportOptions, Model};
use cp_ort::{Optimize, Session, SessionOptions, Tensor};
use ndarray::{ArrayD, Axis};
use serde::Serialize;

use super::onnxruntime::drawn;
use super::{Inputs, Subject};
use crate::error::TrainError;
use crate::timing;

/// The shapes of `values` of the main graph for one example of the inputs `given`, without the batch axis: from one run of the
/// model. Those whose first axis is not the batch have all their axes. `constants`: inputs whose values are known, such as a sampling rate by
/// which the model chooses a branch; other whole numbers are 1.
///
/// # Errors
/// Where there is no ONNX Runtime, an input's shape stays open, or the model does not run.
pub fn value_shapes(
    model: &Model,
    values: &[String],
    given: &BTreeMap<String, Vec<usize>>,
    constants: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Vec<usize>>, TrainError> {
    let names: Vec<&str> = values.iter().map(String::as_str).collect();
    let (mut session, _folder) = tapped(model, &names)?;
    let inputs = Inputs { shapes: given.clone(), batch: 1 };
    let mut inputs = drawn(session.inputs(), &inputs)?;
    for (name, x) in &mut inputs {
        if let Some(known) = constants.get(name) {
            *x = known.clone();
        }
    }
    let mut shapes: BTreeMap<String, Vec<usize>> =
        inputs.iter().map(|(name, x)| (name.clone(), x.shape().to_vec())).collect();
    // What a model fixes, or one; an input without axes has none.
    let batch = inputs.iter().find_map(|(_, x)| x.shape().first().copied());
    let given: Vec<(&str, Tensor)> =
        inputs.iter().map(|(name, x)| (name.as_str(), x.clone())).collect();
    let outputs = session.run(&given)?;
    shapes.extend(outputs.into_iter().map(|(name, x)| (name, x.shape().to_vec())));
    let asked = values.iter().filter_map(|value| {
        let shape = shapes.get(value)?;
        let shape = if shape.first() == batch.as_ref() { &shape[1..] } else { &shape[..] };
        Some((value.clone(), shape.to_vec()))
    });
    Ok(asked.collect())
}

/// How far an output of a compressed model is from that of the dense one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// The output.
    pub output: String,
    /// ‖y − ŷ‖ / ‖y‖ over all examples, where y is finite; infinite where ŷ is not finite in such a place.
    pub relative: f64,
    /// max |y − ŷ| / max |y|.
    pub largest: f64,
    /// Of scores `[N, K]`: the share of examples that have the same class in front.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
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
    let inputs = open(before)?.inputs().to_vec();
    let feed = drawn(&inputs, &Inputs { shapes: given.clone(), batch: 1 })?;
    changes_on(before, after, [Ok(feed)])
}

/// As [`changes`], over these runs: what each input takes, by name. Outputs that are nowhere finite in `before` are left out.
///
/// # Errors
/// Where one of the models does not run, and those of the runs.
pub fn changes_on(
    before: Subject<'_>,
    after: Subject<'_>,
    runs: impl IntoIterator<Item = Result<Vec<(String, Tensor)>, TrainError>>,
) -> Result<Vec<Change>, TrainError> {
    let (mut before, mut after) = (open(before)?, open(after)?);
    let mut sums: Vec<(String, Sum)> = Vec::new();
    for feed in runs {
        let feed = cp_ort::Inputs::new(feed?)?;
        let one = before.run_prepared(&feed)?.to_tensors()?;
        let other: BTreeMap<String, Tensor> =
            after.run_prepared(&feed)?.to_tensors()?.into_iter().collect();
        for (output, y) in one {
            let (Some(y), Some(other)) = (numbers(&y), other.get(&output).and_then(numbers)) else {
                continue;
            };
            if y.shape() != other.shape() {
                // As many boxes as there are: no distance.
                continue;
            }
            let at = sums.iter().position(|(known, _)| *known == output).unwrap_or_else(|| {
                sums.push((output, Sum::default()));
                sums.len() - 1
            });
            y.iter().zip(&other).for_each(|(a, b)| sums[at].1.add(*a, *b));
            sums[at].1.compare_rows(&y, &other);
        }
    }
    Ok(sums.into_iter().filter_map(|(output, sum)| sum.change(output)).collect())
}

/// What is added up of an output.
#[derive(Default)]
struct Sum {
    /// Numbers that were compared.
    numbers: usize,
    square: f64,
    whole: f64,
    largest: f64,
    most: f64,
    /// Rows of scores, and those with the same class in front.
    rows: usize,
    same: usize,
}

impl Sum {
    fn compare_rows(&mut self, one: &ArrayD<f64>, other: &ArrayD<f64>) {
        if one.ndim() != 2 || one.shape()[1] < 2 {
            return;
        }
        let first = |row: ndarray::ArrayViewD<'_, f64>| {
            let best =
                row.iter().enumerate().max_by(|(i, a), (j, b)| a.total_cmp(b).then(j.cmp(i)));
            best.map(|(at, _)| at)
        };
        let pairs = one.axis_iter(Axis(0)).zip(other.axis_iter(Axis(0)));
        for (one, other) in pairs {
            self.rows += 1;
            self.same += usize::from(first(one) == first(other));
        }
    }

    /// `a` of the dense model, `b` of the other. Where `a` is a mask's −∞ or no number there is no distance.
    fn add(&mut self, a: f64, b: f64) {
        if !a.is_finite() {
            return;
        }
        let difference = if b.is_finite() { (a - b).abs() } else { f64::INFINITY };
        self.numbers += 1;
        self.square += difference.powi(2);
        self.whole += a.powi(2);
        self.largest = self.largest.max(difference);
        self.most = self.most.max(a.abs());
    }

    /// None where nothing was compared.
    fn change(self, output: String) -> Option<Change> {
        if self.numbers == 0 {
            return None;
        }
        let share = |part: f64, all: f64| if part == 0.0 { 0.0 } else { part / all };
        let relative = share(self.square.sqrt(), self.whole.sqrt());
        let agreement = (self.rows > 0).then(|| self.same as f64 / self.rows as f64);
        Some(Change { output, relative, largest: share(self.largest, self.most), agreement })
    }
}

/// `model` ready to run, with `values` of its main graph among its outputs; the folder holds its file.
///
/// # Errors
/// Unknown values, and where there is no ONNX Runtime or it does not take the model.
pub(crate) fn tapped(
    model: &Model,
    values: &[&str],
) -> Result<(Session, TemporaryFolder), TrainError> {
    let folder = TemporaryFolder::create().map_err(TrainError::io(std::env::temp_dir()))?;
    let path = folder.path().join("model.onnx");
    model.taps(values)?.save(&path)?;
    let options = SessionOptions {
        threads: timing::set_threads(0),
        called: model.path().map(|path| path.display().to_string()),
        ..SessionOptions::default()
    };
    Ok((Session::new(&path, &options)?, folder))
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn change(pairs: &[(f64, f64)]) -> Option<Change> {
        let mut sum = Sum::default();
        pairs.iter().for_each(|&(a, b)| sum.add(a, b));
        sum.change("y".into())
    }

    #[test]
    fn what_is_not_finite_in_the_dense_model_is_not_compared() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        let plain = change(&[(3.0, 3.0), (4.0, 4.5)]).unwrap();
        assert_eq!((plain.relative, plain.largest), (0.1, 0.125));
        let masked = [(3.0, 3.0), (-inf, -inf), (4.0, 4.5), (nan, 1.0), (-inf, 7.0)];
        assert_eq!(change(&masked), Some(plain));
        assert_eq!(change(&[(nan, nan), (inf, inf)]), None);
    }

    #[test]
    fn a_number_that_overflows_is_an_infinite_change() {
        for lost in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for dense in [1.0, 0.0] {
                let change = change(&[(2.0, 2.0), (dense, lost)]).unwrap();
                assert_eq!((change.relative, change.largest), (f64::INFINITY, f64::INFINITY));
            }
        }
    }
}
