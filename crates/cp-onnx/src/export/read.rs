//! The network of a model that [`export`](crate::export()) wrote: its architecture lies in the metadata, its arrays are initializers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cp_net::{Architecture, Network};
use ndarray::{ArrayD, IxDyn};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{OnnxError, TensorError};
use crate::model::Model;
use crate::proto::{Field, Message, Payload, graph, model, tensor};

/// The key in `metadata_props` under which the architecture lies.
pub const NETWORK_KEY: &str = "polyad.network";

/// Of the entry; one of a later version is left to what reads any model.
const VERSION: u32 = 1;

/// The value under [`NETWORK_KEY`].
#[derive(Serialize, Deserialize)]
struct Entry {
    version: u32,
    /// SHA-256 of the graph and the opsets; see [`digest`].
    digest: String,
    architecture: Value,
    /// Initializers of the parameters that have another name there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    renamed: BTreeMap<String, String>,
}

pub(super) fn entry(
    model: &Model,
    arch: &Architecture,
    renamed: BTreeMap<String, String>,
) -> Result<Field, OnnxError> {
    let error = |source| OnnxError::NetworkRecord { path: None, source };
    let architecture = serde_json::to_value(arch).map_err(error)?;
    let entry = Entry { version: VERSION, digest: digest(model)?, architecture, renamed };
    let text = serde_json::to_string(&entry).map_err(error)?;
    Ok(model::entry(model::METADATA, NETWORK_KEY, &text))
}

/// The network that `model` was written from: names, settings, classes, records and arrays as they were, bit for bit (weights in
/// half precision rounded to it). `None` where there is no such entry, where it is of a later version of this program, or where the
/// graph is no longer the one that was written: then the graph is what counts.
///
/// # Errors
/// [`OnnxError::NetworkRecord`], an entry that is damaged; [`OnnxError::Tensor`]; [`OnnxError::Form`], an architecture that does
/// not hang together.
pub fn exported_network(model: &Model) -> Result<Option<Network>, OnnxError> {
    let entries = model.root.children(model::METADATA);
    let mut texts = entries
        .filter(|(_, entry)| entry.string(1) == NETWORK_KEY)
        .map(|(_, entry)| entry.string(2));
    let Some(text) = texts.next() else { return Ok(None) };
    let error = |source| OnnxError::NetworkRecord { path: model.path.clone(), source };
    // The version first: a later one may have other fields.
    let value: Value = serde_json::from_str(&text).map_err(error)?;
    if value["version"].as_u64().is_some_and(|version| version > u64::from(VERSION)) {
        return Ok(None);
    }
    let entry: Entry = serde_json::from_value(value).map_err(error)?;
    if entry.digest != digest(model)? {
        return Ok(None);
    }
    let arch: Architecture = serde_json::from_value(entry.architecture).map_err(error)?;
    arch.check()?;
    let mut tensors = BTreeMap::new();
    if let Some(graph) = model.graph() {
        let all = graph.children(graph::INITIALIZERS);
        tensors.extend(all.map(|(_, tensor)| (tensor.string(tensor::NAME), tensor)));
    }
    let mut params = BTreeMap::new();
    for (name, spec) in arch.params() {
        let initializer = entry.renamed.get(&name).unwrap_or(&name);
        // What is missing is listed by the network.
        let Some(&tensor) = tensors.get(initializer) else { continue };
        let array = tensor::array(tensor, |place| place.read(model.folder()));
        let array = array.map_err(|source| model.tensor_error(tensor, source))?;
        let (expected, got) = (spec.shape.iter().product(), array.len());
        let shaped = array.into_shape_with_order(IxDyn(&spec.shape));
        let array: ArrayD<f32> =
            shaped.map_err(|_| model.tensor_error(tensor, TensorError::Count { expected, got }))?;
        params.insert(name, array);
    }
    Ok(Some(Network::new(arch, params)?))
}

/// SHA-256 of what a graph computes: its fields in their order, initializers by name, type, sizes and values, wherever these lie.
fn digest(model: &Model) -> Result<String, OnnxError> {
    let mut hash = Sha256::new();
    let mut add = |what: u8, bytes: &[u8]| {
        hash.update([what]);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    let written = |field: &Field| {
        let mut bytes = Vec::new();
        field.write(&mut bytes);
        bytes
    };
    for field in &model.root.fields {
        if [model::OPSETS, model::FUNCTIONS, model::TRAINING].contains(&field.number) {
            add(0, &written(field));
        }
    }
    for field in model.graph().into_iter().flat_map(|graph| &graph.fields) {
        match &field.payload {
            Payload::Message(tensor, _) if field.number == graph::INITIALIZERS => {
                let values = values(model, tensor)?;
                add(1, &tensor::head(tensor));
                add(2, &values);
            }
            _ => add(3, &written(field)),
        }
    }
    let mut text = String::new();
    for byte in hash.finalize() {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// The bytes of an initializer's values.
fn values(model: &Model, tensor: &Message) -> Result<Vec<u8>, OnnxError> {
    let read = || match tensor::place(tensor)? {
        Some(place) => place.read(model.folder()),
        None => Ok(tensor::raw(tensor).map(|bytes| bytes.to_vec()).unwrap_or_default()),
    };
    read().map_err(|source| model.tensor_error(tensor, source))
}
