//! Transfer learning with compressed backbones: a pretrained network is decomposed at several ratios of the ranks, gets a new
//! head, and learns another data set; accuracy against parameters, multiply-accumulates and latency, beside the dense network.
//!
//! After the transfer study of the SqVaD project, without its mistakes: frozen batch normalization stays in eval mode, every
//! evaluation is in eval mode, every draw is seeded, ranks are at least 1, and nothing is chosen by the test set.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use cp_data::{Dataset, split_validation};
use cp_net::{Form, Network, arch};
use cp_plan::LayerReport;
use cp_report::{Axis, Block, Card, Cell, Column, Report, Series, Table, XyPlot};
use cp_train::engine::{Engine, EngineName};
use cp_train::timing::{self, Timing};
use cp_train::{
    CompressConfig, Evaluation, Latency, Planning, Recipe, Target, TrainConfig, TrainData,
};
use serde::{Deserialize, Serialize};

use crate::context::{Context, sample};
use crate::experiment::{Experiment, Findings, Row};
use crate::figures::{fewer, layer_table, number, speeds, threads_text};

/// `experiments/transfer.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    dataset: String,
    /// The split that the network is tested on once.
    test_split: String,
    backbone: Origin,
    arch: String,
    weights: String,
    /// Height and width of the backbone's input.
    input: [usize; 2],
    form: Form,
    ratios: Vec<f64>,
    /// Sweeps of ALS.
    sweeps: usize,
    /// Examples of the training data that are used, validation included.
    train_examples: usize,
    /// Examples of the test set that are used; 0 for all.
    test_examples: usize,
    validation_share: f64,
    timing_batch: usize,
    head: TrainConfig,
    whole: TrainConfig,
    own: Own,
    published: Published,
}

/// Where a backbone comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Origin {
    /// Weights that were published, in the data folder.
    Published,
    /// A network trained here on drawn characters, which need no download.
    Own,
}

/// How a backbone of one's own is trained: characters, and passes over them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    examples: usize,
    epochs: usize,
}

/// Accuracies of another study: of its dense network, and by ratio.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Published {
    source: String,
    dense: f64,
    points: Vec<(f64, f64)>,
}

pub(crate) struct Transfer {
    settings: Settings,
    seed: u64,
    backbone: Network,
    data: TrainData,
    test: Arc<dyn Dataset>,
}

/// One network that learned the data set.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
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

/// An outcome with its network, and its layers as decomposed.
type Learned = (Outcome, Network, Vec<LayerReport>);

impl Experiment for Transfer {
    type Settings = Settings;
    /// A ratio of the ranks; none for the dense network.
    type Cell = Option<f64>;
    type Outcome = Learned;

    fn seed(settings: &mut Settings, seed: u64) {
        settings.head.seed = seed;
        settings.whole.seed = seed;
    }

    fn check(settings: &Settings) -> Result<()> {
        let published = settings.backbone == Origin::Published;
        if settings.dataset == "cifar10" && published && settings.arch.starts_with("resnet") {
            bail!(
                "--arch {}: its weights were trained on CIFAR-10 itself, so there is nothing to transfer",
                settings.arch
            );
        }
        for &ratio in &settings.ratios {
            recipe(settings, ratio, 0).check(false)?;
        }
        settings.head.check()?;
        Ok(settings.whole.check()?)
    }

    fn prepare(context: &mut Context, settings: Settings) -> Result<Self> {
        let backbone = match settings.backbone {
            Origin::Own => own_backbone(context, &settings)?,
            Origin::Published => context.network(&settings.weights, &settings.arch, 10).context(
                "the published backbone is not at hand; `--backbone own` trains a small one on drawn characters instead",
            )?,
        };
        let backbone = backbone.with_input_shape([3, settings.input[0], settings.input[1]])?;
        let (data, test) = open_data(context, &settings)?;
        Ok(Self { settings, seed: context.seed, backbone, data, test })
    }

    fn cells(&self) -> Vec<Option<f64>> {
        std::iter::once(None).chain(self.settings.ratios.iter().copied().map(Some)).collect()
    }

    fn name(ratio: &Option<f64>) -> String {
        ratio.map_or("dense".into(), |ratio| format!("ratio {ratio}"))
    }

    fn run(&self, context: &Context, ratio: &Option<f64>) -> Result<Learned> {
        let (backbone, layers) = match ratio {
            None => (self.backbone.clone(), Vec::new()),
            Some(ratio) => {
                let stages = context.stages.within(&format!("ratio-{ratio}"))?;
                let recipe = recipe(&self.settings, *ratio, self.seed);
                let done = recipe.run(&self.backbone, None, &stages)?;
                (done.network, done.layers)
            }
        };
        let (network, outcome) = self.learn(context, &backbone, *ratio, &layers)?;
        Ok((outcome, network, layers))
    }

    fn report(&self, context: &Context, learned: Vec<Learned>) -> Result<Findings> {
        let networks: Vec<&Network> = learned.iter().map(|(_, network, _)| network).collect();
        let batch = self.settings.timing_batch;
        let names: Vec<EngineName> = context.engines().into_iter().map(Engine::name).collect();
        let key = (batch, names, timing::set_threads(0));
        let times =
            context.stage("latency", &key, &networks, || context.times(&networks, batch))?;
        let layers = learned.get(1).map(|(outcome, _, layers)| (outcome.label(), layers.clone()));
        let outcomes: Vec<Outcome> = learned.into_iter().map(|(outcome, _, _)| outcome).collect();
        self.write_report(context, &outcomes, &times, layers)
    }
}

/// A backbone that has seen nothing but drawn characters.
fn own_backbone(context: &mut Context, settings: &Settings) -> Result<Network> {
    let Own { examples, epochs } = settings.own;
    eprintln!(
        "backbone: {}, trained here on {examples} drawn characters, not on the target",
        settings.arch
    );
    let drawn = |count: usize| format!("drawn:{count}");
    let data = TrainData {
        train: context.dataset(&drawn(examples), "train")?,
        validation: Some(context.dataset(&drawn((examples / 10).max(1)), "validation")?),
    };
    let arch = arch::by_name(&settings.arch)?.with_classes(data.train.classes().len())?;
    let config = TrainConfig {
        lr: 0.1,
        keep_best: false,
        seed: context.seed,
        ..TrainConfig::fine_tuning(epochs)
    };
    let start = context.stages.executor(&arch.initialize(context.seed)?)?;
    Ok(context.stages.train("backbone", start, None, &data, &config)?)
}

/// Plain ALS at a ratio of the break-even ranks, as in the study.
fn recipe(config: &Settings, ratio: f64, seed: u64) -> Recipe {
    Recipe {
        target: Target::BreakevenRatio(ratio),
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
fn open_data(context: &mut Context, settings: &Settings) -> Result<(TrainData, Arc<dyn Dataset>)> {
    let all = context.dataset(&settings.dataset, "train+validation")?;
    let used = sample(all, settings.train_examples, context.seed)?;
    let (train, validation) = split_validation(used, settings.validation_share, context.seed)?;
    let mut test = context.dataset(&settings.dataset, &settings.test_split)?;
    if settings.test_examples > 0 {
        test = sample(test, settings.test_examples, context.seed)?;
    }
    Ok((TrainData { train: Arc::new(train), validation: Some(Arc::new(validation)) }, test))
}

impl Transfer {
    /// Trains a new head on the frozen backbone, then the whole network, and tests both.
    fn learn(
        &self,
        context: &Context,
        backbone: &Network,
        ratio: Option<f64>,
        layers: &[LayerReport],
    ) -> Result<(Network, Outcome)> {
        let Self { settings: config, data, test, .. } = self;
        let name = ratio.map_or("dense".into(), |ratio| format!("ratio-{ratio}"));
        let mut start = backbone.clone();
        start.replace_head(data.train.classes().len(), self.seed)?;
        let head_layer = start.head_name()?.to_owned();
        let mut model = context.stages.executor(&start)?;
        model.freeze(|node| node != head_layer);
        let head =
            context.stages.train(&format!("{name}-head"), model, None, data, &config.head)?;
        let whole = context.stages.train(
            &format!("{name}-whole"),
            context.stages.executor(&head)?,
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
            head: context.stages.evaluate(&format!("{name}-head-test"), &head, test)?,
            whole: context.stages.evaluate(&format!("{name}-whole-test"), &whole, test)?,
            validation: context.stages.evaluate(
                &format!("{name}-whole-validation"),
                &whole,
                validation,
            )?,
        };
        Ok((whole, outcome))
    }

    fn write_report(
        &self,
        context: &Context,
        outcomes: &[Outcome],
        times: &[(EngineName, Vec<Timing>)],
        layers: Option<(String, Vec<LayerReport>)>,
    ) -> Result<Findings> {
        let Self { settings: config, data, .. } = self;
        let dense = &outcomes[0];
        let compressed = &outcomes[1..];
        let best = (1..outcomes.len())
            .max_by(|&a, &b| outcomes[a].validation.top1.total_cmp(&outcomes[b].validation.top1));
        let speed = |at: usize| {
            let one = |(engine, times): &(EngineName, Vec<Timing>)| {
                format!("{:.2}× the speed in {engine}", times[0].median / times[at].median)
            };
            times.iter().map(one).collect::<Vec<_>>().join(" and ")
        };
        let verdict = match best {
            None => format!(
                "{} on {} reaches {:.2} %.",
                config.arch,
                config.dataset,
                100.0 * dense.whole.top1
            ),
            Some(at) => format!(
                "{} on {}: the dense network reaches {:.2} % on the test images. The compressed one that is best on the validation images (ratio {}) reaches {:.2} % with {:.1}× fewer \
             parameters, {:.1}× fewer multiply-accumulates and {}; the smallest has {:.1}× fewer multiply-accumulates and {:.2} %.",
                config.arch,
                config.dataset,
                100.0 * dense.whole.top1,
                outcomes[at].label(),
                100.0 * outcomes[at].whole.top1,
                dense.params as f64 / outcomes[at].params as f64,
                dense.macs as f64 / outcomes[at].macs as f64,
                speed(at),
                compressed.iter().map(|o| dense.macs as f64 / o.macs as f64).fold(1.0, f64::max),
                compressed.iter().min_by_key(|o| o.macs).map_or(0.0, |o| 100.0 * o.whole.top1),
            ),
        };
        let mut report =
            Report::new(format!("{} moved to {}", config.arch, config.dataset), verdict);
        let mut cards =
            vec![Card::new("test top-1, dense", Cell::percent(dense.whole.top1, 2).unit("%"))];
        if let Some(at) = best {
            let top1 = Cell::percent(outcomes[at].whole.top1, 2).unit("%");
            let note = format!("ratio {}, {}", outcomes[at].label(), speed(at));
            cards.push(Card::new("test top-1, compressed", top1).note(note));
        }
        report.add(Block::cards(cards));
        report.add(Block::heading("Accuracy against cost"));
        report.add(outcome_table(outcomes, times, config));
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
                .series(Series::points(
                    "dense, whole network trained",
                    [(cost(0), dense.whole.top1)],
                ))
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
        for (engine, times) in times {
            report.add(plot(
                &format!("Accuracy against latency in {engine}"),
                Axis::number(format!("latency of a batch of {} (ms)", config.timing_batch)).log(),
                &|i| times[i].median * 1e3,
            ));
        }
        let published = &config.published;
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
            .series(Series::both("SqVaD, ResNet-18, head only", published.points.iter().copied()))
            .reference("dense, whole network trained", dense.whole.top1)
            .reference("SqVaD, dense", published.dense)
            .note(
                "SqVaD: another backbone, trained head only for one epoch; read off its figures.",
            ),
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
            let epochs = context.dir().epochs(&phase)?;
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
         eval mode, on {} images. Latency: median of forward passes of all networks in all engines in turn, {}.",
        data.train.len(),
        data.validation.as_ref().map_or(0, |set| set.len()),
        dense.whole.examples,
        threads_text(timing::set_threads(0)),
    )));
        let rows = best.map(|at| {
            let best = &outcomes[at];
            let latency = |(engine, times): &(EngineName, Vec<Timing>)| Latency {
                engine: *engine,
                batch: config.timing_batch,
                threads: timing::set_threads(0),
                dense: times[0],
                compressed: times[at],
            };
            Row {
                network: format!("{} moved, CP-3 at {} of the ranks", config.arch, best.label()),
                data: format!("{}, {} test images", config.dataset, best.whole.examples),
                params: fewer(dense.params, best.params),
                macs: fewer(dense.macs, best.macs),
                top1: format!(
                    "{:.2} % → {:.2} %",
                    100.0 * dense.whole.top1,
                    100.0 * best.whole.top1
                ),
                speed: speeds(&times.iter().map(latency).collect::<Vec<_>>()),
            }
        });
        let result = serde_json::json!({ "outcomes": outcomes, "latency": times });
        Ok(Findings { report, result, rows: rows.into_iter().collect(), fault: None })
    }
}

fn outcome_table(
    outcomes: &[Outcome],
    times: &[(EngineName, Vec<Timing>)],
    config: &Settings,
) -> Table {
    let mut columns = vec![
        Column::text("ratio"),
        Column::number("parameters"),
        Column::number("MACs").unit("M"),
        Column::number("fewer MACs"),
    ];
    for (engine, _) in times {
        columns.push(Column::number(engine.to_string()).unit("ms"));
        columns.push(Column::number("speed-up"));
    }
    columns.extend([
        Column::number("mean relative error"),
        Column::number("top-1, head only").unit("%"),
        Column::number("top-1, whole").unit("%"),
        Column::number("SqVaD, head only").unit("%").published(),
    ]);
    let mut table = Table::new(format!("{} on {}", config.arch, config.dataset), columns);
    let published = &config.published;
    for (at, outcome) in outcomes.iter().enumerate() {
        let source = match outcome.ratio {
            None => Some(published.dense),
            Some(ratio) => published
                .points
                .iter()
                .find(|(r, _)| (r - ratio).abs() < 1e-9)
                .map(|(_, top1)| *top1),
        };
        let mut row = vec![
            Cell::text(outcome.label()),
            Cell::count(outcome.params as u64),
            Cell::millions(outcome.macs as u64, 2),
            Cell::ratio(outcomes[0].macs as f64 / outcome.macs as f64, 2),
        ];
        for (_, times) in times {
            row.push(Cell::millis(times[at].median));
            row.push(Cell::ratio(times[0].median / times[at].median, 2));
        }
        row.extend([
            outcome.mean_rel_error.map_or_else(Cell::missing, |error| Cell::number(error, 3)),
            Cell::percent(outcome.head.top1, 2),
            Cell::percent(outcome.whole.top1, 2),
            source.map_or_else(Cell::missing, |top1| Cell::percent(top1, 1)),
        ]);
        table.row(row);
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
