//! [`input_statistics`]: statistics of a network of ours without libtorch, from runs of the model that it is exported as in ONNX Runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cp_data::{Dataset, Loader, LoaderConfig, Order};
use cp_net::Network;
use cp_onnx::{ExportOptions, export};
use cp_ort::{Inputs, Tensor};
use cp_plan::LayerStatistics;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use crate::batch;
use crate::engine::tapped;
use crate::error::TrainError;
use crate::fit::check_takes;
use crate::progress;
use crate::statistics::{BATCH, StatisticsOptions, Sums};

/// Second moments of the unfolded inputs of `layers`, from the same images and places as in libtorch.
///
/// # Errors
/// Layers that cannot be measured; where there is no ONNX Runtime; images that cannot be read.
pub(crate) fn input_statistics(
    network: &Network,
    layers: &[String],
    data: &Arc<dyn Dataset>,
    options: &StatisticsOptions,
) -> Result<LayerStatistics, TrainError> {
    let arch = network.architecture();
    check_takes(arch, data.as_ref())?;
    let mut sums: BTreeMap<&str, Sums> = BTreeMap::new();
    for layer in layers {
        let node = arch.node(layer)?;
        let statistics = Sums::of(&node.op)
            .map_err(|why| TrainError::Statistics { layer: layer.clone(), why })?;
        sums.insert(arch.layer_of(node), statistics);
    }
    let measured: Vec<_> =
        arch.nodes.iter().filter(|node| sums.contains_key(arch.layer_of(node))).collect();
    let input = arch.input();
    let read: BTreeSet<&str> = measured
        .iter()
        .filter_map(|node| node.inputs.first())
        .map(String::as_str)
        .filter(|value| *value != input.name)
        .collect();
    let values: Vec<&str> = read.into_iter().collect();
    let (mut session, _folder) = tapped(&export(network, &ExportOptions::default())?, &values)?;
    let loader = Loader::new(
        data.clone(),
        LoaderConfig {
            batch_size: BATCH,
            order: Order::Shuffled { seed: options.seed, epoch: 0 },
            transform: batch::fitting_transform(data.as_ref(), input)?,
            workers: 2,
            drop_last: false,
        },
    )?;
    let batches = options.images.div_ceil(BATCH).clamp(1, loader.batches());
    let bar = progress::bar(batches as u64, "input statistics");
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    for batch in loader.take(batches) {
        let x = batch::images_to_array(&batch?.pixels, input);
        let feed = Inputs::new([(input.name.clone(), Tensor::F32(x.clone()))])?;
        let outputs = session.run_prepared(&feed)?;
        for node in &measured {
            let (Some(sums), Some(value)) =
                (sums.get_mut(arch.layer_of(node)), node.inputs.first())
            else {
                continue;
            };
            if *value == input.name {
                sums.add(&x.view(), &node.op, options.positions, &mut rng)?;
            } else if let Tensor::F32(seen) = outputs.tensor(value)? {
                sums.add(&seen.view(), &node.op, options.positions, &mut rng)?;
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let finished = |(layer, sums): (&str, Sums)| (layer.to_owned(), sums.finished(options.shrink));
    Ok(sums.into_iter().map(finished).collect())
}

#[cfg(all(test, feature = "torch"))]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use cp_data::Characters;

    use super::*;

    #[test]
    fn they_are_those_of_libtorch() {
        if let Err(error) = cp_ort::library() {
            println!("skipped: {error}");
            return;
        }
        let arch = cp_net::arch::by_name("resnet20").unwrap().with_input_shape([3, 16, 16]);
        let network = arch.unwrap().initialize(1).unwrap();
        let layers = ["conv1", "layer2.0.conv1", "layer3.2.conv2", "linear"].map(String::from);
        let data: Arc<dyn Dataset> = Arc::new(Characters::part(cp_data::Part::Train, 120, 3));
        let options =
            StatisticsOptions { images: 70, positions: 5, ..StatisticsOptions::default() };
        let found = input_statistics(&network, &layers, &data, &options).unwrap();
        let model = cp_torch::Executor::new(&network, cp_torch::tch::Device::Cpu).unwrap();
        let known = crate::input_statistics(&model, &layers, &data, &options, 1).unwrap();
        assert_eq!(found.len(), layers.len());
        for (layer, known) in &known {
            let (a, b) = (found[layer][0].moments().unwrap(), known[0].moments().unwrap());
            let largest = b.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
            for (a, b) in a.iter().zip(&b) {
                assert!((a - b).abs() < 1e-4 * largest, "{layer}: {a} and {b}");
            }
        }
    }
}
