//! `polyad eval`: accuracy and loss of a model on a data set.

use std::io::{self, Write};

use anyhow::Context as _;
use cp_data::DataDir;
use cp_train::engine::Subject;
use cp_train::{EvalOptions, Evaluation, TrainError, check_fit, evaluate_in, timing};
use serde::Serialize;

use crate::common::{Common, InputShape, positive, shapes_by_name};
use crate::model::{self, ModelArgs};
use crate::output::{self, Report, count, percent};

const EXAMPLES: &str = "\
Examples:
  polyad eval resnet56.safetensors --arch resnet56 --dataset cifar10 --split test-1000
  polyad eval half.safetensors --dataset cifar10 --split batch-5 --data ~/datasets --json
  polyad eval cnn.safetensors --arch small-cnn --dataset fashion-mnist --batch 500 --threads 4
  polyad eval model.onnx --preprocess imagenet --dataset folder:images --split test

A folder of your own holds images as SPLIT/CLASS/FILE; `--split all` reads CLASS/FILE. Its classes are its folders, sorted, or
the lines of a file classes.txt beside the splits.

JSON: examples, top1 and top5 (fractions), loss (mean cross-entropy in nats), seconds.";

/// Measure top-1 and top-5 accuracy and the loss of a model on a data set.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Data set: characters, fashion-mnist, cifar10, cifar100, cats-vs-dogs, imagenet, imagenet-sample, folder:PATH or tar:PATH.
    #[arg(long, value_name = "NAME")]
    dataset: String,
    /// Part of it: train, validation, test, or one that the data set adds (cifar10: batch-5, test-1000;
    /// imagenet-sample and folders: all).
    #[arg(long, value_name = "SPLIT", default_value = "test")]
    split: String,
    /// Sizes of one example of an ONNX model, such as 3x224x224, where the model leaves them open.
    #[arg(long, value_name = "[NAME=]DIMS")]
    input: Vec<InputShape>,
    /// Images per forward pass.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive)]
    batch: usize,
}

#[derive(Serialize)]
#[serde(transparent)]
struct EvalReport(Evaluation);

impl Report for EvalReport {
    fn text(&self, to: &mut dyn Write) -> io::Result<()> {
        let Evaluation { examples, top1, top5, loss, seconds } = self.0;
        writeln!(to, "examples  {}", count(examples))?;
        writeln!(to, "top-1     {}", percent(top1))?;
        writeln!(to, "top-5     {}", percent(top5))?;
        writeln!(to, "loss      {loss:.4} nats")?;
        writeln!(to, "seconds   {seconds:.2}")
    }
}

pub(crate) fn run(args: &Args, common: &Common) -> anyhow::Result<()> {
    // What the command line names wrongly is found before a large model is read.
    let data = DataDir::locate(common.data.clone());
    let dataset = cp_data::open(&args.dataset, &args.split, &data)?;
    dataset.notes().iter().for_each(|note| output::note(&note.to_string()));
    let shapes = shapes_by_name(&args.input)?;
    let net = model::load_at(&args.model.path, &args.model.arch, &shapes)?;
    check_fit(net.architecture(), &*dataset)
        .with_context(|| args.model.path.display().to_string())?;
    timing::set_threads(common.threads.unwrap_or(0));
    let engine = common.engine.engine(common.device.device()?, [Subject::Network(&net)])?;
    let options = EvalOptions { batch_size: args.batch, ..EvalOptions::default() };
    let evaluation = evaluate_in(engine, &net, &dataset, &options)?;
    if !evaluation.loss.is_finite() {
        let network = net.architecture().name.clone();
        let error = TrainError::OutputsNotFinite { network, data: dataset.name().into() };
        return Err(error).with_context(|| args.model.path.display().to_string());
    }
    output::print(&EvalReport(evaluation), common.json)
}
