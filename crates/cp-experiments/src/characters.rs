//! CharNet trained on drawn characters, where `demo` and `charnet` start, and what both are held against.

use std::sync::Arc;

use anyhow::Result;
use cp_data::Dataset;
use cp_net::{Network, arch};
use cp_plan::{Method, RankPlan};
use cp_train::{CompressConfig, Recipe, Target, TrainConfig, TrainData};
use serde::{Deserialize, Serialize};

use crate::context::Context;

/// What Lebedev et al. report for CharNet: accuracy before and after, and the speed-up of the whole network on a CPU.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Published {
    pub(crate) source: String,
    pub(crate) dense_top1: f64,
    pub(crate) top1: f64,
    pub(crate) speedup: f64,
}

/// The dense network and the characters, of which none occurs in two sets.
pub(crate) struct Trained {
    pub(crate) dense: Network,
    pub(crate) train: TrainData,
    pub(crate) validation: Arc<dyn Dataset>,
    pub(crate) test: Arc<dyn Dataset>,
}

impl Trained {
    /// Draws so many characters for training, validation and test, and trains the network, once in a run's folder.
    pub(crate) fn new(
        context: &mut Context,
        examples: [usize; 3],
        config: &TrainConfig,
    ) -> Result<Self> {
        let mut draw = |split, count: usize| context.dataset(&format!("drawn:{count}"), split);
        let train = draw("train", examples[0])?;
        let validation = draw("validation", examples[1])?;
        let test = draw("test", examples[2])?;
        let train = TrainData { train, validation: Some(Arc::clone(&validation)) };
        let start = arch::by_name("charnet")?.initialize(context.seed)?;
        let start = context.stages.executor(&start)?;
        let dense = context.stages.train("dense", start, None, &train, config)?;
        Ok(Self { dense, train, validation, test })
    }
}

/// A decomposition at the ranks of `plan`, with so many sweeps of `method`, plain or with bounded energies of the terms, then fine-tuning.
pub(crate) fn recipe(
    plan: RankPlan,
    method: Method,
    max_energy: Option<f64>,
    sweeps: usize,
    fine_tune: &TrainConfig,
    seed: u64,
) -> Recipe {
    Recipe {
        target: Target::Ranks(plan),
        compress: CompressConfig {
            method,
            max_iters: sweeps,
            max_energy,
            calibrate: 0,
            fine_tune: Some(fine_tune.clone()),
            seed,
            ..CompressConfig::default()
        },
        ..Recipe::default()
    }
}
