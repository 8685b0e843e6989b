//! The demo: Lebedev et al. (2015), section 4.1, on characters drawn here.
//!
//! CharNet is trained on procedural characters, its two expensive layers are decomposed, the network is fine-tuned and timed.

use anyhow::Result;
use cp_net::{Form, Network};
use cp_plan::{LayerReport, Method, PlannedLayer, RankPlan};
use cp_report::{Block, Card, Cell, Column, Report, Table};
use cp_train::engine::{Engine, EngineName};
use cp_train::timing;
use cp_train::{CompressData, Evaluation, Latency, Recipe, TrainConfig};
use serde::{Deserialize, Serialize};

use crate::characters::{self, Published, Trained};
use crate::context::Context;
use crate::experiment::{Experiment, Findings, Row};
use crate::figures::{accuracy_curves, fewer, layer_table, loss_curves, speeds, threads_text};

/// `experiments/demo.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    train_examples: usize,
    validation_examples: usize,
    test_examples: usize,
    layers: Vec<String>,
    rank: usize,
    sweeps: usize,
    timing_batch: usize,
    train: TrainConfig,
    fine_tune: TrainConfig,
    published: Published,
}

pub(crate) struct Demo {
    settings: Settings,
    seed: u64,
    start: Trained,
}

/// The network on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Dense,
    Decomposed,
    FineTuned,
}

/// Cost and quality of one state of the network.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct DemoState {
    name: String,
    params: usize,
    macs: usize,
    validation: Evaluation,
    test: Evaluation,
}

/// A state with its network.
pub(crate) struct Found {
    state: DemoState,
    network: Network,
    layers: Vec<LayerReport>,
}

impl Experiment for Demo {
    type Settings = Settings;
    type Cell = State;
    type Outcome = Found;

    fn seed(settings: &mut Settings, seed: u64) {
        settings.train.seed = seed;
        settings.fine_tune.seed = seed;
    }

    fn check(settings: &Settings) -> Result<()> {
        settings.train.check()?;
        Ok(recipe(settings, 0).check(true)?)
    }

    fn prepare(context: &mut Context, settings: Settings) -> Result<Self> {
        let Settings { train_examples, validation_examples, test_examples, .. } = settings;
        let examples = [train_examples, validation_examples, test_examples];
        let start = Trained::new(context, examples, &settings.train)?;
        Ok(Self { settings, seed: context.seed, start })
    }

    fn cells(&self) -> Vec<State> {
        vec![State::Dense, State::Decomposed, State::FineTuned]
    }

    fn name(state: &State) -> String {
        state.name().into()
    }

    fn run(&self, context: &Context, state: &State) -> Result<Found> {
        let mut recipe = recipe(&self.settings, self.seed);
        let (network, layers) = match state {
            State::Dense => (self.start.dense.clone(), Vec::new()),
            State::Decomposed | State::FineTuned => {
                if *state == State::Decomposed {
                    recipe.compress.fine_tune = None;
                }
                let data = CompressData { train: self.start.train.clone(), test: None };
                let done = recipe.run(&self.start.dense, Some(&data), &context.stages)?;
                (done.network, done.layers)
            }
        };
        let name = state.name();
        let cost = network.cost(&network.input().shape)?.total;
        let evaluate =
            |on: &str, set| context.stages.evaluate(&format!("{name}-{on}"), &network, set);
        let state = DemoState {
            name: name.into(),
            params: cost.params,
            macs: cost.macs,
            validation: evaluate("validation", &self.start.validation)?,
            test: evaluate("test", &self.start.test)?,
        };
        Ok(Found { state, network, layers })
    }

    fn report(&self, context: &Context, outcomes: Vec<Found>) -> Result<Findings> {
        let tuned = &outcomes[2];
        let all = timing::set_threads(0);
        let mut latencies = Vec::new();
        for threads in if all > 1 { vec![1, all] } else { vec![1] } {
            let names: Vec<EngineName> = context.engines().into_iter().map(Engine::name).collect();
            let stage = format!("latency-{threads}-threads");
            let batch = self.settings.timing_batch;
            let networks = [&self.start.dense, &tuned.network];
            latencies.extend(context.stage(&stage, &(batch, names), &networks, || {
                latency(context, networks, threads, batch)
            })?);
        }
        timing::set_threads(all);
        let states: Vec<DemoState> = outcomes.iter().map(|found| found.state.clone()).collect();
        self.write_report(context, &tuned.layers, &states, &latencies)
    }
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Dense => "dense",
            State::Decomposed => "decomposed",
            State::FineTuned => "fine-tuned",
        }
    }
}

/// CP-4 at the configured rank, as Lebedev et al. have it.
fn plan(settings: &Settings) -> RankPlan {
    let layer = |name: &String| PlannedLayer {
        name: name.clone(),
        form: Form::Cp4,
        rank: settings.rank.into(),
        why: "Lebedev et al., section 4.1".into(),
    };
    RankPlan { layers: settings.layers.iter().map(layer).collect(), dense: Vec::new() }
}

/// Plain ALS at the plan's ranks, then fine-tuning.
fn recipe(settings: &Settings, seed: u64) -> Recipe {
    let Settings { sweeps, fine_tune, .. } = settings;
    characters::recipe(plan(settings), Method::Als, None, *sweeps, fine_tune, seed)
}

/// Both networks in every engine, all in turn.
fn latency(
    context: &Context,
    networks: [&Network; 2],
    threads: usize,
    batch: usize,
) -> Result<Vec<Latency>> {
    timing::set_threads(threads);
    let found = context.times(&networks, batch)?.into_iter();
    Ok(found
        .map(|(engine, pair)| Latency {
            engine,
            batch,
            threads,
            dense: pair[0],
            compressed: pair[1],
        })
        .collect())
}

impl Demo {
    fn write_report(
        &self,
        context: &Context,
        layers: &[LayerReport],
        states: &[DemoState],
        latencies: &[Latency],
    ) -> Result<Findings> {
        let config = &self.settings;
        let paper = &config.published;
        let (dense, tuned) = (&states[0], &states[2]);
        let faster: Vec<String> = latencies
            .iter()
            .map(|latency| {
                format!(
                    "{:.1}× on {} in {}",
                    latency.speedup(),
                    threads_text(latency.threads),
                    latency.engine
                )
            })
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
            faster.join(" and "),
            config.timing_batch,
            100.0 * dense.test.top1,
            100.0 * tuned.test.top1,
            paper.speedup,
            100.0 * paper.dense_top1,
            100.0 * paper.top1,
        );
        let mut report = Report::new("CharNet, dense and compressed", verdict);
        let mut cards: Vec<Card> = latencies
            .iter()
            .map(|latency| {
                Card::new(
                    format!("faster, {}, {}", threads_text(latency.threads), latency.engine),
                    Cell::ratio(latency.speedup(), 1),
                )
                .note(format!("Lebedev et al.: {:.1}×", paper.speedup))
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
        report.add(state_table(states, paper));
        report.add(latency_table(latencies, config));
        report.add(Block::heading("The decomposed layers"));
        report.add(layer_table(layers));
        report.add(Block::heading("Training"));
        for (phase, title) in [
            ("dense", "Training of the dense network"),
            ("fine-tuned", "Fine-tuning after the decomposition"),
        ] {
            let epochs = context.dir().epochs(phase)?;
            report.add(loss_curves(&format!("{title}: loss"), &epochs));
            report.add(accuracy_curves(&format!("{title}: accuracy"), &epochs));
        }
        report.add(Block::text(format!(
        "Protocol: {} characters drawn for training, {} for validation, {} for the test; the test characters come from type faces that no training \
         character shows. Nothing was chosen by the test set; each state of the network was tested once, in eval mode. Lebedev et al. trained on \
         rendered characters too, with fonts, distortions and backgrounds of their own, so accuracies compare in kind only.",
        config.train_examples, config.validation_examples, config.test_examples
    )));
        let row = Row {
            network: format!("CharNet, CP-4, rank {}", config.rank),
            data: "drawn characters".into(),
            params: fewer(dense.params, tuned.params),
            macs: fewer(dense.macs, tuned.macs),
            top1: format!("{:.2} % → {:.2} %", 100.0 * dense.test.top1, 100.0 * tuned.test.top1),
            speed: speeds(latencies),
        };
        let published = Row {
            network: "the same, as published".into(),
            data: paper.source.clone(),
            top1: format!("{:.0} % → {:.0} %", 100.0 * paper.dense_top1, 100.0 * paper.top1),
            speed: format!("{:.1}×, batch 64", paper.speedup),
            ..Row::default()
        };
        let result =
            serde_json::json!({ "states": states, "latency": latencies, "layers": layers });
        Ok(Findings { report, result, rows: vec![row, published], fault: None })
    }
}

fn state_table(states: &[DemoState], paper: &Published) -> Table {
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
                "dense" => Cell::percent(paper.dense_top1, 0),
                "fine-tuned" => Cell::percent(paper.top1, 0),
                _ => Cell::missing(),
            },
        ]);
    }
    table
}

fn latency_table(latencies: &[Latency], config: &Settings) -> Table {
    let mut table = Table::new(
        format!("Latency of a batch of {}", config.timing_batch),
        [
            Column::text("engine"),
            Column::number("threads"),
            Column::number("dense").unit("ms"),
            Column::number("compressed").unit("ms"),
            Column::number("speed-up"),
            Column::number("paper").published(),
        ],
    );
    for latency in latencies {
        table.row([
            Cell::text(latency.engine.to_string()),
            Cell::count(latency.threads as u64),
            Cell::millis(latency.dense.median),
            Cell::millis(latency.compressed.median),
            Cell::ratio(latency.speedup(), 2).strong(),
            Cell::ratio(config.published.speedup, 1),
        ]);
    }
    table.note("Medians of forward passes in eval mode, both networks in both engines in turn. The paper measured Caffe on a CPU.");
    table
}
