//! [`input_statistics`]: statistics of a network of ours without libtorch, from runs of the model that it is exported as in ONNX Runtime.

use std::collections::BTreeSet;
use std::sync::Arc;

use cp_data::Dataset;
use cp_net::Network;
use cp_onnx::{ExportOptions, export};
use cp_ort::{Inputs, Tensor};
use cp_plan::LayerStatistics;

use crate::batch;
use crate::engine::tapped;
use crate::error::TrainError;
use crate::statistics::{Gathering, StatisticsOptions};

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
    let input = arch.input();
    let mut gathering = Gathering::of(arch, layers, options)?;
    let measured: Vec<_> = arch.nodes.iter().filter(|node| gathering.measures(node)).collect();
    let read: BTreeSet<&str> = measured
        .iter()
        .filter_map(|node| node.inputs.first())
        .map(String::as_str)
        .filter(|value| *value != input.name)
        .collect();
    let values: Vec<&str> = read.into_iter().collect();
    let (mut session, _folder) = tapped(&export(network, &ExportOptions::default())?, &values)?;
    let (batches, bar) = gathering.images(data, 2)?;
    for batch in batches {
        let x = batch::to_array(&batch?, input);
        let feed = Inputs::new([(input.name.clone(), Tensor::F32(x.clone()))])?;
        let outputs = session.run_prepared(&feed)?;
        for node in &measured {
            let Some(value) = node.inputs.first() else { continue };
            if *value == input.name {
                gathering.add(node, &x.view())?;
            } else if let Tensor::F32(seen) = outputs.tensor(value)? {
                gathering.add(node, &seen.view())?;
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(gathering.finished())
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
