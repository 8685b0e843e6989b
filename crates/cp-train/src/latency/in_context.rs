//! Layers within their network in ONNX Runtime: cache as cold, neighbours as fused as they will be.
//!
//! The network runs as often as the longest ladder has ranks, each time with every layer at another of its choices, and the engine
//! tells the time of each node. What a run takes beside its layers' nodes (changes of the memory layout, the way from node to
//! node) grows with the parts that there are, and is charged to the layers by the parts that each has added.

use std::collections::BTreeMap;

use cp_net::{Architecture, Network, Node};
use cp_ort::NodeTime;
use cp_plan::{Choice, LayerProfile, Profile};

use crate::engine::{Engine, Inputs, Subject, node_times};
use crate::error::TrainError;
use crate::progress;
use crate::timing::{self, Timing, TimingOptions};

/// Runs of a network that its nodes' times are the mean of.
const RUNS: usize = 12;

pub(super) fn time(
    network: &Network,
    profile: &mut Profile,
    batch: usize,
    options: &TimingOptions,
) -> Result<(), TrainError> {
    let arch = network.architecture();
    let inputs = Inputs::of(network, &profile.inputs, batch);
    let steps = profile.layers.iter().map(|layer| layer.choices.len()).max().unwrap_or(0);
    let bar = progress::bar(steps as u64 + 1, "time ranks");

    let dense = Whole::measure(network, &inputs, options)?;
    let names: Vec<String> = profile.layers.iter().map(|layer| layer.layer.clone()).collect();
    let dense_layers = dense.layers(arch, &owners(arch, arch, &names)?, &names)?;
    let dense_rest = dense.seconds() - dense_layers.values().sum::<f64>();
    profile.dense_seconds = Some(dense.seconds());
    for layer in &mut profile.layers {
        layer.dense_seconds = Some(dense_layers.get(&layer.layer).copied().unwrap_or(0.0));
    }
    bar.inc(1);

    let mut noisy = vec![dense.timing];
    for step in 0..steps {
        let at = |layer: &LayerProfile| layer.choices.get(step).cloned();
        let chosen: Vec<(usize, Choice)> = profile
            .layers
            .iter()
            .enumerate()
            .filter_map(|(index, layer)| Some((index, at(layer)?)))
            .collect();
        let mut changed = arch.clone();
        for (index, choice) in &chosen {
            changed.factorize(&names[*index], choice.form, choice.rank)?;
        }
        let owners = owners(arch, &changed, &names)?;
        let added = |name: &String| -> Result<f64, TrainError> {
            let parts = owners.values().filter(|owner| *owner == name).count();
            Ok((parts - arch.kernel_users(name)?.len()) as f64)
        };
        let added: Vec<f64> =
            chosen.iter().map(|(index, _)| added(&names[*index])).collect::<Result<_, _>>()?;
        let whole = Whole::measure(&changed.initialize(0)?, &inputs, options)?;
        let layers = whole.layers(&changed, &owners, &names)?;
        let rest = whole.seconds() - layers.values().sum::<f64>() - dense_rest;
        // On a busy machine the dense run may have had more beside its nodes.
        let each = rest.max(0.0) / added.iter().sum::<f64>().max(1.0);
        for ((index, _), added) in chosen.iter().zip(&added) {
            let layer = &mut profile.layers[*index];
            let nodes = layers.get(&layer.layer).copied().unwrap_or(0.0);
            layer.choices[step].seconds = Some(nodes + each * added);
        }
        noisy.push(whole.timing);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if let Some(told) = timing::too_noisy(&noisy) {
        eprintln!("note: {told}");
    }
    Ok(())
}

/// The profile's layer that each node belongs to: as the layer itself, as another one with its kernel, or as a part of one of these.
fn owners(
    dense: &Architecture,
    now: &Architecture,
    names: &[String],
) -> Result<Owners, TrainError> {
    let mut owners = Owners::new();
    for name in names {
        for user in dense.kernel_users(name)? {
            let parts = now.factorized.get(&user.name).map(|record| record.parts.clone());
            let nodes = parts.unwrap_or_else(|| vec![user.name.clone()]);
            owners.extend(nodes.into_iter().map(|node| (node, name.clone())));
        }
    }
    Ok(owners)
}

type Owners = BTreeMap<String, String>;

/// A network as a whole, and its nodes.
struct Whole {
    timing: Timing,
    /// Its nodes over [`RUNS`] passes.
    nodes: Vec<NodeTime>,
}

impl Whole {
    fn measure(
        network: &Network,
        inputs: &Inputs,
        options: &TimingOptions,
    ) -> Result<Self, TrainError> {
        let timing = Engine::OnnxRuntime.latency(&[Subject::Network(network)], inputs, options)?;
        let nodes = node_times(Subject::Network(network), inputs, 3, RUNS)?;
        Ok(Self { timing: timing[0], nodes })
    }

    fn seconds(&self) -> f64 {
        self.timing.median
    }

    /// Seconds of each layer: of all nodes that are it, or parts of it.
    ///
    /// The engine calls a node by what it makes after fusion: by the value of the activation behind a convolution, say, with a suffix
    /// for its memory layout.
    fn layers(
        &self,
        arch: &Architecture,
        owners: &Owners,
        names: &[String],
    ) -> Result<BTreeMap<String, f64>, TrainError> {
        let mut makers: BTreeMap<&str, &Node> = BTreeMap::new();
        for node in &arch.nodes {
            makers.insert(&node.name, node);
            makers.extend(node.outputs.iter().map(|value| (value.as_str(), node)));
        }
        let mut found: BTreeMap<String, f64> = BTreeMap::new();
        for NodeTime { name, op, seconds, .. } in &self.nodes {
            if !["Conv", "Gemm", "MatMul"].iter().any(|kind| op.contains(kind)) {
                continue;
            }
            let plain = name.strip_suffix("_nchwc").unwrap_or(name);
            let plain = plain.rsplit(' ').next().unwrap_or(plain);
            let mut node = makers.get(plain).copied();
            // Back through what was fused into it.
            while let Some(at) = node
                && !owners.contains_key(&at.name)
                && let [input] = &at.inputs[..]
            {
                node = makers.get(input.as_str()).copied();
            }
            if let Some(owner) = node.and_then(|node| owners.get(&node.name)) {
                *found.entry(owner.clone()).or_default() += seconds / RUNS as f64;
            }
        }
        match names.iter().find(|name| !found.contains_key(*name)) {
            None => Ok(found),
            Some(name) => Err(TrainError::NotTimed { layer: name.clone() }),
        }
    }
}
