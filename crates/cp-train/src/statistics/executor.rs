//! Statistics of a network that runs in libtorch.

use std::sync::Arc;

use cp_data::Dataset;
use cp_plan::LayerStatistics;
use cp_torch::{Executor, Mode, array_from_tensor};

use super::{Gathering, StatisticsOptions};
use crate::batch;
use crate::error::TrainError;

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
    let input = model.architecture().input();
    let mut gathering = Gathering::of(model.architecture(), layers, options)?;
    let (batches, bar) = gathering.images(data, workers)?;
    let _guard = cp_torch::tch::no_grad_guard();
    for batch in batches {
        let x = batch::input_to_tensor(&batch?, input, model.device())?;
        let _ =
            model.forward_watched(&x, Mode::Eval, &mut |node, inputs| match inputs.first() {
                Some(x) if gathering.measures(node) => {
                    gathering.add(node, &array_from_tensor(x)?.view())
                }
                _ => Ok(()),
            })?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(gathering.finished())
}
