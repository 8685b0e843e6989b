//! The network as it grows.

use std::collections::{BTreeMap, HashMap, HashSet};

use cp_net::{Constant, Node, Op, Shape};
use ndarray::ArrayD;

use crate::import::error::Refusal;
use crate::import::source::Source;
use crate::import::value::{Floats, Kind, Known, Map};

/// An array of the network and where it comes from.
#[derive(Debug)]
pub(crate) struct Param {
    pub(crate) array: Floats,
    pub(crate) source: Option<Source>,
}

/// Nodes and parameters so far.
#[derive(Debug, Default)]
pub(crate) struct Net {
    pub(crate) nodes: Vec<Node>,
    pub(crate) params: BTreeMap<String, Param>,
    /// Parameters by the tensor that they are, so that what shares a tensor shares a parameter. Roles differ where one is trained and
    /// the other is not.
    by_source: HashMap<(String, Shape, String), String>,
    constants: HashMap<String, Map>,
    values: HashSet<String>,
    names: HashSet<String>,
}

/// `name`, or that with a number where it is taken.
fn unique(taken: &mut HashSet<String>, name: &str) -> String {
    let mut free = name.to_string();
    let mut count = 2;
    while free.is_empty() || !taken.insert(free.clone()) {
        free = format!("{name}#{count}");
        count += 1;
    }
    free
}

impl Net {
    /// Says that `name` is a value of the network's own: an input.
    pub(crate) fn reserve(&mut self, name: &str) {
        self.values.insert(name.into());
        self.names.insert(name.into());
    }

    /// A name of a value that no other has.
    pub(crate) fn value(&mut self, name: &str) -> String {
        unique(&mut self.values, name)
    }

    /// Adds a node; its outputs' shapes without the batch axis.
    pub(crate) fn add(
        &mut self,
        name: &str,
        op: Op,
        inputs: &[&Map],
        params: Vec<(&'static str, Known)>,
        outputs: Vec<String>,
    ) -> Result<Vec<Shape>, Refusal> {
        op.check().map_err(|field| Refusal::Setting {
            name: field.field.into(),
            got: field.got.clone(),
            expected: field.expected.clone(),
        })?;
        let shapes: Vec<&[usize]> = inputs.iter().map(|map| map.shape.as_slice()).collect();
        if !op.arity().contains(&shapes.len()) {
            return Refusal::setting("inputs", shapes.len(), format!("{:?} of them", op.arity()));
        }
        let made = op.output(&shapes).map_err(|mismatch| Refusal::Shape {
            input: mismatch.input,
            shape: shapes.get(mismatch.input).map_or(Vec::new(), |shape| shape.to_vec()),
            expected: mismatch.expected,
        })?;
        let name = unique(&mut self.names, name);
        let mut node = Node {
            name,
            op,
            inputs: inputs.iter().map(|map| map.name.clone()).collect(),
            outputs,
            params: BTreeMap::new(),
        };
        for spec in node.op.params() {
            let Some((_, known)) = params.iter().find(|(slot, _)| *slot == spec.slot) else {
                continue;
            };
            let array = known.floats(spec.slot)?.clone();
            if array.shape() != spec.shape {
                let expected = format!("shape {:?}", spec.shape);
                return Refusal::setting(spec.slot, array.shape(), expected);
            }
            let key = known.source.as_ref().map(|source| {
                (format!("{source:?}"), spec.shape.clone(), format!("{:?}", spec.role))
            });
            let shared = key.as_ref().and_then(|key| self.by_source.get(key).cloned());
            // An array of another role under the same name would be two parameters in one.
            let param = match shared {
                Some(param) => param,
                None => {
                    let wanted = known.source.as_ref().map_or_else(
                        || format!("{}.{}", node.name, spec.slot),
                        |source| source.value.clone(),
                    );
                    let mut free = wanted.clone();
                    let mut count = 2;
                    while self.params.contains_key(&free) {
                        free = format!("{wanted}#{count}");
                        count += 1;
                    }
                    let param = Param { array, source: known.source.clone() };
                    self.params.insert(free.clone(), param);
                    if let Some(key) = key {
                        self.by_source.insert(key, free.clone());
                    }
                    free
                }
            };
            if param != format!("{}.{}", node.name, spec.slot) {
                node.params.insert(spec.slot.into(), param);
            }
        }
        self.nodes.push(node);
        Ok(made)
    }

    /// A constant as a value of the network, of these sizes behind the batch axis; the same one for the same tensor.
    pub(crate) fn constant(&mut self, known: &Known, batch: usize) -> Result<Map, Refusal> {
        let floats = known.floats("constant")?;
        let shape = floats.shape().to_vec();
        let key = known.source.as_ref().map(|source| format!("{source:?} {shape:?}"));
        if let Some(map) = key.as_ref().and_then(|key| self.constants.get(key)) {
            return Ok(Map { batch, ..map.clone() });
        }
        let name = self.value(&known.name);
        let op = Constant { shape: shape.clone(), trained: false };
        let value = vec![("value", known.clone())];
        self.add(&known.name, op.into(), &[], value, vec![name.clone()])?;
        let map = Map { name, shape, batch, kind: Kind::Float, turned: None };
        if let Some(key) = key {
            self.constants.insert(key, map.clone());
        }
        Ok(map)
    }

    /// Drops what none of `outputs` comes from, nodes and parameters.
    pub(crate) fn prune(&mut self, outputs: &[String]) {
        let mut read: HashSet<String> = outputs.iter().cloned().collect();
        let mut kept = Vec::with_capacity(self.nodes.len());
        for node in std::mem::take(&mut self.nodes).into_iter().rev() {
            if node.outputs.iter().any(|output| read.contains(output)) {
                read.extend(node.inputs.iter().cloned());
                kept.push(node);
            }
        }
        kept.reverse();
        let used: HashSet<String> =
            kept.iter().flat_map(|node| node.param_specs().map(|(name, _)| name)).collect();
        self.params.retain(|name, _| used.contains(name));
        self.nodes = kept;
    }

    /// The arrays and where they come from.
    pub(crate) fn arrays(&mut self) -> (BTreeMap<String, ArrayD<f32>>, BTreeMap<String, Source>) {
        let mut sources = BTreeMap::new();
        let mut arrays = BTreeMap::new();
        for (name, param) in std::mem::take(&mut self.params) {
            sources.extend(param.source.map(|source| (name.clone(), source)));
            arrays.insert(name, param.array.into_owned());
        }
        (arrays, sources)
    }
}
