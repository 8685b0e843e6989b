//! AlexNet on data: the whole procedure of Astrid & Lee (2017) and of SqVaD, one factor varied at a time.
//!
//! Dense network → the loss that each layer causes alone → ranks as shares of a sum → decomposition → fine-tuning → accuracy, size, time and
//! adversarial resistance. A variant is what it changes in the base recipe of `polyad compress`.

mod page;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use cp_data::{Dataset, split_validation};
use cp_net::{Architecture, Form, Network, Totals, arch};
use cp_plan::{LayerReport, PlannedLayer, RankPlan};
use cp_train::timing::{self, Timing};
use cp_train::{
    AttackOptions, CompressData, EngineName, EvalOptions, Evaluation, Key, Recipe, Resistance,
    Sensitivity, SensitivityOptions, StageReport, Target, TrainConfig, TrainData, resistance,
    sensitivity,
};
use serde::{Deserialize, Serialize};
use toml::Table;

use super::counts::{Published, Ranks, weighted_layers};
use super::{Alexnet, Settings};
use crate::context::{Context, sample};
use crate::description::overlay;
use crate::experiment::{Experiment, Findings};

/// What is done on data: `settings.study` of `experiments/reproduce-alexnet.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StudySettings {
    dataset: String,
    /// What the dense network is trained and the compressed ones fine-tuned on; split where there is no validation split.
    train_split: String,
    /// Seen once by each network.
    test_split: String,
    /// Of the training data, where it is cut from them; 0 where there is a split of its own.
    validation_share: f64,
    /// Examples that are used; 0 for all.
    train_examples: usize,
    test_examples: usize,
    arch: String,
    /// `own`, a network that is trained here first; else a file.
    weights: String,
    train: TrainConfig,
    batches: Vec<usize>,
    /// Examples that resistance is measured on, and how.
    attacked: usize,
    attack: AttackOptions,
    /// Laid over the default recipe.
    base: Table,
    variants: Vec<VariantSettings>,
    /// Variants that are run; all where it is empty.
    only: Vec<String>,
}

/// One network: what it changes in the base recipe.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VariantSettings {
    name: String,
    /// The factor that it varies, under which the page has it.
    factor: String,
    /// Ranks of the eight layers, in the place of those that losses give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ranks: Option<Ranks>,
    #[serde(default)]
    recipe: Table,
}

impl StudySettings {
    fn base(&self) -> Result<Table> {
        let mut recipe = Table::try_from(Recipe::default())?;
        // A recipe has one target.
        recipe.remove("target");
        overlay(&mut recipe, &self.base);
        Ok(recipe)
    }

    /// The recipe of a variant for this network.
    fn recipe(&self, variant: &VariantSettings, arch: &Architecture, seed: u64) -> Result<Recipe> {
        let mut table = self.base()?;
        if variant.recipe.contains_key("target") || variant.ranks.is_some() {
            table.remove("target");
        }
        overlay(&mut table, &variant.recipe);
        if let Some(ranks) = &variant.ranks {
            let form = forms(&table)?;
            let plan = published_plan(arch, form, ranks)?;
            table.insert("target".into(), toml::Value::try_from(Target::Ranks(plan))?);
        }
        let recipe: Recipe = toml::Value::Table(table)
            .try_into()
            .with_context(|| format!("the recipe of the variant '{}'", variant.name))?;
        Ok(recipe.seeded(seed))
    }

    fn chosen(&self) -> impl Iterator<Item = (usize, &VariantSettings)> {
        let asked = |(_, one): &(usize, &VariantSettings)| {
            self.only.is_empty() || self.only.contains(&one.name)
        };
        self.variants.iter().enumerate().filter(asked)
    }

    pub(super) fn check(&self) -> Result<()> {
        let names: Vec<&str> = self.variants.iter().map(|one| one.name.as_str()).collect();
        if let Some(name) = self.only.iter().find(|name| !names.contains(&name.as_str())) {
            bail!("--only: {name} is none of {}", names.join(", "));
        }
        let arch = arch::by_name(&self.arch)?;
        if weighted_layers(&arch).len() != 8 {
            bail!("{} is no AlexNet: it has not eight layers with weights", self.arch);
        }
        for variant in &self.variants {
            self.recipe(variant, &arch, 0)?
                .check(true)
                .with_context(|| format!("the variant '{}'", variant.name))?;
        }
        self.attack.check(usize::MAX)?;
        Ok(self.train.check()?)
    }
}

/// The one form of a recipe that is a table still.
fn forms(recipe: &Table) -> Result<Form> {
    let forms =
        recipe.get("plan").and_then(|plan| plan.get("forms")).context("a recipe has plan.forms")?;
    let forms: Vec<Form> = forms.clone().try_into()?;
    forms.first().copied().context("plan.forms is empty")
}

/// Ranks of the literature as a plan; those that a layer has no room for are the largest that it has.
fn published_plan(arch: &Architecture, form: Form, ranks: &Ranks) -> Result<RankPlan> {
    let mut layers = Vec::new();
    for (node, &rank) in weighted_layers(arch).iter().zip(ranks) {
        let form = form.suited_to(&node.op).context("a layer with weights has a form")?;
        layers.push(PlannedLayer {
            name: node.name.clone(),
            form,
            rank: rank.into(),
            why: "given".into(),
        });
    }
    Ok(RankPlan { layers, dense: Vec::new() })
}

pub(crate) struct Study {
    settings: StudySettings,
    published: Published,
    seed: u64,
    dense: Network,
    data: CompressData,
    test: Arc<dyn Dataset>,
    sensitivity: Sensitivity,
}

/// A variant as it came out.
#[derive(Debug, Clone, Serialize)]
struct Row {
    name: String,
    factor: String,
    cost: Totals,
    ranks: Vec<(String, String)>,
    /// Mean relative error of the kernels.
    rel_error: f64,
    /// On the validation images before fine-tuning, and in the end.
    before: Option<f64>,
    validation: Option<f64>,
    test: Evaluation,
    /// Median seconds of an epoch of fine-tuning.
    epoch_seconds: Option<f64>,
    resistance: Resistance,
    /// By engine and batch.
    times: Vec<Timed>,
}

/// Times of a network and of the dense one, in turn.
#[derive(Debug, Clone, Serialize)]
struct Timed {
    engine: EngineName,
    batch: usize,
    dense: Timing,
    timing: Timing,
}

/// A variant with its network.
pub(crate) struct Made {
    index: usize,
    network: Network,
    layers: Vec<LayerReport>,
    stages: Vec<StageReport>,
    test: Evaluation,
    epoch_seconds: Option<f64>,
}

impl Experiment for Study {
    type Settings = Settings;
    type Cell = usize;
    type Outcome = Made;

    fn seed(settings: &mut Settings, seed: u64) {
        settings.study.train.seed = seed;
    }

    fn check(settings: &Settings) -> Result<()> {
        Alexnet::check(settings)
    }

    fn prepare(context: &mut Context, settings: Settings) -> Result<Self> {
        let Settings { study, published, .. } = settings;
        let seed = context.seed;
        let mut open = |split: &str, count: usize| -> Result<Arc<dyn Dataset>> {
            let set = context.dataset(&study.dataset, split)?;
            if count == 0 { Ok(set) } else { sample(set, count, seed) }
        };
        let train = open(&study.train_split, study.train_examples)?;
        let (train, validation): (Arc<dyn Dataset>, Arc<dyn Dataset>) =
            if study.validation_share > 0.0 {
                let (train, validation) = split_validation(train, study.validation_share, seed)?;
                (Arc::new(train), Arc::new(validation))
            } else {
                (train, open("validation", study.test_examples)?)
            };
        let test = open(&study.test_split, study.test_examples)?;
        let train = TrainData { train, validation: Some(validation) };
        let classes = train.train.classes().len();
        let dense = if study.weights == "own" {
            let start =
                arch::by_name(&study.arch)?.with_classes(classes)?.initialize(context.seed)?;
            let start = context.stages.executor(&start)?;
            context.stages.train("dense", start, None, &train, &study.train)?
        } else {
            context.network(&study.weights, &study.arch, classes)?
        };
        let data = CompressData { train, test: Some(Arc::clone(&test)) };
        let options = probes(&study, context.seed)?;
        let cache = context.dir().file("sensitivity.jsonl");
        let sensitivity = probed(&dense, &data.train, &options, context, &cache)?;
        Ok(Self { settings: study, published, seed: context.seed, dense, data, test, sensitivity })
    }

    fn cells(&self) -> Vec<usize> {
        self.settings.chosen().map(|(index, _)| index).collect()
    }

    fn name(index: &usize) -> String {
        format!("variant {}", index + 1)
    }

    fn run(&self, context: &Context, &index: &usize) -> Result<Made> {
        let variant = &self.settings.variants[index];
        let stages = context.stages.within(&variant.name.replace(' ', "-"))?;
        let recipe = self.settings.recipe(variant, self.dense.architecture(), self.seed)?;
        let done = recipe.run(&self.dense, Some(&self.data), &stages)?;
        let test = match done.test {
            Some([_, test]) => test,
            None => stages.evaluate("test", &done.network, &self.test)?,
        };
        let epochs = stages.dir().epochs("fine-tuned")?;
        Ok(Made {
            index,
            network: done.network,
            layers: done.layers,
            stages: done.stages,
            test,
            epoch_seconds: median(epochs.iter().map(|epoch| epoch.seconds)),
        })
    }

    fn report(&self, context: &Context, made: Vec<Made>) -> Result<Findings> {
        let mut networks = vec![&self.dense];
        networks.extend(made.iter().map(|one| &one.network));
        let mut resistance = self.resistance(context, &networks)?;
        // Those of single images stay in the stage's file.
        for found in &mut resistance {
            found.own.steps.clear();
            found.common.steps.clear();
        }
        let times = self.times(context, &networks)?;
        let dense = Row {
            name: "dense".into(),
            factor: String::new(),
            cost: self.dense.cost(self.dense.architecture().input_shapes())?.total,
            ranks: Vec::new(),
            rel_error: 0.0,
            before: None,
            validation: Some(self.sensitivity.dense.top1),
            test: context.stages.evaluate("dense-test", &self.dense, &self.test)?,
            epoch_seconds: median(context.dir().epochs("dense")?.iter().map(|epoch| epoch.seconds)),
            resistance: resistance[0].clone(),
            times: times[0].clone(),
        };
        let mut rows = vec![dense];
        for ((one, resistance), times) in made.iter().zip(&resistance[1..]).zip(&times[1..]) {
            let variant = &self.settings.variants[one.index];
            let validation = |stage: &StageReport| Some(stage.validation?.top1);
            let decomposed = one.stages.iter().rfind(|stage| !stage.stage.contains("fine-tuned"));
            let errors = one.layers.iter().map(|layer| layer.rel_error);
            rows.push(Row {
                name: variant.name.clone(),
                factor: variant.factor.clone(),
                cost: one.network.cost(one.network.architecture().input_shapes())?.total,
                ranks: one
                    .layers
                    .iter()
                    .map(|layer| (layer.layer.clone(), layer.rank.to_string()))
                    .collect(),
                rel_error: errors.sum::<f64>() / one.layers.len().max(1) as f64,
                before: decomposed.and_then(validation),
                validation: one.stages.iter().rfind(|stage| stage.kept).and_then(validation),
                test: one.test,
                epoch_seconds: one.epoch_seconds,
                resistance: resistance.clone(),
                times: times.clone(),
            });
        }
        self.page(&rows, &made)
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The probes of the sources: every layer alone at rank 5.
fn probes(study: &StudySettings, seed: u64) -> Result<SensitivityOptions> {
    Ok(SensitivityOptions { form: forms(&study.base()?)?, seed, ..SensitivityOptions::default() })
}

/// The loss that each layer causes alone, kept in a file of the run.
fn probed(
    dense: &Network,
    data: &TrainData,
    options: &SensitivityOptions,
    context: &Context,
    cache: &Path,
) -> Result<Sensitivity> {
    // Of another network, other data or other options: computed anew.
    match sensitivity(dense, data, options, context.stages.device(), Some(cache)) {
        Err(cp_train::TrainError::Checkpoint { .. }) => {
            std::fs::remove_file(cache).with_context(|| cache.display().to_string())?;
            Ok(sensitivity(dense, data, options, context.stages.device(), Some(cache))?)
        }
        found => Ok(found?),
    }
}

impl Study {
    fn resistance(&self, context: &Context, networks: &[&Network]) -> Result<Vec<Resistance>> {
        let StudySettings { attack, attacked, .. } = &self.settings;
        let attack = AttackOptions { seed: self.seed, ..attack.clone() };
        let mut key = Key::new("resistance", 1)
            .setting("attack", &attack)
            .setting("images", attacked)
            .setting(
                "data",
                &(&self.settings.dataset, &self.settings.test_split, self.settings.test_examples),
            );
        for (index, network) in networks.iter().enumerate() {
            key = key.network(&format!("network-{index}"), network);
        }
        context.stages.result(&key, || -> Result<_> {
            let options = EvalOptions::default();
            let device = context.stages.device();
            Ok(resistance(networks, &self.test, *attacked, &attack, &options, device)?)
        })
    }

    /// All networks in turn, in each engine and batch, with the dense network's time beside each.
    fn times(&self, context: &Context, networks: &[&Network]) -> Result<Vec<Vec<Timed>>> {
        let mut all = vec![Vec::new(); networks.len()];
        for &batch in &self.settings.batches {
            let names: Vec<EngineName> =
                context.engines().iter().map(|engine| engine.name()).collect();
            let key = (batch, names, timing::set_threads(0));
            let found = context.stage(&format!("latency-batch-{batch}"), &key, networks, || {
                context.times(networks, batch)
            })?;
            for (engine, times) in found {
                for (own, timing) in all.iter_mut().zip(&times) {
                    own.push(Timed { engine, batch, dense: times[0], timing: *timing });
                }
            }
        }
        Ok(all)
    }
}
