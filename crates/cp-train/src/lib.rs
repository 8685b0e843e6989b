//! Training, fine-tuning, evaluation, timing, checkpoints and run records for [`cp_net`] networks on [`cp_torch`].
//!
//! | module | holds |
//! |---|---|
//! | [`config`](TrainConfig) | what decides the result of a run, as data |
//! | [`train()`] | the one training loop, resumable after a kill |
//! | [`evaluate()`] | top-1, top-5 and loss on a data set |
//! | [`timing`] | the only module that reads the clock; interleaved comparisons |
//! | [`record`](Record) | `results/<experiment>/<run>/`: configuration, provenance, metrics |
//!
//! Accuracies are fractions, losses nats per example, times seconds.

pub mod batch;
mod calibrate;
mod checkpoint;
mod compress;
mod config;
mod distill;
mod error;
mod evaluate;
mod latency;
mod optimizer;
pub mod progress;
mod record;
mod schedule;
mod sensitivity;
mod stages;
mod statistics;
pub mod timing;
mod train;

pub use calibrate::calibrate;
pub use checkpoint::write_atomic;
pub use compress::{CompressConfig, CompressSchedule, Compressed, StageReport, compress};
pub use config::{Augmentation, OptimizerConfig, ParamGroup, Schedule, TrainConfig};
pub use distill::Distillation;
pub use error::TrainError;
pub use evaluate::{EvalOptions, Evaluation, evaluate, logits};
pub use latency::time_choices;
pub use optimizer::Optimizer;
pub use record::{FileRecord, NoRecord, Provenance, Record, RunDir};
pub use schedule::lr_at;
pub use sensitivity::{
    LossRule, Probe, ProbeRank, Sensitivity, SensitivityOptions, fingerprint, sensitivity,
};
pub use stages::Stages;
pub use statistics::{StatisticsOptions, input_statistics};
pub use train::{EpochMetrics, TrainData, TrainReport, train, train_from};
