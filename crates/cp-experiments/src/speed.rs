//! How much of the multiply-adds saved is saved in time.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use cp_net::{Form, Network, arch};
use cp_plan::{Budget, RankPlan};
use cp_report::{Axis, Cell, Column, Report, Series, Table, XyPlot};
use cp_train::engine::{Engine, EngineName, Inputs, Subject};
use cp_train::timing::{self, Timing, TimingOptions};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::experiment::{Experiment, Findings, Row};
use crate::figures::threads_text;

/// `experiments/speed.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    networks: Vec<String>,
    ratios: Vec<f64>,
    batches: Vec<usize>,
    threads: Vec<usize>,
    engines: Vec<EngineName>,
    form: Form,
    multiple: usize,
    seed: u64,
    repeats: usize,
    #[serde(default)]
    keep: BTreeMap<String, Vec<String>>,
}

pub(crate) struct Speed {
    settings: Settings,
    /// All that there are.
    threads: usize,
}

/// A network at all ratios: dense and compressed ones are timed in turn.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    network: String,
    /// Multiply-adds and parameters, dense / compressed, for each ratio asked for.
    fewer: Vec<[f64; 2]>,
    times: Vec<Times>,
}

/// Times of a batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Times {
    engine: EngineName,
    batch: usize,
    threads: usize,
    dense: Timing,
    /// For each ratio.
    compressed: Vec<Timing>,
}

impl Times {
    fn speedup(&self, at: usize) -> f64 {
        self.dense.median / self.compressed[at].median
    }
}

impl Outcome {
    /// Seconds of the dense network in the engine in which it is the fastest.
    fn best_dense(&self, times: &Times) -> f64 {
        let same = |other: &&Times| (other.batch, other.threads) == (times.batch, times.threads);
        let all = self.times.iter().filter(same).map(|other| other.dense.median);
        all.fold(f64::INFINITY, f64::min)
    }
}

impl Experiment for Speed {
    type Settings = Settings;
    type Cell = String;
    type Outcome = Outcome;

    fn seed(settings: &mut Settings, seed: u64) {
        settings.seed = seed;
    }

    fn check(settings: &Settings) -> Result<()> {
        for name in &settings.networks {
            let known = arch::by_name(name).context("--networks")?;
            for layer in settings.keep.get(name).into_iter().flatten() {
                known.node(layer).with_context(|| format!("keep of {name}"))?;
            }
        }
        Ok(())
    }

    fn prepare(_context: &mut Context, settings: Settings) -> Result<Self> {
        Ok(Self { settings, threads: timing::set_threads(0) })
    }

    fn cells(&self) -> Vec<String> {
        self.settings.networks.clone()
    }

    fn name(network: &String) -> String {
        network.clone()
    }

    fn run(&self, context: &Context, name: &String) -> Result<Outcome> {
        let config = &self.settings;
        let dense = arch::by_name(name)?.initialize(config.seed)?;
        let settings = (config, self.threads);
        context.stage(name, &settings, &[&dense], || self.one(context, name, &dense))
    }

    fn report(&self, _context: &Context, outcomes: Vec<Outcome>) -> Result<Findings> {
        let mut report = Report::new("Multiply-adds and time", self.verdict(&outcomes));
        for &engine in &self.settings.engines {
            for (batch, threads) in self.settings() {
                report.add(self.plot(&outcomes, engine, batch, threads));
            }
        }
        report.add(self.table(&outcomes));
        let rows = outcomes.iter().filter_map(|one| self.row(one)).collect();
        let result = serde_json::json!({ "outcomes": outcomes });
        Ok(Findings { report, result, rows, fault: None })
    }
}

impl Speed {
    fn one(&self, context: &Context, name: &str, dense: &Network) -> Result<Outcome> {
        let config = &self.settings;
        let shape = &dense.input().shape;
        let keep = config.keep.get(name).cloned().unwrap_or_default();
        let mut layers = dense.architecture().compressible();
        layers.retain(|layer| !keep.contains(layer));
        let all = dense.cost(shape)?.total;
        let (mut networks, mut fewer) = (Vec::new(), Vec::new());
        for &ratio in &config.ratios {
            let plan =
                RankPlan::uniform_among(dense, shape, Budget::Macs(ratio), config.form, &layers)?;
            let plan = plan.rounded(dense.architecture(), config.multiple)?;
            let small = plan.preview(dense.architecture())?.initialize(config.seed)?;
            let cost = small.cost(shape)?.total;
            fewer
                .push([all.macs as f64 / cost.macs as f64, all.params as f64 / cost.params as f64]);
            networks.push(small);
        }
        let all: Vec<&Network> = std::iter::once(dense).chain(&networks).collect();
        let options =
            TimingOptions { warmup: 2, repeats: config.repeats, ..TimingOptions::default() };
        let mut times = Vec::new();
        for (batch, threads) in self.settings() {
            timing::set_threads(threads);
            let found = self.time(context, &all, batch, &options);
            timing::set_threads(self.threads);
            for (engine, found) in config.engines.iter().zip(found?.chunks(all.len())) {
                let [dense, compressed @ ..] = found else { continue };
                let (engine, dense, compressed) = (*engine, *dense, compressed.to_vec());
                times.push(Times { engine, batch, threads, dense, compressed });
            }
        }
        Ok(Outcome { network: name.into(), fewer, times })
    }

    /// Every network in every engine, all of them in turn; engine by engine.
    fn time(
        &self,
        context: &Context,
        networks: &[&Network],
        batch: usize,
        options: &TimingOptions,
    ) -> Result<Vec<Timing>> {
        let shape = &networks[0].input().shape;
        let inputs = Inputs::one(shape, batch);
        let mut ready = Vec::new();
        for name in &self.settings.engines {
            let engine = match name {
                EngineName::Torch => Engine::Torch(context.stages.device()),
                EngineName::OnnxRuntime => Engine::OnnxRuntime,
                EngineName::Infer => Engine::Infer,
            };
            for network in networks {
                ready.push(engine.ready(Subject::Network(network), &inputs)?);
            }
        }
        Ok(timing::in_turn(&mut ready, options)?)
    }

    /// Batches and threads, each pair once.
    fn settings(&self) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for &asked in &self.settings.threads {
            let threads = if asked == 0 { self.threads } else { asked };
            for &batch in &self.settings.batches {
                if !found.contains(&(batch, threads)) {
                    found.push((batch, threads));
                }
            }
        }
        found
    }

    fn verdict(&self, outcomes: &[Outcome]) -> String {
        let told: Vec<String> = self
            .settings
            .engines
            .iter()
            .filter_map(|&engine| {
                let mut shares: Vec<f64> = outcomes
                    .iter()
                    .flat_map(|one| one.times.iter().map(move |times| (one, times)))
                    .filter(|(_, times)| times.engine == engine)
                    .flat_map(|(one, times)| {
                        let of = |(at, [macs, _]): (usize, &[f64; 2])| times.speedup(at) / macs;
                        one.fewer.iter().enumerate().map(of).collect::<Vec<_>>()
                    })
                    .collect();
                shares.sort_by(f64::total_cmp);
                let at = |part: f64| {
                    shares.get(((shares.len().max(1) - 1) as f64 * part).round() as usize)
                };
                let [least, middle, most] = [at(0.0)?, at(0.5)?, at(1.0)?];
                Some(format!(
                    "in {engine} {:.0} % in the middle, from {:.0} to {:.0} %",
                    100.0 * middle,
                    100.0 * least,
                    100.0 * most
                ))
            })
            .collect();
        format!(
            "Of {} networks at {} ratios, the time saved of the multiply-adds saved, against the dense network in the same engine: {}.",
            outcomes.len(),
            self.settings.ratios.len(),
            told.join("; ")
        )
    }

    fn plot(
        &self,
        outcomes: &[Outcome],
        engine: EngineName,
        batch: usize,
        threads: usize,
    ) -> XyPlot {
        let most = outcomes.iter().flat_map(|one| &one.fewer).map(|[macs, _]| *macs);
        let most = most.fold(1.0, f64::max);
        let mut plot = XyPlot::new(
            format!("{engine}, batch {batch}, {}", threads_text(threads)),
            Axis::ratio("multiply-adds, dense / compressed").include(1.0),
            Axis::ratio("time, dense / compressed").include(1.0),
        )
        .series(Series::line("as many times faster", [(1.0, 1.0), (most, most)]));
        for one in outcomes {
            let asked = |t: &&Times| (t.engine, t.batch, t.threads) == (engine, batch, threads);
            let times = one.times.iter().find(asked);
            let Some(times) = times else { continue };
            let points =
                one.fewer.iter().enumerate().map(|(at, [macs, _])| (*macs, times.speedup(at)));
            plot = plot.series(Series::both(&one.network, points));
        }
        plot
    }

    fn table(&self, outcomes: &[Outcome]) -> Table {
        let mut table = Table::new(
            "Dense and compressed",
            [
                Column::text("network"),
                Column::text("engine"),
                Column::number("batch"),
                Column::number("threads"),
                Column::number("fewer multiply-adds"),
                Column::number("dense").unit("ms"),
                Column::number("compressed").unit("ms"),
                Column::number("faster"),
                Column::number("share").unit("%"),
                Column::number("faster than the best dense"),
            ],
        );
        for one in outcomes {
            for times in &one.times {
                for (at, [macs, _]) in one.fewer.iter().enumerate() {
                    table.row([
                        Cell::text(&one.network),
                        Cell::text(times.engine.to_string()),
                        Cell::count(times.batch as u64),
                        Cell::count(times.threads as u64),
                        Cell::ratio(*macs, 2),
                        Cell::millis(times.dense.median),
                        Cell::millis(times.compressed[at].median),
                        Cell::ratio(times.speedup(at), 2).strong(),
                        Cell::percent(times.speedup(at) / macs, 0),
                        Cell::ratio(one.best_dense(times) / times.compressed[at].median, 2),
                    ]);
                }
            }
        }
        table.note(
            "Medians of forward passes, all networks in all engines in turn, batch norms folded in all. Share: times faster / times fewer \
             multiply-adds. The best dense: of any of these engines. Quartiles are in result.json.",
        );
        table
    }

    /// The middle ratio in the README.
    fn row(&self, one: &Outcome) -> Option<Row> {
        let at = self.settings.ratios.len() / 2;
        let &[macs, params] = one.fewer.get(at)?;
        let speeds: Vec<String> = one
            .times
            .iter()
            .filter(|times| times.threads == 1 && times.batch == 1)
            .map(|times| format!("{:.2}× ({}, batch 1, 1 thread)", times.speedup(at), times.engine))
            .collect();
        Some(Row {
            network: format!(
                "{}, {} in multiples of {}",
                one.network, self.settings.form, self.settings.multiple
            ),
            data: "drawn weights, for the time alone".into(),
            params: format!("{params:.1}× fewer"),
            macs: format!("{macs:.1}× fewer"),
            top1: String::new(),
            speed: speeds.join(", "),
        })
    }
}
