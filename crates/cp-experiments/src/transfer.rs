//! Transfer learning with compressed backbones: a pretrained network is decomposed at several ratios of the ranks, gets a new
//! head, and learns another data set; accuracy against parameters, multiply-accumulates and latency, beside the dense network.
//!
//! After the transfer study of the SqVaD project, without its mistakes: frozen batch normalization stays in eval mode, every
//! evaluation is in eval mode, every draw is seeded, ranks are at least 1, and nothing is chosen by the test set.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use cp_data::{Characters, Dataset, Part, split_validation};
use cp_net::{Form, Network};
use cp_plan::LayerReport;
use cp_report::{Axis, Block, Card, Cell, Column, Report, Series, Table, XyPlot};
use cp_train::timing::{self, Timing, TimingOptions};
use cp_train::{
    CompressConfig, Evaluation, Planning, Recipe, Target as Goal, TrainConfig, TrainData,
};
use serde::{Deserialize, Serialize};

use crate::figures::{layer_table, number, threads_text};
use crate::run::{Run, RunArgs, built_in};

/// `transfer`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask transfer --dataset fashion-mnist --quick\n  cargo xtask transfer --dataset cifar10 --ratios 0.1,0.4\n  cargo xtask transfer --dataset cats-vs-dogs --resume"
)]
pub(crate) struct TransferArgs {
    /// Data set to learn
    #[arg(long, value_enum)]
    dataset: Target,
    /// Ranks relative to the break-even ranks, each above 0 and at most 1 [default: the configuration's]
    #[arg(long, value_name = "X,…", value_delimiter = ',')]
    ratios: Option<Vec<f64>>,
    /// Where the backbone's weights come from
    #[arg(long, value_enum, default_value = "published")]
    backbone: Origin,
    /// Published backbone: an architecture with weights in the data folder [default: the configuration's]
    #[arg(long, value_enum, conflicts_with = "backbone")]
    arch: Option<Backbone>,
    /// Fewer examples, ratios and epochs: about 10 minutes on 4 cores
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    common: RunArgs,
}

/// The data sets to learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    FashionMnist,
    Cifar10,
    CatsVsDogs,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Target::FashionMnist => "fashion-mnist",
            Target::Cifar10 => "cifar10",
            Target::CatsVsDogs => "cats-vs-dogs",
        }
    }

    fn config(self) -> Config {
        built_in(match self {
            Target::FashionMnist => include_str!("../configs/transfer-fashion-mnist.toml"),
            Target::Cifar10 => include_str!("../configs/transfer-cifar10.toml"),
            Target::CatsVsDogs => include_str!("../configs/transfer-cats-vs-dogs.toml"),
        })
    }

    /// The split that the network is tested on once.
    fn test_split(self) -> &'static str {
        match self {
            // The 1,000 exact test images; the published weights were trained on all training images (of another task).
            Target::Cifar10 => "test-1000",
            _ => "test",
        }
    }

    /// Accuracies that the SqVaD study reports for ResNet-18: ratio and top-1, read off its figures (± 0.002), dense last.
    fn published(self) -> ([(f64, f64); 5], f64) {
        match self {
            Target::FashionMnist => {
                ([(0.01, 0.591), (0.1, 0.811), (0.2, 0.818), (0.4, 0.832), (0.9, 0.835)], 0.831)
            }
            Target::CatsVsDogs => {
                ([(0.01, 0.545), (0.1, 0.835), (0.2, 0.942), (0.4, 0.968), (0.9, 0.965)], 0.964)
            }
            Target::Cifar10 => {
                ([(0.01, 0.175), (0.1, 0.340), (0.2, 0.407), (0.4, 0.444), (0.9, 0.432)], 0.445)
            }
        }
    }
}

/// Where a backbone comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Origin {
    /// Weights that were published, in the data folder
    Published,
    /// A ResNet-20 trained here on drawn characters, which need no download
    Own,
}

/// Pretrained backbones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Backbone {
    Resnet20,
    Resnet56,
    #[value(name = "squeezenet1_1")]
    Squeezenet,
}

/// `configs/transfer-*.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default = "published")]
    backbone: Origin,
    arch: String,
    weights: String,
    /// Height and width of the backbone's input.
    input: [usize; 2],
    form: Form,
    ratios: Vec<f64>,
    /// Sweeps of ALS.
    sweeps: usize,
    /// Examples of the training data that are used, validation included; the test set is used whole.
    train_examples: usize,
    /// Examples of the test set that are used; all where it is absent.
    #[serde(default)]
    test_examples: Option<usize>,
    validation_share: f64,
    timing_batch: usize,
    head: TrainConfig,
    whole: TrainConfig,
    #[serde(default, skip_serializing)]
    quick: Option<Quick>,
}

fn published() -> Origin {
    Origin::Published
}

/// Epochs that a backbone of one's own is trained for, and characters that it sees in each of them; `--quick` takes a fifth of these.
const OWN_EPOCHS: usize = 3;
const OWN_EXAMPLES: usize = 20_000;

/// What `--quick` changes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Quick {
    ratios: Vec<f64>,
    train_examples: usize,
    test_examples: usize,
    head_epochs: usize,
    whole_epochs: usize,
}

impl Config {
    /// The configuration that `args` ask for.
    fn new(args: &TransferArgs) -> Result<Self> {
        let mut config = args.dataset.config();
        if args.quick {
            let quick = config.quick.take().context("this experiment has no quick setting")?;
            config.ratios = quick.ratios;
            config.train_examples = quick.train_examples;
            config.test_examples = Some(quick.test_examples);
            config.head.epochs = quick.head_epochs;
            config.whole.epochs = quick.whole_epochs;
        }
        if let Some(arch) = args.arch {
            (config.arch, config.weights, config.input) = match arch {
                Backbone::Resnet20 => {
                    ("resnet20".into(), "resnet20-cifar10.safetensors".into(), [32, 32])
                }
                Backbone::Resnet56 => {
                    ("resnet56".into(), "resnet56-cifar10.safetensors".into(), [32, 32])
                }
                Backbone::Squeezenet => (
                    "squeezenet1_1".into(),
                    "squeezenet1_1-imagenet-caffe.safetensors".into(),
                    [64, 64],
                ),
            };
        }
        if args.backbone == Origin::Own {
            config.backbone = Origin::Own;
            config.arch = "resnet20".into();
            config.weights = "characters".into();
            config.input = [32, 32];
        }
        if let Some(ratios) = &args.ratios {
            config.ratios.clone_from(ratios);
        }
        if let Some(ratio) = config.ratios.iter().find(|ratio| !(**ratio > 0.0 && **ratio <= 1.0)) {
            bail!("--ratios: {ratio} is not above 0 and at most 1");
        }
        let published = config.backbone == Origin::Published;
        if args.dataset == Target::Cifar10 && published && config.arch.starts_with("resnet") {
            bail!(
                "--arch {}: its weights were trained on CIFAR-10 itself, so there is nothing to transfer",
                config.arch
            );
        }
        config.head.seed = args.common.seed;
        config.whole.seed = args.common.seed;
        Ok(config)
    }
}

/// One network that learned the data set.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Outcome {
    /// Ratio of the ranks; none for the dense network.
    ratio: Option<f64>,
    params: usize,
    macs: usize,
    /// Mean relative error of the decomposed layers.
    mean_rel_error: Option<f64>,
    /// With the new head alone trained.
    head: Evaluation,
    /// With everything trained.
    whole: Evaluation,
    /// The same on the validation data, by which the one to show first is chosen.
    validation: Evaluation,
}

impl Outcome {
    fn label(&self) -> String {
        self.ratio.map_or("dense".into(), |ratio| format!("{ratio}"))
    }
}

pub(crate) fn run(args: &TransferArgs) -> Result<()> {
    let config = Config::new(args)?;
    let mut run = Run::open(&args.common, &format!("transfer-{}", args.dataset.name()), &config)?;
    let backbone = match config.backbone {
        Origin::Own => own_backbone(&run, args.quick)?,
        Origin::Published => run.pretrained(&config.weights, &config.arch).context(
            "the published backbone is not at hand; `--backbone own` trains a small one on drawn characters instead",
        )?,
    };
    let backbone = backbone.with_input_shape([3, config.input[0], config.input[1]])?;
    let (data, test) = open_data(&mut run, args.dataset, &config)?;

    let mut outcomes = Vec::new();
    let mut networks = Vec::new();
    let mut layers_shown = None;
    for ratio in std::iter::once(None).chain(config.ratios.iter().copied().map(Some)) {
        let (backbone, layers) = match ratio {
            None => (backbone.clone(), Vec::new()),
            Some(ratio) => {
                let stages = run.stages.within(&format!("ratio-{ratio}"))?;
                let done = recipe(&config, ratio, run.seed).run(&backbone, None, &stages)?;
                (done.network, done.layers)
            }
        };
        let (network, outcome) = learn(&run, &backbone, ratio, &layers, &data, &test, &config)?;
        if ratio.is_some() && layers_shown.is_none() {
            layers_shown = Some((outcome.label(), layers));
        }
        networks.push(network);
        outcomes.push(outcome);
    }
    let all: Vec<&Network> = networks.iter().collect();
    let latencies = run.stage("latency", &config.timing_batch, &all, || {
        let models = networks
            .iter()
            .map(|network| run.stages.executor(network))
            .collect::<Result<Vec<_>, cp_train::TrainError>>()?;
        let models: Vec<_> = models.iter().collect();
        Ok::<_, anyhow::Error>(timing::latency(
            &models,
            &backbone.input().shape,
            config.timing_batch,
            &TimingOptions::default(),
        )?)
    })?;
    write_report(&run, args.dataset, &config, &data, &outcomes, &latencies, layers_shown)
}

/// A ResNet-20 that has seen nothing but drawn characters.
fn own_backbone(run: &Run, quick: bool) -> Result<Network> {
    let examples = if quick { OWN_EXAMPLES / 5 } else { OWN_EXAMPLES };
    eprintln!(
        "backbone: ResNet-20, trained here on {examples} drawn characters, not on the target"
    );
    let set =
        |part, count| -> Arc<dyn Dataset> { Arc::new(Characters::part(part, count, run.seed)) };
    let data = TrainData {
        train: set(Part::Train, examples),
        validation: Some(set(Part::Validation, examples / 10)),
    };
    let arch = cp_net::arch::by_name("resnet20")?.with_classes(data.train.classes().len())?;
    let config = TrainConfig {
        lr: 0.1,
        keep_best: false,
        seed: run.seed,
        ..TrainConfig::fine_tuning(OWN_EPOCHS)
    };
    let start = run.stages.executor(&arch.initialize(run.seed)?)?;
    Ok(run.stages.train("backbone", start, None, &data, &config)?)
}

/// Plain ALS at a ratio of the break-even ranks, as in the study.
fn recipe(config: &Config, ratio: f64, seed: u64) -> Recipe {
    Recipe {
        target: Goal::BreakevenRatio(ratio),
        plan: Planning { forms: vec![config.form], ..Planning::default() },
        compress: CompressConfig {
            max_iters: config.sweeps,
            max_energy: None,
            calibrate: 0,
            seed,
            ..CompressConfig::default()
        },
        ..Recipe::default()
    }
}

/// Training, validation and test data. The validation part comes out of the training data; the test set stays apart.
fn open_data(
    run: &mut Run,
    target: Target,
    config: &Config,
) -> Result<(TrainData, Arc<dyn Dataset>)> {
    let all = run.dataset(target.name(), "train+validation")?;
    let used = sample(all, config.train_examples, run.seed)?;
    let (train, validation) = split_validation(used, config.validation_share, run.seed)?;
    let test = run.dataset(target.name(), target.test_split())?;
    let test = match config.test_examples {
        Some(count) => sample(test, count, run.seed)?,
        None => test,
    };
    Ok((TrainData { train: Arc::new(train), validation: Some(Arc::new(validation)) }, test))
}

/// `count` examples of `set`, the classes in proportion; all where there are no more.
fn sample(set: Arc<dyn Dataset>, count: usize, seed: u64) -> Result<Arc<dyn Dataset>> {
    if count >= set.len() {
        return Ok(set);
    }
    let share = count as f64 / set.len() as f64;
    let (_, part) = split_validation(set, share, seed)?;
    Ok(Arc::new(part))
}

/// Trains a new head on the frozen backbone, then the whole network, and tests both.
fn learn(
    run: &Run,
    backbone: &Network,
    ratio: Option<f64>,
    layers: &[LayerReport],
    data: &TrainData,
    test: &Arc<dyn Dataset>,
    config: &Config,
) -> Result<(Network, Outcome)> {
    let name = ratio.map_or("dense".into(), |ratio| format!("ratio-{ratio}"));
    let mut start = backbone.clone();
    start.replace_head(data.train.classes().len(), run.seed)?;
    let head_layer = start.head_name()?.to_owned();
    let mut model = run.stages.executor(&start)?;
    model.freeze(|node| node != head_layer);
    let head = run.stages.train(&format!("{name}-head"), model, None, data, &config.head)?;
    let whole = run.stages.train(
        &format!("{name}-whole"),
        run.stages.executor(&head)?,
        None,
        data,
        &config.whole,
    )?;
    let cost = whole.cost(&whole.input().shape)?.total;
    let validation =
        data.validation.as_ref().context("validation data are cut from the training data")?;
    let errors: Vec<f64> = layers.iter().map(|layer| layer.rel_error).collect();
    let outcome = Outcome {
        ratio,
        params: cost.params,
        macs: cost.macs,
        mean_rel_error: (!errors.is_empty())
            .then(|| errors.iter().sum::<f64>() / errors.len() as f64),
        head: run.stages.evaluate(&format!("{name}-head-test"), &head, test)?,
        whole: run.stages.evaluate(&format!("{name}-whole-test"), &whole, test)?,
        validation: run.stages.evaluate(&format!("{name}-whole-validation"), &whole, validation)?,
    };
    Ok((whole, outcome))
}

fn write_report(
    run: &Run,
    target: Target,
    config: &Config,
    data: &TrainData,
    outcomes: &[Outcome],
    latencies: &[Timing],
    layers: Option<(String, Vec<LayerReport>)>,
) -> Result<()> {
    let dense = &outcomes[0];
    let compressed = &outcomes[1..];
    let best = compressed
        .iter()
        .zip(&latencies[1..])
        .max_by(|(a, _), (b, _)| a.validation.top1.total_cmp(&b.validation.top1));
    let verdict = match best {
        None => format!(
            "{} on {} reaches {:.2} %.",
            config.arch,
            target.name(),
            100.0 * dense.whole.top1
        ),
        Some((best, time)) => format!(
            "{} on {}: the dense network reaches {:.2} % on the test images. The compressed one that is best on the validation images (ratio {}) reaches {:.2} % with {:.1}× fewer \
             parameters, {:.1}× fewer multiply-accumulates and {:.2}× the speed; the smallest has {:.1}× fewer multiply-accumulates and {:.2} %.",
            config.arch,
            target.name(),
            100.0 * dense.whole.top1,
            best.label(),
            100.0 * best.whole.top1,
            dense.params as f64 / best.params as f64,
            dense.macs as f64 / best.macs as f64,
            latencies[0].median / time.median,
            compressed.iter().map(|o| dense.macs as f64 / o.macs as f64).fold(1.0, f64::max),
            compressed.iter().min_by_key(|o| o.macs).map_or(0.0, |o| 100.0 * o.whole.top1),
        ),
    };
    let mut report = Report::new(format!("{} moved to {}", config.arch, target.name()), verdict);
    let mut cards =
        vec![Card::new("test top-1, dense", Cell::percent(dense.whole.top1, 2).unit("%"))];
    if let Some((best, time)) = best {
        cards.push(
            Card::new("test top-1, compressed", Cell::percent(best.whole.top1, 2).unit("%")).note(
                format!(
                    "ratio {}, {:.2}× the speed",
                    best.label(),
                    latencies[0].median / time.median
                ),
            ),
        );
    }
    report.add(Block::cards(cards));
    report.add(Block::heading("Accuracy against cost"));
    report.add(outcome_table(target, outcomes, latencies, config));
    let plot = |title: &str, axis: Axis, cost: &dyn Fn(usize) -> f64| {
        let points = |top1: &dyn Fn(&Outcome) -> f64| -> Vec<(f64, f64)> {
            let mut points: Vec<(f64, f64)> = compressed
                .iter()
                .enumerate()
                .map(|(i, outcome)| (cost(i + 1), top1(outcome)))
                .collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            points
        };
        XyPlot::new(title, axis, Axis::percent("test top-1"))
            .series(Series::both("whole network trained", points(&|o| o.whole.top1)))
            .series(Series::both("new head only", points(&|o| o.head.top1)))
            .series(Series::points("dense, whole network trained", [(cost(0), dense.whole.top1)]))
            .series(Series::points("dense, new head only", [(cost(0), dense.head.top1)]))
    };
    report.add(plot("Accuracy against parameters", Axis::count("parameters").log(), &|i| {
        outcomes[i].params as f64
    }));
    report.add(plot(
        "Accuracy against multiply-accumulates",
        Axis::count("MACs per image").log(),
        &|i| outcomes[i].macs as f64,
    ));
    report.add(plot(
        "Accuracy against latency",
        Axis::number(format!("latency of a batch of {} (ms)", config.timing_batch)).log(),
        &|i| latencies[i].median * 1e3,
    ));
    let (published, published_dense) = target.published();
    let by_ratio = |top1: &dyn Fn(&Outcome) -> f64| {
        let mut points: Vec<(f64, f64)> =
            compressed.iter().filter_map(|o| Some((o.ratio?, top1(o)))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    };
    report.add(
        XyPlot::new(
            "Accuracy against ratio",
            Axis::number("rank / break-even rank").log(),
            Axis::percent("test top-1"),
        )
        .series(Series::both("whole network trained", by_ratio(&|o| o.whole.top1)))
        .series(Series::both("new head only", by_ratio(&|o| o.head.top1)))
        .series(Series::both("SqVaD, ResNet-18, head only", published))
        .reference("dense, whole network trained", dense.whole.top1)
        .reference("SqVaD, dense", published_dense)
        .note("SqVaD: another backbone, trained head only for one epoch; read off its figures."),
    );
    report.add(Block::heading("Training"));
    let mut curves = XyPlot::new(
        "Whole network: validation accuracy",
        Axis::count("epoch"),
        Axis::percent("top-1"),
    );
    for outcome in outcomes {
        let phase =
            outcome.ratio.map_or("dense-whole".into(), |ratio| format!("ratio-{ratio}-whole"));
        let epochs = run.dir().epochs(&phase)?;
        let points: Vec<(f64, f64)> =
            epochs.iter().filter_map(|e| Some((number(e), e.validation?.top1))).collect();
        curves = curves.series(Series::line(outcome.label(), points));
    }
    report.add(curves);
    if let Some((ratio, layers)) = layers {
        report.add(Block::heading(format!("The decomposed layers at ratio {ratio}")));
        report.add(layer_table(&layers));
    }
    report.add(Block::text(format!(
        "Protocol: {} training and {} validation images; the backbone is frozen (batch normalization included) while the new head learns, then \
         everything is trained. Epochs and learning rates are the same for all ratios and were fixed beforehand; each network was tested once, in \
         eval mode, on {} images. Latency: median of forward passes of all networks in turn, {}.",
        data.train.len(),
        data.validation.as_ref().map_or(0, |set| set.len()),
        dense.whole.examples,
        threads_text(timing::set_threads(0)),
    )));
    run.finish(report, config, &serde_json::json!({ "outcomes": outcomes, "latency": latencies }))
}

fn outcome_table(
    target: Target,
    outcomes: &[Outcome],
    latencies: &[Timing],
    config: &Config,
) -> Table {
    let mut table = Table::new(
        format!("{} on {}", config.arch, target.name()),
        [
            Column::text("ratio"),
            Column::number("parameters"),
            Column::number("MACs").unit("M"),
            Column::number("fewer MACs"),
            Column::number("latency").unit("ms"),
            Column::number("speed-up"),
            Column::number("mean relative error"),
            Column::number("top-1, head only").unit("%"),
            Column::number("top-1, whole").unit("%"),
            Column::number("SqVaD, head only").unit("%").published(),
        ],
    );
    let (published, published_dense) = target.published();
    for (outcome, time) in outcomes.iter().zip(latencies) {
        let source = match outcome.ratio {
            None => Some(published_dense),
            Some(ratio) => {
                published.iter().find(|(r, _)| (r - ratio).abs() < 1e-9).map(|(_, top1)| *top1)
            }
        };
        table.row([
            Cell::text(outcome.label()),
            Cell::count(outcome.params as u64),
            Cell::millions(outcome.macs as u64, 2),
            Cell::ratio(outcomes[0].macs as f64 / outcome.macs as f64, 2),
            Cell::millis(time.median),
            Cell::ratio(latencies[0].median / time.median, 2),
            outcome.mean_rel_error.map_or_else(Cell::missing, |error| Cell::number(error, 3)),
            Cell::percent(outcome.head.top1, 2),
            Cell::percent(outcome.whole.top1, 2),
            source.map_or_else(Cell::missing, |top1| Cell::percent(top1, 1)),
        ]);
    }
    table.note(format!(
        "Test accuracy. One standard deviation of the test sample is about {:.1} points. Ratio: rank / break-even rank of each spatial convolution. \
         SqVaD: ResNet-18, head only, other input sizes.",
        100.0 * sample_deviation(&outcomes[0].whole)
    ));
    table
}

/// Standard deviation of an accuracy measured on so many examples.
fn sample_deviation(result: &Evaluation) -> f64 {
    (result.top1 * (1.0 - result.top1) / result.examples.max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_configurations_are_sound() {
        for target in [Target::FashionMnist, Target::Cifar10, Target::CatsVsDogs] {
            let config = target.config();
            config.head.check().unwrap();
            config.whole.check().unwrap();
            assert!(config.quick.is_some(), "{} has a quick setting", target.name());
        }
    }
}
