//! CPAC-Conv's networks at every rank: accuracy and loss against the rank and against the share of the dense kernels' parameters.
//!
//! Wang, Guo & Yue (arXiv 2005.13746), §4. The authors report the best epoch on the test images; here the epoch is chosen on validation images
//! and the test images are seen once.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Result, bail};
use cp_data::Dataset;
use cp_net::{Network, Op, arch};
use cp_plan::cp_start;
use cp_report::{Axis, Block, Card, Cell, Column, Report, Series, Table, XyPlot};
use cp_train::{Evaluation, TrainConfig, TrainData};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::context::{Context, sample};
use crate::experiment::{Experiment, Findings};
use crate::figures::mean_deviation;

/// `experiments/cpac.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    dataset: String,
    splits: Vec<Split>,
    resolution: usize,
    layers: Vec<usize>,
    /// 0 for the dense network.
    ranks: Vec<usize>,
    filters: usize,
    repeats: u64,
    /// 0 for all.
    train_examples: usize,
    test_examples: usize,
    train: TrainConfig,
    published: Vec<Published>,
}

/// How the images are split.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Split {
    name: String,
    train: String,
    /// Where there is one, it chooses the epoch; the last one counts otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    validation: Option<String>,
    test: String,
    /// Copies of test images are among the training images: a figure for comparison, and none of a network.
    #[serde(default)]
    leaks: bool,
}

/// A figure of the authors'.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Published {
    layers: usize,
    rank: usize,
    top1: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loss: Option<f64>,
}

pub(crate) struct Cpac {
    settings: Settings,
    /// Of every split: the training data and the test images.
    data: Vec<(TrainData, Arc<dyn Dataset>)>,
}

/// One training.
#[derive(Debug, Clone)]
pub(crate) struct Training {
    split: usize,
    layers: usize,
    rank: usize,
    seed: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    split: String,
    leaks: bool,
    layers: usize,
    rank: usize,
    seed: u64,
    /// Of the whole network, and of its convolutions alone.
    params: usize,
    conv_params: usize,
    macs: usize,
    test: Evaluation,
}

/// The network of a cell as it starts: CPAC's factors from a random kernel, everything else as dense networks start.
fn start(settings: &Settings, classes: usize, cell: &Training) -> Result<Network> {
    let Settings { filters, resolution, .. } = settings;
    let Training { layers, rank, seed, .. } = cell;
    let name =
        format!("cpac(layers={layers}, rank={rank}, filters={filters}, resolution={resolution})");
    let network = arch::by_name(&name)?.with_classes(classes)?.initialize(*seed)?;
    Ok(cp_start(&network, *seed)?)
}

/// Parameters of the convolutions, dense or in factors.
fn conv_params(network: &Network) -> usize {
    let convs =
        network.nodes().iter().filter(|node| matches!(node.op, Op::Conv(_) | Op::CpConv(_)));
    convs.flat_map(|node| node.op.params()).map(|spec| spec.shape.iter().product::<usize>()).sum()
}

impl Experiment for Cpac {
    type Settings = Settings;
    type Cell = Training;
    type Outcome = Outcome;

    fn seed(settings: &mut Settings, seed: u64) {
        settings.train.seed = seed;
    }

    fn check(settings: &Settings) -> Result<()> {
        for (name, empty) in [
            ("layers", settings.layers.is_empty()),
            ("--ranks", settings.ranks.is_empty()),
            ("splits", settings.splits.is_empty()),
            ("--repeats", settings.repeats == 0),
        ] {
            if empty {
                bail!("{name}: the settings have none, and at least one is needed");
            }
        }
        let different: BTreeSet<&usize> = settings.ranks.iter().collect();
        if different.len() < settings.ranks.len() {
            bail!("--ranks: {:?} names a rank twice", settings.ranks);
        }
        for &layers in &settings.layers {
            for &rank in &settings.ranks {
                start(settings, 2, &Training { split: 0, layers, rank, seed: 0 })?;
            }
        }
        Ok(settings.train.check()?)
    }

    fn prepare(context: &mut Context, settings: Settings) -> Result<Self> {
        let mut data = Vec::new();
        for split in &settings.splits {
            let mut open = |name: &str, count: usize| {
                let set = context.dataset(&settings.dataset, name)?;
                if count == 0 { Ok(set) } else { sample(set, count, context.seed) }
            };
            let train = open(&split.train, settings.train_examples)?;
            let validation = split.validation.as_deref();
            let validation =
                validation.map(|name| open(name, settings.test_examples)).transpose()?;
            let test = open(&split.test, settings.test_examples)?;
            data.push((TrainData { train, validation }, test));
        }
        Ok(Self { settings, data })
    }

    fn cells(&self) -> Vec<Training> {
        let Settings { splits, layers, ranks, repeats, train, .. } = &self.settings;
        let mut cells = Vec::new();
        for split in 0..splits.len() {
            for &layers in layers {
                for &rank in ranks {
                    for repeat in 0..*repeats {
                        let seed = train.seed.wrapping_add(repeat);
                        cells.push(Training { split, layers, rank, seed });
                    }
                }
            }
        }
        cells
    }

    fn name(Training { split, layers, rank, seed }: &Training) -> String {
        format!("split {split}, layers {layers}, rank {rank}, seed {seed}")
    }

    fn run(&self, context: &Context, cell: &Training) -> Result<Outcome> {
        let Self { settings, data } = self;
        let Training { split, layers, rank, seed } = *cell;
        let (data, test) = &data[split];
        let stages =
            context.stages.within(&format!("split{split}-layers{layers}-rank{rank}-seed{seed}"))?;
        let network = start(settings, test.classes().len(), cell)?;
        let config =
            TrainConfig { seed, keep_best: data.validation.is_some(), ..settings.train.clone() };
        let model = stages.executor(&network)?;
        let trained = stages.train("trained", model, None, data, &config)?;
        let cost = trained.cost(&trained.input().shape)?.total;
        let Split { name, leaks, .. } = settings.splits[split].clone();
        Ok(Outcome {
            split: name,
            leaks,
            layers,
            rank,
            seed,
            params: cost.params,
            conv_params: conv_params(&trained),
            macs: cost.macs,
            test: stages.evaluate("test", &trained, test)?,
        })
    }

    fn report(&self, _context: &Context, outcomes: Vec<Outcome>) -> Result<Findings> {
        let points = points(&outcomes);
        let settings = &self.settings;
        let mut report =
            Report::new(format!("CPAC-Conv on {}", settings.dataset), self.verdict(&points));
        report.add(Block::cards(self.cards(&points)));
        let rank = |point: &Point| Some(point.rank as f64);
        let share = || Axis::percent("parameters of the convolutions / dense").log();
        let by_rank = plots(&points, "rank", || Axis::count("rank R"), rank);
        for plot in by_rank.chain(plots(&points, "share", share, |point| point.share)) {
            report.add(plot);
        }
        report.add(self.table(&points));
        report.add(Block::text(self.protocol()));
        let result: Vec<Value> = outcomes.iter().map(|one| json!(one)).collect();
        let result = json!({ "classes": self.data[0].1.classes(), "outcomes": result });
        Ok(Findings { report, result, rows: Vec::new(), fault: None })
    }
}

/// The trainings of one network on one split together.
#[derive(Debug, Clone, PartialEq)]
struct Point {
    split: String,
    leaks: bool,
    layers: usize,
    rank: usize,
    count: usize,
    params: usize,
    conv_params: usize,
    macs: usize,
    /// Parameters of the convolutions / those of the dense network's; none where that was not trained.
    share: Option<f64>,
    /// Mean and standard deviation.
    top1: (f64, f64),
    loss: (f64, f64),
}

fn points(outcomes: &[Outcome]) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    for one in outcomes {
        let of = |other: &Outcome| (other.split.clone(), other.layers, other.rank);
        if points.iter().any(|p| (p.split.clone(), p.layers, p.rank) == of(one)) {
            continue;
        }
        let own: Vec<&Outcome> = outcomes.iter().filter(|other| of(other) == of(one)).collect();
        let values = |value: fn(&Evaluation) -> f64| -> Vec<f64> {
            own.iter().map(|one| value(&one.test)).collect()
        };
        let dense = outcomes.iter().find(|other| other.layers == one.layers && other.rank == 0);
        points.push(Point {
            split: one.split.clone(),
            leaks: one.leaks,
            layers: one.layers,
            rank: one.rank,
            count: own.len(),
            params: one.params,
            conv_params: one.conv_params,
            macs: one.macs,
            share: dense.map(|dense| one.conv_params as f64 / dense.conv_params as f64),
            top1: mean_deviation(&values(|test| test.top1)),
            loss: mean_deviation(&values(|test| test.loss)),
        });
    }
    points
}

/// What a curve is called: one layer, two layers, and the split where there are several.
fn label(points: &[Point], one: &Point) -> String {
    let layers = if one.layers == 1 { "one layer" } else { "two layers" };
    match points.iter().all(|other| other.split == one.split) {
        true => layers.to_owned(),
        false => format!("{layers}, {}", one.split),
    }
}

/// Accuracy, at the left, and loss, at the right, against `at`: a plot for each network on each split.
fn plots<'a>(
    points: &'a [Point],
    against: &'a str,
    x: impl Fn() -> Axis + 'a,
    at: fn(&Point) -> Option<f64>,
) -> impl Iterator<Item = XyPlot> + 'a {
    let mut seen = BTreeSet::new();
    let names = points.iter().map(|one| label(points, one));
    names.filter(move |name| seen.insert(name.clone())).map(move |name| {
        let own = || points.iter().filter(|other| label(points, other) == name);
        let curve = |value: fn(&Point) -> (f64, f64)| {
            let of = own().filter(|point| point.rank > 0);
            of.filter_map(move |point| Some((at(point)?, value(point).0, value(point).1)))
        };
        let title = format!("Accuracy and loss against {against}, {name}");
        let mut plot = XyPlot::new(title, x(), Axis::percent("test top-1"))
            .right(Axis::number("test loss (nats)"))
            .series(Series::both("top-1", curve(|point| point.top1)))
            .series(Series::both("loss, at the right", curve(|point| point.loss)).on_right());
        if let Some(dense) = own().find(|point| point.rank == 0) {
            plot = plot
                .reference("top-1 of the dense network", dense.top1.0)
                .reference_on_right("its loss", dense.loss.0);
        }
        plot.note("Dashed: dense convolutions. Error bars: one standard deviation over trainings, where there are several.")
    })
}

fn percent((mean, deviation): (f64, f64), count: usize) -> String {
    match count {
        1 => format!("{:.2}", 100.0 * mean),
        _ => format!("{:.2} ± {:.2}", 100.0 * mean, 100.0 * deviation),
    }
}

impl Cpac {
    /// Dense and largest rank of every depth on the sound split.
    fn verdict(&self, points: &[Point]) -> String {
        let sound: Vec<&Point> = points.iter().filter(|point| !point.leaks).collect();
        let of = |layers: usize| {
            let own = || sound.iter().filter(move |point| point.layers == layers);
            let dense = own().find(|point| point.rank == 0);
            let largest = own().filter(|point| point.rank > 0).max_by_key(|point| point.rank)?;
            let beside = dense.map_or(String::new(), |dense| {
                format!(" against {} % dense", percent(dense.top1, dense.count))
            });
            let depth = if layers == 1 { "one layer" } else { "two layers" };
            Some(format!(
                "{depth} at rank {}: {} %{beside}",
                largest.rank,
                percent(largest.top1, largest.count)
            ))
        };
        let depths: Vec<String> = self.settings.layers.iter().filter_map(|&n| of(n)).collect();
        let tests = self.data.first().map_or(0, |(_, test)| test.len());
        format!("Top-1 of {tests} test images: {}.", depths.join("; "))
    }

    fn cards(&self, points: &[Point]) -> Vec<Card> {
        let sound = points.iter().filter(|point| !point.leaks && point.rank == 5);
        sound
            .map(|point| {
                let title = format!("{}, R = 5", label(points, point));
                Card::new(title, Cell::text(percent(point.top1, point.count)).unit("%")).note(
                    format!(
                        "{} parameters in convolutions{}",
                        point.conv_params,
                        point.share.map_or(String::new(), |share| format!(
                            ", {:.0} % of dense",
                            100.0 * share
                        ))
                    ),
                )
            })
            .collect()
    }

    fn table(&self, points: &[Point]) -> Table {
        let mut columns = vec![
            Column::text("split"),
            Column::number("layers"),
            Column::number("rank"),
            Column::number("convolutions' parameters"),
            Column::number("share of dense").unit("%"),
            Column::number("parameters"),
            Column::number("MACs").unit("M"),
            Column::text("top-1").unit("%"),
            Column::number("loss").unit("nats"),
        ];
        // The authors worked on other data sets than some of ours.
        let with_authors = !self.settings.published.is_empty();
        if with_authors {
            columns.extend([
                Column::number("top-1, authors").unit("%").published(),
                Column::number("loss, authors").unit("nats").published(),
            ]);
        }
        let mut table = Table::new("Every rank", columns);
        for point in points {
            let published = self.settings.published.iter();
            let published =
                published.clone().find(|one| (one.layers, one.rank) == (point.layers, point.rank));
            let top1 = Cell::text(percent(point.top1, point.count));
            let split = match point.leaks {
                true => format!("{} (not sound)", point.split),
                false => point.split.clone(),
            };
            let mut cells = vec![
                Cell::text(split),
                Cell::count(point.layers as u64),
                match point.rank {
                    0 => Cell::text("dense"),
                    rank => Cell::count(rank as u64),
                },
                Cell::count(point.conv_params as u64),
                point.share.map(|share| Cell::percent(share, 1)).into(),
                Cell::count(point.params as u64),
                Cell::millions(point.macs as u64, 3),
                if point.leaks { top1 } else { top1.strong() },
                Cell::number(point.loss.0, 4),
            ];
            if with_authors {
                cells.extend([
                    published.map(|one| Cell::percent(one.top1, 2)).into(),
                    published.and_then(|one| Some(Cell::number(one.loss?, 4))).into(),
                ]);
            }
            table.row(cells);
        }
        let tests = self.data.first().map_or(1, |(_, test)| test.len()) as f64;
        let top1 = points.first().map_or(0.0, |point| point.top1.0);
        table.note(format!(
            "One standard deviation of a sample of {tests} test images is {:.2} points. Factors have more numbers than the dense kernel where \
             the share is above 100 %.",
            100.0 * (top1 * (1.0 - top1) / tests.max(1.0)).sqrt()
        ));
        table
    }

    fn protocol(&self) -> String {
        let Settings { train, filters, splits, .. } = &self.settings;
        let leaking: Vec<&str> =
            splits.iter().filter(|split| split.leaks).map(|split| split.name.as_str()).collect();
        let leaks = match leaking.is_empty() {
            true => String::new(),
            false => format!(
                " The split \"{}\" is drawn picture by picture, as the authors': copies of test tiles are among its training images, so that its \
                 figures say nothing of new tiles; without validation images it keeps the last epoch.",
                leaking.join("\", \"")
            ),
        };
        format!(
            "Protocol: {filters} filters of 3×3 in every convolution, no bias; {} epochs in batches of {}; the epoch of the best validation accuracy \
             is kept, and the test images are seen once. The authors take one image a step at a rate of 1e-4 and report the best epoch on the \
             test images. Factors start as a CP model of a random normal kernel divided by its number of taps, as theirs; dense kernels start by \
             He's rule.{leaks}",
            train.epochs, train.batch_size
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(layers: usize, rank: usize, seed: u64, top1: f64) -> Outcome {
        let test = Evaluation { examples: 10, top1, top5: 1.0, loss: 1.0 - top1, seconds: 0.0 };
        let conv_params = if rank == 0 { 648 } else { 37 * rank };
        Outcome {
            split: "a".into(),
            leaks: false,
            layers,
            rank,
            seed,
            params: 1000,
            conv_params,
            macs: 1,
            test,
        }
    }

    #[test]
    fn trainings_of_one_network_are_one_point() {
        let outcomes = [
            outcome(2, 0, 1, 0.9),
            outcome(2, 5, 1, 0.8),
            outcome(2, 5, 2, 0.6),
            outcome(1, 5, 1, 0.5),
        ];
        let found = points(&outcomes);
        assert_eq!(found.len(), 3);
        let five = &found[1];
        assert_eq!((five.rank, five.count), (5, 2));
        assert!((five.top1.0 - 0.7).abs() < 1e-12 && five.share == Some(185.0 / 648.0));
        // No dense network of one layer was trained.
        assert!(found[2].share.is_none());
    }

    /// methods.md's counts: 37 R against 648.
    #[test]
    fn the_convolutions_count_as_published() {
        let text = include_str!("../experiments/cpac.toml");
        let about = crate::description::Description::new(text);
        let args = crate::experiment::command("cpac", &about).get_matches_from([
            "cpac",
            "--dataset",
            "mnist",
        ]);
        let settings: Settings = about.settings(&args).unwrap().try_into().unwrap();
        for (rank, count) in [(0, 648), (1, 37), (12, 444)] {
            let cell = Training { split: 0, layers: 2, rank, seed: 1 };
            assert_eq!(conv_params(&start(&settings, 10, &cell).unwrap()), count);
        }
    }
}
