//! A network of pictures made one of videos, and terms pruned by a penalty: Kossaifi et al. (arXiv 1906.06196), §3.3 and §3.4, on characters
//! that move under noise, which are drawn.

use std::sync::Arc;

use anyhow::{Result, bail};
use cp_data::{Characters, Dataset, Images, Part};
use cp_net::arch::{Builder, window};
use cp_net::{Architecture, Conv, CpConv, InputSpec, Network, Op, Padding};
use cp_report::{Axis, BarPlot, Block, Card, Cell, Column, Report, Series, Table, XyPlot};
use cp_train::{Evaluation, ParamGroup, Stages, TrainConfig, TrainData};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::context::Context;
use crate::experiment::{Experiment, Findings};
use crate::figures::mean_deviation;

/// Rows and columns of a frame, and classes.
const SIDE: usize = 24;
const CLASSES: usize = 36;

/// `experiments/transduction.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    frames: usize,
    taps: usize,
    channels: Vec<usize>,
    ranks: Vec<usize>,
    penalties: Vec<f64>,
    repeats: u64,
    frame_examples: usize,
    /// Videos.
    train_examples: usize,
    /// Frames, and as many videos, of the validation and of the test.
    test_examples: usize,
    /// Of single frames.
    train: TrainConfig,
    videos: TrainConfig,
}

pub(crate) struct Transduction {
    settings: Settings,
    frames: TrainData,
    frames_test: Arc<dyn Dataset>,
    videos: TrainData,
    videos_test: Arc<dyn Dataset>,
}

/// What is trained in a cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Task {
    /// The network of frames under a penalty, and without the terms that it made zero.
    Pruned { penalty: f64 },
    /// The network of frames without a penalty, and everything about videos.
    Videos,
}

/// One network on the test images, frames or videos.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Found {
    what: String,
    penalty: f64,
    seed: u64,
    params: usize,
    macs: usize,
    /// Terms of each convolution.
    terms: Vec<usize>,
    /// Parameters that were trained.
    trained: usize,
    epochs: usize,
    test: Evaluation,
}

/// What the networks are called in the report.
const FRAME: &str = "network of frames, on one frame";
const MEAN: &str = "transduced, not trained";
const FACTORS: &str = "transduced, factors over frames trained";
const ALL: &str = "transduced, all trained";
const SCRATCH: &str = "network of videos from a random start";

impl Settings {
    /// Convolutions with CP factors and λ, norms, a global pooling and a linear layer.
    fn arch(&self) -> Result<Architecture> {
        let mut net = Builder::new("moving-characters", InputSpec::gray(SIDE));
        for (index, (&channels, &rank)) in self.channels.iter().zip(&self.ranks).enumerate() {
            let side = if index == 0 { 5 } else { 3 };
            let dense = Conv {
                padding: Padding::symmetric([side / 2; 2]),
                bias: false,
                ..Conv::new(net.channels(), channels, [side; 2])
            };
            let op = CpConv { weights: true, ..CpConv::of(&dense, rank) };
            let name = |what: &str| format!("{what}{}", index + 1);
            net = net.op(&name("conv"), op).batch_norm(&name("norm")).relu(&name("relu"));
            if index + 1 < self.channels.len() {
                net = net.max_pool(&name("pool"), window(2).stride(2));
            }
        }
        Ok(net.global_avg_pool("pool").flatten("flatten").linear("fc", CLASSES).build()?)
    }
}

/// The middle frame of every video.
fn middle(videos: &Images, frames: usize) -> Result<Images> {
    let rows = frames / 2 * SIDE..(frames / 2 + 1) * SIDE;
    let pixels = videos.pixels().slice(ndarray::s![.., .., rows, ..]).to_owned();
    let labels = (0..videos.len()).map(|index| videos.label(index)).collect();
    let name = format!("{}/middle-frame", videos.name());
    Ok(Images::new(name, videos.classes().to_vec(), pixels, labels)?)
}

fn terms(network: &Network) -> Vec<usize> {
    let ranks = network.nodes().iter().filter_map(|node| match &node.op {
        Op::CpConv(op) => Some(op.rank),
        _ => None,
    });
    ranks.collect()
}

impl Transduction {
    fn found(
        &self,
        (what, penalty, seed): (&str, f64, u64),
        network: &Network,
        trained: usize,
        epochs: usize,
        stages: &Stages,
        test: &Arc<dyn Dataset>,
    ) -> Result<Found> {
        let cost = network.cost(&network.input().shape)?.total;
        let name = format!("test-{}", what.replace([' ', ','], "-"));
        Ok(Found {
            what: what.to_owned(),
            penalty,
            seed,
            params: cost.params,
            macs: cost.macs,
            terms: terms(network),
            trained,
            epochs,
            test: stages.evaluate(&name, network, test)?,
        })
    }

    /// The network of frames, trained under `penalty`.
    fn of_frames(&self, stages: &Stages, seed: u64, penalty: f64) -> Result<Network> {
        let start = stages.executor(&self.settings.arch()?.initialize(seed)?)?;
        let l1 = (penalty > 0.0).then_some(penalty);
        let config = TrainConfig { seed, l1, ..self.settings.train.clone() };
        Ok(stages.train(&format!("frames-{penalty:e}"), start, None, &self.frames, &config)?)
    }

    fn pruned(&self, stages: &Stages, seed: u64, penalty: f64) -> Result<Vec<Found>> {
        let mut network = self.of_frames(stages, seed, penalty)?;
        let epochs = self.settings.train.epochs;
        let all = network.param_count();
        let mut found = Vec::new();
        if penalty == 0.0 {
            let which = (FRAME, penalty, seed);
            found.push(self.found(which, &network, all, epochs, stages, &self.frames_test)?);
        }
        network.prune_terms(0.0)?;
        let which = ("pruned", penalty, seed);
        found.push(self.found(which, &network, all, epochs, stages, &self.frames_test)?);
        Ok(found)
    }

    fn of_videos(&self, stages: &Stages, still: &Network, seed: u64) -> Result<Vec<Found>> {
        let Settings { frames, taps, .. } = self.settings;
        let test = &self.videos_test;
        let (start, added) = still.transduced(frames, taps)?;
        let config = TrainConfig { seed, ..self.settings.videos.clone() };
        let epochs = config.epochs;
        let all = start.param_count();
        let mut found = vec![self.found((MEAN, 0.0, seed), &start, 0, 0, stages, test)?];

        // The factors over frames alone; everything else has a rate of 0.
        let groups = added.iter().map(|name| ParamGroup { prefix: name.clone(), lr_scale: 1.0 });
        let rest = ParamGroup { prefix: String::new(), lr_scale: 0.0 };
        let alone = TrainConfig { groups: groups.chain([rest]).collect(), ..config.clone() };
        let mut model = stages.executor(&start)?;
        let still = still_nodes(&start);
        model.freeze(|name| still.iter().any(|node| node == name));
        let network = stages.train("factors", model, None, &self.videos, &alone)?;
        let count = added.iter().map(|name| network.params()[name].len()).sum();
        found.push(self.found((FACTORS, 0.0, seed), &network, count, epochs, stages, test)?);

        let model = stages.executor(&start)?;
        let network = stages.train("all", model, None, &self.videos, &config)?;
        found.push(self.found((ALL, 0.0, seed), &network, all, epochs, stages, test)?);

        let model = stages.executor(&start.architecture().initialize(seed)?)?;
        // As many steps as frames and videos together would be too many to wait for; twice as many as the transduced network has.
        let longer = TrainConfig { epochs: 2 * epochs, lr: self.settings.train.lr, ..config };
        let network = stages.train("scratch", model, None, &self.videos, &longer)?;
        let which = (SCRATCH, 0.0, seed);
        found.push(self.found(which, &network, all, longer.epochs, stages, test)?);
        Ok(found)
    }
}

/// The nodes that have no factor over frames.
fn still_nodes(network: &Network) -> Vec<String> {
    let nodes = network.nodes().iter().filter(|node| !matches!(node.op, Op::CpConv(_)));
    nodes.map(|node| node.name.clone()).collect()
}

impl Experiment for Transduction {
    type Settings = Settings;
    type Cell = (Task, u64);
    type Outcome = Vec<Found>;

    fn seed(settings: &mut Settings, seed: u64) {
        (settings.train.seed, settings.videos.seed) = (seed, seed);
    }

    fn check(settings: &Settings) -> Result<()> {
        if settings.channels.len() != settings.ranks.len() || settings.channels.is_empty() {
            bail!(
                "channels and ranks in the settings are {:?} and {:?}: each convolution needs one of both",
                settings.channels,
                settings.ranks
            );
        }
        if settings.repeats == 0 || settings.frames == 0 || settings.taps == 0 {
            bail!("repeats, frames and taps in the settings are at least 1");
        }
        if !settings.penalties.contains(&0.0) {
            bail!(
                "penalties in the settings are {:?}: 0 has to be among them, for comparison",
                settings.penalties
            );
        }
        settings.arch()?;
        settings.train.check()?;
        Ok(settings.videos.check()?)
    }

    fn prepare(context: &mut Context, settings: Settings) -> Result<Self> {
        let Settings { frames, frame_examples, train_examples, test_examples, .. } = settings;
        let seed = context.seed;
        let train = Characters::moving(Part::Train, train_examples, frames, seed);
        let validation = Characters::moving(Part::Validation, test_examples, frames, seed);
        let test = Characters::moving(Part::Test, test_examples, frames, seed);
        let singles = Characters::moving(Part::Train, frame_examples, 1, seed);
        for set in [&singles, &train, &validation, &test] {
            context.note(set.sources());
        }
        Ok(Self {
            frames: TrainData {
                train: Arc::new(singles),
                validation: Some(Arc::new(middle(&validation, frames)?)),
            },
            frames_test: Arc::new(middle(&test, frames)?),
            videos: TrainData { train: Arc::new(train), validation: Some(Arc::new(validation)) },
            videos_test: Arc::new(test),
            settings,
        })
    }

    fn cells(&self) -> Vec<(Task, u64)> {
        let Settings { penalties, repeats, train, .. } = &self.settings;
        let seeds = (0..*repeats).map(|n| train.seed.wrapping_add(n));
        let of = |seed: u64| {
            let penalties = penalties.iter().filter(|penalty| **penalty > 0.0);
            let pruned = penalties.map(move |&penalty| (Task::Pruned { penalty }, seed));
            [(Task::Videos, seed)].into_iter().chain(pruned)
        };
        seeds.flat_map(of).collect()
    }

    fn name((task, seed): &(Task, u64)) -> String {
        match task {
            Task::Pruned { penalty } => format!("penalty {penalty}, seed {seed}"),
            Task::Videos => format!("videos, seed {seed}"),
        }
    }

    fn run(&self, context: &Context, (task, seed): &(Task, u64)) -> Result<Vec<Found>> {
        let name = match task {
            Task::Pruned { penalty } => format!("penalty{penalty:e}-seed{seed}"),
            Task::Videos => format!("videos-seed{seed}"),
        };
        let stages = context.stages.within(&name)?;
        match *task {
            Task::Pruned { penalty } => self.pruned(&stages, *seed, penalty),
            Task::Videos => {
                let mut found = self.pruned(&stages, *seed, 0.0)?;
                let still = self.of_frames(&stages, *seed, 0.0)?;
                found.extend(self.of_videos(&stages, &still, *seed)?);
                Ok(found)
            }
        }
    }

    fn report(&self, _context: &Context, outcomes: Vec<Vec<Found>>) -> Result<Findings> {
        let found: Vec<Found> = outcomes.into_iter().flatten().collect();
        let top1 = |what: &str| {
            let own = found.iter().filter(|one| one.what == what);
            let values: Vec<f64> = own.map(|one| one.test.top1).collect();
            let (mean, deviation) = mean_deviation(&values);
            match values.len() {
                1 => format!("{:.2}", 100.0 * mean),
                _ => format!("{:.2} ± {:.2}", 100.0 * mean, 100.0 * deviation),
            }
        };
        let mut report = Report::new(
            "Characters that move: from frames to videos",
            format!(
                "Of {} test videos a network of single frames reads {} %; made a network of videos without any training {} %, with its factors over \
                 frames trained {} %, with everything trained {} %; the same network of videos from a random start {} %.",
                self.videos_test.len(),
                top1(FRAME),
                top1(MEAN),
                top1(FACTORS),
                top1(ALL),
                top1(SCRATCH)
            ),
        );
        let card = |what: &str| Card::new(what, Cell::text(top1(what)).unit("%"));
        report.add(Block::cards([card(FRAME), card(MEAN), card(FACTORS), card(ALL)]));
        report.add(bars(&found));
        report.add(videos_table(&found));
        report.add(pruned_plot(&found));
        report.add(pruned_table(&found));
        report.add(Block::text(self.protocol()));
        let result: Vec<Value> = found.iter().map(|one| json!(one)).collect();
        Ok(Findings {
            report,
            result: json!({ "networks": result }),
            rows: Vec::new(),
            fault: None,
        })
    }
}

const OF_VIDEOS: [&str; 5] = [FRAME, MEAN, FACTORS, ALL, SCRATCH];

/// Means over the seeds.
fn mean(found: &[Found], what: &str, value: impl Fn(&Found) -> f64) -> Option<(f64, f64)> {
    let values: Vec<f64> = found.iter().filter(|one| one.what == what).map(value).collect();
    (!values.is_empty()).then(|| mean_deviation(&values))
}

fn bars(found: &[Found]) -> BarPlot {
    let values = OF_VIDEOS.map(|what| mean(found, what, |one| one.test.top1).map(|(mean, _)| mean));
    BarPlot::new("Test accuracy", Axis::percent("top-1"), 1, OF_VIDEOS).series("top-1", values)
}

fn videos_table(found: &[Found]) -> Table {
    let mut table = Table::new(
        "Frames and videos",
        [
            Column::text("network"),
            Column::number("parameters trained"),
            Column::number("epochs"),
            Column::number("parameters"),
            Column::number("MACs").unit("M"),
            Column::number("top-1").unit("%"),
            Column::number("loss").unit("nats"),
        ],
    );
    for what in OF_VIDEOS {
        let Some(one) = found.iter().find(|one| one.what == what) else { continue };
        table.row([
            Cell::text(what),
            Cell::count(one.trained as u64),
            Cell::count(one.epochs as u64),
            Cell::count(one.params as u64),
            Cell::millions(one.macs as u64, 2),
            mean(found, what, |one| one.test.top1).map(|(mean, _)| Cell::percent(mean, 2)).into(),
            mean(found, what, |one| one.test.loss).map(|(mean, _)| Cell::number(mean, 4)).into(),
        ]);
    }
    table.note("Multiply-adds of a whole video but in the first row, which sees its middle frame.");
    table
}

fn pruned_plot(found: &[Found]) -> XyPlot {
    let own = found.iter().filter(|one| one.what == "pruned");
    let points = own.map(|one| (one.terms.iter().sum::<usize>() as f64, one.test.top1));
    XyPlot::new("Terms left and accuracy", Axis::count("terms left"), Axis::percent("top-1"))
        .series(Series::points("one penalty each", points))
        .note("Networks of single frames, trained under penalties on λ; terms with λ = 0 were taken out.")
}

fn pruned_table(found: &[Found]) -> Table {
    let mut table = Table::new(
        "Terms that a penalty leaves",
        [
            Column::text("penalty"),
            Column::number("seed"),
            Column::text("terms of each convolution"),
            Column::number("parameters"),
            Column::number("MACs").unit("M"),
            Column::number("top-1, one frame").unit("%"),
        ],
    );
    for one in found.iter().filter(|one| one.what == "pruned") {
        let terms: Vec<String> = one.terms.iter().map(usize::to_string).collect();
        table.row([
            Cell::text(format!("{}", one.penalty)),
            Cell::text(one.seed.to_string()),
            Cell::text(terms.join(", ")),
            Cell::count(one.params as u64),
            Cell::millions(one.macs as u64, 3),
            Cell::percent(one.test.top1, 2),
        ]);
    }
    table
}

impl Transduction {
    fn protocol(&self) -> String {
        let Settings { frames, taps, train, videos, .. } = &self.settings;
        format!(
            "Protocol: videos of {frames} frames in which a character moves on a straight line, each frame under noise of its own; {} to train on, {} for \
             validation, {} test videos, whose faces no training video shows. The network of frames learns {} single frames in {} epochs. Transduced, its convolutions have a factor over {taps} frames, at first that of the frame itself, and the pooling at \
             the end averages over frames; {} epochs more train these factors alone, or everything. The network from a random start has the same shape and \
             {} epochs. Every training keeps its best epoch on the validation videos; the test videos are seen once by every network of the tables. The \
             penalty is l1·Σ|λ| in proximal steps, so that λ becomes exactly 0.",
            self.videos.train.len(),
            self.videos.validation.as_ref().map_or(0, |set| set.len()),
            self.videos_test.len(),
            self.frames.train.len(),
            train.epochs,
            videos.epochs,
            2 * videos.epochs,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let about =
            crate::description::Description::new(include_str!("../experiments/transduction.toml"));
        let args =
            crate::experiment::command("transduction", &about).get_matches_from(["transduction"]);
        about.settings(&args).unwrap().try_into().unwrap()
    }

    /// The network takes frames, transduced it takes strips, and what is frozen leaves the factors over frames.
    #[test]
    fn frames_and_strips_fit() {
        let videos = Characters::moving(Part::Test, 4, 5, 1);
        let frames = middle(&videos, 5).unwrap();
        let net = settings().arch().unwrap().initialize(1).unwrap();
        cp_train::check_fit(net.architecture(), &frames).unwrap();
        let (video, added) = net.transduced(5, 3).unwrap();
        cp_train::check_fit(video.architecture(), &videos).unwrap();
        assert_eq!(added.len(), 3);
        assert!(still_nodes(&video).contains(&"norm1".to_owned()));
        assert_eq!(terms(&video), [16, 40, 80]);
        let strip = videos.image(2).unwrap();
        assert_eq!(frames.image(2).unwrap(), strip.slice(ndarray::s![.., 48..72, ..]));
    }
}
