//! A [`Network`] as an ONNX model, and the network of such a model again.
//!
//! Every op has a file (or shares one with its family) below `export/`, which writes it in ONNX's own operators: the one of its name
//! where the opset has it and means the same, else exact primitives. Names of nodes, values and parameters are those of the network;
//! what is only there in between is called after its node. Sizes are those that the network was built for, but for the batch.

mod activation;
mod conv;
mod elementwise;
mod factored;
mod linear;
mod norm;
mod pool;
mod read;
mod reduce;
mod resize;
mod shape;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use cp_net::{Network, Op, ParamRole};

use crate::Float;
use crate::error::OnnxError;
use crate::export::writer::{Site, Writer};
use crate::model::Model;
use crate::proto::{Field, Kind, Message, graph, model};
use crate::record::{Factorization, KEY, Record};
use crate::values::Dim;

pub use read::{NETWORK_KEY, exported_network};

/// The opsets that [`export`] writes: 13 is the first in which shapes and axes are inputs, 22 the last that is tested.
pub const OPSETS: RangeInclusive<i64> = 13..=22;

/// How a network is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportOptions {
    /// Version of ONNX's operators, one of [`OPSETS`]; 17 by default, the first with layer normalization.
    pub opset: i64,
    /// Weights stored in half precision, which halves the file; no by default. Inputs, outputs, biases and statistics stay in single
    /// precision, and so does the arithmetic: a `Cast` behind each weight, which runtimes fold when they load the model. Few CPUs have
    /// arithmetic in half precision; a runtime that has it converts the whole graph by a tool of its own.
    pub half: bool,
    /// Write [`Network::folded`], which only runs forward; no by default. It has no records of factorized layers, and primitives in the place of
    /// operators at which runtimes are slow.
    pub fold: bool,
    /// The batch size; by default a symbol named `batch`, which stands for any.
    pub batch: Dim,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self { opset: 17, half: false, fold: false, batch: Dim::Symbol("batch".into()) }
    }
}

/// An op in ONNX's words.
trait Export {
    /// Adds its nodes and initializers; the last node makes the values of the network's node.
    fn export(&self, at: &mut Site<'_, '_>);
}

macro_rules! dispatch {
    ($($file:ident::$name:ident = $kind:literal,)*) => {
        fn dispatch(op: &Op, at: &mut Site<'_, '_>) {
            match op { $(Op::$name(op) => op.export(at),)* }
        }
    };
}

cp_net::for_each_op!(dispatch);

/// `net` as a model, complete with its factorization records ([`Model::factorizations`]) and its architecture
/// ([`exported_network`]). Weights beyond 2 GiB go beside the file when the model is saved ([`Model::save`]).
///
/// ```
/// use cp_onnx::{ExportOptions, export, exported_network};
///
/// let net = cp_net::arch::by_name("small-cnn(classes=7)")?.initialize(1)?;
/// let model = export(&net, &ExportOptions::default())?;
/// assert_eq!(model.outputs()[0].to_string(), "fc2 [batch, 7] float32");
/// assert_eq!(exported_network(&model)?, Some(net));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`OnnxError::Opset`]; [`OnnxError::Half`], weights that half precision cannot hold; [`OnnxError::Form`], what
/// [`Network::folded`] and shape inference report.
pub fn export(net: &Network, options: &ExportOptions) -> Result<Model, OnnxError> {
    let opset = options.opset;
    if !OPSETS.contains(&opset) {
        let (least, most) = OPSETS.into_inner();
        return Err(OnnxError::Opset { opset, least, most });
    }
    let folded = if options.fold { Some(net.folded()?) } else { None };
    let net = folded.as_ref().unwrap_or(net);
    if options.half {
        check_half(net)?;
    }
    // What is read back is the network as it was; what runs is the faster form of it.
    let recorded = net.architecture();
    let merged = net.subsampling_merged()?;
    let net = &*merged;
    let arch = net.architecture();
    let mut writer = Writer::new(net, arch.shapes(arch.input_shapes())?, options);
    for node in &arch.nodes {
        dispatch(&node.op, &mut writer.site(node));
    }
    let dims = |writer: &Writer<'_>, value: &str| -> Vec<Dim> {
        let batch = if writer.is_fixed(value) { Dim::Size(1) } else { options.batch.clone() };
        [batch].into_iter().chain(writer.shape(value).into_iter().map(Dim::Size)).collect()
    };
    let float = Float::F32.number();
    let mut ends = Vec::new();
    for input in &arch.inputs {
        ends.push(graph::value(graph::INPUTS, &input.name, float, &dims(&writer, &input.name)));
    }
    let mut taken: BTreeSet<String> = arch.inputs.iter().map(|input| input.name.clone()).collect();
    for output in &arch.outputs {
        let mut name = output.clone();
        if !taken.insert(name.clone()) {
            // An input, or an output for the second time, which ONNX has under a name of its own.
            name = writer.fresh(output);
            writer.push("Identity", &name.clone(), &[output], &name);
        }
        ends.push(graph::value(graph::OUTPUTS, &name, float, &dims(&writer, output)));
    }
    let Writer { nodes, initializers, params, kernels, .. } = writer;
    let mut fields: Vec<Field> =
        nodes.into_iter().map(|node| Field::message(graph::NODES, node)).collect();
    fields.push(Field::string(graph::NAME, &arch.name));
    let initializers = initializers.into_iter();
    fields.extend(initializers.map(|tensor| Field::message(graph::INITIALIZERS, tensor)));
    fields.extend(ends);
    let set = vec![Field::string(1, ""), Field::int(2, opset)];
    let mut root = vec![
        Field::int(model::IR_VERSION, ir_version(opset)),
        Field::message(model::OPSETS, Message::new(Kind::Leaf, set)),
        Field::string(model::PRODUCER, "polyad"),
        Field::string(model::PRODUCER_VERSION, env!("CARGO_PKG_VERSION")),
        Field::message(model::GRAPH, Message::new(Kind::Graph, fields)),
    ];
    let layers = factorizations(net, &kernels);
    if !layers.is_empty() {
        let record = |source| OnnxError::Record { path: None, source };
        let text = serde_json::to_string(&Record { layers }).map_err(record)?;
        root.push(model::entry(model::METADATA, KEY, &text));
    }
    let mut model = Model { root: Message::new(Kind::Model, root), path: None };
    let renamed = params.into_iter().map(|(name, param)| (name, param.initializer));
    let renamed = renamed.filter(|(name, initializer)| name != initializer).collect();
    let entry = read::entry(&model, recorded, renamed)?;
    model.root.fields.push(entry);
    Ok(model)
}

/// The version of the file format that came with an opset.
/// Source: <https://github.com/onnx/onnx/blob/main/docs/Versioning.md>.
fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=14 => 7,
        15..=18 => 8,
        19..=20 => 9,
        _ => 10,
    }
}

/// Whether half precision holds the weights.
fn check_half(net: &Network) -> Result<(), OnnxError> {
    for (name, role) in net.roles() {
        let Some(array) = net.params().get(&name).filter(|_| role == ParamRole::Weight) else {
            continue;
        };
        let count = array.iter().filter(|&&value| !Float::F16.round(value).is_finite()).count();
        let lost = !array.iter().any(|&value| Float::F16.round(value) != 0.0)
            && array.iter().any(|&value| value != 0.0);
        if count > 0 || lost {
            return Err(OnnxError::Half { name, count: if lost { array.len() } else { count } });
        }
    }
    Ok(())
}

/// What was factorized, as [`Model::replace`] writes it: one record for the layers with one kernel.
fn factorizations(net: &Network, kernels: &BTreeMap<String, String>) -> Vec<Factorization> {
    let arch = net.architecture();
    let place = |part: &String| arch.nodes.iter().position(|node| node.name == *part);
    let mut records: Vec<_> = arch.factorized.iter().collect();
    records.sort_by_key(|(_, record)| record.parts.first().and_then(place));
    let mut found: Vec<(&String, Factorization)> = Vec::new();
    for (layer, record) in records {
        let read = record.parts.iter().filter_map(|part| kernels.get(part));
        let known = found.iter().position(|(weight, _)| **weight == record.weight);
        let index = known.unwrap_or(found.len());
        if known.is_none() {
            let (form, rank) = (record.form, record.rank);
            let (layer, scope) = (layer.clone(), crate::scopes::MAIN.into());
            let factorization = Factorization { layer, scope, form, rank, weights: Vec::new() };
            found.push((&record.weight, factorization));
        }
        let weights = &mut found[index].1.weights;
        for weight in read {
            // Another, where one layer reads the transpose and one does not.
            if !weights.contains(weight) {
                weights.push(weight.clone());
            }
        }
    }
    found.into_iter().map(|(_, factorization)| factorization).collect()
}
