//! How good a network is: top-1, top-5 and cross-entropy on a data set, in eval mode and without gradients.

use std::sync::Arc;

use cp_data::{Dataset, Loader, LoaderConfig, Order};
use cp_net::{Architecture, Network};
use cp_torch::tch::{Device, Kind, Reduction, Tensor};
use cp_torch::{Executor, Mode};
use serde::{Deserialize, Serialize};

use crate::batch;
use crate::engine::Engine;
use crate::error::TrainError;
use crate::fit::{check_fit, check_takes};
use crate::memory::{Purpose, check_memory};
use crate::progress;
use crate::scores::Scores;
use crate::timing::Stopwatch;

/// Result of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Examples.
    pub examples: usize,
    /// Share of examples whose label got the highest logit, 0…1.
    pub top1: f64,
    /// Share of examples whose label is among the five highest logits, 0…1; 1 where there are at most five classes.
    pub top5: f64,
    /// Mean cross-entropy, in nats per example.
    #[serde(with = "crate::finite")]
    pub loss: f64,
    /// Seconds, reading the images included.
    pub seconds: f64,
}

/// How to run an evaluation; none of it changes the result beyond rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvalOptions {
    /// Examples per forward pass.
    pub batch_size: usize,
    /// Threads that read and resize images.
    pub workers: usize,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self { batch_size: 100, workers: 2 }
    }
}

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
        loading(model.architecture(), model.device(), data, options)?,
        Scores::of(model.architecture()),
    );
    let input = model.architecture().input();
    let bar = progress::bar(data.len() as u64, "evaluate");
    let _guard = cp_torch::tch::no_grad_guard();
    let mut totals = Totals::default();
    for batch in Loader::new(data.clone(), config)? {
        let batch = batch?;
        let (x, labels) = batch::to_tensors(&batch, input, model.device())?;
        let logits = scores.forward(model, &x, Mode::Eval)?;
        totals.add(&logits, &labels)?;
        bar.inc(batch.labels.len() as u64);
    }
    bar.finish_and_clear();
    Ok(totals.evaluation(watch.seconds()))
}

/// [`evaluate()`] of `network`, as it runs forward in `engine`.
///
/// # Errors
/// As [`evaluate()`]; what the engine does not run.
pub fn evaluate_in(
    engine: Engine,
    network: &Network,
    data: &Arc<dyn Dataset>,
    options: &EvalOptions,
) -> Result<Evaluation, TrainError> {
    let folded = network.folded()?;
    let arch = folded.architecture();
    let scores = Scores::of(arch);
    let watch = Stopwatch::start();
    check_fit(arch, data.as_ref())?;
    let mut model = match (engine, engine.classifier(&folded, scores.taps())?) {
        (Engine::Torch(device), _) => {
            return evaluate(&Executor::new(&folded, device)?, data, options);
        }
        (_, None) => return evaluate(&Executor::new(&folded, Device::Cpu)?, data, options),
        (_, Some(model)) => model,
    };
    let config = loading(arch, Device::Cpu, data, options)?;
    let bar = progress::bar(data.len() as u64, "evaluate");
    let mut totals = Totals::default();
    for batch in Loader::new(data.clone(), config)? {
        let batch = batch?;
        let (x, labels) = batch::to_tensors(&batch, arch.input(), Device::Cpu)?;
        let (output, tapped) = model.forward(&x)?;
        totals.add(&scores.logits(output, tapped.as_ref())?, &labels)?;
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
        loading(model.architecture(), model.device(), data, options)?,
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

/// How the examples are read: all, in their order, in batches that fit into memory.
fn loading(
    arch: &Architecture,
    device: Device,
    data: &Arc<dyn Dataset>,
    options: &EvalOptions,
) -> Result<LoaderConfig, TrainError> {
    let batch_size = options.batch_size.min(data.len());
    let (shapes, purpose) = (arch.input_shapes(), Purpose::Forward);
    check_memory(arch, shapes, batch_size, purpose, device, "--batch")?;
    Ok(LoaderConfig {
        batch_size,
        order: Order::Sequential,
        transform: batch::fitting_transform(data.as_ref(), arch.input())?,
        workers: options.workers,
        drop_last: false,
    })
}

/// Running sums over batches.
#[derive(Default)]
pub(crate) struct Totals {
    examples: usize,
    top1: i64,
    top5: i64,
    loss: f64,
}

impl Totals {
    /// Adds a batch: `logits` `[B, K]`, `labels` `[B]`.
    pub(crate) fn add(&mut self, logits: &Tensor, labels: &Tensor) -> Result<(), TrainError> {
        let (count, classes) = logits.size2()?;
        let loss =
            logits.f_cross_entropy_loss::<Tensor>(labels, None, Reduction::Sum, -100, 0.0)?;
        let (_, best) = logits.f_topk(classes.min(5), 1, true, true)?;
        let hits = best.f_eq_tensor(&labels.f_unsqueeze(1)?)?;
        self.examples += usize::try_from(count).unwrap_or(0);
        self.loss += f64::try_from(&loss)?;
        self.top1 += i64::try_from(hits.f_narrow(1, 0, 1)?.f_sum(Kind::Int64)?)?;
        self.top5 += i64::try_from(hits.f_sum(Kind::Int64)?)?;
        Ok(())
    }

    pub(crate) fn evaluation(&self, seconds: f64) -> Evaluation {
        let count = self.examples.max(1) as f64;
        Evaluation {
            examples: self.examples,
            top1: self.top1 as f64 / count,
            top5: self.top5 as f64 / count,
            loss: self.loss / count,
            seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_top1_and_top5() {
        // Seven classes; the label ranks 1st, 2nd, 5th and 6th.
        let logits = Tensor::from_slice(&[7f32, 6., 5., 4., 3., 2., 1.]).repeat([4, 1]);
        let labels = Tensor::from_slice(&[0i64, 1, 4, 5]);
        let mut totals = Totals::default();
        totals.add(&logits, &labels).unwrap();
        let result = totals.evaluation(0.0);
        assert_eq!((result.examples, result.top1, result.top5), (4, 0.25, 0.75));
        let log_sum: f64 = (1..=7).map(|z| f64::from(z).exp()).sum::<f64>().ln();
        let expected = log_sum - (7. + 6. + 3. + 2.) / 4.;
        assert!((result.loss - expected).abs() < 1e-5, "{} ≠ {expected}", result.loss);
    }
}
