//! The zoo: every kind of convolution in one plain network, at one number of parameters, trained by one recipe on as many images.

use std::sync::Arc;

use anyhow::{Result, bail};
use cp_data::Dataset;
use cp_net::{Architecture, Form, Network, arch};
use cp_plan::cp_start;
use cp_report::{Axis, Block, Card, Cell, Column, Report, Series, Table, XyPlot};
use cp_train::engine::{Engine, EngineName, Inputs, Subject};
use cp_train::timing::{self, Timing, TimingOptions};
use cp_train::{CompressData, Evaluation, Preset, Recipe, Stages, Target, TrainConfig, TrainData};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::context::{Context, sample};
use crate::experiment::{Experiment, Findings};
use crate::figures::{mean_deviation, threads_text};

/// `experiments/zoo.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    dataset: String,
    test_split: String,
    /// The number of parameters that all come near to, and how near, as a share.
    params: usize,
    within: f64,
    /// 0 for all.
    train_examples: usize,
    test_examples: usize,
    /// Batches that the networks are timed at.
    batches: Vec<usize>,
    /// Some of the networks; all where it is empty.
    #[serde(default)]
    only: Vec<String>,
    train: TrainConfig,
    networks: Vec<Entry>,
}

/// A network of the zoo.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    arch: String,
    #[serde(default)]
    start: Start,
    /// Trainings, from the seed of the command line upward.
    #[serde(default = "one")]
    repeats: u64,
    /// The source's size, whatever the others have.
    #[serde(default)]
    own_size: bool,
}

fn one() -> u64 {
    1
}

/// How a training starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Start {
    /// At random, by the rules of its layers.
    #[default]
    Random,
    /// Factors from CP models of random kernels.
    Cpac,
    /// From the CP model of the network, trained for half of the epochs.
    Compressed,
}

pub(crate) struct Zoo {
    settings: Settings,
    data: TrainData,
    validation: Arc<dyn Dataset>,
    test: Arc<dyn Dataset>,
}

#[derive(Debug, Clone)]
pub(crate) struct Trained {
    name: String,
    network: Network,
    epochs: usize,
    /// Seconds of training.
    seconds: f64,
    validation: f64,
    test: Evaluation,
}

impl Settings {
    fn arch(&self, entry: &Entry, classes: usize) -> Result<Architecture> {
        Ok(arch::by_name(&entry.arch)?.with_classes(classes)?)
    }

    /// The networks that are asked for.
    fn entries(&self) -> impl Iterator<Item = &Entry> {
        let asked = |entry: &&Entry| self.only.is_empty() || self.only.contains(&entry.name);
        self.networks.iter().filter(asked)
    }
}

impl Experiment for Zoo {
    type Settings = Settings;
    type Cell = (usize, u64);
    type Outcome = Trained;

    fn seed(settings: &mut Settings, seed: u64) {
        settings.train.seed = seed;
    }

    fn check(settings: &Settings) -> Result<()> {
        let names: Vec<&str> = settings.networks.iter().map(|entry| entry.name.as_str()).collect();
        if let Some(name) = settings.only.iter().find(|name| !names.contains(&name.as_str())) {
            bail!("--only: {name} is none of {}", names.join(", "));
        }
        if settings.train.epochs < 2 {
            bail!(
                "--epochs: {} is not at least 2, of which the compressed network has half",
                settings.train.epochs
            );
        }
        for entry in &settings.networks {
            let count = settings.arch(entry, 10)?.param_count();
            let (params, within) = (settings.params as f64, settings.within);
            let off = (count as f64 / params - 1.0).abs();
            let free = entry.own_size || entry.start == Start::Compressed;
            if !free && off > within {
                bail!(
                    "the network {} has {count} parameters, which are not within {:.0} % of {}",
                    entry.name,
                    100.0 * within,
                    settings.params
                );
            }
        }
        Ok(settings.train.check()?)
    }

    fn prepare(context: &mut Context, settings: Settings) -> Result<Self> {
        let mut open = |split: &str, count: usize| {
            let set = context.dataset(&settings.dataset, split)?;
            if count == 0 { Ok(set) } else { sample(set, count, context.seed) }
        };
        let train = open("train", settings.train_examples)?;
        let validation = open("validation", settings.test_examples)?;
        let test = open(&settings.test_split, settings.test_examples)?;
        let data = TrainData { train, validation: Some(Arc::clone(&validation)) };
        Ok(Self { settings, data, validation, test })
    }

    fn cells(&self) -> Vec<(usize, u64)> {
        let seed = self.settings.train.seed;
        let index = |name: &str| self.settings.networks.iter().position(|other| other.name == name);
        let entries =
            self.settings.entries().filter_map(|entry| Some((index(&entry.name)?, entry)));
        let of = |(index, entry): (usize, &Entry)| {
            (0..entry.repeats).map(move |n| (n, (index, seed.wrapping_add(n))))
        };
        let mut cells: Vec<(u64, (usize, u64))> = entries.flat_map(of).collect();
        // Every network once, before any is trained again.
        cells.sort_by_key(|(n, (index, _))| (*n, *index));
        cells.into_iter().map(|(_, cell)| cell).collect()
    }

    fn name((index, seed): &(usize, u64)) -> String {
        format!("network {}, seed {seed}", index + 1)
    }

    fn run(&self, context: &Context, (index, seed): &(usize, u64)) -> Result<Trained> {
        let Self { settings, test, .. } = self;
        let entry = &settings.networks[*index];
        let folder = format!("{}-seed{seed}", entry.name.replace(' ', "-"));
        let stages = context.stages.within(&folder)?;
        let start = settings.arch(entry, test.classes().len())?.initialize(*seed)?;
        let config = TrainConfig { seed: *seed, ..settings.train.clone() };
        let network = match entry.start {
            Start::Random => self.trained(&stages, &start, &config)?,
            Start::Cpac => self.trained(&stages, &cp_start(&start, *seed)?, &config)?,
            Start::Compressed => {
                let half = config.epochs / 2;
                let dense = TrainConfig { epochs: config.epochs - half, ..config.clone() };
                let dense = self.trained(&stages, &start, &dense)?;
                self.compressed(&stages, &dense, half, *seed)?
            }
        };
        let mut epochs = Vec::new();
        for phase in ["trained", "fine-tuned"] {
            epochs.extend(stages.dir().epochs(phase)?);
        }
        let validation = stages.evaluate("validation", &network, &self.validation)?;
        Ok(Trained {
            name: entry.name.clone(),
            epochs: epochs.len(),
            seconds: epochs.iter().map(|epoch| epoch.seconds).sum(),
            validation: validation.top1,
            test: stages.evaluate("test", &network, test)?,
            network,
        })
    }

    fn report(&self, context: &Context, trained: Vec<Trained>) -> Result<Findings> {
        let times = self.times(context, &trained)?;
        let rows = self.rows(&trained, &times)?;
        let mut report = Report::new(
            format!("The zoo: kinds of layers on {}", self.settings.dataset),
            self.verdict(&rows),
        );
        let card = |row: &RowOf| {
            Card::new(&row.name, Cell::text(row.top1()).unit("%"))
                .note(format!("{:.1} M multiply-adds", row.macs as f64 / 1e6))
        };
        report.add(Block::cards(rows.iter().take(3).map(card).collect::<Vec<_>>()));
        report.add(self.table(&rows));
        report.add(self.times_table(&rows));
        report.add(plot(&rows));
        report.add(sparsity(&self.firsts(&trained))?);
        report.add(Block::text(advice(&rows)));
        report.add(Block::text(self.protocol()));
        let result = json!({ "networks": rows, "test_examples": self.test.len() });
        Ok(Findings { report, result, rows: Vec::new(), fault: None })
    }
}

/// Median seconds of a network in an engine at a batch; none where the engine does not run it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Timed {
    engine: EngineName,
    batch: usize,
    timing: Option<Timing>,
}

/// The trainings of one network.
#[derive(Debug, Clone, Serialize)]
struct RowOf {
    name: String,
    own_size: bool,
    params: usize,
    macs: usize,
    seconds: f64,
    epochs: usize,
    /// By seed.
    validation: Vec<f64>,
    top1s: Vec<f64>,
    losses: Vec<f64>,
    times: Vec<Timed>,
}

impl RowOf {
    /// Mean and deviation, in percent.
    fn top1(&self) -> String {
        let (mean, deviation) = mean_deviation(&self.top1s);
        match self.top1s.len() {
            1 => format!("{:.2}", 100.0 * mean),
            n => format!("{:.2} ± {:.2} (n = {n})", 100.0 * mean, 100.0 * deviation),
        }
    }

    fn validated(&self) -> f64 {
        mean_deviation(&self.validation).0
    }

    fn milliseconds(&self, engine: EngineName, batch: usize) -> Option<f64> {
        let own = self.times.iter().find(|time| time.engine == engine && time.batch == batch);
        own.and_then(|time| Some(1e3 * time.timing?.median / batch as f64))
    }

    /// Images a second in the fastest engine at the largest batch.
    fn fastest(&self) -> Option<f64> {
        let batch = self.times.iter().map(|time| time.batch).max()?;
        let times = self.times.iter().filter(|time| time.batch == batch);
        let seconds = times.filter_map(|time| Some(time.timing?.median / batch as f64));
        seconds.min_by(f64::total_cmp).map(|seconds| 1.0 / seconds)
    }
}

impl Zoo {
    fn trained(&self, stages: &Stages, start: &Network, config: &TrainConfig) -> Result<Network> {
        let model = stages.executor(start)?;
        Ok(stages.train("trained", model, None, &self.data, config)?)
    }

    /// By the recipe of `polyad compress`, in CP-3, with so many epochs of fine-tuning.
    fn compressed(
        &self,
        stages: &Stages,
        dense: &Network,
        epochs: usize,
        seed: u64,
    ) -> Result<Network> {
        let ratio = self.settings.params as f64 / dense.param_count() as f64;
        let target = Target::ParamsRatio(ratio);
        let augmentation = self.settings.train.augmentation;
        let mut recipe = Recipe::with_data(Preset::Default, target, augmentation).seeded(seed);
        recipe.timing_batches.clear();
        recipe.plan.forms = vec![Form::Cp3];
        if let Some(tune) = &mut recipe.compress.fine_tune {
            tune.epochs = epochs;
        }
        let data = CompressData { train: self.data.clone(), test: None };
        Ok(recipe.run(dense, Some(&data), stages)?.network)
    }

    /// Every engine at hand, all networks in turn at each batch; an engine that does not run a network has no time for it.
    fn times(&self, context: &Context, trained: &[Trained]) -> Result<Vec<Vec<Timed>>> {
        let mut engines = context.engines();
        let torch = Engine::Torch(context.stages.device());
        if !engines.contains(&torch) {
            engines.push(torch);
        }
        let names: Vec<EngineName> = engines.iter().map(|engine| engine.name()).collect();
        let first = self.firsts(trained);
        let networks: Vec<&Network> = first.iter().map(|one| &one.network).collect();
        let key = (&self.settings.batches, names, timing::set_threads(0));
        context.stage("latency", &key, &networks, || {
            let mut times = vec![Vec::new(); networks.len()];
            for &engine in &engines {
                for &batch in &self.settings.batches {
                    let (mut ready, mut places) = (Vec::new(), Vec::new());
                    for (place, network) in networks.iter().enumerate() {
                        let inputs = Inputs::one(&network.input().shape, batch);
                        match engine.ready(Subject::Network(network), &inputs) {
                            Ok(own) => {
                                ready.push(own);
                                places.push(place);
                            }
                            Err(error) => eprintln!(
                                "note: {} is not timed in {}: {error}",
                                first[place].name,
                                engine.name()
                            ),
                        }
                    }
                    let found = timing::in_turn(&mut ready, &TimingOptions::default())?;
                    let timing =
                        |place| places.iter().position(|&p| p == place).map(|at| found[at]);
                    for (place, own) in times.iter_mut().enumerate() {
                        own.push(Timed { engine: engine.name(), batch, timing: timing(place) });
                    }
                }
            }
            Ok(times)
        })
    }

    /// The first training of every network.
    fn firsts<'a>(&self, trained: &'a [Trained]) -> Vec<&'a Trained> {
        let names = self.settings.entries().map(|entry| &entry.name);
        names.filter_map(|name| trained.iter().find(|one| one.name == *name)).collect()
    }

    /// The best on the validation images first.
    fn rows(&self, trained: &[Trained], times: &[Vec<Timed>]) -> Result<Vec<RowOf>> {
        let mut rows = Vec::new();
        for (first, times) in self.firsts(trained).into_iter().zip(times) {
            let own: Vec<&Trained> = trained.iter().filter(|one| one.name == first.name).collect();
            let entry = self.settings.networks.iter().find(|entry| entry.name == first.name);
            let cost = first.network.cost(&first.network.input().shape)?.total;
            rows.push(RowOf {
                name: first.name.clone(),
                own_size: entry.is_some_and(|entry| entry.own_size),
                params: cost.params,
                macs: cost.macs,
                seconds: own.iter().map(|one| one.seconds).sum::<f64>() / own.len() as f64,
                epochs: first.epochs,
                validation: own.iter().map(|one| one.validation).collect(),
                top1s: own.iter().map(|one| one.test.top1).collect(),
                losses: own.iter().map(|one| one.test.loss).collect(),
                times: times.clone(),
            });
        }
        rows.sort_by(|a, b| b.validated().total_cmp(&a.validated()));
        Ok(rows)
    }

    fn verdict(&self, rows: &[RowOf]) -> String {
        let Some(best) = rows.first() else { return "No network was trained.".to_owned() };
        let dense = rows.iter().find(|row| row.name == "dense");
        let beside = match dense {
            Some(dense) if dense.name != best.name => {
                format!(", {} % the dense one", dense.top1())
            }
            _ => String::new(),
        };
        format!(
            "At about {} parameters the network that is best on the validation images ({}) has {} % of {} test images right{beside}.",
            self.settings.params,
            best.name,
            best.top1(),
            self.test.len()
        )
    }

    fn table(&self, rows: &[RowOf]) -> Table {
        let mut table = Table::new(
            "One task, one recipe, one number of parameters",
            [
                Column::text("network"),
                Column::number("parameters"),
                Column::number("MACs").unit("M"),
                Column::number("epochs"),
                Column::number("training").unit("s"),
                Column::number("validation").unit("%"),
                Column::text("test top-1").unit("%"),
                Column::number("test loss").unit("nats"),
            ],
        );
        for row in rows {
            table.row([
                Cell::text(&row.name),
                Cell::count(row.params as u64),
                Cell::millions(row.macs as u64, 1),
                Cell::count(row.epochs as u64),
                Cell::number(row.seconds, 0),
                Cell::percent(row.validated(), 2),
                Cell::text(row.top1()).strong(),
                Cell::number(mean_deviation(&row.losses).0, 3),
            ]);
        }
        let size = self.test.len().max(1) as f64;
        let top1 = rows.first().map_or(0.0, |row| mean_deviation(&row.top1s).0);
        let own: Vec<&str> =
            rows.iter().filter(|row| row.own_size).map(|row| row.name.as_str()).collect();
        let own = match own.is_empty() {
            true => String::new(),
            false => format!(" Of their source's size: {}.", own.join(", ")),
        };
        table.note(format!(
            "In the order of the validation accuracy. One standard deviation of a sample of {} test images is {:.2} points.{own}",
            self.test.len(),
            100.0 * (top1 * (1.0 - top1) / size).sqrt()
        ));
        table
    }

    fn times_table(&self, rows: &[RowOf]) -> Table {
        let mut columns = vec![Column::text("network")];
        let places: Vec<(EngineName, usize)> = rows
            .first()
            .map(|row| row.times.iter().map(|time| (time.engine, time.batch)).collect())
            .unwrap_or_default();
        for (engine, batch) in &places {
            columns.push(Column::number(format!("{engine}, batch {batch}")).unit("ms an image"));
        }
        let mut table = Table::new("Time of a pass", columns);
        for row in rows {
            let times = places.iter().map(|&(engine, batch)| {
                row.milliseconds(engine, batch).map(|ms| Cell::number(ms, 3)).into()
            });
            table.row(std::iter::once(Cell::text(&row.name)).chain(times).collect::<Vec<Cell>>());
        }
        table.note(format!(
            "Medians, {}, all networks in turn within an engine and a batch.",
            threads_text(timing::set_threads(0))
        ));
        table
    }

    fn protocol(&self) -> String {
        let Settings { train, params, within, .. } = &self.settings;
        format!(
            "Protocol: {} training images, {} for validation, {} test images; {} epochs in batches of {} for every network, the best epoch on the \
             validation images, tested once. All but StasGT's are the same plain network of six 3×3 convolutions behind a stem, whose width \
             brings it within {:.0} % of {params} parameters. A network \"from dense\" is a wider dense one, trained for \
             half of the epochs, compressed to that number by the preset `default` of `polyad compress` in CP-3, and fine-tuned for the other half; its \
             multiply-adds and times are those of what is left.",
            self.data.train.len(),
            self.validation.len(),
            self.test.len(),
            train.epochs,
            train.batch_size,
            100.0 * within,
        )
    }
}

fn plot(rows: &[RowOf]) -> XyPlot {
    let mut plot = XyPlot::new(
        "Accuracy against speed",
        Axis::number("images a second, fastest engine, largest batch").log(),
        Axis::percent("test top-1"),
    );
    for row in rows {
        let (mean, deviation) = mean_deviation(&row.top1s);
        let point = row.fastest().map(|speed| (speed, mean, deviation));
        plot = plot.series(Series::points(&row.name, point));
    }
    plot.note("Up and to the right is better. Error bars: one standard deviation, where there are several trainings.")
}

/// How many weights of the linear layers at the ends, behind the poolings, are near zero: ChannelNets' reason for a classifier with fewer
/// (Gao, Wang & Ji 2018, section 3.5).
fn sparsity(trained: &[&Trained]) -> Result<XyPlot> {
    let mut plot = XyPlot::new(
        "Weights of the last linear layer",
        Axis::percent("threshold / largest weight").log(),
        Axis::percent("weights not above it").include(0.0).include(1.0),
    );
    // Ten to a decade.
    let thresholds: Vec<f64> = (0..=30).map(|n| 10_f64.powf(f64::from(n) / 10.0 - 3.0)).collect();
    for Trained { name, network, .. } in trained {
        let last = network.architecture().kernel_layers().last();
        let Some(last) = last.filter(|node| node.op.kind() == "linear") else { continue };
        let shares = network.sparsity(&last.name, &thresholds)?;
        plot = plot.series(Series::line(name, thresholds.iter().copied().zip(shares)));
    }
    Ok(plot.note("Networks that end in a linear layer; the first training of each."))
}

/// What a person should choose, said by the validation accuracies and the times.
fn advice(rows: &[RowOf]) -> String {
    let Some(best) = rows.first() else { return String::new() };
    let by = |better: fn(f64, f64) -> bool, value: fn(&RowOf) -> Option<f64>| {
        let mut found: Option<(&RowOf, f64)> = None;
        for row in rows {
            if let Some(value) = value(row)
                && found.is_none_or(|(_, other)| better(value, other))
            {
                found = Some((row, value));
            }
        }
        found
    };
    let fastest = by(|a, b| a > b, RowOf::fastest);
    // The fastest of those that are within a point of the best.
    let near = rows
        .iter()
        .filter(|row| row.validated() > best.validated() - 0.01)
        .filter_map(|row| Some((row, row.fastest()?)))
        .max_by(|a, b| a.1.total_cmp(&b.1));
    let mut said =
        vec![format!("What to choose: for accuracy at this size the network \"{}\".", best.name)];
    if let Some((row, speed)) = near.filter(|(row, _)| row.name != best.name) {
        said.push(format!(
            "Of those within a point of it on the validation images, \"{}\" is the fastest ({speed:.0} images a second).",
            row.name
        ));
    }
    if let Some((row, speed)) = fastest {
        said.push(format!("The fastest of all is \"{}\" ({speed:.0} images a second).", row.name));
    }
    said.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let about = crate::description::Description::new(include_str!("../experiments/zoo.toml"));
        let args = crate::experiment::command("zoo", &about).get_matches_from([
            "zoo",
            "--dataset",
            "cifar10",
        ]);
        about.settings(&args).unwrap().try_into().unwrap()
    }

    #[test]
    fn every_network_is_near_the_number_of_parameters() {
        Zoo::check(&settings()).unwrap();
        let mut wide = settings();
        wide.networks[0].arch = "plain(width=40)".into();
        let message = Zoo::check(&wide).unwrap_err().to_string();
        assert!(message.contains("dense") && message.contains("within 5 % of 270000"), "{message}");
    }

    #[test]
    fn names_that_there_are_not_are_refused() {
        let settings = Settings { only: vec!["mlp".into()], ..settings() };
        let message = Zoo::check(&settings).unwrap_err().to_string();
        assert!(message.contains("mlp") && message.contains("tensor train"), "{message}");
    }

    #[test]
    fn the_best_on_validation_comes_first_and_is_advised() {
        let row = |name: &str, validation: f64, top1: f64, ms: f64| RowOf {
            name: name.into(),
            own_size: false,
            params: 1,
            macs: 1,
            seconds: 1.0,
            epochs: 1,
            validation: vec![validation],
            top1s: vec![top1],
            losses: vec![1.0],
            times: vec![Timed {
                engine: EngineName::Infer,
                batch: 2,
                timing: Some(Timing::of(vec![ms / 1e3])),
            }],
        };
        // The one that tests best is not the one that was chosen.
        let rows = [row("a", 0.9, 0.7, 4.0), row("b", 0.895, 0.8, 2.0), row("c", 0.5, 0.9, 1.0)];
        let said = advice(&rows);
        assert!(said.contains("the network \"a\"."), "{said}");
        assert!(said.contains("\"b\" is the fastest (1000 images"), "{said}");
        assert!(said.contains("fastest of all is \"c\" (2000"), "{said}");
    }
}
