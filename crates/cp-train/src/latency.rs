//! [`time_choices`]: how long a layer takes on this device, dense and in each form and rank that a plan may choose.

use std::collections::BTreeMap;

use cp_net::{Architecture, Form, InputSpec, Network, Node, Op, Rank};
use cp_plan::Profile;
use cp_torch::tch::Device;
use cp_torch::{Executor, Layout};

use crate::error::TrainError;
use crate::progress;
use crate::timing::{self, Timing, TimingOptions};

/// Fills in the seconds of every layer and choice of `profile`, and those of the whole network, for batches of `batch` examples
/// on `device` with the threads set.
///
/// Each layer is timed alone, dense and in all its forms in turn ([`timing::interleaved`]), in the layout that the whole network
/// runs in; layers of one shape are timed once. Values do not matter to the time, so weights are drawn. Where the layers alone take
/// longer than the whole network, as on a busy machine they may, all their times are scaled down to its time: what a plan
/// saves is then never more than there is.
///
/// # Errors
/// A profile that is not of `network`, or a layer that cannot run.
pub fn time_choices(
    network: &Network,
    profile: &mut Profile,
    batch: usize,
    device: Device,
    options: &TimingOptions,
) -> Result<(), TrainError> {
    let arch = network.architecture();
    let whole = Executor::new(network, device)?;
    let layout = whole.layout();
    let seconds = timing::latency(&[&whole], &profile.input, batch, options)?;
    profile.dense_seconds = seconds.first().map(|timing| timing.median);

    let shapes = arch.shapes(&profile.input)?;
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
            let input = shapes.inputs_of(node).first().copied().unwrap_or(&profile.input);
            let key = (format!("{:?}", node.op), input.to_vec(), forms.clone());
            let times = match known.get(&key) {
                Some(times) => times.clone(),
                None => {
                    let times =
                        time_layer(&node.op, input, &forms, batch, device, layout, options)?;
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
    fit_into_whole(profile);
    Ok(())
}

/// Scales the times of the layers so that all of them dense take no longer than the whole network.
fn fit_into_whole(profile: &mut Profile) {
    let Some(whole) = profile.dense_seconds else { return };
    let sum: f64 = profile.layers.iter().filter_map(|layer| layer.dense_seconds).sum();
    if sum <= whole {
        return;
    }
    for layer in &mut profile.layers {
        let choices = layer.choices.iter_mut().map(|choice| &mut choice.seconds);
        for seconds in choices.chain([&mut layer.dense_seconds]).flatten() {
            *seconds *= whole / sum;
        }
    }
}

/// Seconds of `op` on inputs of shape `[batch, input…]`: dense first, then in each of `forms`.
fn time_layer(
    op: &Op,
    input: &[usize],
    forms: &[(Form, Rank)],
    batch: usize,
    device: Device,
    layout: Layout,
    options: &TimingOptions,
) -> Result<Vec<Timing>, TrainError> {
    const LAYER: &str = "layer";
    let node = Node::new(LAYER, op.clone(), [cp_net::INPUT]);
    let dense = Architecture::new(LAYER, InputSpec::features(input), vec![node]);
    let mut models = vec![Executor::with_layout(&dense.initialize(0)?, device, layout)?];
    for &(form, rank) in forms {
        let mut arch = dense.clone();
        arch.factorize(LAYER, form, rank)?;
        models.push(Executor::with_layout(&arch.initialize(0)?, device, layout)?);
    }
    let models: Vec<&Executor> = models.iter().collect();
    timing::latency_in_layout(&models, input, batch, options)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use cp_plan::{Decomposer, ProfileOptions};

    use super::*;

    #[test]
    fn layers_never_take_longer_than_the_network() {
        let net = cp_net::arch::by_name("small-cnn").unwrap().initialize(1).unwrap();
        let options =
            ProfileOptions { forms: vec![Form::Cp3], points: 2, ..ProfileOptions::default() };
        let decomposer = Decomposer::als(1, 0);
        let measured =
            Profile::measure(&net, [1, 28, 28], None, &options, &decomposer, &|_| {}).unwrap();
        let timed = |whole: f64| {
            let mut profile = measured.clone();
            profile.dense_seconds = Some(whole);
            for layer in &mut profile.layers {
                layer.dense_seconds = Some(2.0);
                layer.choices.iter_mut().for_each(|choice| choice.seconds = Some(0.5));
            }
            fit_into_whole(&mut profile);
            let layer = &profile.layers[1];
            (layer.dense_seconds.unwrap(), layer.choices[0].seconds.unwrap())
        };
        // Four layers: 8 seconds.
        assert_eq!(timed(10.0), (2.0, 0.5));
        assert_eq!(timed(4.0), (1.0, 0.25));
    }
}
