//! How much of the multiply-adds saved is saved in time.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use cp_net::{Form, Network, arch};
use cp_plan::{Budget, RankPlan};
use cp_report::{Axis, Block, Cell, Column, Report, Series, Table, XyPlot};
use cp_train::engine::{Engine, Inputs, Ready, Subject};
use cp_train::timing::{self, Timing, TimingOptions};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::experiment::{Experiment, Findings, Row};
use crate::figures::threads_text;
use crate::peers::Peer;

/// What runs networks: our engines, and those of other people that have a Python package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Runner {
    Torch,
    OnnxRuntime,
    Infer,
    OpenVino,
    Ncnn,
    Tract,
}

impl std::fmt::Display for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Runner::Torch => "libtorch",
            Runner::OnnxRuntime => "ONNX Runtime",
            Runner::Infer => "cp-infer",
            Runner::OpenVino => "OpenVINO",
            Runner::Ncnn => "ncnn",
            Runner::Tract => "tract",
        })
    }
}

impl Runner {
    /// `network` ready to run forward on the threads set.
    fn ready(self, context: &Context, network: &Network, batch: usize) -> Result<Box<dyn Ready>> {
        let ours = |engine: Engine| {
            let inputs = Inputs::one(&network.input().shape, batch);
            Ok(engine.ready(Subject::Network(network), &inputs)?)
        };
        let peer = |name| {
            let peer = Peer::start(name, network, batch, timing::set_threads(0))?;
            Ok(Box::new(peer) as Box<dyn Ready>)
        };
        match self {
            Runner::Torch => ours(Engine::Torch(context.stages.device())),
            Runner::OnnxRuntime => ours(Engine::OnnxRuntime),
            Runner::Infer => ours(Engine::Infer),
            Runner::OpenVino => peer("openvino"),
            Runner::Ncnn => peer("ncnn"),
            Runner::Tract => peer("tract"),
        }
    }
}

/// `experiments/speed.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    networks: Vec<String>,
    ratios: Vec<f64>,
    batches: Vec<usize>,
    threads: Vec<usize>,
    engines: Vec<Runner>,
    form: Form,
    multiples: Vec<usize>,
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
    small: Vec<Small>,
    times: Vec<Times>,
    /// What could not be timed, and why.
    #[serde(default)]
    left_out: Vec<String>,
}

/// A compressed network.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Small {
    /// As asked for.
    ratio: f64,
    /// What its ranks are multiples of.
    multiple: usize,
    /// Multiply-adds, dense / compressed.
    macs: f64,
    /// Parameters likewise.
    params: f64,
}

/// Times of a batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Times {
    engine: Runner,
    /// What the ranks of the compressed networks are multiples of.
    multiple: usize,
    batch: usize,
    threads: usize,
    dense: Timing,
    /// For each ratio.
    compressed: Vec<Timing>,
}

/// Times of every network by engine, and the engines that do not run them, with the reason.
type Found = (Vec<(Runner, Vec<Timing>)>, Vec<String>);

impl Times {
    fn speedup(&self, at: usize) -> f64 {
        self.dense.median / self.compressed[at].median
    }
}

impl Outcome {
    /// The compressed networks of these times, in their order.
    fn small(&self, times: &Times) -> impl Iterator<Item = &Small> {
        let multiple = times.multiple;
        self.small.iter().filter(move |small| small.multiple == multiple)
    }

    /// Seconds of the dense network in the engine in which it is the fastest.
    fn best_dense(&self, times: &Times) -> f64 {
        let key = |one: &Times| (one.multiple, one.batch, one.threads);
        let same = |other: &&Times| key(other) == key(times);
        let all = self.times.iter().filter(same).map(|other| other.dense.median);
        all.fold(f64::INFINITY, f64::min)
    }

    /// Seconds of the dense network by direct convolutions.
    fn direct_dense(&self, times: &Times) -> Option<f64> {
        let key = |one: &Times| (one.multiple, one.batch, one.threads);
        let found =
            |other: &&Times| other.engine == Runner::OnnxRuntime && key(other) == key(times);
        self.times.iter().find(found).map(|other| other.dense.median)
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
        ensure!(!settings.multiples.is_empty(), "the settings name no multiples, such as [16]");
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
        let left_out: Vec<&str> =
            outcomes.iter().flat_map(|one| &one.left_out).map(String::as_str).collect();
        if !left_out.is_empty() {
            report.add(Block::text(format!("Not timed: {}.", left_out.join("; "))));
        }
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
        let options =
            TimingOptions { warmup: 2, repeats: config.repeats, ..TimingOptions::default() };
        let (mut small, mut times, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
        // Ranks of one kind at a time, the dense network beside them: all engines hold all networks that take turns.
        for &multiple in &config.multiples {
            let mut networks = Vec::new();
            for &ratio in &config.ratios {
                let budget = Budget::Macs(ratio);
                let plan = RankPlan::uniform_among(dense, shape, budget, config.form, &layers)?;
                let plan = plan.rounded(dense.architecture(), multiple)?;
                let network = plan.preview(dense.architecture())?.initialize(config.seed)?;
                let cost = network.cost(shape)?.total;
                let fewer = |all: usize, now: usize| all as f64 / now as f64;
                let (macs, params) = (fewer(all.macs, cost.macs), fewer(all.params, cost.params));
                small.push(Small { ratio, multiple, macs, params });
                networks.push(network);
            }
            let all: Vec<&Network> = std::iter::once(dense).chain(&networks).collect();
            for (batch, threads) in self.settings() {
                timing::set_threads(threads);
                let found = self.time(context, &all, batch, &options);
                timing::set_threads(self.threads);
                let (found, failed) = found?;
                let place = format!("batch {batch}, {}", threads_text(threads));
                let failed = failed.into_iter().map(|why| format!("{name}, {place}: {why}"));
                left_out.extend(failed.filter(|_| multiple == config.multiples[0]));
                for (engine, found) in found {
                    let [dense, compressed @ ..] = &found[..] else { continue };
                    let (dense, compressed) = (*dense, compressed.to_vec());
                    times.push(Times { engine, multiple, batch, threads, dense, compressed });
                }
            }
        }
        Ok(Outcome { network: name.into(), small, times, left_out })
    }

    /// Every network in every engine, all of them in turn; and the engines of other people that do not run them, with the reason.
    fn time(
        &self,
        context: &Context,
        networks: &[&Network],
        batch: usize,
        options: &TimingOptions,
    ) -> Result<Found> {
        let (mut engines, mut ready, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for &engine in &self.settings.engines {
            let made: Result<Vec<_>> =
                networks.iter().map(|network| engine.ready(context, network, batch)).collect();
            match (engine, made) {
                (_, Ok(made)) => {
                    engines.push(engine);
                    ready.extend(made);
                }
                (Runner::OpenVino | Runner::Ncnn | Runner::Tract, Err(error)) => {
                    failed.push(format!("{error:#}"));
                }
                (_, Err(error)) => return Err(error),
            }
        }
        let times = timing::in_turn(&mut ready, options)?;
        let times = times.chunks(networks.len()).map(<[Timing]>::to_vec);
        Ok((engines.into_iter().zip(times).collect(), failed))
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
                        let of = |(at, small): (usize, &Small)| times.speedup(at) / small.macs;
                        one.small(times).enumerate().map(of).collect::<Vec<_>>()
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

    fn plot(&self, outcomes: &[Outcome], engine: Runner, batch: usize, threads: usize) -> XyPlot {
        let most = outcomes.iter().flat_map(|one| &one.small).map(|small| small.macs);
        let most = most.fold(1.0, f64::max);
        let mut plot = XyPlot::new(
            format!("{engine}, batch {batch}, {}", threads_text(threads)),
            Axis::ratio("multiply-adds, dense / compressed").include(1.0),
            Axis::ratio("time, dense / compressed").include(1.0),
        )
        .series(Series::line("as many times faster", [(1.0, 1.0), (most, most)]));
        for one in outcomes {
            // Ranks of the first multiple; the others are in the table.
            let asked = |t: &&Times| {
                t.multiple == self.settings.multiples[0]
                    && (t.engine, t.batch, t.threads) == (engine, batch, threads)
            };
            let times = one.times.iter().find(asked);
            let Some(times) = times else { continue };
            let points = one.small(times).enumerate();
            let points = points.map(|(at, small)| (small.macs, times.speedup(at)));
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
                Column::number("ranks in multiples of"),
                Column::number("fewer multiply-adds"),
                Column::number("dense").unit("ms"),
                Column::number("compressed").unit("ms"),
                Column::number("faster"),
                Column::number("share").unit("%"),
                Column::number("share against direct").unit("%"),
                Column::number("faster than the best dense"),
            ],
        );
        for one in outcomes {
            for times in &one.times {
                for (at, &Small { macs, multiple, .. }) in one.small(times).enumerate() {
                    let time = times.compressed[at].median;
                    let direct = one.direct_dense(times).map(|dense| dense / time / macs);
                    table.row([
                        Cell::text(&one.network),
                        Cell::text(times.engine.to_string()),
                        Cell::count(times.batch as u64),
                        Cell::count(times.threads as u64),
                        Cell::count(multiple as u64),
                        Cell::ratio(macs, 2),
                        Cell::millis(times.dense.median),
                        Cell::millis(time),
                        Cell::ratio(times.speedup(at), 2).strong(),
                        Cell::percent(times.speedup(at) / macs, 0),
                        direct.map_or_else(Cell::missing, |share| Cell::percent(share, 0)),
                        Cell::ratio(one.best_dense(times) / time, 2),
                    ]);
                }
            }
        }
        table.note(
            "Medians of forward passes, all networks in all engines in turn, batch norms folded in all. Share: times faster / times fewer \
             multiply-adds, against the dense network in the same engine; against direct: in ONNX Runtime, which multiplies and adds as often as \
             is counted, where cp-infer and ncnn use Winograd's transform. The best dense: of any of these engines. ncnn takes a batch image \
             by image. Quartiles are in result.json.",
        );
        table
    }

    /// The middle ratio in the README.
    fn row(&self, one: &Outcome) -> Option<Row> {
        let at = self.settings.ratios.len() / 2;
        let &Small { macs, params, multiple, .. } = one.small.get(at)?;
        let shown = [Runner::OnnxRuntime, Runner::Infer];
        let speeds: Vec<String> = one
            .times
            .iter()
            .filter(|times| times.threads == 1 && times.batch == 1 && times.multiple == multiple)
            .filter(|times| shown.contains(&times.engine))
            .map(|times| format!("{:.2}× ({}, batch 1, 1 thread)", times.speedup(at), times.engine))
            .collect();
        Some(Row {
            network: format!(
                "{}, {} in multiples of {}",
                one.network, self.settings.form, multiple
            ),
            data: "drawn weights, for the time alone".into(),
            params: format!("{params:.1}× fewer"),
            macs: format!("{macs:.1}× fewer"),
            top1: String::new(),
            speed: speeds.join(", "),
        })
    }
}
