//! [`calibrate`] of a network that runs in libtorch.

use std::sync::Arc;

use cp_data::{Dataset, Loader, LoaderConfig, Order};
use cp_net::Op;
use cp_torch::{Executor, Mode};

use super::CalibrationOptions;
use crate::batch;
use crate::error::TrainError;
use crate::fit::check_takes;
use crate::progress;

/// Images that batch normalization is measured on at a time.
const BATCH: usize = 100;

/// Sets the running statistics of every batch normalization of `model` to their means over some 100-image batches of `data`. Labels
/// are not used, weights not touched.
///
/// After a decomposition the maps have other means and variances than those that the dense network's statistics describe.
///
/// Returns the number of images that were used: 0 where the network has no batch normalization.
///
/// # Errors
/// Where an image cannot be read or the set is empty.
pub fn calibrate(
    model: &mut Executor,
    data: &Arc<dyn Dataset>,
    options: &CalibrationOptions,
) -> Result<usize, TrainError> {
    if !model.architecture().nodes.iter().any(|node| matches!(node.op, Op::BatchNorm(_))) {
        return Ok(0);
    }
    check_takes(model.architecture(), data.as_ref())?;
    let input = model.architecture().input().clone();
    let transform = batch::training_transform(data.as_ref(), &input, options.augmentation)?;
    let loader = Loader::new(
        data.clone(),
        LoaderConfig {
            batch_size: BATCH,
            order: Order::Shuffled { seed: options.seed, epoch: 0 },
            transform,
            workers: options.workers,
            drop_last: data.len() >= BATCH,
        },
    )?;
    let batches = (options.images / BATCH).clamp(1, loader.batches());
    let bar = progress::bar(batches as u64, "calibrate");
    let _guard = cp_torch::tch::no_grad_guard();
    let mut used = 0;
    for (batch, seen) in loader.take(batches).zip(0..) {
        let (x, labels) = batch::to_tensors(&batch?, &input, model.device())?;
        let _ = model.forward(&x, Mode::Calibrate { seen })?;
        used += labels.size()[0] as usize;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(used)
}
