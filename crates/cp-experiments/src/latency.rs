//! Plans from measured time: whether they are faster than plans with the same multiply-adds that know nothing of time.

use anyhow::{Context as _, Result};
use clap::Args;
use cp_net::{Form, Network, arch};
use cp_plan::RankPlan;
use cp_report::{Cell, Column, Report, Table};
use cp_train::timing::{self, Timing, TimingOptions};
use cp_train::{Planning, Recipe, Target};
use serde::{Deserialize, Serialize};

use crate::figures::threads_text;
use crate::run::{Run, RunArgs, built_in};

/// `latency`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask latency\n  cargo xtask latency --networks resnet56 --batch 1"
)]
pub(crate) struct LatencyArgs {
    /// Architectures [default: the configuration's]
    #[arg(long, value_name = "ARCH,…", value_delimiter = ',')]
    networks: Option<Vec<String>>,
    /// Images per batch [default: the configuration's]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    #[command(flatten)]
    common: RunArgs,
}

/// `configs/latency.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    networks: Vec<String>,
    ratios: Vec<f64>,
    batch: usize,
    threads: usize,
    forms: Vec<Form>,
    points: usize,
    iterations: usize,
    seed: u64,
    repeats: usize,
}

/// A plan from time, the plan with its multiply-adds, and how long they take.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Outcome {
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

pub(crate) fn run(args: &LatencyArgs) -> Result<()> {
    let mut config: Config = built_in(include_str!("../configs/latency.toml"));
    if let Some(networks) = &args.networks {
        config.networks.clone_from(networks);
    }
    if let Some(batch) = args.batch {
        config.batch = batch;
    }
    if let Some(threads) = args.common.threads {
        config.threads = threads.into();
    }
    let run = Run::open(&args.common, "latency", &config)?;
    timing::set_threads(config.threads);
    let mut outcomes = Vec::new();
    for name in &config.networks {
        let dense = arch::by_name(name)?.initialize(config.seed)?;
        for &ratio in &config.ratios {
            let stage = format!("{name}-{ratio}");
            outcomes.push(
                run.stage(&stage, &config, &[&dense], || one(&run, &config, name, &dense, ratio))?,
            );
        }
    }
    write_report(&run, &config, &outcomes)
}

fn options(config: &Config) -> TimingOptions {
    TimingOptions { warmup: 2, repeats: config.repeats, min_sample_seconds: 0.005 }
}

/// Plans by the errors of a few sweeps; from time, nothing that is not faster than dense.
fn recipe(config: &Config, target: Target) -> Recipe {
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

fn one(run: &Run, config: &Config, name: &str, dense: &Network, ratio: f64) -> Result<Outcome> {
    let shape = &dense.input().shape;
    let all = dense.cost(shape)?.total.macs as f64;
    let share =
        |plan: &RankPlan| -> Result<f64> { Ok(plan.cost(dense, shape)?.total.macs as f64 / all) };
    let planned = |target| recipe(config, target).plan(dense, None, &run.stages);
    let (timed, profile) = planned(Target::LatencyRatio(ratio))?;
    let profile = profile.context("a plan from time has a profile")?;
    let macs_ratio = share(&timed)?;
    let (blind, _) = planned(Target::MacsRatio(macs_ratio))?;

    let preview = |plan: &RankPlan| -> Result<_> {
        let network = plan.preview(dense.architecture())?.initialize(config.seed)?;
        Ok(run.stages.executor(&network)?)
    };
    let models = [run.stages.executor(dense)?, preview(&timed)?, preview(&blind)?];
    let times = timing::latency(&models.each_ref(), shape, config.batch, &options(config))?;
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

fn write_report(run: &Run, config: &Config, outcomes: &[Outcome]) -> Result<()> {
    let faster = outcomes.iter().filter(|o| o.timed.median < o.blind.median).count();
    let verdict = format!(
        "With {} and batches of {}, the plan from measured time is faster than the plan with the same multiply-adds in {faster} of {} cases; no \
         layer of a plan from time takes more than {:.2} of its dense time.",
        threads_text(config.threads),
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
    run.finish(report, config, &serde_json::json!({ "outcomes": outcomes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_configuration_is_sound() {
        let config: Config = built_in(include_str!("../configs/latency.toml"));
        for name in &config.networks {
            arch::by_name(name).unwrap();
        }
    }
}
