//! Compression of ImageNet networks without labels and fine-tuning: how often the compressed network agrees with the dense one,
//! for plain ALS, for error-preserving correction, and for ALS-Σ with the inputs of layers measured on unlabelled images.

use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use cp_data::Dataset;
use cp_net::{Form, Network};
use cp_plan::MAX_ENERGY;
use cp_report::{Axis, Block, Cell, Column, Report, Series, Table, XyPlot};
use cp_torch::tch::Kind;
use cp_train::{
    CompressConfig, CompressData, EvalOptions, Evaluation, Planning, Recipe, StatisticsOptions,
    Target, TrainData, logits,
};
use serde::{Deserialize, Serialize};

use crate::run::{Run, RunArgs, built_in};

/// `agreement`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask agreement --data ~/data\n  cargo xtask agreement --networks squeezenet1_1 --ratios 0.5"
)]
pub(crate) struct AgreementArgs {
    /// Networks [default: the configuration's]
    #[arg(long, value_name = "ARCH,…", value_delimiter = ',')]
    networks: Option<Vec<String>>,
    /// Compressed / dense multiply-adds [default: the configuration's]
    #[arg(long, value_name = "X,…", value_delimiter = ',')]
    ratios: Option<Vec<f64>>,
    #[command(flatten)]
    common: RunArgs,
}

/// `configs/agreement.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    statistics_split: String,
    test_split: String,
    macs_ratios: Vec<f64>,
    /// Forms that the plans choose from, and ranks tried for each.
    forms: Vec<Form>,
    points: usize,
    profile_iters: usize,
    /// Sweeps of ALS for the layers of a plan.
    iterations: usize,
    seed: u64,
    networks: Vec<Subject>,
    statistics: StatisticsOptions,
}

/// A network and its weights.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    arch: String,
    weights: String,
}

/// How ranks are chosen and kernels decomposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Way {
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
struct Outcome {
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

pub(crate) fn run(args: &AgreementArgs) -> Result<()> {
    let mut config: Config = built_in(include_str!("../configs/agreement.toml"));
    if let Some(names) = &args.networks {
        if let Some(name) = names.iter().find(|n| config.networks.iter().all(|s| s.arch != **n)) {
            anyhow::bail!("--networks: {name} is none of googlenet, squeezenet1_1");
        }
        config.networks.retain(|subject| names.contains(&subject.arch));
    }
    if let Some(ratios) = &args.ratios {
        config.macs_ratios.clone_from(ratios);
    }
    config.seed = args.common.seed;
    let mut run = Run::open(&args.common, "agreement", &config)?;
    let gathered = run.dataset("imagenet-sample", &config.statistics_split)?;
    let test = run.dataset("imagenet-sample", &config.test_split)?;
    let mut outcomes = Vec::new();
    let mut answers = Vec::new();
    for subject in &config.networks.clone() {
        let dense = run.pretrained(&subject.weights, &subject.arch)?;
        let known = run.stage(&format!("{}-dense", subject.arch), &config, &[&dense], || {
            let result =
                run.stages.evaluate(&format!("{}-dense-test", subject.arch), &dense, &test)?;
            Ok::<_, anyhow::Error>(Answers { best: best(&run, &dense, &test)?, result })
        })?;
        let bench = Bench {
            run: &run,
            config: &config,
            arch: &subject.arch,
            dense: &dense,
            gathered: &gathered,
            test: &test,
            known: &known,
        };
        for &ratio in &config.macs_ratios {
            for way in Way::ALL {
                let name = format!("{}-{ratio}-{}", subject.arch, way.file());
                outcomes.push(run.stage(&name, &config, &[&dense], || bench.outcome(way, ratio))?);
            }
        }
        answers.push((subject.arch.clone(), known));
    }
    write_report(&run, &config, &answers, &outcomes)
}

/// The class of the highest logit of every image.
fn best(run: &Run, network: &Network, set: &Arc<dyn Dataset>) -> Result<Vec<i64>> {
    let model = run.stages.executor(network)?;
    let found = logits(&model, set, &EvalOptions::default())?.f_argmax(1, false)?;
    Ok(Vec::<i64>::try_from(found.to_kind(Kind::Int64))?)
}

/// One network, and what it is compressed and tested with.
struct Bench<'a> {
    run: &'a Run,
    config: &'a Config,
    arch: &'a str,
    dense: &'a Network,
    gathered: &'a Arc<dyn Dataset>,
    test: &'a Arc<dyn Dataset>,
    known: &'a Answers,
}

impl Bench<'_> {
    /// The recipe of `way`: the ranks of the least Σ e² at the budget, of the kernels' errors or, with images, of the outputs'.
    fn recipe(&self, way: Way, target: Target) -> Recipe {
        let config = self.config;
        Recipe {
            target,
            timing_batches: Vec::new(),
            plan: Planning {
                forms: config.forms.clone(),
                points: config.points,
                max_iters: config.profile_iters,
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

    fn outcome(&self, way: Way, ratio: f64) -> Result<Outcome> {
        let Self { run, config: _, arch, dense, gathered, test, known } = *self;
        let images = TrainData { train: Arc::clone(gathered), validation: None };
        let images = CompressData { train: images, test: None };
        let stages = run.stages.within(&format!("networks/{arch}-{ratio}-{}", way.file()))?;
        let target = match way {
            Way::AlsSigma => {
                let plain = self.recipe(Way::Als, Target::MacsRatio(ratio));
                Target::Ranks(plain.plan(dense, None, &stages)?.0)
            }
            _ => Target::MacsRatio(ratio),
        };
        let done = self.recipe(way, target).run(dense, Some(&images), &stages)?;
        let (network, layers) = (done.network, done.layers);
        let found = best(run, &network, test)?;
        let same = found.iter().zip(&known.best).filter(|(a, b)| a == b).count();
        let right = (0..test.len()).filter(|&i| found[i] == test.label(i) as i64).count();
        let cost = network.cost(&dense.input().shape)?.total;
        let outcome = Outcome {
            arch: arch.into(),
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
}

fn write_report(
    run: &Run,
    config: &Config,
    answers: &[(String, Answers)],
    outcomes: &[Outcome],
) -> Result<()> {
    let of = |arch: &str, way: Way, ratio: f64| {
        outcomes.iter().find(|o| o.arch == arch && o.way == way && (o.ratio - ratio).abs() < 1e-9)
    };
    let mut sentences = Vec::new();
    for (arch, _) in answers {
        let middle = config.macs_ratios.get(1).or(config.macs_ratios.first());
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
    for (arch, known) in answers {
        report.add(Block::heading(arch.clone()));
        let mut plot = XyPlot::new(
            format!("{arch}: agreement against multiply-adds"),
            Axis::number("compressed / dense multiply-adds"),
            Axis::percent("agreement").include(0.0),
        );
        for way in Way::ALL {
            let mut points: Vec<(f64, f64)> = config
                .macs_ratios
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
        for &ratio in &config.macs_ratios {
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
    run.finish(report, config, &serde_json::json!({ "outcomes": outcomes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_configuration_is_sound() {
        let config: Config = built_in(include_str!("../configs/agreement.toml"));
        for subject in &config.networks {
            cp_net::arch::by_name(&subject.arch).unwrap();
        }
    }
}
