//! Statistics of a network that runs in libtorch.

use std::collections::BTreeMap;
use std::sync::Arc;

use cp_data::{Dataset, Loader, LoaderConfig, Order};
use cp_plan::LayerStatistics;
use cp_torch::{Executor, Mode, array_from_tensor};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::{BATCH, StatisticsOptions, Sums};
use crate::batch;
use crate::error::TrainError;
use crate::fit::check_takes;
use crate::progress;

/// Second moments Σ = E\[x xᵀ\] of the unfolded inputs of `layers`, for [`Decomposer::statistics`](cp_plan::Decomposer).
///
/// Of a convolution, x is the window under the kernel, `[S/g · kh · kw]` for each of the g groups, at random positions; of a
/// linear layer the input itself. Of layers that share a kernel, the first one's name stands for all. Labels are not used. The
/// images run through the dense network in eval mode.
///
/// # Errors
/// Unknown layers and layers without a kernel, convolutions over three axes, images that cannot be read.
pub fn input_statistics(
    model: &Executor,
    layers: &[String],
    data: &Arc<dyn Dataset>,
    options: &StatisticsOptions,
    workers: usize,
) -> Result<LayerStatistics, TrainError> {
    let arch = model.architecture();
    check_takes(arch, data.as_ref())?;
    let mut sums: BTreeMap<&str, Sums> = BTreeMap::new();
    for layer in layers {
        let node = arch.node(layer)?;
        let statistics = Sums::of(&node.op)
            .map_err(|why| TrainError::Statistics { layer: layer.clone(), why })?;
        sums.insert(arch.layer_of(node), statistics);
    }
    let input = arch.input();
    let transform = batch::fitting_transform(data.as_ref(), input)?;
    let loader = Loader::new(
        data.clone(),
        LoaderConfig {
            batch_size: BATCH,
            order: Order::Shuffled { seed: options.seed, epoch: 0 },
            transform,
            workers,
            drop_last: false,
        },
    )?;
    let batches = options.images.div_ceil(BATCH).clamp(1, loader.batches());
    let bar = progress::bar(batches as u64, "input statistics");
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let _guard = cp_torch::tch::no_grad_guard();
    for batch in loader.take(batches) {
        let x = batch::images_to_tensor(&batch?.pixels, input, model.device())?;
        let _ = model.forward_watched(&x, Mode::Eval, &mut |node, inputs| match (
            sums.get_mut(arch.layer_of(node)),
            inputs.first(),
        ) {
            (Some(sums), Some(x)) => {
                let x = array_from_tensor(x)?;
                sums.add(&x.view(), &node.op, options.positions, &mut rng)
            }
            _ => Ok(()),
        })?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let finished = |(layer, sums): (&str, Sums)| (layer.to_owned(), sums.finished(options.shrink));
    Ok(sums.into_iter().map(finished).collect())
}
