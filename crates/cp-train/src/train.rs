//! The training loop.

use std::path::Path;

use cp_data::{Dataset, Loader, LoaderConfig, Order};
use cp_torch::tch::{Kind, Tensor};
use cp_torch::{Executor, Mode};

use crate::batch;
use crate::checkpoint::{Checkpoint, Header, described};
use crate::config::TrainConfig;
use crate::distill::Teacher;
use crate::error::TrainError;
use crate::evaluate::{EvalOptions, Evaluation, evaluate};
use crate::fit::check_fit;
use crate::memory::{Purpose, check_memory};
use crate::metrics::EpochMetrics;
use crate::optimizer::Optimizer;
use crate::progress;
use crate::record::Record;
use crate::schedule::lr_at;
use crate::scores::{Scores, cross_entropy};
use crate::timing::Stopwatch;
use crate::train_data::TrainData;

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainReport {
    /// Figures of every epoch, those before a resumption included.
    pub epochs: Vec<EpochMetrics>,
    /// The epoch whose weights the network has at the end.
    pub kept: Option<usize>,
}

/// Trains `model` in place, without a teacher; see [`train_from`].
///
/// # Errors
/// As [`train_from`].
pub fn train(
    model: &mut Executor,
    data: &TrainData,
    config: &TrainConfig,
    record: &mut dyn Record,
    checkpoint: Option<&Path>,
) -> Result<TrainReport, TrainError> {
    train_from(model, None, data, config, record, checkpoint)
}

/// Trains `model` in place, from the labels and, where [`TrainConfig::distill`] says how, from `teacher`, on the same device.
///
/// With a `checkpoint` path, the state is saved there after every epoch, and a run that finds a file there goes on from it, to
/// the same weights as an uninterrupted run (CPU, same number of threads).
///
/// Dropout draws from libtorch's generator, of which a process has one: two trainings at the same time in one process are each
/// sound, but no longer repeatable.
///
/// # Errors
/// A bad configuration, a network and data that do not belong together ([`check_fit`]), unreadable data, a loss that is no longer finite, a checkpoint of another run, a full disk. The weights of
/// the last finished epoch are then in the checkpoint.
pub fn train_from(
    model: &mut Executor,
    teacher: Option<&Executor>,
    data: &TrainData,
    config: &TrainConfig,
    record: &mut dyn Record,
    checkpoint: Option<&Path>,
) -> Result<TrainReport, TrainError> {
    train_observed(model, teacher, data, config, record, checkpoint, &mut |_, _| Ok(()))
}

/// Sees the network behind every step: how many steps were made since the start of the run, those before a resumption included, and the
/// network. It must leave the network as it is: a pass in [`Mode::Train`] moves the statistics of batch norms, and belongs on a copy.
pub type Observe<'a> = dyn FnMut(usize, &Executor) -> Result<(), TrainError> + 'a;

/// [`train_from`], shown to `observe` step by step. The seconds of an epoch are without those of `observe`.
///
/// # Errors
/// As [`train_from`], and those of `observe`.
pub fn train_observed(
    model: &mut Executor,
    teacher: Option<&Executor>,
    data: &TrainData,
    config: &TrainConfig,
    record: &mut dyn Record,
    checkpoint: Option<&Path>,
    observe: &mut Observe<'_>,
) -> Result<TrainReport, TrainError> {
    config.check()?;
    if (config.keep_best || config.patience.is_some()) && data.validation.is_none() {
        return Err(TrainError::Config {
            option: "keep_best or patience",
            got: "no validation data".into(),
            expected: "validation data to choose by",
        });
    }
    let teacher = match (&config.distill, teacher) {
        (None, _) => None,
        (Some(distill), Some(teacher)) => Some(Teacher::new(teacher, model, *distill)?),
        (Some(_), None) => {
            return Err(TrainError::Config {
                option: "distill",
                got: "no teacher".into(),
                expected: "a dense network to learn from",
            });
        }
    };
    // libtorch's own words for what does not fit help nobody.
    for set in std::iter::once(&data.train).chain(&data.validation) {
        check_fit(model.architecture(), set.as_ref())?;
    }
    let batch_size = config.batch_size.min(data.train.len());
    let (arch, purpose) = (model.architecture(), Purpose::Training);
    check_memory(
        arch,
        arch.input_shapes(),
        batch_size,
        purpose,
        model.device().into(),
        "--batch-size",
    )?;
    let scores = Scores::of(arch);
    let input = model.architecture().input().clone();
    let transform = batch::training_transform(data.train.as_ref(), &input, config.augmentation)?;
    let steps_per_epoch = steps_per_epoch(data.train.len(), config.batch_size);
    let mut optimizer = Optimizer::new(model, config);
    let (mut history, mut best) = match checkpoint {
        Some(path) if path.exists() => resume(path, model, &mut optimizer, data, config)?,
        _ => (Vec::new(), None),
    };
    record.begin(&history)?;

    for epoch in history.len()..config.epochs {
        if out_of_patience(&history, config) {
            break;
        }
        let watch = Stopwatch::start();
        // Dropout draws from libtorch's generator; seeding it per epoch makes a resumed run draw the same.
        cp_torch::tch::manual_seed(mix(config.seed, epoch));
        let loader = Loader::new(
            data.train.clone(),
            LoaderConfig {
                batch_size,
                order: Order::Shuffled { seed: config.seed, epoch: epoch as u64 },
                transform,
                workers: config.workers,
                drop_last: data.train.len() >= config.batch_size,
            },
        )?;
        let bar =
            progress::bar(steps_per_epoch as u64, format!("epoch {}/{}", epoch + 1, config.epochs));
        let (mut loss_sum, mut hits, mut seen, mut lr) = (0.0, 0.0, 0, 0.0);
        let mut observing = 0.0;
        for (step, batch) in loader.enumerate() {
            lr = lr_at(config, epoch * steps_per_epoch + step, steps_per_epoch);
            let (x, labels) = batch::to_tensors(&batch?, &input, model.device())?;
            let (logits, loss) = match &teacher {
                Some(teacher) => teacher.loss(model, &x, &labels, config.label_smoothing)?,
                None => loss(model, &scores, &x, &labels, config.label_smoothing)?,
            };
            optimizer.zero_grad();
            loss.f_backward()?;
            optimizer.step(lr);

            let loss = f64::try_from(&loss)?;
            if !loss.is_finite() {
                return Err(TrainError::Diverged { epoch, step, loss, lr });
            }
            let count = labels.size()[0];
            loss_sum += loss * count as f64;
            hits += f64::try_from(
                logits.f_argmax(1, false)?.f_eq_tensor(&labels)?.f_sum(Kind::Float)?,
            )?;
            seen += count;
            let pause = Stopwatch::start();
            observe(epoch * steps_per_epoch + step + 1, model)?;
            observing += pause.seconds();
            bar.set_message(format!("loss {loss:.3}"));
            bar.inc(1);
        }
        bar.finish_and_clear();
        let seconds = watch.seconds() - observing;
        let validation = match &data.validation {
            Some(set) => Some(evaluate(
                model,
                set,
                &EvalOptions { workers: config.workers, ..EvalOptions::default() },
            )?),
            None => None,
        };
        let metrics = EpochMetrics {
            epoch,
            lr,
            train_loss: loss_sum / seen.max(1) as f64,
            train_top1: hits / seen.max(1) as f64,
            validation,
            seconds,
        };
        history.push(metrics.clone());
        if config.keep_best && best_epoch(&history) == Some(epoch) {
            best = Some(model.network()?);
        }
        if let Some(path) = checkpoint {
            let header = Header::new(config, describe(data), model, &optimizer, history.clone());
            Checkpoint::of(header, model, &optimizer, best.as_ref())?.save(path)?;
        }
        record.epoch(&metrics)?;
    }
    let mut kept = history.len().checked_sub(1);
    if let Some(best) = &best {
        model.load(best)?;
        kept = best_epoch(&history);
    }
    Ok(TrainReport { epochs: history, kept })
}

/// Logits `[B, K]` and their cross-entropy.
fn loss(
    model: &Executor,
    scores: &Scores,
    x: &Tensor,
    labels: &Tensor,
    label_smoothing: f64,
) -> Result<(Tensor, Tensor), TrainError> {
    let logits = scores.forward(model, x, Mode::Train)?;
    let loss = cross_entropy(&logits, labels, label_smoothing)?;
    Ok((logits, loss))
}

/// The first epoch of the highest validation accuracy; of equals, that of the lowest loss.
fn best_epoch(history: &[EpochMetrics]) -> Option<usize> {
    let mut best: Option<(usize, Evaluation)> = None;
    for (epoch, found) in history.iter().enumerate() {
        let Some(found) = found.validation else { continue };
        let better =
            best.is_none_or(|(_, other)| (found.top1, other.loss) > (other.top1, found.loss));
        if better {
            best = Some((epoch, found));
        }
    }
    best.map(|(epoch, _)| epoch)
}

/// Whether the last [`TrainConfig::patience`] epochs brought nothing.
fn out_of_patience(history: &[EpochMetrics], config: &TrainConfig) -> bool {
    match (config.patience, best_epoch(history)) {
        (Some(patience), Some(best)) => history.len() > best + patience,
        _ => false,
    }
}

/// Steps of an epoch: whole batches only, except where the set is smaller than one batch.
fn steps_per_epoch(examples: usize, batch_size: usize) -> usize {
    (examples / batch_size).max(1)
}

/// A seed for epoch `epoch` of a run with seed `seed`: distinct for all pairs that occur (splitmix64's increment).
fn mix(seed: u64, epoch: usize) -> i64 {
    seed.wrapping_add((epoch as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).cast_signed()
}

/// Names and sizes of the data, so that a checkpoint is not taken up with other data.
fn describe(data: &TrainData) -> String {
    let one = |set: &dyn Dataset| format!("{} ({} examples)", set.name(), set.len());
    match &data.validation {
        Some(validation) => {
            format!("{}, validation {}", one(data.train.as_ref()), one(validation.as_ref()))
        }
        None => one(data.train.as_ref()),
    }
}

/// Puts the state at `path` into `model` and `optimizer` and returns the epochs that were done, and the best network of them.
fn resume(
    path: &Path,
    model: &mut Executor,
    optimizer: &mut Optimizer,
    data: &TrainData,
    config: &TrainConfig,
) -> Result<(Vec<EpochMetrics>, Option<cp_net::Network>), TrainError> {
    let saved = Checkpoint::load(path)?;
    let reject = |what: String| TrainError::Checkpoint { path: path.into(), what };
    // The number of worker threads changes nothing in the result, and may change.
    let same_run = TrainConfig { workers: config.workers, ..saved.header.config.clone() };
    if same_run != *config {
        return Err(reject("it was made with another training configuration".into()));
    }
    if saved.header.data != describe(data) {
        return Err(reject(format!(
            "it was trained on {}, not on {}",
            saved.header.data,
            describe(data)
        )));
    }
    if saved.header.trainable != described(model) {
        return Err(reject("it trains other parameters".into()));
    }
    let mut network = model.network()?;
    saved.restore_network(&mut network, path)?;
    model.load(&network)?;
    let best = if saved.best.is_empty() {
        None
    } else {
        let mut best = network.clone();
        saved.restore_best(&mut best, path)?;
        Some(best)
    };
    optimizer.restore(saved.optimizer, saved.header.steps).map_err(reject)?;
    Ok((saved.header.history, best))
}
