//! Accuracy against cost: one trained network compressed to several budgets, beside the published points.
//!
//! Every budget has a plan of its own, made from the error that each layer would have at every rank; nothing is chosen by the
//! test set, on which each compressed network is evaluated once.

use anyhow::{Context as _, Result, bail};
use cp_net::{Network, Totals};
use cp_plan::LayerReport;
use cp_report::{Axis, Block, Card, Cell, Column, Report, Series, Table, XyPlot};
use cp_train::timing::{self, Timing, TimingOptions};
use cp_train::{
    CompressData, EngineName, Evaluation, Latency, Origin, Preset, Recipe, StageReport, Target,
    TrainData,
};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::description::overlay;
use crate::experiment::{Experiment, Findings, Row};
use crate::figures::{
    accuracy_curves, fewer, layer_table, mean_deviation, quartiles, speeds, threads_text,
};

/// `experiments/curve.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    arch: String,
    /// A file of the data folder, or one of this project, named from its root.
    weights: String,
    dataset: String,
    test_split: String,
    /// Compressed / dense multiply-adds.
    budgets: Vec<f64>,
    /// The budget that is run with several seeds, and these.
    headline: f64,
    seeds: Vec<u64>,
    /// Batches that the dense and every compressed network are timed at, in turns.
    timing_batches: Vec<usize>,
    published: Vec<Published>,
    /// The recipe that every budget is reached by; none for what `polyad compress` does without data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    preset: Option<Preset>,
    /// Laid over the preset's recipe, for a quick look: `{ compress = { fine_tune = { epochs = 1 } } }`.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    changes: toml::Table,
}

/// A published point: shares removed, and the change of top-1 in points.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Published {
    method: String,
    macs: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    params: Option<f64>,
    points: f64,
}

pub(crate) struct Curve {
    settings: Settings,
    dense: Network,
    data: CompressData,
    dense_test: Evaluation,
    /// Whether the dense network has seen the validation images.
    origin: Origin,
}

/// One compressed network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    budget: f64,
    seed: u64,
    cost: Totals,
    stages: Vec<StageReport>,
    layers: Vec<LayerReport>,
    test: Evaluation,
}

impl Outcome {
    /// The stage that was kept.
    fn kept(&self) -> Option<&StageReport> {
        self.stages.iter().rfind(|stage| stage.kept)
    }
}

impl Experiment for Curve {
    type Settings = Settings;
    /// A budget and a seed.
    type Cell = (f64, u64);
    type Outcome = (Outcome, Network);

    fn check(settings: &Settings) -> Result<()> {
        if settings.seeds.is_empty() {
            bail!("the settings name no seeds: at least one is needed, such as seeds = [1]");
        }
        if settings.budgets.is_empty() {
            bail!("the settings name no budgets: at least one is needed, such as budgets = [0.5]");
        }
        for &budget in &settings.budgets {
            recipe(settings, Origin::Unknown, budget, settings.seeds[0])?.check(true)?;
        }
        Ok(())
    }

    fn prepare(context: &mut Context, settings: Settings) -> Result<Self> {
        let train = TrainData {
            train: context.dataset(&settings.dataset, "train")?,
            validation: Some(context.dataset(&settings.dataset, "validation")?),
        };
        let classes = train.train.classes().len();
        let dense = context.network(&settings.weights, &settings.arch, classes)?;
        let test = context.dataset(&settings.dataset, &settings.test_split)?;
        let dense_test = context.stages.evaluate("dense-test", &dense, &test)?;
        let data = CompressData { train, test: Some(test) };
        // What all cells have in common, before they start.
        let origin = context.origin(&settings.weights, &settings.dataset)?;
        let first = recipe(&settings, origin, settings.budgets[0], settings.seeds[0])?;
        first.plan(&dense, given(&settings, &data), &context.stages)?;
        Ok(Self { settings, dense, data, dense_test, origin })
    }

    fn cells(&self) -> Vec<(f64, u64)> {
        let Settings { budgets, seeds, headline, .. } = &self.settings;
        let mut cells = Vec::new();
        for &budget in budgets {
            let count = if (budget - headline).abs() < 1e-9 { seeds.len() } else { 1 };
            cells.extend(seeds.iter().take(count).map(|&seed| (budget, seed)));
        }
        cells
    }

    fn name((budget, seed): &(f64, u64)) -> String {
        format!("budget {budget}, seed {seed}")
    }

    fn run(&self, context: &Context, &(budget, seed): &(f64, u64)) -> Result<(Outcome, Network)> {
        let stages = context.stages.within(&folder(budget, seed))?;
        let recipe = recipe(&self.settings, self.origin, budget, seed)?;
        let done = recipe.run(&self.dense, given(&self.settings, &self.data), &stages)?;
        let [_, cost] = done.cost;
        let test = match (done.test, &self.data.test) {
            (Some([_, test]), _) => test,
            (None, Some(test)) => stages.evaluate("test", &done.network, test)?,
            (None, None) => bail!("there are no test data"),
        };
        let (stages, layers) = (done.stages, done.layers);
        Ok((Outcome { budget, seed, cost, stages, layers, test }, done.network))
    }

    fn report(&self, context: &Context, made: Vec<(Outcome, Network)>) -> Result<Findings> {
        let Self { settings, dense, .. } = self;
        let first = made.iter().filter(|(outcome, _)| outcome.seed == settings.seeds[0]);
        let timed: Vec<&Network> =
            std::iter::once(dense).chain(first.map(|(_, network)| network)).collect();
        let key = (&settings.timing_batches, context.stages.engine().name());
        let times = context.stage("latency", &key, &timed, || {
            let time = |&batch: &usize| {
                Ok(context.stages.latency(&timed, batch, &TimingOptions::default())?)
            };
            settings.timing_batches.iter().map(time).collect::<Result<Vec<_>>>()
        })?;
        let outcomes: Vec<Outcome> = made.into_iter().map(|(outcome, _)| outcome).collect();
        self.write_report(context, &outcomes, &times)
    }
}

/// Where the stages of one budget and seed are.
fn folder(budget: f64, seed: u64) -> String {
    format!("budgets/{budget}-seed{seed}")
}

/// The recipe of one budget and seed.
fn recipe(settings: &Settings, origin: Origin, budget: f64, seed: u64) -> Result<Recipe> {
    let target = Target::MacsRatio(budget);
    let augmentation = cp_train::augmentation_of(&settings.dataset);
    let preset = match settings.preset {
        Some(preset) => Recipe::with_data(preset, target, augmentation),
        None => Recipe::data_free(target),
    };
    let mut recipe = toml::Table::try_from(preset)?;
    overlay(&mut recipe, &settings.changes);
    let recipe: Recipe = recipe.try_into().context("changes")?;
    // The plan is the same for all seeds; networks are timed together, at the end.
    let mut recipe = Recipe { timing_batches: Vec::new(), ..recipe };
    recipe.heed(origin);
    recipe.compress.seed = seed;
    if let Some(fine_tune) = &mut recipe.compress.fine_tune {
        fine_tune.seed = seed;
    }
    Ok(recipe)
}

/// The data that the recipe gets to see.
fn given<'a>(settings: &Settings, data: &'a CompressData) -> Option<&'a CompressData> {
    settings.preset.map(|_| data)
}

impl Curve {
    fn write_report(
        &self,
        context: &Context,
        outcomes: &[Outcome],
        latencies: &[Vec<Timing>],
    ) -> Result<Findings> {
        let engine = context.stages.engine().name();
        let Self { settings: config, dense, dense_test, .. } = self;
        let data = &self.data.train;
        let before = dense.cost(&dense.input().shape)?.total;
        let change = |outcome: &Outcome| outcome.test.top1 - dense_test.top1;
        let removed = |after: usize, before: usize| 1.0 - after as f64 / before as f64;
        let headline: Vec<&Outcome> =
            outcomes.iter().filter(|o| (o.budget - config.headline).abs() < 1e-9).collect();
        let first: Vec<&Outcome> =
            outcomes.iter().filter(|outcome| outcome.seed == config.seeds[0]).collect();

        let verdict = match headline.first() {
            None => format!("{} on {} images.", config.arch, dense_test.examples),
            Some(one) => {
                let changes: Vec<f64> = headline.iter().map(|o| 100.0 * change(o)).collect();
                let (mean, deviation) = mean_deviation(&changes);
                let spread = match changes.len() {
                    1 => " points".to_owned(),
                    n => format!(" ± {deviation:.2} points (n = {n})"),
                };
                format!(
                    "{} with {:.1} % fewer multiply-adds and {:.1} % fewer parameters: test top-1 changes by {mean:+.2}{spread} from \
                 {:.2} %.",
                    config.arch,
                    100.0 * removed(one.cost.macs, before.macs),
                    100.0 * removed(one.cost.params, before.params),
                    100.0 * dense_test.top1,
                )
            }
        };
        let mut report = Report::new(
            format!("{} on {}: accuracy against cost", config.arch, config.dataset),
            verdict,
        );
        if let Some(one) = headline.first() {
            let changes: Vec<f64> = headline.iter().map(|o| change(o)).collect();
            report.add(Block::cards([
                Card::new(
                    "test top-1, change",
                    Cell::points(mean_deviation(&changes).0, 2).unit("points"),
                )
                .note(match changes.len() {
                    1 => "one seed".to_owned(),
                    n => format!("{n} seeds"),
                }),
                Card::new(
                    "fewer multiply-adds",
                    Cell::ratio(before.macs as f64 / one.cost.macs as f64, 2),
                ),
                Card::new(
                    "fewer parameters",
                    Cell::ratio(before.params as f64 / one.cost.params as f64, 2),
                ),
            ]));
        }
        let mut plot = XyPlot::new(
            "Change of test top-1 against multiply-adds removed",
            Axis::percent("multiply-adds removed"),
            Axis::number("change of top-1 (points)").include(0.0),
        )
        .series(Series::both(
            "Polyad",
            first.iter().map(|o| (removed(o.cost.macs, before.macs), 100.0 * change(o))),
        ));
        for one in &config.published {
            plot = plot.series(Series::points(one.method.clone(), [(one.macs, one.points)]));
        }
        report.add(plot.reference("dense", 0.0));

        let mut table = Table::new(
            "Every budget",
            [
                Column::text("network"),
                Column::number("parameters"),
                Column::number("removed").unit("%"),
                Column::number("MACs").unit("M"),
                Column::number("removed").unit("%"),
                Column::number("test top-1").unit("%"),
                Column::number("change").unit("points"),
            ],
        );
        table.row([
            Cell::text("dense"),
            Cell::count(before.params as u64),
            Cell::missing(),
            Cell::millions(before.macs as u64, 2),
            Cell::missing(),
            Cell::percent(dense_test.top1, 2),
            Cell::missing(),
        ]);
        for outcome in &first {
            table.row([
                Cell::text(format!("budget {}", outcome.budget)),
                Cell::count(outcome.cost.params as u64),
                Cell::percent(removed(outcome.cost.params, before.params), 1),
                Cell::millions(outcome.cost.macs as u64, 2),
                Cell::percent(removed(outcome.cost.macs, before.macs), 1),
                Cell::percent(outcome.test.top1, 2),
                Cell::points(change(outcome), 2),
            ]);
        }
        let deviation =
            (dense_test.top1 * (1.0 - dense_test.top1) / dense_test.examples.max(1) as f64).sqrt();
        table.note(format!(
        "One standard deviation of the test sample of {} images is {:.2} points for one network; of the difference of two networks \
         that agree on most images it is smaller.",
        dense_test.examples,
        100.0 * deviation,
    ));
        report.add(table);
        report.add(self.times_table(engine, &first, latencies));
        report.add(stages_table(&first));

        let mut published = Table::new(
            "Published points",
            [
                Column::text("method"),
                Column::number("MACs removed").unit("%").published(),
                Column::number("parameters removed").unit("%").published(),
                Column::number("change").unit("points").published(),
            ],
        );
        for one in &config.published {
            published.row([
                Cell::text(&one.method),
                Cell::percent(one.macs, 1),
                one.params.map_or_else(Cell::missing, |params| Cell::percent(params, 1)),
                Cell::points(one.points / 100.0, 2),
            ]);
        }
        published.note(
        "On the official test set, from dense networks of other accuracy, and after fine-tuning of their own length: they compare in kind.",
    );
        if !config.published.is_empty() {
            report.add(published);
        }

        if headline.len() > 1 {
            let mut seeds = Table::new(
                format!("Budget {} with every seed", config.headline),
                [
                    Column::text("seed"),
                    Column::number("validation top-1").unit("%"),
                    Column::number("test top-1").unit("%"),
                    Column::number("change").unit("points"),
                ],
            );
            for outcome in &headline {
                let last = outcome.kept().and_then(|stage| stage.validation);
                seeds.row([
                    Cell::text(outcome.seed.to_string()),
                    last.map_or_else(Cell::missing, |found| Cell::percent(found.top1, 2)),
                    Cell::percent(outcome.test.top1, 2),
                    Cell::points(change(outcome), 2),
                ]);
            }
            report.add(seeds);
        }
        if let Some(one) = headline.first().copied().or(first.first().copied()) {
            report.add(Block::heading(format!("Budget {}", one.budget)));
            report.add(layer_table(&one.layers));
            if recipe(config, self.origin, one.budget, one.seed)?.compress.fine_tune.is_some() {
                let stages = context.stages.within(&folder(one.budget, one.seed))?;
                let epochs = stages.dir().epochs("fine-tuned")?;
                report.add(accuracy_curves("Fine-tuning: accuracy", &epochs));
            }
        }
        let learned = match config.preset {
            None => "no data before the test".to_owned(),
            Some(_) => format!(
                "{} images for fine-tuning, {} for validation, {}",
                data.train.len(),
                data.validation.as_ref().map_or(0, |set| set.len()),
                match self.origin {
                    Origin::Apart => "from which the kept epoch is chosen",
                    Origin::Seen => {
                        "which the published weights were trained on, so that their accuracy flatters and the last epoch is kept"
                    }
                    Origin::Unknown => {
                        "from which the kept epoch is chosen (what the weights were trained on is not known)"
                    }
                },
            ),
        };
        report.add(Block::text(format!(
            "Protocol: {learned}; {} ({}) for the test, on which every compressed network was evaluated once, in eval mode. Ranks come from the \
             errors of the decompositions alone.",
            dense_test.examples, config.test_split,
        )));
        let rows = self.rows(engine, &before, outcomes, latencies)?;
        let result =
            serde_json::json!({ "dense": dense_test, "outcomes": outcomes, "latency": latencies });
        Ok(Findings { report, result, rows, fault: None })
    }

    /// The headline with all its seeds, and the smallest network.
    fn rows(
        &self,
        engine: EngineName,
        before: &Totals,
        outcomes: &[Outcome],
        latencies: &[Vec<Timing>],
    ) -> Result<Vec<Row>> {
        let Self { settings: config, dense_test, .. } = self;
        let first: Vec<&Outcome> = outcomes.iter().filter(|o| o.seed == config.seeds[0]).collect();
        let smallest = config.budgets.iter().copied().fold(f64::INFINITY, f64::min);
        let mut rows: Vec<Row> = Vec::new();
        for budget in [config.headline, smallest] {
            let same = |o: &&Outcome| (o.budget - budget).abs() < 1e-9;
            let seeds: Vec<f64> =
                outcomes.iter().filter(same).map(|o| 100.0 * o.test.top1).collect();
            let Some(index) = first.iter().position(same) else { continue };
            let (one, threads) = (first[index], timing::set_threads(0));
            let batches = config.timing_batches.iter().zip(latencies);
            let times: Vec<Latency> = batches
                .filter_map(|(&batch, times)| {
                    let (&dense, &compressed) = (times.first()?, times.get(index + 1)?);
                    Some(Latency { engine, batch, threads, dense, compressed })
                })
                .collect();
            let (mean, deviation) = mean_deviation(&seeds);
            let spread = match seeds.len() {
                1 => String::new(),
                n => format!(" ± {deviation:.2} ({n} seeds)"),
            };
            let row = Row {
                network: self.described(one)?,
                data: format!("{}, {} images", config.dataset, dense_test.examples),
                params: fewer(before.params, one.cost.params),
                macs: fewer(before.macs, one.cost.macs),
                top1: format!("{:.2} % → {mean:.2}{spread} %", 100.0 * dense_test.top1),
                speed: speeds(&times),
            };
            if rows.last() != Some(&row) {
                rows.push(row);
            }
        }
        Ok(rows)
    }

    fn described(&self, outcome: &Outcome) -> Result<String> {
        let Settings { arch, weights, preset, .. } = &self.settings;
        let weights = if weights.contains('/') { "our weights" } else { "published weights" };
        let recipe = recipe(&self.settings, self.origin, outcome.budget, outcome.seed)?;
        let how = match preset {
            None => "no data".to_owned(),
            Some(Preset::Quick) => "preset quick".to_owned(),
            Some(Preset::Default) => "default preset".to_owned(),
            Some(Preset::Best) => "preset best".to_owned(),
        };
        let tuned = match recipe.compress.fine_tune {
            Some(tune) => format!("{} epochs", tune.epochs),
            None => "no fine-tuning".to_owned(),
        };
        Ok(format!("{arch}, {weights}, {how}, {tuned}"))
    }

    /// Times of the dense network and of every budget's, by batch.
    fn times_table(
        &self,
        engine: EngineName,
        first: &[&Outcome],
        latencies: &[Vec<Timing>],
    ) -> Table {
        let mut columns = vec![Column::text("network")];
        for batch in &self.settings.timing_batches {
            columns.push(Column::number(format!("batch {batch}")).unit("ms"));
            columns.push(Column::text("quartiles"));
            columns.push(Column::number("speed-up"));
        }
        let mut table = Table::new(format!("Latency in {engine}"), columns);
        let names = std::iter::once("dense".to_owned())
            .chain(first.iter().map(|outcome| format!("budget {}", outcome.budget)));
        for (index, name) in names.enumerate() {
            let mut row = vec![Cell::text(name)];
            for times in latencies {
                let (Some(dense), Some(time)) = (times.first(), times.get(index)) else { continue };
                row.push(Cell::millis(time.median));
                row.push(Cell::text(quartiles(time)));
                row.push(Cell::ratio(dense.median / time.median, 2));
            }
            table.row(row);
        }
        table.note(format!(
            "Medians and quartiles of forward passes of all networks in turn, {}.",
            threads_text(timing::set_threads(0))
        ));
        table
    }
}

/// Validation top-1 of every budget behind every stage.
fn stages_table(outcomes: &[&Outcome]) -> Table {
    let stages = ["decomposed", "calibrated", "fine-tuned"];
    let columns = stages.map(|stage| Column::number(stage).unit("%"));
    let mut table = Table::new(
        "Validation top-1 behind every stage",
        [vec![Column::text("network")], columns.into(), vec![Column::text("kept")]].concat(),
    );
    for outcome in outcomes {
        let cells = stages.map(|name| {
            let stage = outcome.stages.iter().find(|stage| stage.stage == name);
            stage
                .and_then(|stage| stage.validation)
                .map_or_else(Cell::missing, |found| Cell::percent(found.top1, 2))
        });
        let name = Cell::text(format!("budget {}", outcome.budget));
        let kept = outcome.kept().map_or_else(Cell::missing, |stage| Cell::text(&stage.stage));
        table.row([vec![name], cells.into(), vec![kept]].concat());
    }
    table.note(
        "Kept is what is better on the validation images: a calibration by the loss, fine-tuning by top-1.",
    );
    table
}
