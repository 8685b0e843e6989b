//! How good a network is: top-1, top-5 and cross-entropy on a data set, in eval mode and without gradients.

#[cfg(feature = "torch")]
mod executor;

use std::cmp::Ordering;
use std::sync::Arc;

use cp_data::{Dataset, Loader, LoaderConfig, Order};
use cp_net::{Architecture, Network};
use ndarray::{Array2, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

#[cfg(feature = "torch")]
pub use executor::evaluate;

use crate::batch;
use crate::device::Device;
use crate::engine::{Engine, Forward};
use crate::error::TrainError;
use crate::fit::{check_fit, check_takes};
use crate::memory::{Purpose, check_memory};
use crate::progress;
use crate::scores::{Scores, loss_of};
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

/// Evaluates `network` on all of `data`, as it runs forward in `engine`; images are brought to its input by [`batch::fitting_transform`].
///
/// # Errors
/// Where the network and the set do not belong together ([`check_fit`]), a batch does not fit into memory, an image cannot be read; what the
/// engine does not run.
pub fn evaluate_in(
    engine: Engine,
    network: &Network,
    data: &Arc<dyn Dataset>,
    options: &EvalOptions,
) -> Result<Evaluation, TrainError> {
    let folded = network.folded()?;
    let arch = folded.architecture();
    let device = engine.device();
    evaluate_with(arch, device, data, options, |taps| engine.classifier(&folded, taps))
}

/// The one evaluation: of a network with this architecture, which `ready` makes ready with these values tapped.
fn evaluate_with<F: Forward>(
    arch: &Architecture,
    device: Device,
    data: &Arc<dyn Dataset>,
    options: &EvalOptions,
    ready: impl FnOnce(&[String]) -> Result<F, TrainError>,
) -> Result<Evaluation, TrainError> {
    let watch = Stopwatch::start();
    check_fit(arch, data.as_ref())?;
    let mut totals = Totals::default();
    each_batch(arch, device, data, options, ready, |logits, labels| totals.add(logits, labels))?;
    Ok(totals.evaluation(watch.seconds()))
}

/// The logits of every example in order, `[N, classes]`, as `network` runs forward in `engine`; labels are not used.
///
/// # Errors
/// As [`evaluate_in`].
pub fn logits_in(
    engine: Engine,
    network: &Network,
    data: &Arc<dyn Dataset>,
    options: &EvalOptions,
) -> Result<Array2<f32>, TrainError> {
    let folded = network.folded()?;
    let arch = folded.architecture();
    check_takes(arch, data.as_ref())?;
    let mut parts = Vec::new();
    let ready = |taps: &[String]| engine.classifier(&folded, taps);
    each_batch(arch, engine.device(), data, options, ready, |logits, _| {
        parts.push(logits.to_owned());
    })?;
    let views: Vec<_> = parts.iter().map(Array2::view).collect();
    // All batches have as many columns.
    Ok(ndarray::concatenate(Axis(0), &views).unwrap_or_default())
}

/// The logits of every batch, with the labels.
fn each_batch<F: Forward>(
    arch: &Architecture,
    device: Device,
    data: &Arc<dyn Dataset>,
    options: &EvalOptions,
    ready: impl FnOnce(&[String]) -> Result<F, TrainError>,
    mut take: impl FnMut(&ArrayView2<'_, f32>, &[i64]),
) -> Result<(), TrainError> {
    let scores = Scores::of(arch);
    let mut model = ready(scores.taps())?;
    let bar = progress::bar(data.len() as u64, "evaluate");
    for batch in Loader::new(data.clone(), loading(arch, device, data, options)?)? {
        let batch = batch?;
        let (output, tapped) = model.forward(&batch, arch.input())?;
        let tapped = tapped.as_ref().map(|values| values.view());
        take(&scores.logits(&output.view(), tapped.as_ref()).view(), &batch.labels);
        bar.inc(batch.labels.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
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
    top1: usize,
    top5: usize,
    loss: f64,
}

impl Totals {
    /// Adds a batch: `logits` `[B, K]`, `labels` `[B]`.
    pub(crate) fn add(&mut self, logits: &ArrayView2<'_, f32>, labels: &[i64]) {
        for (row, label) in logits.axis_iter(Axis(0)).zip(labels) {
            let row = row.to_vec();
            // Labels are checked against the number of outputs before anything runs.
            let label = usize::try_from(*label).unwrap_or(0).min(row.len().saturating_sub(1));
            // Of equal ones the first is the better; NaN is in front of everything, so that no network gains by it.
            let own = row[label];
            let before = |&(at, z): &(usize, &f32)| match z.partial_cmp(&own) {
                Some(Ordering::Equal) => at < label,
                order => order != Some(Ordering::Less),
            };
            let place = row.iter().enumerate().filter(before).count();
            self.examples += 1;
            self.loss += loss_of(&row, label);
            self.top1 += usize::from(place == 0);
            self.top5 += usize::from(place < 5);
        }
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
        let logits = ndarray::Array2::from_shape_fn((4, 7), |(_, class)| 7.0 - class as f32);
        let mut totals = Totals::default();
        totals.add(&logits.view(), &[0, 1, 4, 5]);
        let result = totals.evaluation(0.0);
        assert_eq!((result.examples, result.top1, result.top5), (4, 0.25, 0.75));
        let log_sum: f64 = (1..=7).map(|z| f64::from(z).exp()).sum::<f64>().ln();
        let expected = log_sum - (7. + 6. + 3. + 2.) / 4.;
        assert!((result.loss - expected).abs() < 1e-5, "{} ≠ {expected}", result.loss);
    }
}
