//! [`LayerView`]: the layers of a model as a network in which each stands for itself.
//!
//! A plan needs of a model what its layers cost and what their kernels are, not how they hang together. So any model can be planned for,
//! whatever ops lie between its layers.

use std::collections::{BTreeMap, BTreeSet};

use cp_net::{Architecture, Conv, ConvTranspose, InputSpec, Linear, Network, Node, Op};
use ndarray::ArrayD;

use crate::error::OnnxError;
use crate::layers::{Layer, groups, kernel, label, op};
use crate::model::Model;
use crate::parts::Parts;
use crate::proto::node;
use crate::scopes::MAIN;

/// The layers of a model as a network: each node with a constant kernel reads an input of its own and makes an output of its own.
/// Nodes that share a kernel share it here. Biases are left out: they stay where they are.
///
/// A network of this kind is to be planned for and decomposed, not run.
#[derive(Debug, Clone)]
pub struct LayerView {
    /// The layers, by the names of [`Model::layers`].
    pub network: Network,
    /// Those that are in the network, by name.
    pub layers: BTreeMap<String, Layer>,
    /// Layers in the network that are only counted, with the reason: they have to stay as they are.
    pub fixed: Vec<(String, String)>,
    /// Layers that are not in the network, with the reason.
    pub left_out: Vec<(String, String)>,
    /// Whether the sizes of the layers' inputs are known, and with them multiply-adds and times.
    pub sized: bool,
}

impl Model {
    /// The layers as a network of their own.
    ///
    /// `shapes` tells the shapes of values of the main graph, without the batch axis, by their names; layers whose input is not among
    /// them are left out, as they are where it does not fit. Without it, every layer gets the smallest input that it takes, and
    /// multiply-adds mean nothing.
    ///
    /// # Errors
    /// As [`Model::layers`]; a model without any layer to be compressed ([`OnnxError::NoLayers`]).
    pub fn layer_view(
        &self,
        shapes: Option<&BTreeMap<String, Vec<usize>>>,
    ) -> Result<LayerView, OnnxError> {
        let (scopes, record) = self.read()?;
        let (mut nodes, mut inputs) = (Vec::new(), Vec::new());
        let mut params: BTreeMap<String, ArrayD<f32>> = BTreeMap::new();
        let mut layers = BTreeMap::new();
        let (mut fixed, mut left_out) = (Vec::new(), Vec::new());
        for group in groups(&scopes) {
            let Some(found) = kernel(&scopes, &group, &record, self.folder()) else { continue };
            let (layer, array) = (found.layer, found.array);
            let reason = layer.left_alone.as_ref().map(ToString::to_string);
            let Some(array) = array else {
                left_out.push((layer.name, reason.unwrap_or_default()));
                continue;
            };
            let weight = format!("{}.weight", layer.name);
            let mut placed = Vec::new();
            let mut problem = None;
            for (index, &(reader, kind)) in group.users.iter().enumerate() {
                let around = &scopes.all[reader.scope];
                let Some(message) = around.node(reader.field) else { continue };
                // A linear node that has the weight the other way round costs the same.
                let Some(op) = op(message, kind, &layer.shape, false).map(without_bias) else {
                    continue;
                };
                let value = message.strings(node::INPUTS).into_iter().next().unwrap_or_default();
                // Values of other scopes may have the names of those of the main graph.
                let known = shapes.map(|shapes| shapes.get(&value).filter(|_| around.name == MAIN));
                let shape = match known {
                    None => smallest(&op),
                    Some(Some(shape)) => {
                        let mut shape = shape.clone();
                        if let (Op::Linear(linear), Some(last)) = (&op, shape.last_mut())
                            && *last == linear.out_features
                        {
                            *last = linear.in_features;
                        }
                        shape
                    }
                    Some(None) => {
                        problem = Some(format!("the size of its input '{value}' is not known"));
                        break;
                    }
                };
                if op.check().is_err() || op.output(&[&shape]).is_err() {
                    problem =
                        Some(format!("its input '{value}' of shape {shape:?} does not fit it"));
                    break;
                }
                let name = match index {
                    0 => layer.name.clone(),
                    _ => format!("{} ({})", label(message), index + 1),
                };
                placed.push((name, op, shape));
            }
            let unknown = || {
                let told =
                    "its attributes (pads, strides, dilations, group) are not those of a layer";
                reason.clone().unwrap_or_else(|| told.into())
            };
            let problem = problem.or_else(|| placed.is_empty().then(unknown));
            if let Some(problem) = problem {
                left_out.push((layer.name, problem));
                continue;
            }
            for (name, op, shape) in placed {
                let input = format!("input of {name}");
                inputs.push(InputSpec::features(shape).named(&input));
                let mut node = Node::new(&name, op, [&input]);
                if name != layer.name {
                    node.params.insert("weight".into(), weight.clone());
                }
                nodes.push(node);
            }
            params.insert(weight, array);
            if let Some(reason) = reason {
                fixed.push((layer.name.clone(), reason));
            }
            layers.insert(layer.name.clone(), layer);
        }
        let Some(first) = inputs.first().cloned().filter(|_| fixed.len() < layers.len()) else {
            let why = fixed.into_iter().chain(left_out).collect();
            return Err(OnnxError::NoLayers { path: self.path.clone(), why });
        };
        let name = self.path.as_ref().and_then(|path| path.file_stem());
        let name = name.map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into_owned());
        let outputs = nodes.iter().map(|node| node.output().to_owned()).collect();
        let mut arch = Architecture::new(name, first, nodes);
        (arch.inputs, arch.outputs) = (inputs, outputs);
        let network = Network::new(arch, params)?;
        Ok(LayerView { network, layers, fixed, left_out, sized: shapes.is_some() })
    }
}

impl Model {
    /// The values of the main graph that layers with a known kernel read: those whose shapes [`Model::layer_view`] asks for.
    ///
    /// # Errors
    /// As [`Model::layers`].
    pub fn layer_inputs(&self) -> Result<Vec<String>, OnnxError> {
        let (scopes, record) = self.read()?;
        let mut values = BTreeSet::new();
        for group in groups(&scopes) {
            let known = kernel(&scopes, &group, &record, self.folder());
            if known.is_none_or(|kernel| kernel.array.is_none()) {
                continue;
            }
            for (reader, _) in &group.users {
                let around = &scopes.all[reader.scope];
                let node = around.node(reader.field).filter(|_| around.name == MAIN);
                let inputs = node.map(|node| node.strings(node::INPUTS));
                values.extend(inputs.unwrap_or_default().into_iter().next());
            }
        }
        Ok(values.into_iter().collect())
    }
}

impl LayerView {
    /// Puts the factors of every layer that was factorized in `compressed`, which was made from [`LayerView::network`], into `model`,
    /// which is the one that this is a view of.
    ///
    /// # Errors
    /// As [`Model::replace_all`].
    pub fn write(&self, compressed: &Network, model: &mut Model) -> Result<(), OnnxError> {
        let mut all = Vec::new();
        for (name, layer) in &self.layers {
            if compressed.architecture().factorized.contains_key(name) {
                let parts = Parts::new(layer, &compressed.factors(name)?)?;
                all.push((layer.clone(), parts));
            }
        }
        model.replace_all(&all)
    }
}

/// Biases stay where they are.
fn without_bias(op: Op) -> Op {
    match op {
        Op::Conv(conv) => Op::Conv(Conv { bias: false, ..conv }),
        Op::ConvTranspose(conv) => Op::ConvTranspose(ConvTranspose { bias: false, ..conv }),
        Op::Linear(linear) => Op::Linear(Linear { bias: false, ..linear }),
        other => other,
    }
}

/// The smallest input that `op` takes.
fn smallest(op: &Op) -> Vec<usize> {
    match op {
        Op::Conv(conv) => {
            let reach = |(&taps, &dilation): (&usize, &usize)| {
                taps.saturating_sub(1).saturating_mul(dilation).saturating_add(1)
            };
            let sizes = conv.kernel.iter().zip(&conv.dilation).map(reach);
            std::iter::once(conv.in_channels).chain(sizes).collect()
        }
        Op::ConvTranspose(conv) => {
            std::iter::once(conv.in_channels).chain(conv.kernel.iter().map(|_| 1)).collect()
        }
        Op::Linear(linear) => vec![linear.in_features],
        _ => Vec::new(),
    }
}
