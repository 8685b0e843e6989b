//! ONNX Runtime: the folded network as an ONNX model, or a model file as it lies there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cp_data::Batch;
use cp_net::{InputSpec, Network, TemporaryFolder};
use cp_onnx::ExportOptions;
use cp_ort::{Dim, ElementType, Optimize, Session, SessionOptions, Tensor, ValueInfo};
use ndarray::ArrayD;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{Feed, Forward, Inputs, NodeTime, Outputs, Ready, Subject};
use crate::batch::to_array;
use crate::device::Device;
use crate::error::TrainError;
use crate::memory::{Purpose, available, check_memory};
use crate::timing;

const OPTION: &str = "--batch, --timing-batch or --input";

struct OnnxRuntime {
    session: Session,
    inputs: cp_ort::Inputs,
}

/// `network` as it is to run: folded, as the bytes of a model.
fn model_of(network: &Network) -> Result<Vec<u8>, TrainError> {
    let options = ExportOptions { fold: true, ..ExportOptions::default() };
    Ok(cp_onnx::export(network, &options)?.encode())
}

pub(super) fn ready(subject: Subject<'_>, inputs: &Inputs) -> Result<Box<dyn Ready>, TrainError> {
    Ok(Box::new(prepared(subject, inputs, None)?))
}

/// As [`Engine::node_times`](super::Engine::node_times).
pub(super) fn node_times(
    subject: Subject<'_>,
    inputs: &Inputs,
    warmup: usize,
    runs: usize,
) -> Result<Vec<NodeTime>, TrainError> {
    let folder = TemporaryFolder::create().map_err(TrainError::io(std::env::temp_dir()))?;
    let mut prepared = prepared(subject, inputs, Some(folder.path().into()))?;
    for _ in 0..warmup + runs {
        prepared.pass()?;
    }
    let times = prepared.session.node_times(warmup)?.into_iter().map(|time| NodeTime {
        node: time.name,
        op: time.op,
        seconds: time.seconds / runs as f64,
    });
    Ok(times.collect())
}

/// The model at `path` made ready to be timed on `feed`.
///
/// # Errors
/// A model that ONNX Runtime does not read, or that takes something else.
pub fn ready_on(path: &Path, feed: Feed) -> Result<Box<dyn Ready>, TrainError> {
    let options = SessionOptions { threads: timing::set_threads(0), ..SessionOptions::default() };
    let mut ready =
        OnnxRuntime { session: Session::new(path, &options)?, inputs: cp_ort::Inputs::new(feed)? };
    // What does not fit is said before anything is timed.
    ready.pass()?;
    Ok(Box::new(ready))
}

fn prepared(
    subject: Subject<'_>,
    inputs: &Inputs,
    profile: Option<PathBuf>,
) -> Result<OnnxRuntime, TrainError> {
    let options =
        SessionOptions { threads: timing::set_threads(0), profile, ..SessionOptions::default() };
    let session = match subject {
        Subject::Network(network) => {
            let arch = network.architecture();
            let shapes = inputs.of_architecture(arch);
            let device = Device::Cpu;
            check_memory(arch, &shapes, inputs.batch, Purpose::Forward, device, OPTION)?;
            Session::new(&model_of(network)?, &options)?
        }
        Subject::Model(path) => Session::new(path, &options)?,
    };
    let drawn = drawn(session.inputs(), inputs)?;
    Ok(OnnxRuntime { session, inputs: cp_ort::Inputs::new(drawn)? })
}

/// A network of one input in a session, for its outputs.
pub(super) struct Classifier {
    session: Session,
    input: String,
    output: String,
    tap: Option<String>,
}

impl Classifier {
    /// `network` with the first of `taps` put out, too.
    pub(super) fn new(network: &Network, taps: &[String]) -> Result<Self, TrainError> {
        let arch = network.architecture();
        let names: Vec<&str> = taps.iter().map(String::as_str).collect();
        let model = cp_onnx::export(network, &ExportOptions::default())?.taps(&names)?;
        let options =
            SessionOptions { threads: timing::set_threads(0), ..SessionOptions::default() };
        Ok(Self {
            session: Session::new(&model.encode(), &options)?,
            input: arch.input().name.clone(),
            output: arch.outputs.first().cloned().unwrap_or_default(),
            tap: taps.first().cloned(),
        })
    }
}

impl Forward for Classifier {
    fn forward(&mut self, batch: &Batch, input: &InputSpec) -> Result<Outputs, TrainError> {
        let x = Tensor::F32(to_array(batch, input));
        let x = cp_ort::Inputs::new([(self.input.clone(), x)])?;
        let outputs = self.session.run_prepared(&x)?;
        let value = |name: &str| match outputs.tensor(name)? {
            Tensor::F32(array) => Ok(array),
            other => {
                let (name, element) = (name.to_owned(), other.element_type().to_string());
                Err(TrainError::InputType { name, element })
            }
        };
        let tapped = self.tap.as_deref().map(value).transpose()?;
        Ok((value(&self.output)?, tapped))
    }
}

impl Ready for OnnxRuntime {
    fn pass(&mut self) -> Result<(), TrainError> {
        self.session.run_prepared(&self.inputs)?;
        Ok(())
    }
}

pub(super) fn model_shapes(
    path: &Path,
    given: &BTreeMap<String, Vec<usize>>,
) -> Result<BTreeMap<String, Vec<usize>>, TrainError> {
    input_shapes(&model_inputs(path)?, given)
}

pub(super) fn model_inputs(path: &Path) -> Result<Vec<ValueInfo>, TrainError> {
    let options = SessionOptions { optimize: Optimize::None, ..SessionOptions::default() };
    Ok(Session::new(path, &options)?.inputs().to_vec())
}

/// The shapes of inputs of a model without their first axis, the batch, where the model fixes them or `given` has them.
///
/// # Errors
/// An input whose shape stays open.
fn input_shapes(
    inputs: &[ValueInfo],
    given: &BTreeMap<String, Vec<usize>>,
) -> Result<BTreeMap<String, Vec<usize>>, TrainError> {
    let known = Inputs { shapes: given.clone(), batch: 1 };
    if let Some(name) = given
        .keys()
        .find(|name| *name != cp_net::INPUT && !inputs.iter().any(|input| input.name == **name))
    {
        let known = inputs.iter().map(|input| input.name.clone()).collect();
        return Err(TrainError::UnknownInput { name: name.clone(), known });
    }
    let alone = inputs.iter().filter(|input| !input.dims.is_empty()).count() == 1;
    let shape = |input: &ValueInfo| -> Result<(String, Vec<usize>), TrainError> {
        if input.dims.is_empty() {
            return Ok((input.name.clone(), Vec::new()));
        }
        let fixed: Option<Vec<usize>> = input.dims.iter().skip(1).map(Dim::size).collect();
        let shape = known.shape(&input.name, alone).map(<[usize]>::to_vec).or(fixed);
        let open = || TrainError::OpenInput { name: input.name.clone(), shape: input.to_string() };
        Ok((input.name.clone(), shape.ok_or_else(open)?))
    };
    inputs.iter().map(shape).collect()
}

/// Numbers from 0 to 1 for every input, and 1 for whole ones, from a fixed seed.
pub(super) fn drawn(
    inputs: &[ValueInfo],
    asked: &Inputs,
) -> Result<Vec<(String, Tensor)>, TrainError> {
    let shapes = input_shapes(inputs, &asked.shapes)?;
    let fixed = |input: &ValueInfo| matches!(input.dims.first(), Some(Dim::Fixed(size)) if *size != asked.batch);
    if asked.batch > 1 && inputs.iter().all(fixed) {
        let input =
            inputs.iter().map(|input| format!("'{}' {input}", input.name)).collect::<Vec<_>>();
        return Err(TrainError::FixedBatch { batch: asked.batch, inputs: input.join(", ") });
    }
    let mut draw = ChaCha8Rng::seed_from_u64(0);
    let mut all = Vec::with_capacity(inputs.len());
    let mut bytes = 0_u128;
    for input in inputs {
        let mut shape = shapes.get(&input.name).cloned().unwrap_or_default();
        match input.dims.first() {
            None => {}
            Some(Dim::Free(_)) => shape.insert(0, asked.batch),
            Some(Dim::Fixed(size)) => shape.insert(0, *size),
        }
        let values = shape.iter().fold(8_u128, |bytes, &size| bytes.saturating_mul(size as u128));
        bytes = bytes.saturating_add(values);
        let free = available().unwrap_or(u64::MAX);
        if bytes > u128::from(free) {
            let (batch, shape) = (asked.batch, shape);
            return Err(TrainError::Memory { batch, shape, needed: bytes, free, option: OPTION });
        }
        let x = ArrayD::from_shape_simple_fn(shape, || draw.random::<f32>());
        let tensor = match &input.ty {
            ElementType::F32 => Tensor::F32(x),
            ElementType::F64 => Tensor::F64(x.mapv(f64::from)),
            ElementType::F16 => Tensor::F16(x.mapv(half::f16::from_f32)),
            ElementType::I64 => Tensor::I64(x.mapv(|_| 1)),
            ElementType::I32 => Tensor::I32(x.mapv(|_| 1)),
            ElementType::U8 => Tensor::U8(x.mapv(|x| (255.0 * x) as u8)),
            ElementType::I8 => Tensor::I8(x.mapv(|x| (127.0 * x) as i8)),
            ElementType::Bool => Tensor::Bool(x.mapv(|x| x < 0.5)),
            other => {
                let (name, element) = (input.name.clone(), other.to_string());
                return Err(TrainError::InputType { name, element });
            }
        };
        all.push((input.name.clone(), tensor));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An input without axes is a single number beside whatever shape is given, with a name or without.
    #[test]
    fn inputs_without_axes_have_none() {
        let info = |name: &str, ty, dims: Vec<Dim>| ValueInfo { name: name.into(), ty, dims };
        let free = || Dim::Free(None);
        let inputs = [
            info("x", ElementType::F32, vec![free(), free(), free()]),
            info("scale", ElementType::F32, Vec::new()),
            info("which", ElementType::Bool, Vec::new()),
        ];
        for name in ["x", cp_net::INPUT] {
            let asked = Inputs { shapes: [(name.to_owned(), vec![5, 3])].into(), batch: 2 };
            let found = drawn(&inputs, &asked).unwrap();
            let shapes: Vec<&[usize]> = found.iter().map(|(_, x)| x.shape()).collect();
            assert_eq!(shapes, [&[2, 5, 3][..], &[], &[]]);
        }
        // With two inputs that have axes a shape is of neither.
        let two = [inputs[0].clone(), info("y", ElementType::F32, vec![free(), free()])];
        let asked = Inputs { shapes: [("x".to_owned(), vec![5, 3])].into(), batch: 2 };
        assert!(
            matches!(drawn(&two, &asked), Err(TrainError::OpenInput { name, .. }) if name == "y")
        );
    }
}
