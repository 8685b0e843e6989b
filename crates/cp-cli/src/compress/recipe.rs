//! What the options of `polyad compress` ask for: recipes, and which options do not go together.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use cp_net::{Architecture, Form};
use cp_plan::{Method, RankPlan};
use cp_train::{
    Augmentation, CompressConfig, CompressSchedule, Distillation, FixedLayer, LossRule,
    OptimizerConfig, PlanBy, Recipe, StatisticsOptions, Target, TrainConfig, TrainError,
};

use super::options::{Args, BudgetOptions, FormName, PlanName, ScheduleName};
use crate::common::Usage;

impl Args {
    /// Refuses a command line that names no goal, or options that do not go together.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.recipe.is_none() && !self.budget.is_given() {
            return Err(Usage(
                "how small? name a budget, such as --macs-ratio 0.5, --params-ratio 0.3, --latency-ratio 0.6, --error-target 0.1 or \
                 --ranks plan.toml, or a --recipe that has one"
                    .into(),
            )
            .into());
        }
        // Everything but the files that options name, before any of them is read.
        self.recipes(None, 0).map(drop)
    }

    /// The recipes that the options ask for, one for each model to make.
    ///
    /// Plans and names of layers are read and checked where the architecture is known.
    pub(super) fn recipes(
        &self,
        arch: Option<&Architecture>,
        seed: u64,
    ) -> anyhow::Result<Vec<Recipe>> {
        let base = match &self.recipe {
            Some(path) => Recipe::load(path)?,
            None => {
                let target = Target::MacsRatio(0.5); // replaced below: a budget is required
                let recipe = match (&self.dataset, &self.inputs) {
                    (None, None) => Recipe::data_free(target),
                    (None, Some(_)) => Recipe::with_inputs(target),
                    (Some(name), _) => {
                        let augmentation = cp_train::augmentation_of(name);
                        Recipe::with_data(self.preset.preset(), target, augmentation)
                    }
                };
                recipe.seeded(seed)
            }
        };
        let mut targets = self.budget.targets(arch)?;
        if targets.is_empty() {
            targets.push(base.target.clone());
        }
        if let Some(at) = (1..targets.len()).find(|&at| targets[..at].contains(&targets[at])) {
            return Err(Usage(format!("{} is asked for twice", targets[at].label())).into());
        }
        let recipes: Vec<Recipe> = targets
            .into_iter()
            .map(|target| self.changed(Recipe { target, ..base.clone() }, arch))
            .collect::<anyhow::Result<_>>()?;
        for recipe in &recipes {
            self.check_read(recipe)?;
            recipe
                .check(self.dataset.is_some() || self.inputs.is_some())
                .map_err(in_words_of_options)?;
        }
        Ok(recipes)
    }

    /// `recipe` with the options that are given.
    fn changed(&self, mut recipe: Recipe, arch: Option<&Architecture>) -> anyhow::Result<Recipe> {
        let Recipe { plan, compress, timing_batches, target } = &mut recipe;
        if let Some(form) = self.form {
            plan.forms = form.forms();
        }
        if let Some(by) = self.plan_by {
            plan.by = by.into();
        }
        // Rules for one form.
        let chooses = target.budget().is_some() && plan.by != PlanBy::Uniform
            || matches!(target, Target::ErrorTarget(_));
        if !chooses && self.form.is_none() && self.recipe.is_none() {
            plan.forms = vec![Form::Cp3];
        }
        set(&mut plan.points, self.points);
        set(&mut plan.multiple, self.multiple);
        set(&mut plan.size_share, self.size_share);
        set(&mut plan.loss, self.loss.map(LossRule::from));
        if !self.keep.is_empty() {
            plan.keep.clone_from(&self.keep);
            plan.keep.sort();
            plan.keep.dedup();
        }
        if let Some(arch) = arch {
            known_layers(arch, "--keep", &plan.keep)?;
        }
        plan.never_slower |= self.never_slower;
        if let (Some(path), Some(arch)) = (&self.fix, arch) {
            plan.fix = load_plan(path, arch)?
                .layers
                .into_iter()
                .map(|layer| FixedLayer { name: layer.name, form: layer.form, rank: layer.rank })
                .collect();
            if let Some(both) = plan.fix.iter().find(|layer| plan.keep.contains(&layer.name)) {
                bail!("{}: {} is to stay dense by --keep", path.display(), both.name);
            }
        }
        let from_time = plan.never_slower || matches!(target, Target::LatencyRatio(_));
        if !self.timing_batch.is_empty() {
            timing_batches.clone_from(&self.timing_batch);
        } else if from_time && timing_batches.is_empty() {
            *timing_batches = vec![1, 32];
        }
        if let (Some(&first), true) = (timing_batches.first(), from_time) {
            plan.timing_batch = first;
        }
        set(&mut compress.method, self.method);
        set(&mut compress.max_iters, self.max_iters);
        set(&mut compress.tol, self.tol);
        if let Some(energy) = self.max_energy {
            compress.max_energy = energy.is_finite().then_some(energy);
        }
        set(&mut compress.calibrate, self.calibrate);
        set(&mut compress.factor_lr, self.factor_lr);
        if !self.freeze.is_empty() {
            compress.frozen_parts.clone_from(&self.freeze);
        }
        if let Some(images) = self.statistics {
            let known = compress.statistics.unwrap_or(StatisticsOptions {
                seed: compress.seed,
                ..StatisticsOptions::default()
            });
            compress.statistics = (images > 0).then_some(StatisticsOptions { images, ..known });
        }
        if let Some(augment) = self.augment {
            let chosen = if augment {
                Augmentation { flip: true, crop_padding: 4 }
            } else {
                Augmentation::default()
            };
            compress.augmentation = chosen;
        }
        if let Some(schedule) = self.schedule {
            let epochs = self.step_epochs.unwrap_or(1);
            compress.schedule = match schedule {
                ScheduleName::AtOnce => CompressSchedule::AtOnce,
                ScheduleName::Layerwise => {
                    CompressSchedule::Layerwise { epochs, freeze_done: false }
                }
                ScheduleName::Passes => {
                    CompressSchedule::Passes { passes: self.passes.unwrap_or(2), epochs }
                }
            };
        }
        self.change_fine_tuning(compress);
        Ok(recipe)
    }

    fn change_fine_tuning(&self, compress: &mut CompressConfig) {
        let Some(epochs) =
            self.epochs.or_else(|| compress.fine_tune.as_ref().map(|tune| tune.epochs))
        else {
            return;
        };
        if epochs == 0 {
            compress.fine_tune = None;
            return;
        }
        let labelled = || TrainConfig {
            lr: self.preset.preset().lr(),
            augmentation: compress.augmentation,
            seed: compress.seed,
            distill: Some(Distillation { weight: 0.7, temperature: 4.0, layers: 0.0 }),
            ..TrainConfig::fine_tuning(epochs)
        };
        let fresh = || match self.inputs {
            Some(_) => TrainConfig { seed: compress.seed, ..TrainConfig::distilling(epochs) },
            None => labelled(),
        };
        let mut tune = compress.fine_tune.clone().unwrap_or_else(fresh);
        if tune.epochs != epochs {
            tune.warmup_epochs = TrainConfig::fine_tuning(epochs).warmup_epochs;
            tune.epochs = epochs;
        }
        set(&mut tune.lr, self.lr);
        set(&mut tune.batch_size, self.batch_size);
        if let Some(decay) = self.weight_decay {
            match &mut tune.optimizer {
                OptimizerConfig::Sgd { weight_decay, .. }
                | OptimizerConfig::Adam { weight_decay, .. } => *weight_decay = decay,
            }
        }
        if self.augment.is_some() {
            tune.augmentation = compress.augmentation;
        }
        if self.distill.is_some() || self.distill_layers.is_some() {
            let known =
                tune.distill.unwrap_or(Distillation { weight: 0.0, temperature: 4.0, layers: 0.0 });
            let weight = self.distill.unwrap_or(known.weight);
            let layers = self.distill_layers.unwrap_or(known.layers);
            tune.distill =
                (weight > 0.0 || layers > 0.0).then_some(Distillation { weight, layers, ..known });
        }
        if self.patience.is_some() {
            tune.patience = self.patience;
        }
        compress.fine_tune = Some(tune);
    }

    /// Refuses options that what is asked for does not read.
    fn check_read(&self, recipe: &Recipe) -> Result<(), Usage> {
        let usage = |what: &str| Err(Usage(what.into()));
        let profiled = recipe.chooses_forms();
        if self.form == Some(FormName::Auto) && !profiled {
            return usage(
                "--form auto is for ratios and --error-target, planned by errors: name one form",
            );
        }
        if self.points.is_some() && !profiled {
            return usage("--points is for ratios and --error-target, planned by errors");
        }
        if self.plan_by.is_some() && recipe.target.budget().is_none() {
            return usage("--plan-by is for --params-ratio, --macs-ratio and --latency-ratio");
        }
        if self.plan_by == Some(PlanName::Uniform) && self.form.is_none() {
            return usage("--plan-by uniform needs --form cp3 or --form cp4");
        }
        if self.plan_by == Some(PlanName::Uniform)
            && matches!(recipe.target, Target::LatencyRatio(_))
        {
            return usage("--plan-by uniform is for --params-ratio and --macs-ratio");
        }
        if self.never_slower && !profiled {
            return usage("--never-slower is for ratios and --error-target, by errors");
        }
        if self.fix.is_some() && recipe.plan.by == PlanBy::Uniform {
            return usage("--fix needs a plan by errors, not --plan-by uniform");
        }
        if self.tol.is_some() && recipe.compress.method == Method::Power {
            return usage(
                "--tol is not for --method power, which runs as many iterations as it is told",
            );
        }
        if self.passes.is_some() && self.schedule != Some(ScheduleName::Passes) {
            return usage("--passes is for --schedule passes");
        }
        if self.step_epochs.is_some() && self.schedule == Some(ScheduleName::AtOnce) {
            return usage("--step-epochs is for --schedule layerwise and --schedule passes");
        }
        if self.plan_by == Some(PlanName::Sensitivity)
            && self.dataset.is_none()
            && self.inputs.is_none()
        {
            return usage("--plan-by sensitivity needs --dataset, or --inputs, to measure on");
        }
        if self.budget.rank_sums.is_some() && self.dataset.is_none() {
            return usage("--rank-sums needs --dataset to measure losses on");
        }
        let tuned = recipe.compress.fine_tune.is_some();
        let tuning = [
            ("--lr", self.lr.is_some()),
            ("--batch-size", self.batch_size.is_some()),
            ("--weight-decay", self.weight_decay.is_some()),
            ("--distill", self.distill.is_some()),
            ("--distill-layers", self.distill_layers.is_some()),
            ("--patience", self.patience.is_some()),
            ("--factor-lr", self.factor_lr.is_some()),
            ("--freeze", !self.freeze.is_empty()),
            ("--schedule", self.schedule.is_some_and(|name| name != ScheduleName::AtOnce)),
        ];
        if let Some((option, _)) = tuning.iter().find(|(_, given)| *given && !tuned) {
            return Err(Usage(format!(
                "{option} is for fine-tuning, and there is none: add --epochs N, or take another --preset"
            )));
        }
        if self.resume && self.work_folder().is_none() {
            return usage(
                "--resume needs --work, --dataset, or --inputs with --epochs: without them nothing is kept",
            );
        }
        Ok(())
    }

    /// The file of one of `count` models.
    pub(super) fn out_of(&self, target: &Target, count: usize) -> PathBuf {
        if count == 1 {
            return self.out.clone();
        }
        let stem = self.out.file_stem().unwrap_or_default().to_string_lossy();
        let kind = self.out.extension().unwrap_or("safetensors".as_ref()).to_string_lossy();
        self.out.with_file_name(format!("{stem}-{}.{kind}", target.label()))
    }

    /// What is read, by its options.
    pub(super) fn files_read(&self) -> Vec<(&'static str, &std::path::Path)> {
        let others = [
            ("the file of --inputs", &self.inputs),
            ("the file of --recipe", &self.recipe),
            ("the file of --ranks", &self.budget.ranks),
            ("the file of --fix", &self.fix),
        ];
        let others = others.into_iter().filter_map(|(what, path)| Some((what, path.as_deref()?)));
        std::iter::once(("the input", self.model.path.as_path())).chain(others).collect()
    }

    /// Where work is kept, if it is.
    pub(super) fn work_folder(&self) -> Option<PathBuf> {
        match &self.work {
            Some(path) => Some(path.clone()),
            None => {
                let trained = self.inputs.is_some() && self.epochs.is_some_and(|epochs| epochs > 0);
                (self.dataset.is_some() || trained).then(|| self.out.with_extension("work"))
            }
        }
    }
}

impl BudgetOptions {
    fn is_given(&self) -> bool {
        let lists = [
            &self.params_ratio,
            &self.macs_ratio,
            &self.latency_ratio,
            &self.error_target,
            &self.energy,
        ];
        lists.into_iter().any(|list| !list.is_empty())
            || self.evbmf.is_some()
            || self.rank_sums.is_some()
            || self.ranks.is_some()
    }

    /// What the models have to reach.
    fn targets(&self, arch: Option<&Architecture>) -> anyhow::Result<Vec<Target>> {
        if let Some(path) = &self.ranks {
            let plan = arch.map(|arch| load_plan(path, arch)).transpose()?;
            return Ok(vec![Target::Ranks(plan.unwrap_or_default())]);
        }
        if let Some((conv, linear)) = self.rank_sums {
            return Ok(vec![Target::RankSums { conv, linear }]);
        }
        if let Some(weaken) = self.evbmf {
            return Ok(vec![Target::Evbmf(weaken)]);
        }
        let of = |values: &[f64], target: fn(f64) -> Target| -> Vec<Target> {
            values.iter().copied().map(target).collect()
        };
        Ok([
            of(&self.params_ratio, Target::ParamsRatio),
            of(&self.macs_ratio, Target::MacsRatio),
            of(&self.latency_ratio, Target::LatencyRatio),
            of(&self.error_target, Target::ErrorTarget),
            of(&self.energy, Target::Energy),
        ]
        .concat())
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// A plan for `arch` that names a layer.
fn load_plan(path: &Path, arch: &Architecture) -> anyhow::Result<RankPlan> {
    let plan = RankPlan::load(path)?;
    plan.check(arch).with_context(|| path.display().to_string())?;
    if plan.layers.is_empty() {
        bail!(
            "{}: names no layer to factorize; add entries like those of `polyad compress --help`",
            path.display()
        );
    }
    Ok(plan)
}

/// Refuses names that are no layers with a kernel, before any work.
fn known_layers(arch: &Architecture, option: &str, names: &[String]) -> anyhow::Result<()> {
    let known = arch.compressible();
    match names.iter().find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(name) => bail!(
            "{option}: there is no layer '{name}' that could be factorized; there are: {}",
            known.join(", ")
        ),
    }
}

/// A setting of a recipe that is out of range, by the name of its option.
pub(super) fn in_words_of_options(error: TrainError) -> anyhow::Error {
    let TrainError::Config { option, got, expected } = &error else { return error.into() };
    let name = match *option {
        "target" => "the budget",
        "plan.forms" => "--form",
        "plan.by" => "--plan-by",
        "plan.points" => "--points",
        "plan.multiple" => "--multiple",
        "plan.size_share" => "--size-share",
        "plan.fix" => "--fix",
        "plan.never_slower" => "--never-slower",
        "plan.timing_batch" | "timing_batches" => "--timing-batch",
        "lr" => "--lr",
        "batch_size" => "--batch-size",
        "factor_lr" => "--factor-lr",
        "frozen_parts" => "--freeze",
        "method" => "--method",
        "schedule" => "--schedule",
        "distill.weight" => "--distill",
        "distill.layers" => "--distill-layers",
        _ => return error.into(),
    };
    Usage(format!("{name}: {got} is not {expected}")).into()
}
