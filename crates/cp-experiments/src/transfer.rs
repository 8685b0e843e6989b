//! Transfer learning with compressed backbones: a pretrained network is decomposed at several sizes, gets a new head, and learns another
//! data set; accuracy against parameters, multiply-accumulates and latency, beside the dense network.
//!
//! After the transfer study of the SqVaD project: its protocol (one rule for the ranks, plain ALS, a new head for one epoch), and beside it a
//! sound one (our recipe, the head trained to its end, then the whole network) with the same ranks, with ranks that fall with depth, and with
//! our plans, all at the sizes of the published rule. The study's mistakes are repeated in neither: frozen batch normalization stays in eval
//! mode, every evaluation is in eval mode, every draw is seeded, ranks are at least 1, and nothing is chosen by the test set.

mod heads;
mod plans;
mod plots;
mod report;
mod settings;
mod tables;

use std::sync::Arc;

use anyhow::{Context as _, Result};
use cp_data::split_validation;
use cp_net::{Network, arch};
use cp_plan::LayerReport;
use cp_train::engine::{Engine, EngineName};
use cp_train::timing;
use cp_train::{CompressData, Evaluation, Recipe, Stages, Target, TrainConfig, TrainData};
use serde::{Deserialize, Serialize};

use self::heads::{HeadResult, Heads, Images};
use self::plans::{Rule, backbone_params, late_heavy, our_recipe, published, published_recipe};
use self::report::Findable;
use self::settings::{Origin, Own, Settings};
use crate::context::{Context, sample};
use crate::experiment::{Experiment, Findings};

pub(crate) struct Transfer {
    settings: Settings,
    seed: u64,
    /// The pretrained network with a new head, which counts as none of it.
    dense: Network,
    images: Images,
}

/// A backbone.
pub(crate) struct Cell {
    /// Of the published rule, which gives the size; none for the dense backbone.
    ratio: Option<f64>,
    rule: Rule,
}

/// What one backbone came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    ratio: Option<f64>,
    rule: Rule,
    /// Parameters without the head's.
    backbone: usize,
    params: usize,
    macs: usize,
    /// Mean relative error of the decomposed layers.
    mean_rel_error: Option<f64>,
    /// Heads by the published protocol; of the dense backbone both.
    published_heads: Vec<HeadResult>,
    /// Heads by the sound protocol.
    heads: Vec<HeadResult>,
    /// With everything trained, behind the first of the sound heads.
    whole: Option<Whole>,
}

/// A network that was trained whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Whole {
    /// By which the one to show first is chosen.
    validation: Evaluation,
    test: Evaluation,
}

/// An outcome with its network, where it was trained whole, and its layers as decomposed. None where the rule has no ranks at that size.
type Learned = Option<(Outcome, Option<Network>, Vec<LayerReport>)>;

impl Cell {
    fn name(&self) -> String {
        match self.ratio {
            Some(ratio) => format!("ratio-{ratio}-{}", self.rule.name()),
            None => self.rule.name().to_owned(),
        }
    }
}

impl Outcome {
    fn cell(&self) -> Cell {
        Cell { ratio: self.ratio, rule: self.rule }
    }
}

impl Experiment for Transfer {
    type Settings = Settings;
    type Cell = Cell;
    type Outcome = Learned;

    fn seed(settings: &mut Settings, seed: u64) {
        settings.head.seed = seed;
        settings.whole.seed = seed;
    }

    fn check(settings: &Settings) -> Result<()> {
        settings.check()
    }

    fn prepare(context: &mut Context, settings: Settings) -> Result<Self> {
        let images = open_images(context, &settings)?;
        let classes = images.test.classes().len();
        let mut dense = match settings.backbone {
            Origin::Own => own_backbone(context, &settings)?,
            Origin::Published => {
                context.network(&settings.weights, &settings.arch, classes).with_context(|| {
                    format!(
                        "the published backbone {} is not at hand; `cargo xtask transfer --dataset {} --backbone own` trains a small one \
                         on drawn characters instead",
                        settings.weights, settings.dataset
                    )
                })?
            }
        };
        dense = dense.with_input_shape([3, settings.input[0], settings.input[1]])?;
        dense.replace_head(classes, context.seed)?;
        Ok(Self { settings, seed: context.seed, dense, images })
    }

    fn cells(&self) -> Vec<Cell> {
        let compressed = self
            .settings
            .ratios
            .iter()
            .flat_map(|&ratio| Rule::COMPRESSED.map(|rule| Cell { ratio: Some(ratio), rule }));
        std::iter::once(Cell { ratio: None, rule: Rule::Dense }).chain(compressed).collect()
    }

    fn name(cell: &Cell) -> String {
        cell.name()
    }

    fn run(&self, context: &Context, cell: &Cell) -> Result<Learned> {
        let stages = context.stages.within(&cell.name())?;
        let Some((network, layers)) = self.compressed(cell, &stages)? else { return Ok(None) };
        let (outcome, whole) = self.learn(context, cell, &network, &layers, &stages)?;
        Ok(Some((outcome, whole, layers)))
    }

    fn report(&self, context: &Context, learned: Vec<Learned>) -> Result<Findings> {
        let mut found =
            Findable { latencies: Vec::new(), outcomes: Vec::new(), layers: Vec::new() };
        let mut networks = Vec::new();
        for (outcome, network, layers) in learned.into_iter().flatten() {
            networks.extend(network);
            found.outcomes.push(outcome);
            found.layers.push(layers);
        }
        let networks: Vec<&Network> = networks.iter().collect();
        let batch = self.settings.timing_batch;
        let names: Vec<EngineName> = context.engines().into_iter().map(Engine::name).collect();
        let key = (batch, names, timing::set_threads(0));
        found.latencies =
            context.stage("latency", &key, &networks, || context.times(&networks, batch))?;
        self.findings(context, &found)
    }
}

/// A backbone that has seen nothing but drawn characters.
fn own_backbone(context: &mut Context, settings: &Settings) -> Result<Network> {
    let Own { examples, epochs } = settings.own;
    eprintln!(
        "backbone: {}, trained here on {examples} drawn characters, not on the target",
        settings.arch
    );
    let drawn = |count: usize| format!("drawn:{count}");
    let data = TrainData {
        train: context.dataset(&drawn(examples), "train")?,
        validation: Some(context.dataset(&drawn((examples / 10).max(1)), "validation")?),
    };
    let arch = arch::by_name(&settings.arch)?.with_classes(data.train.classes().len())?;
    let config = TrainConfig {
        lr: 0.1,
        keep_best: false,
        seed: context.seed,
        ..TrainConfig::fine_tuning(epochs)
    };
    let start = context.stages.executor(&arch.initialize(context.seed)?)?;
    Ok(context.stages.train("backbone", start, None, &data, &config)?)
}

/// Training, validation and test images. The validation part comes out of the training data; the test set stays apart.
fn open_images(context: &mut Context, settings: &Settings) -> Result<Images> {
    let all = context.dataset(&settings.dataset, "train+validation")?;
    let used = sample(all, settings.train_examples, context.seed)?;
    let (train, validation) = split_validation(used, settings.validation_share, context.seed)?;
    let mut test = context.dataset(&settings.dataset, &settings.test_split)?;
    if settings.test_examples > 0 {
        test = sample(test, settings.test_examples, context.seed)?;
    }
    let train = TrainData { train: Arc::new(train), validation: Some(Arc::new(validation)) };
    Ok(Images { train, test })
}

impl Transfer {
    /// The backbone of `cell`, and what became of its layers; none where the rule has no ranks at that size.
    fn compressed(
        &self,
        cell: &Cell,
        stages: &Stages,
    ) -> Result<Option<(Network, Vec<LayerReport>)>> {
        let Self { settings, seed, dense, images } = self;
        let Some(ratio) = cell.ratio else { return Ok(Some((dense.clone(), Vec::new()))) };
        let arch = dense.architecture();
        let plan = published(arch, ratio)?;
        let asked = plan.preview(arch)?;
        let head = dense.head_name()?;
        let ours = |target| our_recipe(settings, target, vec![head.clone()], *seed);
        let recipe: Recipe = match cell.rule {
            Rule::Dense => return Ok(None),
            Rule::Published => published_recipe(settings, plan, *seed),
            Rule::PublishedRanks => ours(Target::Ranks(plan)),
            Rule::LateHeavy => match late_heavy(arch, backbone_params(&asked)?)? {
                Some(plan) => ours(Target::Ranks(plan)),
                None => return Ok(None),
            },
            Rule::Ours => {
                // The head is the same in both, so that the backbones are of one size where the networks are.
                let size = asked.param_count() as f64;
                ours(Target::ParamsRatio(size / arch.param_count() as f64))
            }
        };
        // Without validation images: those of a head that is drawn and not trained say nothing.
        let train = TrainData { train: images.train.train.clone(), validation: None };
        let data = CompressData { train, test: None };
        let data = (cell.rule != Rule::Published).then_some(&data);
        let done = recipe.run(dense, data, stages)?;
        Ok(Some((done.network, done.layers)))
    }

    /// Trains new heads on the frozen backbone of `network`, and where the settings say so the whole network behind the first of them.
    fn learn(
        &self,
        context: &Context,
        cell: &Cell,
        network: &Network,
        layers: &[LayerReport],
        stages: &Stages,
    ) -> Result<(Outcome, Option<Network>)> {
        let Self { settings, images, .. } = self;
        let mut heads = Heads::new(network, images, stages)?;
        let mut all = |stage: &str, config: &TrainConfig| -> Result<Vec<(Network, HeadResult)>> {
            (0..settings.seeds)
                .map(|n| {
                    let seed = config.seed.wrapping_add(n);
                    let config = TrainConfig { seed, ..config.clone() };
                    heads.train(&format!("{}-{stage}-{seed}", cell.name()), &config)
                })
                .collect()
        };
        // Of the dense backbone, by both protocols.
        let published = match cell.rule {
            Rule::Dense => all("published-head", &settings.published_head())?,
            Rule::Published => all("head", &settings.published_head())?,
            _ => Vec::new(),
        };
        let sound = match cell.rule {
            Rule::Published => Vec::new(),
            _ => all("head", &settings.head)?,
        };
        let is_whole = match cell.ratio {
            None => settings.ratios.iter().any(|&ratio| settings.trains_whole(ratio)),
            Some(ratio) => {
                settings.whole_plans.contains(&cell.rule) && settings.trains_whole(ratio)
            }
        };
        let (mut whole, mut trained) = (None, None);
        if let (true, Some((start, _))) = (is_whole, sound.first()) {
            let name = format!("{}-whole", cell.name());
            let model = context.stages.executor(start)?;
            let network =
                context.stages.train(&name, model, None, &images.train, &settings.whole)?;
            let evaluate =
                |part: &str, set| context.stages.evaluate(&format!("{name}-{part}"), &network, set);
            whole = Some(Whole {
                validation: evaluate("validation", images.validation()?)?,
                test: evaluate("test", &images.test)?,
            });
            trained = Some(network);
        }
        let cost = network.cost(&network.input().shape)?.total;
        let errors: Vec<f64> = layers.iter().map(|layer| layer.rel_error).collect();
        let results =
            |heads: Vec<(Network, HeadResult)>| heads.into_iter().map(|(_, r)| r).collect();
        let outcome = Outcome {
            ratio: cell.ratio,
            rule: cell.rule,
            backbone: backbone_params(network.architecture())?,
            params: cost.params,
            macs: cost.macs,
            mean_rel_error: (!errors.is_empty())
                .then(|| errors.iter().sum::<f64>() / errors.len() as f64),
            published_heads: results(published),
            heads: results(sound),
            whole,
        };
        Ok((outcome, trained))
    }
}
