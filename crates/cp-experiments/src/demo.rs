//! The demo: Lebedev et al. (2015), section 4.1, on characters drawn here.
//!
//! CharNet is trained on procedural characters, its two expensive layers are decomposed, the network is fine-tuned and timed.

use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use cp_data::{Characters, Dataset, Part};
use cp_net::{Form, Network, arch};
use cp_plan::{LayerReport, PlannedLayer, RankPlan};
use cp_report::{Block, Card, Cell, Column, Report, Table};
use cp_train::timing::{self, Timing, TimingOptions};
use cp_train::{CompressConfig, CompressData, Evaluation, Recipe, Target, TrainConfig, TrainData};
use serde::{Deserialize, Serialize};

use crate::figures::{accuracy_curves, layer_table, loss_curves, threads_text};
use crate::run::{Run, RunArgs, built_in};

/// `demo`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask demo\n  cargo xtask demo --threads 4 --json\n  cargo xtask demo --resume"
)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    common: RunArgs,
}

/// `configs/demo.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    train_examples: usize,
    validation_examples: usize,
    test_examples: usize,
    layers: Vec<String>,
    rank: usize,
    sweeps: usize,
    timing_batch: usize,
    train: TrainConfig,
    fine_tune: TrainConfig,
}

/// What Lebedev et al. report for CharNet: accuracy before and after, and the speed-up of the whole network on a CPU.
const PAPER: (f64, f64, f64) = (0.91, 0.90, 8.5);

/// Cost and quality of one state of the network.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct DemoState {
    name: String,
    params: usize,
    macs: usize,
    validation: Evaluation,
    test: Evaluation,
}

/// Latency of the dense and the compressed network.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Latency {
    threads: usize,
    dense: Timing,
    compressed: Timing,
}

impl Latency {
    fn ratio(&self) -> f64 {
        self.dense.median / self.compressed.median
    }
}

pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    let mut config: Config = built_in(include_str!("../configs/demo.toml"));
    config.train.seed = args.common.seed;
    config.fine_tune.seed = args.common.seed;
    let run = Run::open(&args.common, "demo", &config)?;
    let sets = Sets::draw(&config, args.common.seed);

    let data = TrainData { train: sets.train.clone(), validation: Some(sets.validation.clone()) };
    let start = arch::by_name("charnet")?.initialize(args.common.seed)?;
    let dense =
        run.stages.train("dense", run.stages.executor(&start)?, None, &data, &config.train)?;
    let whole = CompressData { train: data, test: None };
    let decomposed = Recipe {
        compress: CompressConfig { fine_tune: None, ..recipe(&config, args.common.seed).compress },
        ..recipe(&config, args.common.seed)
    };
    let decomposed = decomposed.run(&dense, Some(&whole), &run.stages)?.network;
    let done = recipe(&config, args.common.seed).run(&dense, Some(&whole), &run.stages)?;
    let (tuned, layers) = (done.network, done.layers);

    let states = [("dense", &dense), ("decomposed", &decomposed), ("fine-tuned", &tuned)]
        .map(|(name, network)| state(&run, name, network, &sets))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let all = timing::set_threads(0);
    let mut latencies = Vec::new();
    for threads in if all > 1 { vec![1, all] } else { vec![1] } {
        let stage = format!("latency-{threads}-threads");
        latencies.push(run.stage(&stage, &config.timing_batch, &[&dense, &tuned], || {
            latency(&run, &dense, &tuned, threads, config.timing_batch)
        })?);
    }
    timing::set_threads(all);
    write_report(&run, &config, &layers, &states, &latencies)
}

/// The drawn characters; no character of one set occurs in another.
struct Sets {
    train: Arc<dyn Dataset>,
    validation: Arc<dyn Dataset>,
    test: Arc<dyn Dataset>,
}

impl Sets {
    fn draw(config: &Config, seed: u64) -> Self {
        let draw =
            |part, count| -> Arc<dyn Dataset> { Arc::new(Characters::part(part, count, seed)) };
        Self {
            train: draw(Part::Train, config.train_examples),
            validation: draw(Part::Validation, config.validation_examples),
            test: draw(Part::Test, config.test_examples),
        }
    }
}

/// CP-4 at the configured rank, as Lebedev et al. have it.
fn plan(config: &Config) -> RankPlan {
    let layer = |name: &String| PlannedLayer {
        name: name.clone(),
        form: Form::Cp4,
        rank: config.rank.into(),
        why: "Lebedev et al., section 4.1".into(),
    };
    RankPlan { layers: config.layers.iter().map(layer).collect(), dense: Vec::new() }
}

/// Plain ALS at the plan's ranks, then fine-tuning.
fn recipe(config: &Config, seed: u64) -> Recipe {
    Recipe {
        target: Target::Ranks(plan(config)),
        compress: CompressConfig {
            max_iters: config.sweeps,
            max_energy: None,
            calibrate: 0,
            fine_tune: Some(config.fine_tune.clone()),
            seed,
            ..CompressConfig::default()
        },
        ..Recipe::default()
    }
}

fn state(run: &Run, name: &str, network: &Network, sets: &Sets) -> Result<DemoState> {
    let cost = network.cost(&network.input().shape)?.total;
    Ok(DemoState {
        name: name.into(),
        params: cost.params,
        macs: cost.macs,
        validation: run.stages.evaluate(
            &format!("{name}-validation"),
            network,
            &sets.validation,
        )?,
        test: run.stages.evaluate(&format!("{name}-test"), network, &sets.test)?,
    })
}

fn latency(
    run: &Run,
    dense: &Network,
    compressed: &Network,
    threads: usize,
    batch: usize,
) -> Result<Latency> {
    timing::set_threads(threads);
    let models = [run.stages.executor(dense)?, run.stages.executor(compressed)?];
    let times = timing::latency(
        &models.each_ref(),
        &dense.input().shape,
        batch,
        &TimingOptions::default(),
    )?;
    Ok(Latency { threads, dense: times[0], compressed: times[1] })
}

fn write_report(
    run: &Run,
    config: &Config,
    layers: &[LayerReport],
    states: &[DemoState],
    latencies: &[Latency],
) -> Result<()> {
    let (dense, tuned) = (&states[0], &states[2]);
    let speeds: Vec<String> = latencies
        .iter()
        .map(|latency| format!("{:.1}× on {}", latency.ratio(), threads_text(latency.threads)))
        .collect();
    let params = dense.params as f64 / tuned.params as f64;
    let macs = dense.macs as f64 / tuned.macs as f64;
    let change = 100.0 * (tuned.test.top1 - dense.test.top1);
    let verdict = format!(
        "CharNet with {} decomposed at rank {} has {params:.1}× fewer parameters and {macs:.1}× fewer multiply-accumulates, and runs faster by {} \
         with {} images per batch. Its accuracy on held-out characters goes from {:.2} % to {:.2} % ({change:+.2} points). Lebedev et al. report \
         {:.1}× for the whole network on a CPU, and {:.0} % to {:.0} %.",
        config.layers.join(" and "),
        config.rank,
        speeds.join(" and "),
        config.timing_batch,
        100.0 * dense.test.top1,
        100.0 * tuned.test.top1,
        PAPER.2,
        100.0 * PAPER.0,
        100.0 * PAPER.1,
    );
    let mut report = Report::new("CharNet, dense and compressed", verdict);
    let mut cards: Vec<Card> = latencies
        .iter()
        .map(|latency| {
            Card::new(
                format!("faster, {}", threads_text(latency.threads)),
                Cell::ratio(latency.ratio(), 1),
            )
            .note(format!("Lebedev et al.: {:.1}×", PAPER.2))
        })
        .collect();
    cards.push(Card::new("fewer multiply-accumulates", Cell::ratio(macs, 1)));
    cards.push(Card::new("fewer parameters", Cell::ratio(params, 1)));
    cards.push(
        Card::new(
            "test accuracy, change",
            Cell::points(tuned.test.top1 - dense.test.top1, 2).unit("points"),
        )
        .note("Lebedev et al.: −1 point"),
    );
    report.add(Block::cards(cards));
    report.add(Block::heading("The network before and after"));
    report.add(state_table(states));
    report.add(latency_table(latencies, config));
    report.add(Block::heading("The decomposed layers"));
    report.add(layer_table(layers));
    report.add(Block::heading("Training"));
    for (phase, title) in [
        ("dense", "Training of the dense network"),
        ("fine-tuned", "Fine-tuning after the decomposition"),
    ] {
        let epochs = run.dir().epochs(phase)?;
        report.add(loss_curves(&format!("{title}: loss"), &epochs));
        report.add(accuracy_curves(&format!("{title}: accuracy"), &epochs));
    }
    report.add(Block::text(format!(
        "Protocol: {} characters drawn for training, {} for validation, {} for the test; the test characters come from type faces that no training \
         character shows. Nothing was chosen by the test set; each state of the network was tested once, in eval mode. Lebedev et al. trained on \
         rendered characters too, with fonts, distortions and backgrounds of their own, so accuracies compare in kind only.",
        config.train_examples, config.validation_examples, config.test_examples
    )));
    run.finish(
        report,
        config,
        &serde_json::json!({ "states": states, "latency": latencies, "layers": layers }),
    )
}

fn state_table(states: &[DemoState]) -> Table {
    let mut table = Table::new(
        "Cost and accuracy",
        [
            Column::text("network"),
            Column::number("parameters"),
            Column::number("MACs").unit("M"),
            Column::number("validation top-1").unit("%"),
            Column::number("test top-1").unit("%"),
            Column::number("test loss").unit("nats"),
            Column::number("paper").unit("%").published(),
        ],
    );
    for state in states {
        table.row([
            Cell::text(&state.name),
            Cell::count(state.params as u64),
            Cell::millions(state.macs as u64, 2),
            Cell::percent(state.validation.top1, 2),
            Cell::percent(state.test.top1, 2),
            Cell::number(state.test.loss, 3),
            match state.name.as_str() {
                "dense" => Cell::percent(PAPER.0, 0),
                "fine-tuned" => Cell::percent(PAPER.1, 0),
                _ => Cell::missing(),
            },
        ]);
    }
    table
}

fn latency_table(latencies: &[Latency], config: &Config) -> Table {
    let mut table = Table::new(
        format!("Latency of a batch of {}", config.timing_batch),
        [
            Column::text("threads"),
            Column::number("dense").unit("ms"),
            Column::number("compressed").unit("ms"),
            Column::number("speed-up"),
            Column::number("paper").published(),
        ],
    );
    for latency in latencies {
        table.row([
            Cell::text(latency.threads.to_string()),
            Cell::millis(latency.dense.median),
            Cell::millis(latency.compressed.median),
            Cell::ratio(latency.ratio(), 2).strong(),
            Cell::ratio(PAPER.2, 1),
        ]);
    }
    table.note("Medians of forward passes in eval mode, both networks in turn. The paper measured Caffe on a CPU.");
    table
}
