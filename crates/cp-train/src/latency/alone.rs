//! Each layer alone in libtorch, dense and in all its forms in turn, in the layout that the whole network runs in, as a conversion would
//! change its time; layers of one shape are timed once.

use std::collections::BTreeMap;

use cp_net::{Architecture, Form, InputSpec, Network, Node, Op, Rank};
use cp_plan::Profile;
use cp_torch::Executor;

use crate::device::Device;
use crate::engine::{Engine, Inputs, Subject, latency_in_layout};
use crate::error::TrainError;
use crate::progress;
use crate::timing::{self, Timing, TimingOptions};

pub(super) fn time(
    network: &Network,
    profile: &mut Profile,
    batch: usize,
    device: Device,
    options: &TimingOptions,
) -> Result<(), TrainError> {
    let arch = network.architecture();
    let layout = Executor::new(network, device.into())?.layout();
    let (subject, inputs) =
        (Subject::Network(network), Inputs::of(network, &profile.inputs, batch));
    let seconds = Engine::Torch(device).latency(&[subject], &inputs, options)?;
    profile.dense_seconds = seconds.first().map(|timing| timing.median);

    let shapes = arch.shapes(&profile.inputs)?;
    let bar = progress::bar(profile.layers.len() as u64, "time layers");
    // Layers of one shape: their op, what they read, and the forms asked for.
    type Key = (String, Vec<usize>, Vec<(Form, Rank)>);
    let mut known: BTreeMap<Key, Vec<f64>> = BTreeMap::new();
    let mut all: Vec<Timing> = Vec::new();
    for layer in &mut profile.layers {
        let forms: Vec<(Form, Rank)> =
            layer.choices.iter().map(|choice| (choice.form, choice.rank)).collect();
        // A kernel that several layers share takes its time in each of them.
        let mut sums = vec![0.0; forms.len() + 1];
        for node in arch.kernel_users(&layer.layer)? {
            let Some(input) = shapes.inputs_of(node).first().copied() else { continue };
            let key = (format!("{:?}", node.op), input.to_vec(), forms.clone());
            let times = match known.get(&key) {
                Some(times) => times.clone(),
                None => {
                    let networks = layer_alone(&node.op, input, &forms)?;
                    let layers = networks
                        .iter()
                        .map(|layer| Executor::with_layout(layer, device.into(), layout))
                        .collect::<Result<Vec<_>, _>>()?;
                    let layers: Vec<&Executor> = layers.iter().collect();
                    let times = latency_in_layout(&layers, input, batch, options)?;
                    all.extend(&times);
                    let times: Vec<f64> = times.iter().map(|timing| timing.median).collect();
                    known.insert(key, times.clone());
                    times
                }
            };
            sums.iter_mut().zip(times).for_each(|(sum, time)| *sum += time);
        }
        layer.dense_seconds = sums.first().copied();
        for (choice, time) in layer.choices.iter_mut().zip(sums.iter().skip(1)) {
            choice.seconds = Some(*time);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if let Some(told) = timing::too_noisy(&all) {
        eprintln!("note: {told}");
    }
    Ok(())
}

/// `op` as a network on inputs of this shape: dense first, then in each of `forms`.
fn layer_alone(
    op: &Op,
    input: &[usize],
    forms: &[(Form, Rank)],
) -> Result<Vec<Network>, TrainError> {
    const LAYER: &str = "layer";
    let node = Node::new(LAYER, op.clone(), [cp_net::INPUT]);
    let dense = Architecture::new(LAYER, InputSpec::features(input), vec![node]);
    let mut networks = vec![dense.initialize(0)?];
    for &(form, rank) in forms {
        let mut arch = dense.clone();
        arch.factorize(LAYER, form, rank)?;
        networks.push(arch.initialize(0)?);
    }
    Ok(networks)
}
