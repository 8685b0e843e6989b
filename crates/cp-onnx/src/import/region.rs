//! The part of a model that can be trained: what lies between ops that no network has.
//!
//! Fine-tuning runs from the first layer that changes to a loss, and everything between has to be an op with a gradient. What lies before
//! (a spectrogram, the decoding of an image) runs elsewhere and feeds it; what lies behind (the suppression of overlapping boxes) is left
//! out, and the loss stands in front of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use crate::error::OnnxError;
use crate::import::error::{ImportError, Refusal, RefusedNode};
use crate::import::fold::folder;
use crate::import::info::info;
use crate::import::op::importer;
use crate::import::walk::{Walk, reads};
use crate::import::{ImportOptions, Plan};
use crate::layers::{groups, kernel, label};
use crate::model::Model;
use crate::proto::{Message, graph, model, node};
use crate::record::Record;
use crate::scopes::{Maker, Scopes};

/// Refused nodes behind each other that are tried as the end of what lies before the region.
const MOST_CUTS: usize = 256;

/// How often a region is made smaller by what an import of it refuses.
const MOST_TRIES: usize = 16;

/// A part of a model that a network can stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// The values that it starts at, with their sizes without the batch axis where the file or the options say them.
    pub inputs: Vec<(String, Option<Vec<usize>>)>,
    /// The values that it ends at: outputs of the model, and what the nodes behind it read.
    pub outputs: Vec<String>,
    /// How many nodes it has whose weight can be factorized.
    pub layers: usize,
    /// The nodes that stopped it on the side of the inputs.
    pub before: Vec<RefusedNode>,
    /// The nodes that stopped it on the side of the outputs.
    pub behind: Vec<RefusedNode>,
}

impl Region {
    /// The options with which [`Model::import`] reads the region: its inputs of known sizes, and its outputs.
    #[must_use]
    pub fn options(&self, options: &ImportOptions) -> ImportOptions {
        let mut all = options.clone();
        for (name, shape) in &self.inputs {
            let given = options.inputs.iter().any(|(given, _)| given == name);
            if let (Some(shape), false) = (shape, given) {
                all = all.input(name.clone(), shape.clone());
            }
        }
        all.outputs(self.outputs.clone())
    }

    /// Asks for the sizes of inputs that are open.
    fn fill<E>(
        &mut self,
        sizes: &mut impl FnMut(&[String]) -> Result<BTreeMap<String, Vec<usize>>, E>,
    ) -> Result<(), E> {
        let open = self.inputs.iter().filter(|(_, shape)| shape.is_none());
        let open: Vec<String> = open.map(|(name, _)| name.clone()).collect();
        if open.is_empty() {
            return Ok(());
        }
        let mut known = sizes(&open)?;
        for (name, shape) in self.inputs.iter_mut().filter(|(_, shape)| shape.is_none()) {
            *shape = known.remove(name);
        }
        Ok(())
    }
}

/// A node of the main graph that depends on an input.
struct Data<'a> {
    field: usize,
    node: &'a Message,
    /// Nodes whose outputs it reads, by their index here.
    from: Vec<usize>,
    layer: bool,
}

impl Model {
    /// The part of the model with the most layers that count, by their names, among those that a network can stand for, or `None` where
    /// there is no such layer. Layers that cannot be factorized never count.
    ///
    /// `sizes` tells the sizes of values, without the batch axis, where neither the file nor the options do, as from a run of the model. Where it does
    /// not either, the region is found by the names of the ops alone.
    ///
    /// # Errors
    /// As [`Model::import`], but for refused nodes and open sizes; those of `sizes`.
    pub fn trainable_region<E: From<OnnxError>>(
        &self,
        options: &ImportOptions,
        counts: &dyn Fn(&str) -> bool,
        mut sizes: impl FnMut(&[String]) -> Result<BTreeMap<String, Vec<usize>>, E>,
    ) -> Result<Option<Region>, E> {
        let (scopes, record) = self.read()?;
        let nodes = data_nodes(&scopes, &record, self.folder(), options, counts);
        let mut refused = BTreeMap::new();
        for (index, data) in nodes.iter().enumerate() {
            if !is_known(&scopes, data.node) {
                refused.insert(index, described(data.node, Refusal::Op));
            }
        }
        // What an import of the whole refuses, as far as it comes.
        if let Ok(plan) = Plan::new(&scopes, options) {
            let mut walk = Walk::new(&scopes, self.folder(), plan.fixed);
            if walk.main(plan.values, &plan.outputs).is_ok() {
                for (node, (scope, field)) in walk.refused.into_iter().zip(walk.refused_at) {
                    if let Some(index) =
                        nodes.iter().position(|data| (0, data.field) == (scope, field))
                    {
                        refused.insert(index, node);
                    }
                }
            }
        }
        for _ in 0..MOST_TRIES {
            let Some(mut region) = largest(&scopes, &nodes, &refused, options) else {
                return Ok(None);
            };
            region.fill(&mut sizes)?;
            match self.import(&region.options(options)) {
                Err(OnnxError::Import { source: ImportError::Nodes { nodes: found }, .. }) => {
                    let known = refused.len();
                    for node in found {
                        let at = nodes.iter().position(|data| label(data.node) == node.name);
                        if let Some(index) = at {
                            refused.insert(index, node);
                        }
                    }
                    if refused.len() == known {
                        return Ok(Some(region));
                    }
                }
                _ => return Ok(Some(region)),
            }
        }
        let mut region = largest(&scopes, &nodes, &refused, options);
        if let Some(region) = &mut region {
            region.fill(&mut sizes)?;
        }
        Ok(region)
    }
}

fn described(node: &Message, refusal: Refusal) -> RefusedNode {
    let domain = node.string(node::DOMAIN);
    let domain = if model::is_onnx_domain(&domain) { String::new() } else { domain };
    RefusedNode { name: label(node), op: node.string(node::OP), domain, refusal }
}

/// Whether the op of `node` is known, whatever its settings are.
fn is_known(scopes: &Scopes<'_>, node: &Message) -> bool {
    let (op, domain) = (node.string(node::OP), node.string(node::DOMAIN));
    let called = |scope: &crate::scopes::Scope<'_>| {
        use model::function::{DOMAIN, NAME};
        scope.function && scope.message.string(NAME) == op && scope.message.string(DOMAIN) == domain
    };
    if scopes.all.iter().any(called) {
        return true;
    }
    model::is_onnx_domain(&domain)
        && (importer(&op).is_some() || folder(&op).is_some() || op == "If")
}

/// The nodes of the main graph that depend on an input that is not bound, in the order of the file.
fn data_nodes<'a>(
    scopes: &Scopes<'a>,
    record: &Record,
    folder: Option<&Path>,
    options: &ImportOptions,
    counts: &dyn Fn(&str) -> bool,
) -> Vec<Data<'a>> {
    let main = &scopes.all[0];
    // The filters of a spectrogram are convolutions, too, and nothing to train.
    let layers: HashSet<usize> = groups(scopes)
        .into_iter()
        .filter(|group| {
            kernel(scopes, group, record, folder)
                .is_some_and(|found| found.layer.left_alone.is_none() && counts(&found.layer.name))
        })
        .flat_map(|group| group.users)
        .filter(|(user, _)| user.scope == 0)
        .map(|(user, _)| user.field)
        .collect();
    let mut makers: HashMap<String, Option<usize>> = HashMap::new();
    for (_, input) in main.message.children(graph::INPUTS) {
        let name = input.string(1);
        let constant = matches!(main.maker(&name), Some(Maker::Initializer { .. }));
        let given = options.inputs.iter().any(|(given, _)| *given == name);
        if !options.bound.contains_key(&name) && (!constant || given) {
            makers.insert(name, None);
        }
    }
    let mut found: Vec<Data<'a>> = Vec::new();
    for (field, node) in main.nodes() {
        let mut names = Vec::new();
        reads(node, &mut names);
        let made: Vec<Option<usize>> =
            names.iter().filter_map(|name| makers.get(name).copied()).collect();
        if made.is_empty() {
            continue;
        }
        // A layer's weight is no data.
        let weight = node.strings(node::INPUTS).into_iter().nth(1);
        let layer =
            layers.contains(&field) && !weight.is_some_and(|weight| makers.contains_key(&weight));
        let from = made.into_iter().flatten().collect();
        for output in node.strings(node::OUTPUTS).into_iter().filter(|name| !name.is_empty()) {
            makers.insert(output, Some(found.len()));
        }
        found.push(Data { field, node, from, layer });
    }
    found
}

/// The region with the most layers, for every choice of which refused nodes lie before it.
fn largest(
    scopes: &Scopes<'_>,
    nodes: &[Data<'_>],
    refused: &BTreeMap<usize, RefusedNode>,
    options: &ImportOptions,
) -> Option<Region> {
    let bad: Vec<usize> = refused.keys().copied().collect();
    let mut best: Option<(usize, usize, usize, Vec<bool>)> = None;
    for cut in 0..=bad.len().min(MOST_CUTS) {
        let (before, behind) = bad.split_at(cut);
        let ancestors = ancestors(nodes, before);
        let descendants = descendants(nodes, behind);
        let inside: Vec<bool> = (0..nodes.len())
            .map(|index| !refused.contains_key(&index) && !ancestors[index] && !descendants[index])
            .collect();
        let layers = (0..nodes.len()).filter(|&index| inside[index] && nodes[index].layer).count();
        let size = inside.iter().filter(|&&inside| inside).count();
        if best.as_ref().is_none_or(|(most, large, ..)| (layers, size) > (*most, *large)) {
            best = Some((layers, size, cut, inside));
        }
    }
    let (layers, _, cut, inside) = best.filter(|(layers, ..)| *layers > 0)?;
    let (before, behind) = bad.split_at(cut);
    // Behind a layer of the region, along nodes of it; of a map, its size has no gradient.
    let mut trained = vec![false; nodes.len()];
    for (index, data) in nodes.iter().enumerate() {
        let sized = matches!(data.node.string(node::OP).as_str(), "Shape" | "Size");
        let behind = data.layer || data.from.iter().any(|&from| trained[from]);
        trained[index] = inside[index] && behind && !sized;
    }
    let main = &scopes.all[0];
    let makers: HashMap<String, usize> = nodes
        .iter()
        .enumerate()
        .flat_map(|(index, data)| {
            data.node.strings(node::OUTPUTS).into_iter().map(move |name| (name, index))
        })
        .collect();
    let mut outputs = Vec::new();
    let mut add = |name: String| {
        let is_trained = makers.get(&name).is_some_and(|&index| trained[index]);
        if is_trained && !outputs.contains(&name) {
            outputs.push(name);
        }
    };
    main.message.children(graph::OUTPUTS).for_each(|(_, output)| add(output.string(1)));
    for (_, data) in nodes.iter().enumerate().filter(|(index, _)| !inside[*index]) {
        let mut names = Vec::new();
        reads(data.node, &mut names);
        names.into_iter().for_each(&mut add);
    }
    let mut live = vec![false; nodes.len()];
    let mut inputs: Vec<String> = Vec::new();
    let mut wanted: HashSet<String> = outputs.iter().cloned().collect();
    for (index, data) in nodes.iter().enumerate().rev() {
        if inside[index]
            && data.node.strings(node::OUTPUTS).iter().any(|name| wanted.contains(name))
        {
            live[index] = true;
            let mut names = Vec::new();
            reads(data.node, &mut names);
            wanted.extend(names);
        }
    }
    for data in nodes.iter().enumerate().filter(|(index, _)| live[*index]).map(|(_, data)| data) {
        let mut names = Vec::new();
        reads(data.node, &mut names);
        for name in names {
            let outside = match makers.get(&name) {
                Some(&maker) => !live[maker],
                None => {
                    main.maker(&name) == Some(Maker::Input) && !options.bound.contains_key(&name)
                }
            };
            if outside && !inputs.contains(&name) {
                inputs.push(name);
            }
        }
    }
    let sizes = sizes(main.message);
    let inputs = inputs.into_iter().map(|name| {
        let given = options.inputs.iter().rev().find(|(given, _)| *given == name);
        let shape = given.map(|(_, shape)| shape.clone()).or_else(|| sizes.get(&name).cloned());
        (name, shape)
    });
    let live_nodes: Vec<usize> = (0..nodes.len()).filter(|&index| live[index]).collect();
    let (above, below) = (ancestors(nodes, &live_nodes), descendants(nodes, &live_nodes));
    let among = |side: &[usize], reached: &[bool]| -> Vec<RefusedNode> {
        side.iter()
            .filter(|&&index| reached[index])
            .filter_map(|index| refused.get(index).cloned())
            .collect()
    };
    Some(Region {
        inputs: inputs.collect(),
        outputs,
        layers,
        before: among(before, &above),
        behind: among(behind, &below),
    })
}

/// Sizes behind the batch axis of all values for which the file says every one.
fn sizes(graph: &Message) -> HashMap<String, Vec<usize>> {
    graph
        .children(graph::VALUE_INFO)
        .chain(graph.children(graph::INPUTS))
        .filter_map(|(_, message)| info(message))
        .filter_map(|info| {
            let sizes: Option<Vec<usize>> = info.inner()?.into_iter().collect();
            Some((info.name, sizes?))
        })
        .collect()
}

/// Which nodes one of `of` depends on.
fn ancestors(nodes: &[Data<'_>], of: &[usize]) -> Vec<bool> {
    let mut found = vec![false; nodes.len()];
    let mut reached: HashSet<usize> = of.iter().copied().collect();
    for index in (0..nodes.len()).rev() {
        if reached.contains(&index) {
            for &from in &nodes[index].from {
                found[from] = true;
                reached.insert(from);
            }
        }
    }
    found
}

/// Which nodes depend on one of `of`.
fn descendants(nodes: &[Data<'_>], of: &[usize]) -> Vec<bool> {
    let sources: HashSet<usize> = of.iter().copied().collect();
    let mut found = vec![false; nodes.len()];
    for index in 0..nodes.len() {
        found[index] = nodes[index].from.iter().any(|from| found[*from] || sources.contains(from));
    }
    found
}
