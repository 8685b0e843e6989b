//! Compression of ImageNet networks without labels and fine-tuning: how often the compressed network agrees with the dense one,
//! for plain ALS, for error-preserving correction, and for ALS-Σ with the inputs of layers measured on unlabelled images.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use cp_data::Dataset;
use cp_net::{Form, Network};
use cp_plan::MAX_ENERGY;
use cp_report::{Axis, Block, Cell, Column, Report, Series, Table, XyPlot};
use cp_train::{
    CompressConfig, CompressData, Engine, EvalOptions, Evaluation, Multiple, Planning, Recipe,
    StatisticsOptions, Target, TrainData, logits_in,
};
use ndarray::ArrayView1;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::experiment::{Experiment, Findings, Row, all_known};
use crate::figures::fewer;

/// `experiments/agreement.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    dataset: String,
    statistics_split: String,
    test_split: String,
    /// Names of architectures in `weights`.
    networks: Vec<String>,
    weights: BTreeMap<String, String>,
    ratios: Vec<f64>,
    /// Forms that the plans choose from, and ranks tried for each.
    forms: Vec<Form>,
    multiple: Multiple,
    points: usize,
    profile_iters: usize,
    /// Sweeps of ALS for the layers of a plan.
    iterations: usize,
    seed: u64,
    statistics: StatisticsOptions,
}

pub(crate) struct Agreement {
    settings: Settings,
    subjects: Vec<Subject>,
    /// What the inputs of layers are measured on.
    gathered: Arc<dyn Dataset>,
    test: Arc<dyn Dataset>,
}

/// A network and what it says.
struct Subject {
    arch: String,
    dense: Network,
    known: Answers,
}

/// How ranks are chosen and kernels decomposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Way {
    /// Plain ALS at the ranks that the errors of the kernels ask for.
    Als,
    /// The same, corrected where the energy is high.
    Epc,
    /// ALS-Σ at the same ranks.
    AlsSigma,
    /// ALS-Σ at the ranks that the errors of the layers' outputs ask for.
    AlsSigmaRanks,
}

impl Way {
    const ALL: [Way; 4] = [Way::Als, Way::Epc, Way::AlsSigma, Way::AlsSigmaRanks];

    fn name(self) -> &'static str {
        match self {
            Way::Als => "ALS",
            Way::Epc => "ALS + EPC",
            Way::AlsSigma => "ALS-Σ, same ranks",
            Way::AlsSigmaRanks => "ALS-Σ, ranks by Σ too",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Way::Als => "als",
            Way::Epc => "epc",
            Way::AlsSigma => "als-sigma",
            Way::AlsSigmaRanks => "als-sigma-ranks",
        }
    }

    fn needs_images(self) -> bool {
        matches!(self, Way::AlsSigma | Way::AlsSigmaRanks)
    }
}

/// One compressed network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    arch: String,
    way: Way,
    ratio: f64,
    /// Layers that were factorized.
    layers: usize,
    macs: usize,
    params: usize,
    /// Mean over the layers.
    mean_rel_error: f64,
    /// Largest component energy of a layer.
    max_energy: f64,
    /// Share of the images whose best class is that of the dense network.
    agreement: f64,
    top1: f64,
}

/// What the dense network says of every image.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Answers {
    best: Vec<i64>,
    result: Evaluation,
}

impl Experiment for Agreement {
    type Settings = Settings;
    /// The index of a network, a ratio and a way.
    type Cell = (usize, f64, Way);
    type Outcome = Outcome;

    fn seed(settings: &mut Settings, seed: u64) {
        settings.seed = seed;
    }

    fn check(settings: &Settings) -> Result<()> {
        all_known("--networks", &settings.networks, &settings.weights)?;
        for &ratio in &settings.ratios {
            recipe(settings, Way::AlsSigma, Target::MacsRatio(ratio)).check(true)?;
        }
        Ok(())
    }

    fn prepare(context: &mut Context, settings: Settings) -> Result<Self> {
        let gathered = context.dataset(&settings.dataset, &settings.statistics_split)?;
        let test = context.dataset(&settings.dataset, &settings.test_split)?;
        let mut subjects = Vec::new();
        for arch in &settings.networks {
            let dense = context.network(&settings.weights[arch], arch, gathered.classes().len())?;
            let result = context.stages.evaluate(&format!("{arch}-dense-test"), &dense, &test)?;
            let best = context.stage(&format!("{arch}-dense"), &settings, &[&dense], || {
                best(context, &dense, &test)
            })?;
            subjects.push(Subject { arch: arch.clone(), dense, known: Answers { best, result } });
        }
        Ok(Self { settings, subjects, gathered, test })
    }

    fn cells(&self) -> Vec<(usize, f64, Way)> {
        let mut cells = Vec::new();
        for subject in 0..self.subjects.len() {
            for &ratio in &self.settings.ratios {
                cells.extend(Way::ALL.map(|way| (subject, ratio, way)));
            }
        }
        cells
    }

    fn name((_, ratio, way): &(usize, f64, Way)) -> String {
        format!("{} at {ratio}", way.name())
    }

    fn run(&self, context: &Context, cell: &(usize, f64, Way)) -> Result<Outcome> {
        let (subject, ratio, way) = *cell;
        let subject = &self.subjects[subject];
        let name = format!("{}-{ratio}-{}", subject.arch, way.file());
        context.stage(&name, &self.settings, &[&subject.dense], || {
            self.outcome(context, subject, way, ratio)
        })
    }

    fn report(&self, _context: &Context, outcomes: Vec<Outcome>) -> Result<Findings> {
        self.write_report(&outcomes)
    }
}

/// The class of the highest logit of every image.
fn best(context: &Context, network: &Network, set: &Arc<dyn Dataset>) -> Result<Vec<i64>> {
    let engine = Engine::libtorch(context.stages.device())?;
    let logits = logits_in(engine, network, set, &EvalOptions::default())?;
    let best = |row: ArrayView1<'_, f32>| {
        // The first of equals.
        row.iter().enumerate().rev().max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(at, _)| at)
    };
    Ok(logits.rows().into_iter().filter_map(best).map(|at| at as i64).collect())
}

/// The recipe of `way`: the ranks of the least Σ e² at the budget, of the kernels' errors or, with images, of the outputs'.
fn recipe(config: &Settings, way: Way, target: Target) -> Recipe {
    Recipe {
        target,
        timing_batches: Vec::new(),
        plan: Planning {
            forms: config.forms.clone(),
            points: config.points,
            max_iters: config.profile_iters,
            multiple: config.multiple,
            ..Planning::default()
        },
        compress: CompressConfig {
            max_iters: config.iterations,
            max_energy: if way == Way::Als { None } else { Some(MAX_ENERGY) },
            statistics: way.needs_images().then_some(config.statistics),
            calibrate: 0,
            seed: config.seed,
            ..CompressConfig::default()
        },
    }
}

impl Agreement {
    fn outcome(
        &self,
        context: &Context,
        subject: &Subject,
        way: Way,
        ratio: f64,
    ) -> Result<Outcome> {
        let Subject { arch, dense, known } = subject;
        let (config, test) = (&self.settings, &self.test);
        let images = TrainData { train: Arc::clone(&self.gathered), validation: None };
        let images = CompressData { train: images, test: None };
        let stages = context.stages.within(&format!("networks/{arch}-{ratio}-{}", way.file()))?;
        let target = match way {
            Way::AlsSigma => {
                let plain = recipe(config, Way::Als, Target::MacsRatio(ratio));
                Target::Ranks(plain.plan(dense, None, &stages)?.0)
            }
            _ => Target::MacsRatio(ratio),
        };
        let done = recipe(config, way, target).run(dense, Some(&images), &stages)?;
        let (network, layers) = (done.network, done.layers);
        let found = best(context, &network, test)?;
        let same = found.iter().zip(&known.best).filter(|(a, b)| a == b).count();
        let right = (0..test.len()).filter(|&i| found[i] == test.label(i) as i64).count();
        let cost = network.cost(&dense.input().shape)?.total;
        let outcome = Outcome {
            arch: arch.clone(),
            way,
            ratio,
            layers: layers.len(),
            macs: cost.macs,
            params: cost.params,
            mean_rel_error: layers.iter().map(|layer| layer.rel_error).sum::<f64>()
                / layers.len().max(1) as f64,
            max_energy: layers.iter().map(|layer| layer.component_energy).fold(0.0, f64::max),
            agreement: same as f64 / test.len() as f64,
            top1: right as f64 / test.len() as f64,
        };
        eprintln!("{arch} {ratio} {}: agreement {:.3}", way.name(), outcome.agreement);
        Ok(outcome)
    }
    fn write_report(&self, outcomes: &[Outcome]) -> Result<Findings> {
        let config = &self.settings;
        let of = |arch: &str, way: Way, ratio: f64| {
            outcomes
                .iter()
                .find(|o| o.arch == arch && o.way == way && (o.ratio - ratio).abs() < 1e-9)
        };
        let mut sentences = Vec::new();
        for Subject { arch, .. } in &self.subjects {
            let middle = config.ratios.get(1).or(config.ratios.first());
            let Some(&ratio) = middle else { continue };
            let share = |way| of(arch, way, ratio).map_or(f64::NAN, |o| 100.0 * o.agreement);
            sentences.push(format!(
            "{arch} at {ratio} of its multiply-adds agrees with the dense network on {:.1} % of the images after ALS, {:.1} % after ALS and \
             EPC, {:.1} % after ALS-Σ at the same ranks, {:.1} % after ALS-Σ that chose its ranks.",
            share(Way::Als),
            share(Way::Epc),
            share(Way::AlsSigma),
            share(Way::AlsSigmaRanks)
        ));
        }
        let mut report = Report::new(
            "Without labels and fine-tuning: agreement with the dense network",
            sentences.join(" "),
        );
        for Subject { arch, known, .. } in &self.subjects {
            report.add(Block::heading(arch.clone()));
            let mut plot = XyPlot::new(
                format!("{arch}: agreement against multiply-adds"),
                Axis::number("compressed / dense multiply-adds"),
                Axis::percent("agreement").include(0.0),
            );
            for way in Way::ALL {
                let mut points: Vec<(f64, f64)> = config
                    .ratios
                    .iter()
                    .filter_map(|&ratio| Some((ratio, of(arch, way, ratio)?.agreement)))
                    .collect();
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                plot = plot.series(Series::both(way.name(), points));
            }
            report.add(plot);
            let mut table = Table::new(
                format!("{arch}, dense top-1 {:.1} %", 100.0 * known.result.top1),
                [
                    Column::number("MACs / dense"),
                    Column::text("decomposition"),
                    Column::number("layers"),
                    Column::number("parameters"),
                    Column::number("MACs").unit("M"),
                    Column::number("mean relative error"),
                    Column::number("largest component energy"),
                    Column::number("agreement").unit("%"),
                    Column::number("top-1").unit("%"),
                ],
            );
            for &ratio in &config.ratios {
                for way in Way::ALL {
                    let Some(one) = of(arch, way, ratio) else { continue };
                    table.row([
                        Cell::number(ratio, 2),
                        Cell::text(way.name()),
                        Cell::count(one.layers as u64),
                        Cell::count(one.params as u64),
                        Cell::millions(one.macs as u64, 1),
                        Cell::number(one.mean_rel_error, 3),
                        Cell::significant(one.max_energy, 3),
                        Cell::percent(one.agreement, 1),
                        Cell::percent(one.top1, 1),
                    ]);
                }
            }
            table.note(
            "Relative error: of the kernels. ALS-Σ minimises the error of the outputs, so that of the kernels is larger. One standard \
             deviation of the sample of 500 images is about 2 points.",
        );
            report.add(table);
        }
        report.add(Block::text(format!(
        "Protocol: the sample of ImageNet has one image of each class. The inputs of layers were measured on the images of `{}` class \
         numbers, without their labels; agreement and top-1 are of the images of `{}` class numbers. The ranks have the \
         least sum of squared errors at the multiply-adds asked for: of the kernels, or, for the last method, of the outputs of layers. The \
         images are likely training images: compare with the dense network, not with published accuracies.",
        config.statistics_split, config.test_split
    )));
        let rows = (self.subjects.iter())
            .filter_map(|subject| {
                let ratio = *config.ratios.iter().find(|ratio| **ratio <= 0.5)?;
                Some(Row {
                    network: format!(
                        "{}, ALS-Σ from {} unlabelled images, no fine-tuning",
                        subject.arch, config.statistics.images
                    ),
                    data: format!("{}, {} other images", config.dataset, self.test.len()),
                    ..self.row(subject, of(&subject.arch, Way::AlsSigmaRanks, ratio)?).ok()?
                })
            })
            .collect();
        let result = serde_json::json!({ "outcomes": outcomes });
        Ok(Findings { report, result, rows, fault: None })
    }

    fn row(&self, subject: &Subject, outcome: &Outcome) -> Result<Row> {
        let dense = subject.dense.cost(&subject.dense.input().shape)?.total;
        Ok(Row {
            params: fewer(dense.params, outcome.params),
            macs: fewer(dense.macs, outcome.macs),
            top1: format!(
                "{:.1} % → {:.1} %",
                100.0 * subject.known.result.top1,
                100.0 * outcome.top1
            ),
            ..Row::default()
        })
    }
}
