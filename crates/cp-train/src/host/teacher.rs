//! [`Teacher`]: the dense model, which says what goes into the part that is trained and what should come out.

use std::collections::{BTreeMap, BTreeSet};

use cp_net::{Architecture, Network, TemporaryFolder};
use cp_onnx::{Imported, Model};
use cp_ort::{Session, Tensor};
use cp_torch::{tch, tensor_from_f32};
use ndarray::ArrayD;

use super::{Examples, Host};
use crate::engine::tapped;
use crate::error::TrainError;

/// The dense model in ONNX Runtime.
pub(super) struct Teacher {
    dense: Session,
    /// Where layers before the region are compressed: what feeds it.
    front: Option<Session>,
    inputs: Vec<String>,
    /// Outputs of the region that depend on its inputs, and where they stand among its outputs.
    outputs: Vec<String>,
    at: Vec<usize>,
    /// Outputs of factorized layers, as values of the model.
    pub(super) layers: Vec<String>,
    /// How much these count.
    pub(super) weight: f64,
    /// Where the student is.
    pub(super) device: tch::Device,
    _folders: Vec<TemporaryFolder>,
}

/// What a step learns from.
pub(super) struct Lesson {
    pub(super) inputs: Vec<tch::Tensor>,
    pub(super) outputs: Vec<tch::Tensor>,
    pub(super) layers: Vec<tch::Tensor>,
}

impl Teacher {
    pub(super) fn new(
        host: &Host,
        imported: &Imported,
        student: &Network,
        front: Option<&Model>,
        weight: f64,
        device: tch::Device,
    ) -> Result<Self, TrainError> {
        let arch = imported.network.architecture();
        let inputs: Vec<String> = arch.inputs.iter().map(|input| input.name.clone()).collect();
        let fed = fed(arch);
        let at: Vec<usize> =
            (0..arch.outputs.len()).filter(|&at| fed.contains(arch.outputs[at].as_str())).collect();
        let outputs: Vec<String> = at.iter().map(|&at| arch.outputs[at].clone()).collect();
        let mut layers = Vec::new();
        if weight > 0.0 {
            let parts = student.architecture().factorized.values();
            let last =
                parts.filter_map(|record| student.architecture().node(record.parts.last()?).ok());
            // Values that the import made up are not in the file.
            let known = |value: &String| host.model.taps(&[value]).is_ok();
            layers = last.map(|node| node.output().to_owned()).filter(known).collect();
        }
        let mut names: Vec<&str> = outputs.iter().chain(&layers).map(String::as_str).collect();
        let mut folders = Vec::new();
        let mut open = |model: &Model, names: &[&str]| -> Result<Session, TrainError> {
            let (session, folder) = tapped(model, names)?;
            folders.push(folder);
            Ok(session)
        };
        let own: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let front = front.map(|front| open(front, &own)).transpose()?;
        if front.is_none() {
            names.extend(&own);
        }
        let dense = open(&host.model, &names)?;
        Ok(Self { dense, front, inputs, outputs, at, layers, weight, device, _folders: folders })
    }

    /// Of the outputs of a student those that the lesson has.
    pub(super) fn taught(&self, outputs: &[tch::Tensor]) -> Vec<tch::Tensor> {
        self.at.iter().map(|&at| outputs[at].shallow_clone()).collect()
    }

    /// The lesson of several runs, one behind the other.
    pub(super) fn lesson(
        &mut self,
        examples: &Examples,
        runs: &[usize],
    ) -> Result<Lesson, TrainError> {
        let mut all: [Vec<Vec<tch::Tensor>>; 3] = Default::default();
        for &run in runs {
            let feed: BTreeMap<String, Tensor> = examples.run(run)?.into_iter().collect();
            let given =
                cp_ort::Inputs::new(feed.iter().map(|(name, x)| (name.clone(), x.clone())))?;
            let dense = self.dense.run_prepared(&given)?;
            let value =
                |outputs: &cp_ort::Outputs<'_>, name: &String| -> Result<tch::Tensor, TrainError> {
                    let x = match feed.get(name) {
                        Some(x) => x.clone(),
                        None => outputs.tensor(name)?,
                    };
                    Ok(tensor_from_f32(as_f32(name, &x)?.view())?)
                };
            let values = |outputs: &cp_ort::Outputs<'_>,
                          names: &[String]|
             -> Result<Vec<tch::Tensor>, TrainError> {
                names.iter().map(|name| value(outputs, name)).collect()
            };
            all[1].push(values(&dense, &self.outputs)?);
            all[2].push(values(&dense, &self.layers)?);
            all[0].push(match &mut self.front {
                None => values(&dense, &self.inputs)?,
                Some(front) => values(&front.run_prepared(&given)?, &self.inputs)?,
            });
        }
        let [inputs, outputs, layers] = all.map(|runs| joined(runs, self.device));
        Ok(Lesson { inputs: inputs?, outputs: outputs?, layers: layers? })
    }
}

/// The values that depend on an input: a weight that is put out, too, is the same for every example, and has none along its first axis.
fn fed(arch: &Architecture) -> BTreeSet<&str> {
    let mut fed: BTreeSet<&str> = arch.inputs.iter().map(|input| input.name.as_str()).collect();
    for node in &arch.nodes {
        if node.inputs.iter().any(|input| fed.contains(input.as_str())) {
            fed.extend(node.outputs.iter().map(String::as_str));
        }
    }
    fed
}

/// The runs' tensors one behind the other along the batch.
fn joined(
    runs: Vec<Vec<tch::Tensor>>,
    device: tch::Device,
) -> Result<Vec<tch::Tensor>, TrainError> {
    let values = runs.first().map_or(0, Vec::len);
    (0..values)
        .map(|at| {
            let parts: Vec<&tch::Tensor> = runs.iter().map(|run| &run[at]).collect();
            Ok(tch::Tensor::f_cat(&parts, 0)?.f_to_device(device)?)
        })
        .collect()
}

/// The numbers of any array as f32.
fn as_f32(name: &str, x: &Tensor) -> Result<ArrayD<f32>, TrainError> {
    let array = match x {
        Tensor::F32(x) => x.clone(),
        Tensor::F64(x) => x.mapv(|x| x as f32),
        Tensor::F16(x) => x.mapv(f32::from),
        Tensor::I64(x) => x.mapv(|x| x as f32),
        Tensor::I32(x) => x.mapv(|x| x as f32),
        Tensor::I8(x) => x.mapv(f32::from),
        Tensor::U8(x) => x.mapv(f32::from),
        Tensor::Bool(x) => x.mapv(|x| f32::from(u8::from(x))),
    };
    match array.iter().all(|x| x.is_finite()) {
        true => Ok(array),
        false => Err(TrainError::Inputs {
            from: "the examples".into(),
            what: format!("in the dense model the value '{name}' becomes NaN or infinite"),
        }),
    }
}
