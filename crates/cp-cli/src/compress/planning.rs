//! The rank plan that the options of `polyad compress` ask for.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::ValueEnum as _;
use cp_net::{Architecture, Form, Network, Rank};
use cp_plan::{
    Budget, Decomposer, DenseLayer, Objective, PlanOptions, PlannedLayer, Profile, ProfileOptions,
    RankPlan, ShareBudgets,
};
use cp_train::timing::TimingOptions;
use cp_train::{
    LossRule, Sensitivity, SensitivityOptions, Stages, TrainConfig, TrainData, input_statistics,
    progress, sensitivity, time_choices,
};
use serde::Serialize;

use super::options::{Args, Goal, LossName, PlanBy};

/// Most iterations of a solver where many ranks are tried to make a plan: enough to tell them apart.
const PLANNING_ITERS: usize = 25;

/// Makes plans; what several of them need is measured once.
pub(super) struct Planner<'a> {
    pub(super) args: &'a Args,
    pub(super) seed: u64,
    pub(super) dense: &'a Network,
    pub(super) data: Option<&'a TrainData>,
    pub(super) stages: &'a Stages,
    /// Layers whose form and rank are given.
    pub(super) fixed: Fixed,
}

/// Forms and ranks of single layers, by their names.
pub(super) type Fixed = BTreeMap<String, (Form, Rank)>;

/// The layers of `--fix`.
pub(super) fn fixed(args: &Args, arch: &Architecture) -> anyhow::Result<Fixed> {
    let Some(path) = &args.fix else { return Ok(Fixed::new()) };
    let plan = load(path, arch)?;
    if let Some(layer) = plan.layers.iter().find(|layer| args.keep.contains(&layer.name)) {
        bail!("{}: {} is to stay dense by --keep", path.display(), layer.name);
    }
    Ok(plan.layers.into_iter().map(|layer| (layer.name, (layer.form, layer.rank))).collect())
}

/// A plan for `arch` that names a layer.
fn load(path: &Path, arch: &Architecture) -> anyhow::Result<RankPlan> {
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

/// What decides a plan.
#[derive(Serialize)]
pub(super) struct Settings {
    goals: Vec<String>,
    forms: Vec<Form>,
    plan_by: String,
    points: usize,
    multiple: usize,
    keep: Vec<String>,
    fixed: Vec<(String, Form, Rank)>,
    never_slower: bool,
    loss: String,
    size_share: f64,
}

impl Settings {
    pub(super) fn new(args: &Args, fixed: &Fixed) -> Self {
        Self {
            goals: args.goals().iter().map(|goal| format!("{goal:?}")).collect(),
            forms: args.form.forms(),
            plan_by: format!("{:?}", args.plan_by),
            points: args.points,
            multiple: args.multiple,
            keep: args.keep.clone(),
            fixed: fixed.iter().map(|(name, &(form, rank))| (name.clone(), form, rank)).collect(),
            never_slower: args.never_slower,
            loss: args.loss.to_possible_value().map_or_else(String::new, |v| v.get_name().into()),
            size_share: args.size_share,
        }
    }
}

impl Planner<'_> {
    /// The plan for `goal`.
    pub(super) fn plan(&self, goal: &Goal) -> anyhow::Result<RankPlan> {
        let arch = self.dense.architecture();
        let input = &self.dense.input().shape;
        let budget = match goal {
            Goal::Ranks(path) => return load(path, arch),
            Goal::Params(ratio) => Budget::Params(*ratio),
            Goal::Macs(ratio) => Budget::Macs(*ratio),
            Goal::Latency(ratio) => Budget::Latency(*ratio),
            Goal::Error(most) => {
                let plan = self.profile(goal)?.plan_within(*most, &self.options(goal))?;
                return self.finished(plan);
            }
            Goal::Energy(share) => {
                return self.finished(RankPlan::by_energy(self.dense, self.form(), *share)?);
            }
            Goal::Evbmf(weaken) => {
                return self.finished(RankPlan::by_evbmf(self.dense, self.form(), *weaken)?);
            }
            Goal::RankSums(conv, linear) => {
                let budgets = ShareBudgets { conv: *conv, linear: *linear };
                let losses = self.losses()?;
                let (form, share) = (self.form(), self.args.size_share);
                let plan = RankPlan::from_losses(
                    arch,
                    input,
                    form,
                    &losses,
                    &budgets,
                    share,
                    &self.fixed_numbers()?,
                )?;
                return self.finished(plan);
            }
        };
        let objective = match self.args.plan_by {
            PlanBy::Uniform => {
                let layers: Vec<String> = arch
                    .compressible()
                    .into_iter()
                    .filter(|layer| !self.args.keep.contains(layer))
                    .collect();
                let plan = RankPlan::uniform_among(arch, input, budget, self.form(), &layers)?;
                return self.finished(plan);
            }
            PlanBy::MaxError => Objective::MaxError,
            PlanBy::Sensitivity => Objective::SumOfSquares { weights: self.weights()? },
            PlanBy::Errors => Objective::default(),
        };
        let plan = self.profile(goal)?.plan(budget, &objective, &self.options(goal))?;
        self.finished(plan)
    }

    /// The one form of plans that cannot choose: CP-3 where all are allowed.
    fn form(&self) -> Form {
        self.args.form.forms()[0]
    }

    /// `plan` without the layers that stay dense by request, its ranks rounded but for those that are given.
    fn finished(&self, mut plan: RankPlan) -> anyhow::Result<RankPlan> {
        let arch = self.dense.architecture();
        for layer in plan.layers.extract_if(.., |layer| self.args.keep.contains(&layer.name)) {
            plan.dense.push(DenseLayer { name: layer.name, why: "kept dense by request".into() });
        }
        let mut plan = plan.rounded(arch, self.args.multiple)?;
        for (name, &(form, rank)) in &self.fixed {
            let given = |layer: &PlannedLayer| (layer.form, layer.rank) == (form, rank);
            if plan.layers.iter().any(|layer| layer.name == *name && given(layer)) {
                continue;
            }
            // A rule that knows nothing of given ranks, or rounding, had others, for reasons that no longer hold.
            plan.dense.retain(|layer| layer.name != *name);
            plan.layers.retain(|layer| layer.name != *name);
            let (name, why) = (name.clone(), "fixed by request".into());
            plan.layers.push(PlannedLayer { name, form, rank, why });
        }
        plan.check(arch)?;
        Ok(plan)
    }

    /// The ranks of `--fix` as parts of a sum of ranks.
    fn fixed_numbers(&self) -> anyhow::Result<BTreeMap<String, usize>> {
        let one = |(name, (form, rank)): (&String, &(Form, Rank))| match rank.one() {
            Some(rank) => Ok((name.clone(), rank)),
            None => bail!("--fix: {name} is {form} with several ranks; --rank-sums shares out one"),
        };
        self.fixed.iter().map(one).collect()
    }

    /// The loss that each layer causes alone.
    fn losses(&self) -> anyhow::Result<BTreeMap<String, f64>> {
        let (rule, tune) = match self.args.loss {
            LossName::AccuracyDrop => (LossRule::AccuracyDrop, true),
            LossName::CrossEntropy => (LossRule::CrossEntropy, false),
            LossName::LossIncrease => (LossRule::LossIncrease, false),
        };
        let mut options = SensitivityOptions { form: self.form(), ..self.sensitivity_options() };
        if tune {
            let one = TrainConfig { keep_best: false, ..TrainConfig::fine_tuning(1) };
            options.fine_tune = Some(TrainConfig { seed: self.seed, lr: self.args.lr, ..one });
        }
        Ok(self.sensitivity(&options)?.losses(rule))
    }

    fn sensitivity_options(&self) -> SensitivityOptions {
        SensitivityOptions { seed: self.seed, ..SensitivityOptions::default() }
    }

    fn sensitivity(&self, options: &SensitivityOptions) -> anyhow::Result<Sensitivity> {
        let Some(data) = self.data else { bail!("sensitivities need --dataset to be measured on") };
        let cache = self.stages.dir().file("sensitivity.jsonl");
        Ok(sensitivity(self.dense, data, options, self.stages.device(), Some(&cache))?)
    }

    fn options(&self, goal: &Goal) -> PlanOptions {
        PlanOptions {
            fixed: self.fixed.clone(),
            dense: self.args.keep.iter().cloned().collect(),
            never_slower: self.args.times_layers(goal),
            ..PlanOptions::default()
        }
    }

    /// The error, the cost and where it counts the time of every layer at every rank.
    fn profile(&self, goal: &Goal) -> anyhow::Result<Profile> {
        self.stages.result("profile", || {
            let mut decomposer = Decomposer {
                method: self.args.method.0,
                max_iters: self.args.max_iters.min(PLANNING_ITERS),
                seed: self.seed,
                // The error of a plan is that of a model; the correction that follows changes it by a thousandth.
                max_energy: None,
                ..Decomposer::default()
            };
            let layers: Vec<String> = self.dense.architecture().compressible();
            if let (Some(options), Some(data)) =
                (super::statistics(self.args, self.seed), self.data)
            {
                let model = self.stages.executor(self.dense)?;
                decomposer.statistics =
                    input_statistics(&model, &layers, &data.train, &options, 2)?;
            }
            let options = ProfileOptions {
                forms: self.args.form.forms(),
                points: self.args.points,
                multiple_of: self.args.multiple,
                ..ProfileOptions::default()
            };
            let bar = progress::spinner("try ranks");
            let input = &self.dense.input().shape;
            let tell = |line: &str| bar.set_message(line.to_owned());
            let mut profile =
                Profile::measure(self.dense, input, None, &options, &decomposer, &tell)?;
            profile.include(self.dense, &self.fixed, &decomposer)?;
            bar.finish_and_clear();
            if self.args.times_layers(goal) {
                let (batch, device) = (self.args.timing_batch, self.stages.device());
                let options = TimingOptions { warmup: 2, repeats: 11, min_sample_seconds: 0.004 };
                time_choices(self.dense, &mut profile, batch, device, &options)?;
            }
            Ok(profile)
        })
    }

    /// How much each layer matters.
    fn weights(&self) -> anyhow::Result<BTreeMap<String, f64>> {
        Ok(self.sensitivity(&self.sensitivity_options())?.weights())
    }
}
