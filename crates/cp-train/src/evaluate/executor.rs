//! Evaluation of a network that runs in libtorch.

use std::sync::Arc;

use cp_data::{Dataset, Loader};
use cp_torch::tch::Tensor;
use cp_torch::{Executor, Mode, array_from_tensor};
use ndarray::Ix2;

use super::{EvalOptions, Evaluation, Totals, loading};
use crate::batch;
use crate::error::TrainError;
use crate::fit::{check_fit, check_takes};
use crate::progress;
use crate::scores::Scores;
use crate::timing::Stopwatch;

/// Evaluates `model` on all of `data`, images brought to its input by [`batch::fitting_transform`].
///
/// # Errors
/// Where the network and the set do not belong together ([`check_fit`]), a batch does not fit into memory, or an image cannot be read.
pub fn evaluate(
    model: &Executor,
    data: &Arc<dyn Dataset>,
    options: &EvalOptions,
) -> Result<Evaluation, TrainError> {
    let watch = Stopwatch::start();
    check_fit(model.architecture(), data.as_ref())?;
    let (config, scores) = (
        loading(model.architecture(), model.device().into(), data, options)?,
        Scores::of(model.architecture()),
    );
    let input = model.architecture().input();
    let bar = progress::bar(data.len() as u64, "evaluate");
    let _guard = cp_torch::tch::no_grad_guard();
    let mut totals = Totals::default();
    for batch in Loader::new(data.clone(), config)? {
        let batch = batch?;
        let x = batch::images_to_tensor(&batch.pixels, input, model.device())?;
        let logits = scores.forward(model, &x, Mode::Eval)?;
        let logits = array_from_tensor(&logits)?.into_dimensionality::<Ix2>();
        totals.add(&logits.unwrap_or_default().view(), &batch.labels);
        bar.inc(batch.labels.len() as u64);
    }
    bar.finish_and_clear();
    Ok(totals.evaluation(watch.seconds()))
}

/// The logits of every example in order, `[N, classes]`, on the CPU: for comparing two networks example by example.
///
/// # Errors
/// As [`evaluate`].
pub fn logits(
    model: &Executor,
    data: &Arc<dyn Dataset>,
    options: &EvalOptions,
) -> Result<Tensor, TrainError> {
    check_takes(model.architecture(), data.as_ref())?;
    let (config, scores) = (
        loading(model.architecture(), model.device().into(), data, options)?,
        Scores::of(model.architecture()),
    );
    let input = model.architecture().input();
    let _guard = cp_torch::tch::no_grad_guard();
    let mut parts = Vec::new();
    for batch in Loader::new(data.clone(), config)? {
        let (x, _) = batch::to_tensors(&batch?, input, model.device())?;
        let logits = scores.forward(model, &x, Mode::Eval)?;
        parts.push(logits.f_to_device(cp_torch::tch::Device::Cpu)?);
    }
    Ok(Tensor::f_cat(&parts, 0)?)
}
