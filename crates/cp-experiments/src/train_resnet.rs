//! The dense ResNet-20 that the compression experiments start from: He et al. (2016), section 4.2, trained without CIFAR-10's
//! batch 5, which so becomes a test set of 10,000 exact images.

use anyhow::Result;
use clap::Args;
use cp_net::arch;
use cp_report::{Block, Card, Cell, Report};
use cp_train::{TrainConfig, TrainData};
use serde::{Deserialize, Serialize};

use crate::figures::{accuracy_curves, loss_curves};
use crate::run::{Run, RunArgs, built_in};

/// `train-resnet`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask train-resnet --data ~/data\n  cargo xtask train-resnet --resume"
)]
pub(crate) struct TrainResnetArgs {
    /// Passes over the training data [default: the configuration's]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    #[command(flatten)]
    common: RunArgs,
}

/// `configs/train-resnet.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    arch: String,
    dataset: String,
    train: TrainConfig,
}

/// Top-1 of ResNet-20 in He et al. (2016), table 6, trained on all five batches.
const PAPER: f64 = 0.9125;

pub(crate) fn run(args: &TrainResnetArgs) -> Result<()> {
    let mut config: Config = built_in(include_str!("../configs/train-resnet.toml"));
    config.train.seed = args.common.seed;
    if let Some(epochs) = args.epochs {
        config.train.epochs = epochs;
    }
    let mut run = Run::open(&args.common, "train-resnet", &config)?;
    let data = TrainData {
        train: run.dataset(&config.dataset, "train")?,
        validation: Some(run.dataset(&config.dataset, "validation")?),
    };
    let test = run.dataset(&config.dataset, "test")?;
    let start = arch::by_name(&config.arch)?.initialize(config.train.seed)?;
    let network =
        run.stages.train(&config.arch, run.stages.executor(&start)?, None, &data, &config.train)?;
    let result = run.stages.evaluate("test", &network, &test)?;

    let epochs = run.dir().epochs(&config.arch)?;
    let mut report = Report::new(
        format!("{} on CIFAR-10 without batch 5", config.arch),
        format!(
            "{} epochs on {} images of batches 1 to 4 give {:.2} % on the {} of batch 5.",
            config.train.epochs,
            data.train.len(),
            100.0 * result.top1,
            result.examples
        ),
    );
    report.add(Block::cards([Card::new("test top-1", Cell::percent(result.top1, 2)).note(
        format!(
            "He et al. (2016): {:.2} % on the official test set, trained on 50,000 images",
            100.0 * PAPER
        ),
    )]));
    report.add(loss_curves("Loss", &epochs));
    report.add(accuracy_curves("Accuracy", &epochs));
    report.add(Block::text(format!(
        "Protocol: {} images of batches 1 to 4 for validation, of which nothing was chosen but whether the run is sound; batch 5 was tested \
         on once, in eval mode.",
        data.validation.as_ref().map_or(0, |set| set.len())
    )));
    run.finish(report, &config, &serde_json::json!({ "test": result, "epochs": epochs }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_configuration_is_sound() {
        let config: Config = built_in(include_str!("../configs/train-resnet.toml"));
        config.train.check().unwrap();
        arch::by_name(&config.arch).unwrap();
    }
}
