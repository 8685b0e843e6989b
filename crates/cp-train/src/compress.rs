//! [`compress`]: from a rank plan to a repaired and fine-tuned network, stage by stage.

use std::collections::BTreeSet;

use cp_net::{Network, PART_SUFFIXES, Rank, Totals};
use cp_plan::{
    Decomposer, LayerReport, LayerStatistics, MAX_ENERGY, Method, Models, PlannedLayer, RankPlan,
};
use serde::{Deserialize, Serialize};

use crate::calibrate::CalibrationOptions;
use crate::config::{Augmentation, ParamGroup, TrainConfig};
use crate::error::TrainError;
use crate::evaluate::Evaluation;
use crate::key::Key;
use crate::progress;
use crate::stages::Stages;
use crate::statistics::StatisticsOptions;
use crate::train_data::TrainData;

/// How a plan is carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompressConfig {
    /// Solver of CP forms.
    pub method: Method,
    /// Most iterations of a solver.
    pub max_iters: usize,
    /// Change of the fit that ends a solver.
    pub tol: f64,
    /// Component energy above which terms are made smaller; see [`Decomposer::max_energy`].
    pub max_energy: Option<f64>,
    /// Data-aware decompositions, from the inputs that layers get for some unlabelled training images.
    pub statistics: Option<StatisticsOptions>,
    /// Training images for the batch normalizations to measure their statistics on after each decomposition; 0 for none. Where
    /// there are validation data, the new statistics are kept only if they lower the loss on them: those of the dense network
    /// can be the better ones where the maps have hardly changed.
    pub calibrate: usize,
    /// Random changes to these images: those that the dense network was trained with, see [`CalibrationOptions::augmentation`].
    pub augmentation: Augmentation,
    /// In what order layers are decomposed and the network is fine-tuned.
    pub schedule: CompressSchedule,
    /// Fine-tuning; none where absent. With [`TrainConfig::keep_best`] it is not kept where the validation accuracy was higher before.
    pub fine_tune: Option<TrainConfig>,
    /// Learning rate of the factors relative to that of the other parameters.
    pub factor_lr: f64,
    /// Parts of factorized layers that are not trained, such as `reduce` or `expand`.
    pub frozen_parts: Vec<String>,
    /// Seed of the decompositions, and of the images that batch normalization is measured on.
    pub seed: u64,
}

impl Default for CompressConfig {
    /// ALS with 200 sweeps, high energies corrected, 2,000 images for batch normalization, all layers at once, no fine-tuning.
    fn default() -> Self {
        Self {
            method: Method::Als,
            max_iters: 200,
            tol: 1e-8,
            max_energy: Some(MAX_ENERGY),
            statistics: None,
            calibrate: 2_000,
            augmentation: Augmentation::default(),
            schedule: CompressSchedule::AtOnce,
            fine_tune: None,
            factor_lr: 1.0,
            frozen_parts: Vec::new(),
            seed: 0,
        }
    }
}

/// In what order layers are decomposed and the network is fine-tuned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CompressSchedule {
    /// All layers, then the whole network is fine-tuned.
    AtOnce,
    /// One layer after the other in the order of the plan, the whole network fine-tuned for some epochs after each, and at the
    /// end as configured: the iterative fine-tuning of Astrid & Lee (2017), §3.3.
    Layerwise {
        /// Epochs behind each layer.
        epochs: usize,
        /// Whether layers that were decomposed before the last one stay as they are meanwhile.
        #[serde(default)]
        freeze_done: bool,
    },
    /// All layers, several times: from break-even to the plan's ranks in equal ratios, fine-tuned for some epochs after each
    /// pass, what was compressed being compressed again, as MUSCO does (Gusak et al. 2019, arXiv 1903.09973).
    Passes {
        /// Decompositions of every layer, at least 1.
        passes: usize,
        /// Epochs behind each pass but the last.
        epochs: usize,
    },
}

/// One state of the network on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// `dense`, `decomposed`, `calibrated`, `fine-tuned`, or a step of the schedule such as `conv2 fine-tuned`.
    pub stage: String,
    /// Cost of the whole network, for its own input shape.
    pub cost: Totals,
    /// On the validation data, where there are any.
    pub validation: Option<Evaluation>,
    /// Whether the next step, or the result, went on from here: not from a calibration, or with [`TrainConfig::keep_best`] a
    /// fine-tuning, that did not help on the validation data.
    pub kept: bool,
}

/// What [`compress`] made.
#[derive(Debug, Clone)]
pub struct Compressed {
    /// The network.
    pub network: Network,
    /// What became of every layer when it was decomposed (for the last time).
    pub layers: Vec<LayerReport>,
    /// The network before, on the way, and after.
    pub stages: Vec<StageReport>,
}

/// Carries out `plan` on `dense`: decompose, let batch normalization measure anew, fine-tune, as `config` says.
///
/// What is finished is kept in `stages`: a killed run goes on from the last epoch or layer, to the same network as an
/// uninterrupted one (CPU, same number of threads).
///
/// Without data there is only the decomposition.
///
/// # Errors
/// A plan that does not fit; options that need data where there are none; what decomposition and training refuse.
pub fn compress(
    dense: &Network,
    plan: &RankPlan,
    data: Option<&TrainData>,
    config: &CompressConfig,
    stages: &Stages,
) -> Result<Compressed, TrainError> {
    compress_from(dense, plan, data, config, stages, &Known::default())
}

/// What making the plan has found out about the dense network already.
#[derive(Default)]
pub(crate) struct Known<'a> {
    /// Statistics of the inputs of its layers.
    pub(crate) statistics: Option<&'a dyn Fn() -> Result<LayerStatistics, TrainError>>,
    /// What these were gathered from, where it is not the training data.
    pub(crate) examples: Option<String>,
    /// Models of its kernels to go on from, and what they were made from.
    pub(crate) models: Option<(&'a Models, &'a Key)>,
}

/// As [`compress`], going on from what is known of the dense network.
pub(crate) fn compress_from(
    dense: &Network,
    plan: &RankPlan,
    data: Option<&TrainData>,
    config: &CompressConfig,
    stages: &Stages,
    known: &Known<'_>,
) -> Result<Compressed, TrainError> {
    config.check(data.is_some() || known.examples.is_some())?;
    plan.check(dense)?;
    let run = Run { dense, data, config, stages };
    let mut reports = vec![run.report("dense", "dense", dense, &stages.shared())?];
    let network = match &config.schedule {
        CompressSchedule::AtOnce => run.decompose("decomposed", dense, plan, known)?,
        CompressSchedule::Layerwise { epochs, freeze_done } => {
            run.layerwise(plan, *epochs, *freeze_done, &mut reports)?
        }
        CompressSchedule::Passes { passes, epochs } => {
            run.passes(plan, *passes, *epochs, &mut reports)?
        }
    };
    let (mut network, layers) = network;
    reports.push(run.report("decomposed", "decomposed", &network, stages)?);
    if let Some(calibrated) = run.calibrate("calibrated", &network)? {
        let mut report = run.report("calibrated", "calibrated", &calibrated, stages)?;
        report.kept = better(&report, reports.last());
        if report.kept {
            network = calibrated;
        }
        reports.push(report);
    }
    if let Some(fine_tune) = &config.fine_tune {
        let tuned = run.fine_tune("fine-tuned", &network, fine_tune, &BTreeSet::new())?;
        let mut report = run.report("fine-tuned", "fine-tuned", &tuned, stages)?;
        // The state before the first epoch is one of those that the best is chosen from.
        let before = reports.iter().rfind(|report| report.kept);
        report.kept =
            !broken(&report, &tuned) && (!fine_tune.keep_best || !less_accurate(&report, before));
        if report.kept {
            network = tuned;
        }
        reports.push(report);
    }
    Ok(Compressed { network, layers, stages: reports })
}

impl CompressConfig {
    /// Whether it makes sense, with or without data.
    ///
    /// # Errors
    /// [`TrainError::Config`] for the first option that does not.
    pub fn check(&self, data: bool) -> Result<(), TrainError> {
        let wrong =
            |option, got: String, expected| Err(TrainError::Config { option, got, expected });
        if let Some(fine_tune) = &self.fine_tune {
            fine_tune.check()?;
        }
        if !(self.factor_lr.is_finite() && self.factor_lr >= 0.0) {
            return wrong("factor_lr", self.factor_lr.to_string(), "0 or more");
        }
        if let Some(part) =
            self.frozen_parts.iter().find(|part| !PART_SUFFIXES.contains(&part.as_str()))
        {
            let expected = "reduce, spatial, depth, vertical, horizontal, core, core_reduce, core_expand or expand";
            return wrong("frozen_parts", part.clone(), expected);
        }
        if self.method == Method::Nonneg && self.statistics.is_some() {
            let expected = "another method, or no statistics: factors of ALS-Σ have signs";
            return wrong("method", "nonneg".into(), expected);
        }
        if let CompressSchedule::Passes { passes: 0, .. } = self.schedule {
            return wrong("schedule.passes", "0".into(), "at least 1");
        }
        let stepwise = !matches!(self.schedule, CompressSchedule::AtOnce);
        if stepwise && self.fine_tune.is_none() {
            return wrong("schedule", "no fine_tune".into(), "fine-tuning between the steps");
        }
        if !data && (self.fine_tune.is_some() || self.statistics.is_some()) {
            return wrong("fine_tune or statistics", "no data".into(), "training data");
        }
        Ok(())
    }
}

/// Whether calibration helped; without validation data it is taken to.
fn better(after: &StageReport, before: Option<&StageReport>) -> bool {
    match (after.validation, before.and_then(|before| before.validation)) {
        (Some(after), Some(before)) => after.loss < before.loss,
        _ => true,
    }
}

/// Whether what was trained is no network any more: a weight or the validation loss is not finite.
fn broken(report: &StageReport, network: &Network) -> bool {
    report.validation.is_some_and(|found| !found.loss.is_finite())
        || network.params().iter().any(|(_, array)| array.iter().any(|value| !value.is_finite()))
}

/// Whether fine-tuning has cost validation accuracy; of equal ones the lower loss is the better.
fn less_accurate(after: &StageReport, before: Option<&StageReport>) -> bool {
    match (after.validation, before.and_then(|before| before.validation)) {
        (Some(after), Some(before)) => (after.top1, before.loss) < (before.top1, after.loss),
        _ => false,
    }
}

/// What all steps of a compression need.
struct Run<'a> {
    dense: &'a Network,
    data: Option<&'a TrainData>,
    config: &'a CompressConfig,
    stages: &'a Stages,
}

impl Run<'_> {
    /// `network` with the layers of `plan` decomposed.
    fn decompose(
        &self,
        name: &str,
        network: &Network,
        plan: &RankPlan,
        known: &Known<'_>,
    ) -> Result<(Network, Vec<LayerReport>), TrainError> {
        let config = self.config;
        let layers: Vec<_> =
            plan.layers.iter().map(|layer| (&layer.name, layer.form, layer.rank)).collect();
        let mut key = Key::new(name, 1)
            .network("network", network)
            .setting("layers", &layers)
            .setting("method", &config.method)
            .setting("max_iters", &config.max_iters)
            .setting("tol", &config.tol)
            .setting("max_energy", &config.max_energy)
            .setting("seed", &config.seed);
        if let (Some(options), Some(data)) = (&config.statistics, self.data) {
            key = key.setting("statistics", options).data("train", &*data.train)?;
        }
        if let (Some(options), Some(examples)) = (&config.statistics, &known.examples) {
            key = key.setting("statistics", options).setting("examples", examples);
        }
        if let Some((_, profile)) = known.models {
            key = key.after(profile);
        }
        self.stages.network_and(&key, || {
            let mut decomposer = Decomposer {
                method: config.method,
                max_iters: config.max_iters,
                tol: config.tol,
                max_energy: config.max_energy,
                seed: config.seed,
                ..Decomposer::default()
            };
            if let Some(options) = &config.statistics {
                decomposer.statistics = match (known.statistics, self.data) {
                    (Some(gathered), _) => gathered()?,
                    (None, Some(data)) => {
                        let names: Vec<String> =
                            plan.layers.iter().map(|layer| layer.name.clone()).collect();
                        self.stages.input_statistics(network, &names, &data.train, options)?
                    }
                    (None, None) => LayerStatistics::new(),
                };
            }
            if let Some((models, _)) = known.models {
                decomposer.models = models.clone();
            }
            let mut compressed = network.clone();
            let bar = progress::bar(plan.layers.len() as u64, "decompose");
            let reports =
                cp_plan::compress(&mut compressed, plan, &decomposer, &|event| match event {
                    cp_plan::Event::Iteration { layer, rel_error, .. } => {
                        bar.set_message(format!("{layer}: relative error {rel_error:.4}"));
                    }
                    cp_plan::Event::Finished { .. } => bar.inc(1),
                    _ => {}
                })?;
            bar.finish_and_clear();
            Ok((compressed, reports))
        })
    }

    /// `network` with the statistics of its batch normalizations measured anew; `None` where nothing is to be done.
    fn calibrate(&self, name: &str, network: &Network) -> Result<Option<Network>, TrainError> {
        let has_norms =
            network.architecture().nodes.iter().any(|node| node.op.kind() == "batch_norm");
        let (Some(data), true) = (self.data, has_norms && self.config.calibrate > 0) else {
            return Ok(None);
        };
        let key = Key::new(name, 1)
            .network("network", network)
            .setting("images", &self.config.calibrate)
            .setting("augmentation", &self.config.augmentation)
            .setting("seed", &self.config.seed)
            .data("train", &*data.train)?;
        let calibrated = self.stages.network(&key, || {
            let options = CalibrationOptions {
                images: self.config.calibrate,
                augmentation: self.config.augmentation,
                seed: self.config.seed,
                workers: 2,
            };
            self.stages.calibrated(network, &data.train, &options)
        })?;
        Ok(Some(calibrated))
    }

    /// `network` fine-tuned, the factors of the layers `frozen` apart.
    fn fine_tune(
        &self,
        name: &str,
        network: &Network,
        fine_tune: &TrainConfig,
        frozen: &BTreeSet<&str>,
    ) -> Result<Network, TrainError> {
        let Some(data) = self.data else { return Ok(network.clone()) };
        let mut still = BTreeSet::new();
        let mut config = fine_tune.clone();
        let factorized = &network.architecture().factorized;
        for (layer, record) in factorized {
            // A layer with the kernel of a frozen one is frozen with it.
            let done = frozen.iter().filter_map(|done| factorized.get(*done));
            let is_done = done.into_iter().any(|done| done.weight == record.weight);
            for part in &record.parts {
                let suffix = part.strip_prefix(&format!("{layer}.")).unwrap_or(part);
                let held = self.config.frozen_parts.iter().any(|part| part == suffix);
                if held || is_done {
                    still.insert(part.clone());
                }
                if (self.config.factor_lr - 1.0).abs() > f64::EPSILON {
                    config.groups.push(ParamGroup {
                        prefix: format!("{part}."),
                        lr_scale: self.config.factor_lr,
                    });
                }
            }
        }
        self.stages.fine_tuned(name, network, &still, self.dense, data, &config)
    }

    /// One layer after the other, with fine-tuning behind each.
    fn layerwise(
        &self,
        plan: &RankPlan,
        epochs: usize,
        freeze_done: bool,
        reports: &mut Vec<StageReport>,
    ) -> Result<(Network, Vec<LayerReport>), TrainError> {
        let (mut network, mut layers) = (self.dense.clone(), Vec::new());
        let mut done = BTreeSet::new();
        let count = plan.layers.len();
        for (index, planned) in plan.layers.iter().enumerate() {
            let step = format!("step-{:03}", index + 1);
            let one = RankPlan { layers: vec![planned.clone()], dense: Vec::new() };
            let (decomposed, found) =
                self.decompose(&format!("{step}-decomposed"), &network, &one, &Known::default())?;
            layers.extend(found);
            network = decomposed;
            // Behind the last layer comes the fine-tuning of the whole.
            if index + 1 < count {
                network = self.between(&step, &planned.name, &network, epochs, &done, reports)?;
            }
            if freeze_done {
                done.insert(planned.name.as_str());
            }
        }
        Ok((network, layers))
    }

    /// All layers again and again, at falling ranks.
    fn passes(
        &self,
        plan: &RankPlan,
        passes: usize,
        epochs: usize,
        reports: &mut Vec<StageReport>,
    ) -> Result<(Network, Vec<LayerReport>), TrainError> {
        let (mut network, mut layers) = (self.dense.clone(), Vec::new());
        for pass in 1..=passes {
            let step = format!("pass-{pass}");
            for layer in &plan.layers {
                if pass > 1 {
                    network.densify(&layer.name)?;
                }
            }
            let share = pass as f64 / passes as f64;
            let weaker = RankPlan {
                layers: plan
                    .layers
                    .iter()
                    .map(|layer| self.weakened(layer, share))
                    .collect::<Result<_, TrainError>>()?,
                dense: Vec::new(),
            };
            (network, layers) = self.decompose(
                &format!("{step}-decomposed"),
                &network,
                &weaker,
                &Known::default(),
            )?;
            if pass < passes {
                let none = BTreeSet::new();
                network = self.between(&step, &step, &network, epochs, &none, reports)?;
            }
        }
        Ok((network, layers))
    }

    /// The planned layer at the rank R₀ (R / R₀)^share, R₀ its break-even rank in parameters; forms with several ranks keep them.
    fn weakened(&self, planned: &PlannedLayer, share: f64) -> Result<PlannedLayer, TrainError> {
        let Rank::One(rank) = planned.rank else { return Ok(planned.clone()) };
        let input = &self.dense.architecture().input_shapes();
        let even = self.dense.breakeven(&planned.name, planned.form, input)?.params;
        let first = even.floor().max(rank as f64);
        let weaker = first * (rank as f64 / first).powf(share);
        let rank = (weaker.round() as usize).max(rank);
        Ok(PlannedLayer { rank: Rank::One(rank), ..planned.clone() })
    }

    /// Calibration and some epochs of fine-tuning between two steps of a schedule.
    fn between(
        &self,
        step: &str,
        what: &str,
        network: &Network,
        epochs: usize,
        frozen: &BTreeSet<&str>,
        reports: &mut Vec<StageReport>,
    ) -> Result<Network, TrainError> {
        let mut network = network.clone();
        if let Some(calibrated) = self.calibrate(&format!("{step}-calibrated"), &network)? {
            let stages = self.stages;
            let before = self.report(&format!("{step}-decomposed"), step, &network, stages)?;
            let after = self.report(&format!("{step}-calibrated"), step, &calibrated, stages)?;
            if better(&after, Some(&before)) {
                network = calibrated;
            }
        }
        if let (Some(fine_tune), true) = (&self.config.fine_tune, epochs > 0) {
            let config = TrainConfig { epochs, ..fine_tune.clone() };
            network = self.fine_tune(&format!("{step}-fine-tuned"), &network, &config, frozen)?;
        }
        let stage = format!("{what} fine-tuned");
        reports.push(self.report(step, &stage, &network, self.stages)?);
        Ok(network)
    }

    /// Cost of `network`, and its quality on the validation data.
    fn report(
        &self,
        name: &str,
        stage: &str,
        network: &Network,
        stages: &Stages,
    ) -> Result<StageReport, TrainError> {
        let validation = match self.data.and_then(|data| data.validation.as_ref()) {
            Some(set) => Some(stages.evaluate(&format!("{name}-validation"), network, set)?),
            None => None,
        };
        let cost = network.cost(network.architecture().input_shapes())?.total;
        Ok(StageReport { stage: stage.into(), cost, validation, kept: true })
    }
}
