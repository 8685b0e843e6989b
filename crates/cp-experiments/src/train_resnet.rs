//! The dense ResNet-20 that the compression experiments start from: He et al. (2016), section 4.2, trained without CIFAR-10's
//! batch 5, which so becomes a test set of 10,000 exact images.

use std::sync::Arc;

use anyhow::Result;
use cp_data::Dataset;
use cp_net::arch;
use cp_report::{Block, Card, Cell, Report};
use cp_train::{Evaluation, TrainConfig, TrainData};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::experiment::{Experiment, Findings};
use crate::figures::{accuracy_curves, loss_curves};

/// `experiments/train-resnet.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    arch: String,
    dataset: String,
    train: TrainConfig,
    published: Published,
}

/// Top-1 of the same network elsewhere.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Published {
    source: String,
    top1: f64,
}

pub(crate) struct TrainResnet {
    settings: Settings,
    data: TrainData,
    test: Arc<dyn Dataset>,
}

impl Experiment for TrainResnet {
    type Settings = Settings;
    type Cell = ();
    type Outcome = Evaluation;

    fn seed(settings: &mut Settings, seed: u64) {
        settings.train.seed = seed;
    }

    fn check(settings: &Settings) -> Result<()> {
        arch::by_name(&settings.arch)?;
        Ok(settings.train.check()?)
    }

    fn prepare(context: &mut Context, settings: Settings) -> Result<Self> {
        let data = TrainData {
            train: context.dataset(&settings.dataset, "train")?,
            validation: Some(context.dataset(&settings.dataset, "validation")?),
        };
        let test = context.dataset(&settings.dataset, "test")?;
        Ok(Self { settings, data, test })
    }

    fn cells(&self) -> Vec<()> {
        vec![()]
    }

    fn name((): &()) -> String {
        "training".into()
    }

    fn run(&self, context: &Context, (): &()) -> Result<Evaluation> {
        let Self { settings, data, test } = self;
        let start = arch::by_name(&settings.arch)?
            .with_classes(data.train.classes().len())?
            .initialize(settings.train.seed)?;
        let start = context.stages.executor(&start)?;
        let network = context.stages.train(&settings.arch, start, None, data, &settings.train)?;
        Ok(context.stages.evaluate("test", &network, test)?)
    }

    fn report(&self, context: &Context, outcomes: Vec<Evaluation>) -> Result<Findings> {
        let published = &self.settings.published;
        let result = outcomes[0];
        let epochs = context.dir().epochs(&self.settings.arch)?;
        let mut report = Report::new(
            format!("{} on {}", self.settings.arch, self.settings.dataset),
            format!(
                "{} epochs on {} images give {:.2} % on {} test images.",
                self.settings.train.epochs,
                self.data.train.len(),
                100.0 * result.top1,
                result.examples
            ),
        );
        report.add(Block::cards([Card::new("test top-1", Cell::percent(result.top1, 2))
            .note(format!("{:.2} %: {}", 100.0 * published.top1, published.source))]));
        report.add(loss_curves("Loss", &epochs));
        report.add(accuracy_curves("Accuracy", &epochs));
        report.add(Block::text(format!(
            "Protocol: {} images for validation, by which nothing was chosen but whether the run is sound; tested once, in eval mode.",
            self.data.validation.as_ref().map_or(0, |set| set.len())
        )));
        let result = serde_json::json!({ "test": result, "epochs": epochs });
        Ok(Findings { report, result, rows: Vec::new(), fault: None })
    }
}
