//! [`Recipe::run`]: statistics, profile, plan, decomposition, calibration, fine-tuning, test and times, in this order.

use std::collections::BTreeMap;
use std::sync::Arc;

use cp_data::Dataset;
use cp_net::{Network, Totals};
use cp_plan::{
    Decomposer, DenseLayer, LayerReport, LayerStatistics, Models, Objective, PlanError,
    PlanOptions, PlannedLayer, Predicted, Profile, ProfileOptions, RankPlan, ShareBudgets,
    ShareRule,
};
use serde::{Deserialize, Serialize};

use crate::compress::{Known, StageReport, compress_from};
use crate::config::TrainConfig;
use crate::engine::{Engine, EngineName, Inputs, Subject};
use crate::error::TrainError;
use crate::evaluate::Evaluation;
use crate::host::Host;
use crate::key::Key;
use crate::latency::time_choices;
use crate::multiple::Multiple;
use crate::progress;
use crate::recipe::{PlanBy, Planning, Recipe, Target};
use crate::sensitivity::{LossRule, Sensitivity, SensitivityOptions};
use crate::stages::{Stages, damaged};
use crate::statistics::measurable;
use crate::timing::{self, Timing, TimingOptions};
use crate::train_data::TrainData;

/// What a network is compressed on, and what it is tested on, once.
#[derive(Clone)]
pub struct CompressData {
    /// For statistics, calibration and fine-tuning, and to choose by.
    pub train: TrainData,
    /// For the test.
    pub test: Option<Arc<dyn Dataset>>,
}

/// What a recipe made.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The ranks.
    pub plan: RankPlan,
    /// What the plan promised, where it came from a profile.
    pub predicted: Option<Predicted>,
    /// The network.
    pub network: Network,
    /// What became of every factorized layer.
    pub layers: Vec<LayerReport>,
    /// The network before, on the way and after.
    pub stages: Vec<StageReport>,
    /// Cost of the dense network, and of this one.
    pub cost: [Totals; 2],
    /// The dense network and this one on the test data.
    pub test: Option<[Evaluation; 2]>,
    /// Times beside the dense network: of the engine that plans go by first, then of our own and of libtorch.
    pub latency: Vec<Latency>,
}

/// Times of the dense and the compressed network in turn, per batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// What ran both.
    #[serde(default)]
    pub engine: EngineName,
    /// Examples of the batch.
    pub batch: usize,
    /// Threads that share the work of an operation.
    pub threads: usize,
    /// The dense network.
    pub dense: Timing,
    /// The compressed one.
    pub compressed: Timing,
}

impl Latency {
    /// Dense time / compressed time: above 1 where compression made it faster.
    pub fn speedup(&self) -> f64 {
        self.dense.median / self.compressed.median
    }
}

impl Recipe {
    /// Compresses `dense`. What is finished is kept in `stages`; several recipes within one folder ([`Stages::within`]) measure what
    /// they have in common once.
    ///
    /// Without data there is only the decomposition.
    ///
    /// # Errors
    /// A recipe that makes no sense ([`Recipe::check`]), a budget that cannot be reached, and what each stage refuses.
    pub fn run(
        &self,
        dense: &Network,
        data: Option<&CompressData>,
        stages: &Stages,
    ) -> Result<Outcome, TrainError> {
        self.check(data.is_some())?;
        self.check_losses()?;
        self.reaching(|recipe| Pipeline { recipe, dense, data, host: None, stages }.run())
    }

    /// Compresses the layers of a model that runs in ONNX Runtime: [`Outcome::network`] is that of its view, for
    /// [`Host::rewritten`] and [`Host::distill`], which is the fine-tuning here and not part of this.
    ///
    /// # Errors
    /// As [`Recipe::run`]; plans that need labels.
    pub fn run_in(&self, host: &Host, stages: &Stages) -> Result<Outcome, TrainError> {
        self.check(host.examples().is_some())?;
        if matches!(self.target, Target::RankSums { .. }) {
            return Err(TrainError::Config {
                option: "target",
                got: "no labels".into(),
                expected: "a labelled data set to measure losses on",
            });
        }
        let mut recipe = self.clone();
        recipe.compress.fine_tune = None;
        recipe.compress.calibrate = 0;
        // Layers whose inputs have no known size cannot be timed alone.
        let in_whole = recipe.plan.never_slower && !host.view().sized;
        if in_whole {
            // Time counts all the same: ranks are those that are fast.
            recipe.plan.multiple = Multiple::Of(self.multiple());
            recipe.plan.never_slower = false;
        }
        let dense = &host.view().network;
        let done = recipe.reaching(|recipe| {
            Pipeline { recipe, dense, data: None, host: Some(host), stages }.run()
        })?;
        match in_whole {
            true => without_slower(done, host, &recipe, stages),
            false => Ok(done),
        }
    }

    /// The plan alone, as [`Recipe::run`] makes it.
    ///
    /// # Errors
    /// As [`Recipe::run`].
    pub fn plan(
        &self,
        dense: &Network,
        data: Option<&CompressData>,
        stages: &Stages,
    ) -> Result<(RankPlan, Option<Profile>), TrainError> {
        self.check(data.is_some())?;
        self.check_losses()?;
        self.reaching(|recipe| {
            let run = Pipeline { recipe, dense, data, host: None, stages };
            let profile = run.profile()?;
            let plan = run.plan(profile.as_ref())?;
            Ok((plan, profile.map(|profile| profile.profile)))
        })
    }

    /// What `go` makes of this recipe, or of one with finer ranks where its budget cannot be reached with those of
    /// [`Multiple::Auto`](crate::Multiple::Auto), which is said.
    fn reaching<T>(&self, go: impl Fn(&Recipe) -> Result<T, TrainError>) -> Result<T, TrainError> {
        let mut recipe = self.clone();
        loop {
            let multiple = recipe.multiple();
            let error = match go(&recipe) {
                Err(TrainError::Plan(error)) => error,
                done => return done,
            };
            match (&*error, self.plan.multiple.finer(multiple)) {
                (PlanError::BudgetUnreachable { quantity, asked, nearest }, Some(finer)) => {
                    eprintln!(
                        "note: with ranks in multiples of {multiple}, {quantity} come to {nearest:.3} of the dense network at the \
                         nearest, not to {asked:.3}; multiples of {finer} are tried, which may be slower"
                    );
                    recipe.plan.multiple = Multiple::Of(finer);
                }
                _ => return Err(TrainError::Plan(error)),
            }
        }
    }
}

/// `done` with those layers dense again with which the whole model is no faster.
fn without_slower(
    mut done: Outcome,
    host: &Host,
    recipe: &Recipe,
    stages: &Stages,
) -> Result<Outcome, TrainError> {
    let layers: Vec<String> = done.plan.layers.iter().map(|layer| layer.name.clone()).collect();
    // Alone, and several at once.
    let mut batches = vec![recipe.plan.timing_batch, recipe.plan.timing_batch.max(8)];
    batches.dedup();
    let key = Key::new("slower", 1)
        .network("network", &done.network)
        .setting("batches", &batches)
        .setting("threads", &timing::set_threads(0))
        .setting("processor", &crate::record::processor());
    let slower: Vec<(String, f64)> = stages.result(&key, || {
        host.slower_layers(&done.network, &layers, &batches, &TimingOptions::default())
    })?;
    let mut network = host.view().network.clone();
    let is_slower = |name: &String| slower.iter().any(|(slow, _)| slow == name);
    for report in done.layers.iter().filter(|report| !is_slower(&report.layer)) {
        let factors = done.network.factors(&report.layer)?;
        network.put_factors(&report.layer, &factors, report.rel_error)?;
    }
    done.layers.retain(|report| !is_slower(&report.layer));
    done.plan.layers.retain(|layer| !is_slower(&layer.name));
    done.plan.dense.extend(slower.iter().map(|(name, time)| DenseLayer {
        name: name.clone(),
        why: format!("the whole model would take {time:.2} of its time with it alone"),
    }));
    done.cost[1] = network.cost(network.architecture().input_shapes())?.total;
    done.network = network;
    done.predicted = None;
    Ok(done)
}

/// A profile and what it was made from.
struct KeyedProfile {
    profile: Profile,
    key: Key,
}

/// What all steps need.
struct Pipeline<'a> {
    recipe: &'a Recipe,
    dense: &'a Network,
    data: Option<&'a CompressData>,
    /// What the network is the layers of, where it does not run itself.
    host: Option<&'a Host>,
    stages: &'a Stages,
}

impl Pipeline<'_> {
    fn run(&self) -> Result<Outcome, TrainError> {
        let &Pipeline { recipe, dense, data, host, stages } = self;
        recipe.save(stages.dir().file("recipe.toml"))?;
        let dense_test = self.test("dense-test", dense, &stages.shared())?;

        let profile = self.profile()?;
        let plan = self.plan(profile.as_ref())?;
        plan.save(stages.dir().file("plan.toml"))?;
        let predicted = match &profile {
            Some(profile) => Some(profile.profile.predict(&plan)?),
            None => None,
        };

        let statistics = || self.statistics();
        let known = Known {
            statistics: Some(&statistics),
            examples: host.map(Host::identity).transpose()?.flatten(),
            models: profile.as_ref().map(|profile| (&profile.profile.models, &profile.key)),
        };
        let train = data.map(|data| &data.train);
        let done = compress_from(dense, &plan, train, &recipe.compress, stages, &known)?;

        let test = dense_test.zip(self.test("test", &done.network, stages)?);
        let latency = self.latency(&done.network)?;
        let cost = [dense, &done.network]
            .map(|network| network.cost(network.architecture().input_shapes()));
        let [before, after] = cost;
        Ok(Outcome {
            plan,
            predicted,
            cost: [before?.total, after?.total],
            network: done.network,
            layers: done.layers,
            stages: done.stages,
            test: test.map(|(dense, compressed)| [dense, compressed]),
            latency,
        })
    }

    /// Layers that a plan may factorize.
    fn layers(&self) -> Vec<String> {
        let keep = &self.recipe.plan.keep;
        let layers = self.dense.architecture().compressible();
        layers.into_iter().filter(|layer| !keep.contains(layer)).collect()
    }

    /// Second moments of the inputs of the layers, where the recipe asks for them.
    fn statistics(&self) -> Result<LayerStatistics, TrainError> {
        let Some(options) = &self.recipe.compress.statistics else {
            return Ok(LayerStatistics::new());
        };
        if let Some(host) = self.host {
            let key = Key::new("statistics", 1)
                .network("network", self.dense)
                .setting("layers", &self.layers())
                .setting("options", options)
                .setting("examples", &host.identity()?);
            return self.stages.statistics(&key, || host.statistics(&self.layers(), options));
        }
        let Some(data) = self.data else { return Ok(LayerStatistics::new()) };
        let (layers, left) = measurable(self.dense.architecture(), &self.layers())?;
        let key = Key::new("statistics", 1)
            .network("network", self.dense)
            .setting("layers", &layers)
            .setting("options", options)
            .data("train", &*data.train.train)?;
        self.stages.statistics(&key, || {
            for (layer, why) in &left {
                eprintln!("note: '{layer}' is decomposed for its kernel, not for its output: of its inputs, {why}");
            }
            self.stages.input_statistics(self.dense, &layers, &data.train.train, options)
        })
    }

    /// The error, the cost and where it counts the time of every layer at every rank; none where the plan needs none.
    fn profile(&self) -> Result<Option<KeyedProfile>, TrainError> {
        let recipe = self.recipe;
        if !recipe.chooses_forms() {
            return Ok(None);
        }
        let Planning { forms, points, max_iters, seed, fix, .. } = &recipe.plan;
        let compress = &recipe.compress;
        let shared = self.stages.shared();
        let mut key = Key::new("profile", 4)
            .network("network", self.dense)
            .setting("forms", forms)
            .setting("points", points)
            .setting("max_iters", max_iters)
            .setting("multiple", &recipe.multiple())
            .setting("layers", &self.layers())
            .setting("fix", fix)
            .setting("method", &compress.method)
            .setting("seed", seed);
        if let (Some(options), Some(data)) = (&compress.statistics, self.data) {
            let energy = compress.max_energy.is_some();
            key = key
                .setting("statistics", options)
                .setting("bounded_energy", &energy)
                .data("train", &*data.train.train)?;
        }
        if let (Some(options), Some(host)) = (&compress.statistics, self.host) {
            let energy = compress.max_energy.is_some();
            key = key
                .setting("statistics", options)
                .setting("bounded_energy", &energy)
                .setting("examples", &host.identity()?);
        }
        let models = shared.path(&key, "safetensors")?;
        let mut measured = None;
        let mut profile: Profile = shared.result(&key, || {
            let mut found = self.measure()?;
            found.models.save(&models)?;
            measured = Some(std::mem::take(&mut found.models));
            Ok::<_, TrainError>(found)
        })?;
        profile.models = match measured {
            Some(models) => models,
            None => Models::load(&models).map_err(|error| damaged(&models, &error))?,
        };
        if recipe.times_layers() {
            profile = self.timed(profile, &key)?;
        }
        Ok(Some(KeyedProfile { profile, key }))
    }

    /// Decomposes every layer at a ladder of ranks.
    fn measure(&self) -> Result<Profile, TrainError> {
        let Planning { forms, points, max_iters, seed, .. } = &self.recipe.plan;
        let compress = &self.recipe.compress;
        let statistics = self.statistics()?;
        let decomposer = Decomposer {
            method: compress.method,
            max_iters: (*max_iters).min(compress.max_iters),
            seed: *seed,
            // The correction of a plain decomposition changes its error by a thousandth, and comes behind; ALS-Σ has it in its
            // objective.
            max_energy: compress.max_energy.filter(|_| !statistics.is_empty()),
            statistics,
            ..Decomposer::default()
        };
        let options = ProfileOptions {
            forms: forms.clone(),
            points: *points,
            multiple_of: self.recipe.multiple(),
            ..ProfileOptions::default()
        };
        let bar = progress::spinner("try ranks");
        let input = &self.dense.architecture().input_shapes();
        let tell = |line: &str| bar.set_message(line.to_owned());
        let layers = self.layers();
        let mut profile =
            Profile::measure(self.dense, input, Some(&layers), &options, &decomposer, &tell)?;
        profile.include(self.dense, &self.fixed(), &decomposer)?;
        bar.finish_and_clear();
        Ok(profile)
    }

    /// `profile` with seconds: those measured before in this folder, or measured now.
    fn timed(&self, mut profile: Profile, before: &Key) -> Result<Profile, TrainError> {
        let batch = self.recipe.plan.timing_batch;
        let engine = self.stages.engine();
        let key = Key::new("times", 4)
            .after(before)
            .setting("batch", &batch)
            .setting("threads", &timing::set_threads(0))
            .setting("engine", &engine.name())
            .setting("device", &format!("{:?}", self.stages.device()))
            .setting("processor", &crate::record::processor());
        let models = std::mem::take(&mut profile.models);
        let mut profile = self.stages.shared().result(&key, || {
            let options = TimingOptions {
                warmup: 2,
                repeats: 11,
                min_sample_seconds: 0.004,
                max_seconds: 10.0,
            };
            time_choices(self.dense, &mut profile, batch, engine, &options)?;
            if let Some(host) = self.host {
                // What stays is all that lies between the layers, too.
                let layers = profile.dense_seconds.unwrap_or(0.0);
                let whole = host.seconds(batch, &options)?;
                profile.dense_seconds = Some(whole.max(layers));
            }
            Ok::<_, TrainError>(profile)
        })?;
        profile.models = models;
        Ok(profile)
    }

    /// The plan for the target.
    fn plan(&self, profile: Option<&KeyedProfile>) -> Result<RankPlan, TrainError> {
        let arch = self.dense.architecture();
        let input = &self.dense.architecture().input_shapes();
        let Planning { forms, by, keep, never_slower, size_share, .. } = &self.recipe.plan;
        // One, where the plan cannot choose: checked.
        let form = forms.first().copied().unwrap_or(cp_net::Form::Cp3);
        if let Some(KeyedProfile { profile, .. }) = profile {
            let options = PlanOptions {
                fixed: self.fixed(),
                never_slower: *never_slower
                    || matches!(self.recipe.target, Target::LatencyRatio(_)),
                fill: Some(self.recipe.multiple()),
                ..PlanOptions::default()
            };
            let plan = match (self.recipe.target.budget(), &self.recipe.target, by) {
                (Some(budget), _, PlanBy::MaxError) => {
                    profile.plan(budget, &Objective::MaxError, &options)?
                }
                (Some(budget), _, PlanBy::Sensitivity) => {
                    let weights = self.weights()?;
                    profile.plan(budget, &Objective::SumOfSquares { weights }, &options)?
                }
                (Some(budget), ..) => profile.plan(budget, &Objective::default(), &options)?,
                (None, Target::ErrorTarget(most), _) => profile.plan_within(*most, &options)?,
                (None, ..) => RankPlan::default(), // a profile is made for these alone
            };
            return self.finished(plan);
        }
        let plan = match &self.recipe.target {
            Target::Ranks(plan) => {
                plan.check(arch)?;
                return Ok(plan.clone());
            }
            Target::BreakevenRatio(ratio) => RankPlan::at_breakeven_ratio(arch, form, *ratio)?,
            Target::Energy(share) => RankPlan::by_energy(self.dense, form, *share)?,
            Target::Evbmf(weaken) => RankPlan::by_evbmf(self.dense, form, *weaken)?,
            Target::RankSums { conv, linear } => {
                let budgets = ShareBudgets { conv: *conv, linear: *linear };
                let losses = self.losses()?;
                let fixed = self.fixed_numbers()?;
                // Each loss with the rule of those who measure it.
                let rule = match self.recipe.plan.loss {
                    LossRule::CrossEntropy => ShareRule::sqvad(*size_share),
                    LossRule::AccuracyDrop | LossRule::LossIncrease => {
                        ShareRule { size_share: *size_share, ..ShareRule::LOSSES }
                    }
                };
                RankPlan::from_losses(arch, input, form, &losses, &budgets, &rule, &fixed)?
            }
            Target::ParamsRatio(_) | Target::MacsRatio(_) => {
                let budget = self.recipe.target.budget().unwrap_or(cp_plan::Budget::Macs(1.0));
                let layers = self.layers();
                debug_assert!(keep.iter().all(|layer| !layers.contains(layer)));
                RankPlan::uniform_among(arch, input, budget, form, &layers)?
            }
            // These have a profile.
            Target::LatencyRatio(_) | Target::ErrorTarget(_) => RankPlan::default(),
        };
        self.finished(plan)
    }

    /// `plan` without the layers that stay dense by request, its ranks rounded but for those that are given.
    fn finished(&self, mut plan: RankPlan) -> Result<RankPlan, TrainError> {
        let arch = self.dense.architecture();
        let keep = &self.recipe.plan.keep;
        plan.layers.retain(|layer| !keep.contains(&layer.name));
        plan.dense.retain(|layer| !keep.contains(&layer.name));
        plan.dense.extend(
            keep.iter()
                .map(|name| DenseLayer { name: name.clone(), why: "kept dense by request".into() }),
        );
        let mut plan = plan.rounded(arch, self.recipe.multiple())?;
        for (name, (form, rank)) in self.fixed() {
            let given = |layer: &PlannedLayer| (layer.form, layer.rank) == (form, rank);
            if plan.layers.iter().any(|layer| layer.name == name && given(layer)) {
                continue;
            }
            // A rule that knows nothing of given ranks, or rounding, had others, for reasons that no longer hold.
            plan.dense.retain(|layer| layer.name != name);
            plan.layers.retain(|layer| layer.name != name);
            plan.layers.push(PlannedLayer { name, form, rank, why: "fixed by request".into() });
        }
        plan.check(arch)?;
        Ok(plan)
    }

    /// Forms and ranks of single layers, by their names.
    fn fixed(&self) -> BTreeMap<String, (cp_net::Form, cp_net::Rank)> {
        let fix = self.recipe.plan.fix.iter();
        fix.map(|layer| (layer.name.clone(), (layer.form, layer.rank))).collect()
    }

    /// The ranks that are given as parts of a sum of ranks.
    fn fixed_numbers(&self) -> Result<BTreeMap<String, usize>, TrainError> {
        let one = |layer: &crate::recipe::FixedLayer| match layer.rank.one() {
            Some(rank) => Ok((layer.name.clone(), rank)),
            None => Err(TrainError::Config {
                option: "plan.fix",
                got: format!("{} as {} with several ranks", layer.name, layer.form),
                expected: "one rank a layer: sums of ranks share out one",
            }),
        };
        self.recipe.plan.fix.iter().map(one).collect()
    }

    /// The loss that each layer causes alone.
    fn losses(&self) -> Result<BTreeMap<String, f64>, TrainError> {
        let Planning { forms, loss, .. } = &self.recipe.plan;
        let form = forms.first().copied().unwrap_or(cp_net::Form::Cp3);
        let mut options = SensitivityOptions { form, ..self.sensitivity_options() };
        if *loss == LossRule::AccuracyDrop {
            let tune = self.recipe.compress.fine_tune.clone();
            let tune = tune.unwrap_or_else(|| TrainConfig::fine_tuning(1));
            options.fine_tune = Some(TrainConfig {
                epochs: 1,
                keep_best: false,
                distill: None,
                warmup_epochs: 0.1,
                ..tune
            });
        }
        Ok(self.sensitivity(&options)?.losses(*loss))
    }

    fn sensitivity_options(&self) -> SensitivityOptions {
        SensitivityOptions { seed: self.recipe.plan.seed, ..SensitivityOptions::default() }
    }

    /// How much each layer counts: by the loss on labelled data, or by the outputs of a model without labels.
    fn weights(&self) -> Result<BTreeMap<String, f64>, TrainError> {
        let options = self.sensitivity_options();
        let Some(host) = self.host else { return Ok(self.sensitivity(&options)?.weights()) };
        let key = Key::new("sensitivities", 1)
            .network("network", self.dense)
            .setting("options", &options)
            .setting("layers", &self.layers())
            .setting("examples", &host.identity()?);
        self.stages.shared().result(&key, || host.sensitivities(&self.layers(), &options))
    }

    fn sensitivity(&self, options: &SensitivityOptions) -> Result<Sensitivity, TrainError> {
        // Checked: measuring needs data.
        let Some(data) = self.data else {
            return Err(TrainError::Config {
                option: "plan.by",
                got: "no data".into(),
                expected: "training data to measure losses on",
            });
        };
        let key = Key::new("sensitivity", 1)
            .network("network", self.dense)
            .setting("options", options)
            .data("train", &*data.train.train)?;
        self.stages.shared().sensitivity(&key, self.dense, &data.train, options)
    }

    /// `network` on the test data, once.
    fn test(
        &self,
        name: &str,
        network: &Network,
        stages: &Stages,
    ) -> Result<Option<Evaluation>, TrainError> {
        match self.data.and_then(|data| data.test.as_ref()) {
            Some(set) => Ok(Some(stages.evaluate(name, network, set)?)),
            None => Ok(None),
        }
    }

    /// The dense network and `network` in turn, at every batch size of the recipe.
    fn latency(&self, network: &Network) -> Result<Vec<Latency>, TrainError> {
        let threads = timing::set_threads(0);
        let batches = &self.recipe.timing_batches;
        if batches.is_empty() {
            return Ok(Vec::new());
        }
        let mut engines = vec![self.stages.engine()];
        let others = Engine::at_hand(self.stages.device()).into_iter();
        engines.extend(others.filter(|other| *other != self.stages.engine()));
        let names: Vec<EngineName> = engines.iter().map(|engine| engine.name()).collect();
        let key = Key::new("latency", 3)
            .network("dense", self.dense)
            .network("network", network)
            .setting("batches", batches)
            .setting("threads", &threads)
            .setting("engines", &names)
            .setting("device", &format!("{:?}", self.stages.device()))
            .setting("processor", &crate::record::processor());
        self.stages.result(&key, || {
            let subjects = [Subject::Network(self.dense), Subject::Network(network)];
            let mut found = Vec::with_capacity(batches.len() * engines.len());
            for engine in engines {
                for &batch in batches {
                    let inputs =
                        Inputs::of(self.dense, self.dense.architecture().input_shapes(), batch);
                    let times = engine.latency(&subjects, &inputs, &TimingOptions::default())?;
                    let (dense, compressed) = (times[0], times[1]);
                    if let Some(told) = timing::too_noisy(&times) {
                        eprintln!("note: {told}");
                    }
                    let engine = engine.name();
                    found.push(Latency { engine, batch, threads, dense, compressed });
                }
            }
            Ok(found)
        })
    }
}
