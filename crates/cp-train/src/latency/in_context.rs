//! Layers within their network in an engine that tells the time of each node: cache as cold, neighbours as fused as they will be.
//!
//! The network runs as often as the longest ladder has ranks, each time with every layer at another of its choices, and the engine
//! tells the time of each node. What a run takes beside its layers' nodes (changes of the memory layout, the way from node to
//! node) grows with the parts that there are, and is charged to the layers by the parts that each has added.

use std::collections::BTreeMap;

use cp_net::{Architecture, Network, Node};
use cp_plan::{Choice, LayerProfile, Profile};

use crate::engine::{Engine, Inputs, NodeTime, Subject};
use crate::error::TrainError;
use crate::progress;
use crate::timing::{self, Timing, TimingOptions};

/// Runs of a network that its nodes' times are those of, and runs before these.
const RUNS: usize = 12;
const WARMUP: usize = 3;

pub(super) fn time(
    network: &Network,
    profile: &mut Profile,
    batch: usize,
    engine: Engine,
    options: &TimingOptions,
) -> Result<(), TrainError> {
    let arch = network.architecture();
    let inputs = Inputs::of(network, &profile.inputs, batch);
    let steps = profile.layers.iter().map(|layer| layer.choices.len()).max().unwrap_or(0);
    let bar = progress::bar(steps as u64 + 1, "time ranks");

    let mut dense_ready = vec![engine.ready(Subject::Network(network), &inputs)?];
    let dense = Whole {
        engine,
        timing: timing::in_turn(&mut dense_ready, options)?[0],
        nodes: engine.node_times(Subject::Network(network), &inputs, WARMUP, RUNS)?,
    };
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
        let changed_network = changed.initialize(0)?;
        let subject = Subject::Network(&changed_network);
        // The dense network once more, in turn: what the machine's speed has changed by since its own nodes were timed.
        dense_ready.push(engine.ready(subject, &inputs)?);
        let timings = timing::in_turn(&mut dense_ready, options)?;
        dense_ready.truncate(1);
        let drift = dense.seconds() / timings[0].median;
        let nodes = engine.node_times(subject, &inputs, WARMUP, RUNS)?;
        let whole = Whole { engine, timing: timings[1], nodes };
        let layers = whole.layers(&changed, &owners, &names)?;
        let rest = drift * (whole.seconds() - layers.values().sum::<f64>()) - dense_rest;
        // On a busy machine the dense run may have had more beside its nodes.
        let each = rest.max(0.0) / added.iter().sum::<f64>().max(1.0);
        for ((index, _), added) in chosen.iter().zip(&added) {
            let layer = &mut profile.layers[*index];
            let nodes = layers.get(&layer.layer).copied().unwrap_or(0.0);
            layer.choices[step].seconds = Some(drift * nodes + each * added);
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

/// The time of a layer in a pass of its network, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerTime {
    /// The layer.
    pub layer: String,
    /// As it was.
    pub dense: f64,
    /// All its parts.
    pub factorized: f64,
}

/// The times of all factorized layers of `network`, and what they were in `dense`, for one example in `engine`; none where the engine does not tell.
///
/// # Errors
/// As [`Engine::node_times`].
pub fn layer_times(
    dense: &Network,
    network: &Network,
    engine: Engine,
) -> Result<Vec<LayerTime>, TrainError> {
    let (before, after) = (dense.architecture(), network.architecture());
    let names: Vec<String> =
        after.factorized.keys().filter(|name| before.node(name).is_ok()).cloned().collect();
    let seconds = |network: &Network| -> Result<_, TrainError> {
        let arch = network.architecture();
        let inputs = Inputs::of(dense, before.input_shapes(), 1);
        let nodes = engine.node_times(Subject::Network(network), &inputs, WARMUP, RUNS)?;
        Ok(of_layers(engine, &nodes, arch, &owners(before, arch, &names)?))
    };
    let (old, new) = (seconds(dense)?, seconds(network)?);
    let times = names.into_iter().filter_map(|layer| {
        let (dense, factorized) = (*old.get(&layer)?, *new.get(&layer)?);
        Some(LayerTime { layer, dense, factorized })
    });
    Ok(times.collect())
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
    engine: Engine,
    timing: Timing,
    /// Its nodes in [`RUNS`] passes.
    nodes: Vec<NodeTime>,
}

impl Whole {
    fn seconds(&self) -> f64 {
        self.timing.median
    }

    /// Seconds of each layer.
    fn layers(
        &self,
        arch: &Architecture,
        owners: &Owners,
        names: &[String],
    ) -> Result<BTreeMap<String, f64>, TrainError> {
        let found = of_layers(self.engine, &self.nodes, arch, owners);
        match names.iter().find(|name| !found.contains_key(*name)) {
            None => Ok(found),
            Some(name) => Err(TrainError::NotTimed { layer: name.clone() }),
        }
    }
}

/// Seconds of each layer: of all `nodes` that are it, or parts of it.
fn of_layers(
    engine: Engine,
    nodes: &[NodeTime],
    arch: &Architecture,
    owners: &Owners,
) -> BTreeMap<String, f64> {
    let mut makers: BTreeMap<&str, &Node> = BTreeMap::new();
    for node in &arch.nodes {
        makers.insert(&node.name, node);
        makers.extend(node.outputs.iter().map(|value| (value.as_str(), node)));
    }
    let mut found: BTreeMap<String, f64> = BTreeMap::new();
    for time in nodes {
        let owner = match engine {
            Engine::OnnxRuntime => fused_owner(time, &makers, owners),
            _ => owners.get(&time.node),
        };
        if let Some(owner) = owner {
            *found.entry(owner.clone()).or_default() += time.seconds;
        }
    }
    found
}

/// The owner of a node of ONNX Runtime, which calls it by what it makes after fusion: by the value of the activation behind a
/// convolution, say, with a suffix for its memory layout.
fn fused_owner<'a>(
    time: &NodeTime,
    makers: &BTreeMap<&str, &Node>,
    owners: &'a Owners,
) -> Option<&'a String> {
    if !["Conv", "Gemm", "MatMul"].iter().any(|kind| time.op.contains(kind)) {
        return None;
    }
    let plain = time.node.strip_suffix("_nchwc").unwrap_or(&time.node);
    let plain = plain.rsplit(' ').next().unwrap_or(plain);
    let mut node = makers.get(plain).copied();
    // Back through what was fused into it.
    while let Some(at) = node
        && !owners.contains_key(&at.name)
        && let [input] = &at.inputs[..]
    {
        node = makers.get(input.as_str()).copied();
    }
    owners.get(&node?.name)
}
