//! Accuracy against cost: one trained network compressed to several budgets, beside the published points.
//!
//! Every budget has a plan of its own, made from the error that each layer would have at every rank; nothing is chosen by the
//! test set, on which each compressed network is evaluated once.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use cp_net::{Network, Totals};
use cp_plan::LayerReport;
use cp_train::timing::{self, Timing, TimingOptions};
use cp_train::{CompressData, Evaluation, Recipe, StageReport, Target, TrainData};
use serde::{Deserialize, Serialize};

use crate::figures::{accuracy_curves, layer_table};
use crate::run::{Run, RunArgs, built_in};
use cp_report::{Axis, Block, Card, Cell, Column, Report, Series, Table, XyPlot};

/// `curve`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask curve --network resnet20 --data ~/data\n  cargo xtask curve --network resnet56 --jobs 4\n  cargo xtask curve --network resnet20 --quick"
)]
pub(crate) struct CurveArgs {
    /// Network and weights
    #[arg(long, value_enum)]
    network: Subject,
    /// Compressed / dense multiply-adds, each above 0 and below 1 [default: the configuration's]
    #[arg(long, value_name = "X,…", value_delimiter = ',')]
    budgets: Option<Vec<f64>>,
    /// A configuration in place of the built-in one, which `config.toml` of every run shows
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Networks to fine-tune at the same time, with one thread each
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// One epoch and two budgets: whether everything runs
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    common: RunArgs,
}

/// Networks with their weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// ResNet-20 as `cargo xtask train-resnet` trained it, tested on the 10,000 images of batch 5.
    Resnet20,
    /// ResNet-20 with the published weights, tested on the first 1,000 test images.
    Resnet20Published,
    /// ResNet-56 with the published weights, tested on the first 1,000 test images.
    Resnet56,
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Subject::Resnet20 => "resnet20",
            Subject::Resnet20Published => "resnet20-published",
            Subject::Resnet56 => "resnet56",
        }
    }

    fn config(self) -> Config {
        built_in(match self {
            Subject::Resnet20 => include_str!("../configs/curve-resnet20.toml"),
            Subject::Resnet20Published => include_str!("../configs/curve-resnet20-published.toml"),
            Subject::Resnet56 => include_str!("../configs/curve-resnet56.toml"),
        })
    }

    /// Method, removed shares of multiply-adds and (where known) parameters, and change of top-1 in points.
    fn published(self) -> &'static [(&'static str, f64, Option<f64>, f64)] {
        match self {
            Subject::Resnet20 | Subject::Resnet20Published => &[
                ("SVD energy", 0.491, None, -0.21),
                ("ALDS", 0.679, Some(0.749), -0.47),
                ("HALOC", 0.722, None, 0.07),
            ],
            Subject::Resnet56 => &[("HODEC", 0.62, Some(0.67), 1.17)],
        }
    }
}

/// `configs/curve-*.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
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
    timing_batch: usize,
    /// How every budget is reached; its target and its seed are replaced.
    recipe: Recipe,
}

/// One compressed network.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Outcome {
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

pub(crate) fn run(args: &CurveArgs) -> Result<()> {
    let mut config = match &args.config {
        None => args.network.config(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("--config {}", path.display()))?;
            toml::from_str(&text).with_context(|| format!("--config {}", path.display()))?
        }
    };
    if let Some(budgets) = &args.budgets {
        config.budgets.clone_from(budgets);
    }
    if args.quick {
        config.budgets = vec![0.5, config.headline];
        config.seeds.truncate(1);
        let tune = config.recipe.compress.fine_tune.take();
        config.recipe.compress.fine_tune =
            tune.map(|tune| cp_train::TrainConfig { epochs: 1, ..tune });
    }
    if let Some(budget) = config.budgets.iter().find(|budget| !(**budget > 0.0 && **budget < 1.0)) {
        bail!("--budgets: {budget} is not above 0 and below 1");
    }
    if config.seeds.is_empty() {
        bail!("the configuration names no seeds: at least one is needed, such as seeds = [1]");
    }
    for &budget in &config.budgets {
        recipe(&config, budget, config.seeds[0]).check(true)?;
    }
    let mut repeated = config.budgets.clone();
    repeated.sort_by(f64::total_cmp);
    if let Some(pair) = repeated.windows(2).find(|pair| pair[0].total_cmp(&pair[1]).is_eq()) {
        bail!("--budgets: {} is asked for twice", pair[0]);
    }
    let mut run = Run::open(&args.common, &format!("curve-{}", args.network.name()), &config)?;
    let dense = weights(&mut run, &config)?;
    let train = TrainData {
        train: run.dataset(&config.dataset, "train")?,
        validation: Some(run.dataset(&config.dataset, "validation")?),
    };
    let test = run.dataset(&config.dataset, &config.test_split)?;
    let dense_test = run.stages.evaluate("dense-test", &dense, &test)?;
    let data = CompressData { train, test: Some(test) };
    // What all jobs have in common, before they start.
    if let Some(&budget) = config.budgets.first() {
        recipe(&config, budget, config.seeds[0]).plan(&dense, Some(&data), &run.stages)?;
    }

    let mut jobs: Vec<(f64, u64)> = Vec::new();
    for &budget in &config.budgets {
        let headline = (budget - config.headline).abs() < 1e-9;
        let seeds = if headline { &config.seeds[..] } else { &config.seeds[..1] };
        jobs.extend(seeds.iter().map(|&seed| (budget, seed)));
    }
    let made = in_parallel(&jobs, usize::from(args.jobs), |&(budget, seed)| {
        one(&run, &config, &dense, &data, budget, seed)
            .with_context(|| format!("budget {budget}, seed {seed}"))
    })?;
    let timed: Vec<&Network> = std::iter::once(&dense)
        .chain(
            made.iter()
                .filter(|(outcome, _)| outcome.seed == config.seeds[0])
                .map(|(_, network)| network),
        )
        .collect();
    let latencies = run.stage("latency", &config.timing_batch, &timed, || {
        let models = timed
            .iter()
            .map(|network| run.stages.executor(network))
            .collect::<Result<Vec<_>, cp_train::TrainError>>()?;
        let models: Vec<_> = models.iter().collect();
        let shape = &dense.input().shape;
        let options = TimingOptions::default();
        Ok(timing::latency(&models, shape, config.timing_batch, &options)?)
    })?;
    let outcomes: Vec<Outcome> = made.into_iter().map(|(outcome, _)| outcome).collect();
    let train = &data.train;
    write_report(&run, args.network, &config, &dense, dense_test, train, &outcomes, &latencies)
}

/// Where the stages of one budget and seed are.
fn folder(budget: f64, seed: u64) -> String {
    format!("budgets/{budget}-seed{seed}")
}

/// The recipe of one budget and seed.
fn recipe(config: &Config, budget: f64, seed: u64) -> Recipe {
    let mut recipe = Recipe { target: Target::MacsRatio(budget), ..config.recipe.clone() };
    recipe.compress.seed = seed;
    if let Some(fine_tune) = &mut recipe.compress.fine_tune {
        fine_tune.seed = seed;
    }
    recipe
}

/// The dense network.
fn weights(run: &mut Run, config: &Config) -> Result<Network> {
    if config.weights.contains('/') {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(&config.weights);
        return Ok(Network::load(&path)?);
    }
    run.pretrained(&config.weights, &config.arch)
}

fn one(
    run: &Run,
    config: &Config,
    dense: &Network,
    data: &CompressData,
    budget: f64,
    seed: u64,
) -> Result<(Outcome, Network)> {
    let stages = run.stages.within(&folder(budget, seed))?;
    let done = recipe(config, budget, seed).run(dense, Some(data), &stages)?;
    let [_, cost] = done.cost;
    let [_, test] = done.test.context("the configuration names test data")?;
    let (stages, layers) = (done.stages, done.layers);
    Ok((Outcome { budget, seed, cost, stages, layers, test }, done.network))
}

/// `work` on every item, `jobs` at a time with one libtorch thread each; one job has all threads. Results in order.
fn in_parallel<I: Sync, O: Send>(
    items: &[I],
    jobs: usize,
    work: impl Fn(&I) -> Result<O> + Sync,
) -> Result<Vec<O>> {
    if jobs == 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Vec<(usize, O)>> {
        // The number of threads is one of the calling thread's settings.
        timing::set_threads(1);
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return Ok(done) };
            done.push((index, work(item)?));
        }
    };
    let mut found: Vec<(usize, O)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        let mut found = Vec::new();
        for worker in workers {
            found.extend(worker.join().map_err(|_| anyhow!("a job panicked"))??);
        }
        Ok::<_, anyhow::Error>(found)
    })?;
    found.sort_by_key(|(index, _)| *index);
    Ok(found.into_iter().map(|(_, outcome)| outcome).collect())
}

/// Mean and standard deviation (of the sample; 0 for one value).
fn mean_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let square: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, if values.len() > 1 { (square / (n - 1.0)).sqrt() } else { 0.0 })
}

#[allow(clippy::too_many_arguments, reason = "everything that a report shows")]
fn write_report(
    run: &Run,
    subject: Subject,
    config: &Config,
    dense: &Network,
    dense_test: Evaluation,
    data: &TrainData,
    outcomes: &[Outcome],
    latencies: &[Timing],
) -> Result<()> {
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
    let mut report = Report::new(format!("{}: accuracy against cost", subject.name()), verdict);
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
    for (name, macs, _, points) in subject.published() {
        plot = plot.series(Series::points(*name, [(*macs, *points)]));
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
            Column::number("latency").unit("ms"),
            Column::number("speed-up"),
            Column::number("test top-1").unit("%"),
            Column::number("change").unit("points"),
        ],
    );
    let dense_time = latencies.first().copied();
    table.row([
        Cell::text("dense"),
        Cell::count(before.params as u64),
        Cell::missing(),
        Cell::millions(before.macs as u64, 2),
        Cell::missing(),
        dense_time.map_or_else(Cell::missing, |time| Cell::millis(time.median)),
        Cell::missing(),
        Cell::percent(dense_test.top1, 2),
        Cell::missing(),
    ]);
    for (outcome, time) in first.iter().zip(latencies.iter().skip(1)) {
        table.row([
            Cell::text(format!("budget {}", outcome.budget)),
            Cell::count(outcome.cost.params as u64),
            Cell::percent(removed(outcome.cost.params, before.params), 1),
            Cell::millions(outcome.cost.macs as u64, 2),
            Cell::percent(removed(outcome.cost.macs, before.macs), 1),
            Cell::millis(time.median),
            dense_time.map_or_else(Cell::missing, |d| Cell::ratio(d.median / time.median, 2)),
            Cell::percent(outcome.test.top1, 2),
            Cell::points(change(outcome), 2),
        ]);
    }
    let deviation =
        (dense_test.top1 * (1.0 - dense_test.top1) / dense_test.examples.max(1) as f64).sqrt();
    table.note(format!(
        "One standard deviation of the test sample of {} images is {:.2} points for one network; of the difference of two networks \
         that agree on most images it is smaller. Batches of {} for the latency.",
        dense_test.examples,
        100.0 * deviation,
        config.timing_batch
    ));
    report.add(table);
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
    for (name, macs, params, points) in subject.published() {
        published.row([
            Cell::text(*name),
            Cell::percent(*macs, 1),
            params.map_or_else(Cell::missing, |params| Cell::percent(params, 1)),
            Cell::points(points / 100.0, 2),
        ]);
    }
    published.note(
        "On the official test set, from dense networks of other accuracy, and after fine-tuning of their own length: they compare in kind.",
    );
    report.add(published);

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
        let stages = run.stages.within(&folder(one.budget, one.seed))?;
        let epochs = stages.dir().epochs("fine-tuned")?;
        report.add(accuracy_curves("Fine-tuning: accuracy", &epochs));
    }
    report.add(Block::text(format!(
        "Protocol: {} images for fine-tuning, {} for validation, from which the kept epoch is chosen{}; {} ({}) for the test, on which \
         every compressed network was evaluated once, in eval mode. Ranks come from the errors of the decompositions alone.",
        data.train.len(),
        data.validation.as_ref().map_or(0, |set| set.len()),
        if subject == Subject::Resnet20 {
            ""
        } else {
            " (the published weights were trained on them, so validation flatters)"
        },
        dense_test.examples,
        config.test_split,
    )));
    run.finish(report, config, &serde_json::json!({ "dense": dense_test, "outcomes": outcomes }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_configurations_are_sound() {
        for subject in [Subject::Resnet20, Subject::Resnet20Published, Subject::Resnet56] {
            let config = subject.config();
            assert!(config.budgets.contains(&config.headline), "{}", subject.name());
            assert!(!config.seeds.is_empty());
            recipe(&config, config.headline, 1).check(true).unwrap();
        }
        let long: Config = built_in(include_str!("../configs/curve-resnet20-long.toml"));
        recipe(&long, long.headline, 1).check(true).unwrap();
    }

    #[test]
    fn jobs_keep_the_order() {
        let items: Vec<usize> = (0..20).collect();
        for jobs in [1, 3] {
            assert_eq!(in_parallel(&items, jobs, |i| Ok(i * i)).unwrap()[7], 49);
        }
        assert!(in_parallel(&items, 2, |_| Err::<(), _>(anyhow!("no"))).is_err());
    }
}
