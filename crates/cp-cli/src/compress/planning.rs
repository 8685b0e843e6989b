//! The rank plan that the options of `polyad compress` ask for.

use anyhow::{Context as _, bail};
use cp_net::{
    Budget, Decomposer, Network, Objective, PlanOptions, Profile, ProfileOptions, RankPlan,
};
use cp_train::timing::TimingOptions;
use cp_train::{
    SensitivityOptions, Stages, TrainData, input_statistics, progress, sensitivity, time_choices,
};
use serde::Serialize;

use super::options::{Args, Goal, PlanBy};

/// Most iterations of a solver where many ranks are tried to make a plan: enough to tell them apart.
const PLANNING_ITERS: usize = 25;

/// Makes plans; what several of them need is measured once.
pub(super) struct Planner<'a> {
    pub(super) args: &'a Args,
    pub(super) seed: u64,
    pub(super) dense: &'a Network,
    pub(super) data: Option<&'a TrainData>,
    pub(super) stages: &'a Stages,
}

/// What decides a plan.
#[derive(Serialize)]
pub(super) struct Settings {
    goals: Vec<String>,
    forms: Vec<cp_net::Form>,
    plan_by: String,
    points: usize,
    multiple: usize,
    keep: Vec<String>,
}

impl Settings {
    pub(super) fn new(args: &Args) -> Self {
        Self {
            goals: args.goals().iter().map(|goal| format!("{goal:?}")).collect(),
            forms: args.form.forms(),
            plan_by: format!("{:?}", args.plan_by),
            points: args.points,
            multiple: args.multiple,
            keep: args.keep.clone(),
        }
    }
}

impl Planner<'_> {
    /// The plan for `goal`.
    pub(super) fn plan(&self, goal: &Goal) -> anyhow::Result<RankPlan> {
        let arch = self.dense.architecture();
        let input = &self.dense.input().shape;
        let budget = match goal {
            Goal::Ranks(path) => {
                let plan = RankPlan::load(path)?;
                plan.check(arch).with_context(|| path.display().to_string())?;
                if plan.layers.is_empty() {
                    bail!(
                        "{}: names no layer to factorize; add entries like those of `polyad compress --help`",
                        path.display()
                    );
                }
                return Ok(plan);
            }
            Goal::Params(ratio) => Some(Budget::Params(*ratio)),
            Goal::Macs(ratio) => Some(Budget::Macs(*ratio)),
            Goal::Latency(ratio) => Some(Budget::Latency(*ratio)),
            Goal::Error(_) => None,
        };
        let plan = match (self.args.plan_by, budget) {
            (PlanBy::Uniform, Some(budget)) => {
                let form = self.args.form.forms()[0];
                let layers: Vec<String> = arch
                    .compressible()
                    .into_iter()
                    .filter(|layer| !self.args.keep.contains(layer))
                    .collect();
                RankPlan::uniform_among(arch, input, budget, form, &layers)?
            }
            (by, Some(budget)) => {
                let objective = match by {
                    PlanBy::MaxError => Objective::MaxError,
                    PlanBy::Sensitivity => Objective::SumOfSquares { weights: self.weights()? },
                    PlanBy::Errors | PlanBy::Uniform => Objective::default(),
                };
                self.profile(goal)?.plan(budget, &objective, &self.options(goal))?
            }
            (_, None) => {
                let Goal::Error(most) = goal else { unreachable!("every other goal has a budget") };
                self.profile(goal)?.plan_within(*most, &self.options(goal))?
            }
        };
        Ok(plan.rounded(arch, self.args.multiple)?)
    }

    fn options(&self, goal: &Goal) -> PlanOptions {
        PlanOptions {
            dense: self.args.keep.iter().cloned().collect(),
            never_slower: goal.is_latency(),
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
            bar.finish_and_clear();
            if goal.is_latency() {
                let (batch, device) = (self.args.timing_batch, self.stages.device());
                let options = TimingOptions { warmup: 2, repeats: 11, min_sample_seconds: 0.004 };
                time_choices(self.dense, &mut profile, batch, device, &options)?;
            }
            Ok(profile)
        })
    }

    /// How much each layer matters.
    fn weights(&self) -> anyhow::Result<std::collections::BTreeMap<String, f64>> {
        let Some(data) = self.data else { bail!("--plan-by sensitivity needs --dataset") };
        let options = SensitivityOptions { seed: self.seed, ..SensitivityOptions::default() };
        let cache = self.stages.dir().file("sensitivity.jsonl");
        let device = self.stages.device();
        Ok(sensitivity(self.dense, data, &options, device, Some(&cache))?.weights())
    }
}
