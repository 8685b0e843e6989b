//! Training, fine-tuning, evaluation, timing, checkpoints and run records for [`cp_net`] networks on [`cp_torch`].
//!
//! | module | holds |
//! |---|---|
//! | [`config`](TrainConfig) | what decides the result of a run, as data |
//! | [`train()`] | the one training loop, resumable after a kill |
//! | [`Recipe`] | the one pipeline, from a budget to a tested network, and all its settings |
//! | [`compress()`] | plans carried out: decompose, repair, fine-tune, stage by stage |
//! | [`sensitivity()`] | how much the network suffers from each layer alone |
//! | [`input_statistics`], [`calibrate()`], [`Distillation`] | what decomposition and repair learn from data |
//! | [`Host`] | ONNX models with ops that no network has: statistics, distillation and changes from runs in ONNX Runtime |
//! | [`time_choices`] | how long each layer takes in each form, for plans |
//! | [`Stages`], [`Key`] | results of finished steps by what went into them, so that a killed run goes on |
//! | [`evaluate()`] | top-1, top-5 and loss on a data set |
//! | [`resistance()`] | how many steps along the sign of the gradient turn a network's answers |
//! | [`check_fit()`], [`memory`] | what cannot work, found out before it starts |
//! | [`timing`] | the only module that reads the clock; interleaved comparisons |
//! | [`record`](Record) | `results/<experiment>/<run>/`: configuration, provenance, metrics |
//!
//! A network compressed, from a budget to a fine-tuned file:
//!
#![cfg_attr(feature = "torch", doc = "```")]
#![cfg_attr(not(feature = "torch"), doc = "```no_run")]
//! use cp_net::arch;
//! use cp_train::{CompressData, Device, Recipe, RunDir, Stages, Target, TrainConfig, TrainData};
//! # use std::sync::Arc;
//! # let classes: Vec<String> = (0..10).map(|class| class.to_string()).collect();
//! # let images = |seed: usize| {
//! #     let pixels = ndarray::Array4::from_shape_fn((40, 1, 28, 28), |(i, _, y, x)| (i * 37 + y * 11 + x * 7 + seed) as u8);
//! #     Arc::new(cp_data::Images::new("noise", classes.clone(), pixels, (0..40).map(|i| i % 10).collect()).unwrap())
//! # };
//! # let (train, validation, folder) = (images(0), images(1), tempfile::tempdir()?);
//! # cp_train::timing::set_threads(1);
//!
//! let dense = arch::by_name("small-cnn")?.initialize(1)?; //           or Network::load("dense.safetensors")?
//! let train = TrainData { train, validation: Some(validation) }; //    of cp_data::open("fashion-mnist", "train", …)?
//! let data = CompressData { train, test: None };
//!
//! let mut recipe = Recipe::data_free(Target::MacsRatio(0.4)); //         or with_data(Preset::Default, …)
//! recipe.plan.points = 4;
//! recipe.compress.max_iters = 10;
//! recipe.compress.fine_tune = Some(TrainConfig::fine_tuning(1));
//! let stages = Stages::new(RunDir::at(folder.path())?, Device::Cpu); //  a killed run goes on from here
//! let done = recipe.run(&dense, Some(&data), &stages)?;
//! done.network.save(folder.path().join("small.safetensors"))?;
//!
//! let [before, after] = done.cost;
//! assert!(5 * after.macs <= 2 * before.macs);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Accuracies are fractions, losses nats per example, times seconds.
//!
//! Without its feature `torch`, which is on by default, the crate needs no C++ library: networks are planned, decomposed, evaluated and timed in ONNX
//! Runtime and cp-infer, and what trains is not there, or refused with [`TrainError::NeedsLibtorch`].

mod adversarial;
pub mod batch;
mod calibrate;
#[cfg(feature = "torch")]
mod checkpoint;
mod compress;
mod config;
mod device;
mod distill;
pub mod engine;
mod error;
mod evaluate;
#[cfg(any(test, not(feature = "torch")))]
mod exported;
mod finite;
mod fit;
mod host;
mod interrupt;
mod key;
mod latency;
mod libtorch;
pub mod memory;
mod metrics;
mod multiple;
#[cfg(feature = "torch")]
mod optimizer;
mod origin;
mod pipeline;
pub mod progress;
mod recipe;
mod record;
#[cfg(feature = "torch")]
mod schedule;
mod scores;
mod sensitivity;
mod significance;
mod stages;
mod statistics;
pub mod timing;
#[cfg(feature = "torch")]
mod train;
mod train_data;
mod words;

pub use adversarial::{
    AttackOptions, Attacked, Attacker, Bounds, End, Resistance, Stat, TestAt, Wanted, resistance,
};
pub use calibrate::CalibrationOptions;
#[cfg(feature = "torch")]
pub use calibrate::calibrate;
pub use compress::{CompressConfig, CompressSchedule, Compressed, StageReport, compress};
pub use config::{
    Augmentation, OptimizerConfig, ParamGroup, Schedule, TrainConfig, augmentation_of,
};
pub use device::Device;
pub use distill::Distillation;
pub use engine::{Engine, EngineName, Feed};
pub use error::TrainError;
#[cfg(feature = "torch")]
pub use evaluate::evaluate;
pub use evaluate::{EvalOptions, Evaluation, evaluate_in, logits_in};
pub use fit::check_fit;
pub use host::{Distilled, DistilledEpoch, Examples, Host, PictureLayout};
pub use interrupt::clean_up_when_interrupted;
pub use key::{Key, data_identity, fingerprint};
pub use latency::{LayerTime, layer_times, time_choices};
pub use memory::{Purpose, check_memory};
pub use metrics::EpochMetrics;
pub use multiple::Multiple;
#[cfg(feature = "torch")]
pub use optimizer::Optimizer;
pub use origin::Origin;
pub use pipeline::{CompressData, Latency, Outcome};
pub use recipe::{FixedLayer, PlanBy, Planning, Preset, Recipe, Target};
pub use record::{
    FileRecord, Lock, NoRecord, Provenance, Record, RunDir, built_from, write_atomic,
};
#[cfg(feature = "torch")]
pub use schedule::lr_at;
#[cfg(feature = "torch")]
pub use sensitivity::sensitivity;
pub use sensitivity::{LossRule, Probe, ProbeRank, Sensitivity, SensitivityOptions};
pub use significance::{Dropped, LayerSignificance, TermRow, significance, term_maps};
#[cfg(feature = "torch")]
pub use stages::Observation;
pub use stages::Stages;
pub use statistics::StatisticsOptions;
#[cfg(feature = "torch")]
pub use statistics::input_statistics;
#[cfg(feature = "torch")]
pub use train::{Observe, TrainReport, train, train_from, train_observed};
pub use train_data::TrainData;
pub use words::causes_in_words;
