//! Plans from measured time: whether they are faster than plans with the same multiply-adds that know nothing of time.

use anyhow::{Context as _, Result};
use cp_net::{Form, Network, arch};
use cp_plan::RankPlan;
use cp_report::{Cell, Column, Report, Table};
use cp_train::timing::{self, Timing, TimingOptions};
use cp_train::{EngineName, Planning, Recipe, Target};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::experiment::{Experiment, Findings, Row};
use crate::figures::threads_text;

/// `experiments/latency.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    networks: Vec<String>,
    ratios: Vec<f64>,
    batch: usize,
    forms: Vec<Form>,
    points: usize,
    iterations: usize,
    seed: u64,
    repeats: usize,
}

pub(crate) struct Latency {
    settings: Settings,
    /// As set for all of it.
    threads: usize,
}

/// A plan from time, the plan with its multiply-adds, and how long they take.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    network: String,
    asked: f64,
    macs_ratio: f64,
    blind_macs_ratio: f64,
    dense: Timing,
    timed: Timing,
    blind: Timing,
    /// Layers factorized by the plan from time, and by the blind one.
    layers: [usize; 2],
    /// Time of the slowest planned layer relative to its dense form, in the plan from time and in the blind one.
    slowest: [f64; 2],
}

impl Experiment for Latency {
    type Settings = Settings;
    /// A network, and the time asked for relative to its dense time.
    type Cell = (String, f64);
    type Outcome = Outcome;

    fn seed(settings: &mut Settings, seed: u64) {
        settings.seed = seed;
    }

    fn check(settings: &Settings) -> Result<()> {
        for name in &settings.networks {
            arch::by_name(name).context("--networks")?;
        }
        for &ratio in &settings.ratios {
            recipe(settings, Target::LatencyRatio(ratio)).check(false)?;
        }
        Ok(())
    }

    fn prepare(_context: &mut Context, settings: Settings) -> Result<Self> {
        Ok(Self { settings, threads: timing::set_threads(0) })
    }

    fn cells(&self) -> Vec<(String, f64)> {
        let Settings { networks, ratios, .. } = &self.settings;
        let of = |name: &String| ratios.iter().map(|&ratio| (name.clone(), ratio)).collect();
        networks.iter().flat_map::<Vec<_>, _>(of).collect()
    }

    fn name((network, ratio): &(String, f64)) -> String {
        format!("{network} at {ratio}")
    }

    fn run(&self, context: &Context, (name, ratio): &(String, f64)) -> Result<Outcome> {
        let config = &self.settings;
        let dense = arch::by_name(name)?.initialize(config.seed)?;
        let settings = (config, self.threads, context.stages.engine().name());
        context.stage(&format!("{name}-{ratio}"), &settings, &[&dense], || {
            one(context, config, name, &dense, *ratio)
        })
    }

    fn report(&self, context: &Context, outcomes: Vec<Outcome>) -> Result<Findings> {
        self.write_report(context.stages.engine().name(), &outcomes)
    }
}

fn options(config: &Settings) -> TimingOptions {
    TimingOptions { warmup: 2, repeats: config.repeats, ..TimingOptions::default() }
}

/// Plans by the errors of a few sweeps; from time, nothing that is not faster than dense.
fn recipe(config: &Settings, target: Target) -> Recipe {
    Recipe {
        target,
        plan: Planning {
            forms: config.forms.clone(),
            points: config.points,
            max_iters: config.iterations,
            timing_batch: config.batch,
            seed: config.seed,
            ..Planning::default()
        },
        ..Recipe::default()
    }
}

fn one(
    context: &Context,
    config: &Settings,
    name: &str,
    dense: &Network,
    ratio: f64,
) -> Result<Outcome> {
    let shape = &dense.input().shape;
    let all = dense.cost(shape)?.total.macs as f64;
    let share =
        |plan: &RankPlan| -> Result<f64> { Ok(plan.cost(dense, shape)?.total.macs as f64 / all) };
    let planned = |target| recipe(config, target).plan(dense, None, &context.stages);
    let (timed, profile) = planned(Target::LatencyRatio(ratio))?;
    let profile = profile.context("a plan from time has a profile")?;
    let macs_ratio = share(&timed)?;
    // What is faster may have more multiply-adds than the dense network, which is no budget.
    let (blind, _) = planned(Target::MacsRatio(macs_ratio.min(0.99)))?;

    let preview = |plan: &RankPlan| -> Result<Network> {
        Ok(plan.preview(dense.architecture())?.initialize(config.seed)?)
    };
    let (small, other) = (preview(&timed)?, preview(&blind)?);
    let times = context.stages.latency(&[dense, &small, &other], config.batch, &options(config))?;
    let slowest = |plan: &RankPlan| -> f64 {
        plan.layers
            .iter()
            .filter_map(|planned| {
                let layer = profile.layer(&planned.name)?;
                let choice = layer
                    .choices
                    .iter()
                    .find(|choice| (choice.form, choice.rank) == (planned.form, planned.rank))?;
                Some(choice.seconds? / layer.dense_seconds?)
            })
            .fold(0.0, f64::max)
    };
    Ok(Outcome {
        network: name.into(),
        asked: ratio,
        macs_ratio,
        blind_macs_ratio: share(&blind)?,
        dense: times[0],
        timed: times[1],
        blind: times[2],
        layers: [timed.layers.len(), blind.layers.len()],
        slowest: [slowest(&timed), slowest(&blind)],
    })
}

impl Latency {
    fn write_report(&self, engine: EngineName, outcomes: &[Outcome]) -> Result<Findings> {
        let config = &self.settings;
        let faster = outcomes.iter().filter(|o| o.timed.median < o.blind.median).count();
        let verdict = format!(
            "In {engine}, with {} and batches of {}, the plan from measured time is faster than the plan with the same multiply-adds in {faster} of {} cases; no \
         layer of a plan from time takes more than {:.2} of its dense time.",
            threads_text(self.threads),
            config.batch,
            outcomes.len(),
            outcomes.iter().map(|o| o.slowest[0]).fold(0.0, f64::max),
        );
        let mut report = Report::new("Plans from measured time", verdict);
        let mut table = Table::new(
            "End to end",
            [
                Column::text("network"),
                Column::number("time asked"),
                Column::number("MACs / dense"),
                Column::number("dense").unit("ms"),
                Column::number("plan from time").unit("ms"),
                Column::number("time / dense"),
                Column::number("blind plan").unit("ms"),
                Column::number("time / dense"),
                Column::number("blind / from time"),
                Column::number("slowest layer, from time"),
                Column::number("slowest layer, blind"),
                Column::text("layers"),
            ],
        );
        for one in outcomes {
            table.row([
                Cell::text(&one.network),
                Cell::number(one.asked, 2),
                Cell::number(one.macs_ratio, 3),
                Cell::millis(one.dense.median),
                Cell::millis(one.timed.median),
                Cell::number(one.timed.median / one.dense.median, 3),
                Cell::millis(one.blind.median),
                Cell::number(one.blind.median / one.dense.median, 3),
                Cell::ratio(one.blind.median / one.timed.median, 2).strong(),
                Cell::number(one.slowest[0], 2),
                Cell::number(one.slowest[1], 2),
                Cell::text(format!("{} / {}", one.layers[0], one.layers[1])),
            ]);
        }
        table.note(
        "Medians of forward passes in eval mode, dense and both plans in turn. Slowest layer: time of the planned form alone / time of the \
         dense layer alone, as measured for the plan. Layers: factorized in the plan from time / in the blind one.",
    );
        report.add(table);
        let speedup = |plan: &Timing, one: &Outcome| one.dense.median / plan.median;
        let row = |one: &Outcome| Row {
            network: format!(
                "{}, a plan from measured time, {} of the dense time asked",
                one.network, one.asked
            ),
            data: "random weights".into(),
            macs: format!("{:.1}× fewer", 1.0 / one.macs_ratio),
            speed: format!(
                "{:.2}× ({engine}, batch {}, {}); a blind plan with the same multiply-adds {:.2}×",
                speedup(&one.timed, one),
                config.batch,
                threads_text(self.threads),
                speedup(&one.blind, one)
            ),
            ..Row::default()
        };
        // The furthest of each network.
        let furthest = config.ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let rows = outcomes.iter().filter(|one| one.asked <= furthest).map(row).collect();
        let result = serde_json::json!({ "outcomes": outcomes });
        Ok(Findings { report, result, rows, fault: None })
    }
}
