//! Lebedev et al. (2015), section 4.1, in full: CharNet at a sweep of ranks, by several solvers, before and after fine-tuning, beside
//! other forms of layers at equal multiply-adds; and the second convolution of AlexNet, counted and timed.

mod conv2;
mod report;
mod tables;

use anyhow::{Context as _, Result, ensure};
use cp_net::{Architecture, Form, Network, Totals, arch};
use cp_plan::{LayerReport, MAX_ENERGY, Method, RankPlan};
use cp_train::engine::{Engine, EngineName};
use cp_train::timing::{self, Timing};
use cp_train::{CompressData, Evaluation, Outcome, Recipe, Stages, TrainConfig, TrainError};
use serde::{Deserialize, Serialize};

use crate::characters::{self, Published, Trained};
use crate::context::Context;
use crate::experiment::{Experiment, Findings};
use crate::figures::{quartiles, threads_text};

/// `experiments/charnet.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    train_examples: usize,
    validation_examples: usize,
    test_examples: usize,
    /// Layers that are decomposed, all at the same rank.
    layers: Vec<String>,
    ranks: Vec<usize>,
    /// Solvers of CP-4.
    methods: Vec<String>,
    /// Solvers of CP-4 whose terms are then made smaller where they cancel each other (EPC).
    bounded_methods: Vec<String>,
    /// Solvers of CP-3.
    cp3_methods: Vec<String>,
    /// Forms with the multiply-adds of CP-4 at the rank `equal_rank`.
    forms: Vec<String>,
    equal_rank: usize,
    sweeps: usize,
    timing_batch: usize,
    /// Threads that share the work of an operation, 0 for all; networks are chosen by the times of the first.
    threads: Vec<usize>,
    /// Accuracy that may be lost, as a share.
    most_drop: f64,
    train: TrainConfig,
    fine_tune: TrainConfig,
    published: Published,
    conv2: conv2::Settings,
}

pub(crate) struct Charnet {
    settings: Settings,
    seed: u64,
    ways: Vec<Way>,
    start: Trained,
    /// As set for all of it.
    threads: usize,
}

/// What becomes of the dense network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Way {
    /// Nothing.
    Dense,
    /// A CP form at a rank of the sweep.
    Swept { form: Form, method: Method, bounded: bool, rank: usize },
    /// A form at the multiply-adds of CP-4.
    Equal { form: Form },
}

/// Top-1 on the validation and on the test characters.
#[derive(Debug, Clone, Serialize)]
struct Quality {
    validation: Evaluation,
    test: Evaluation,
}

/// A network of the grid, in words and numbers.
#[derive(Debug, Clone, Serialize)]
struct State {
    name: String,
    way: Way,
    params: usize,
    macs: usize,
    layers: Vec<LayerReport>,
    /// As decomposed; the dense network has no such state.
    before: Option<Quality>,
    after: Quality,
    /// Whether fine-tuning lost the network, so that it stays as it was decomposed.
    diverged: bool,
}

/// The same with its weights.
pub(crate) struct Found {
    state: State,
    network: Network,
}

impl Settings {
    /// The grid: the dense network first.
    fn ways(&self) -> Result<Vec<Way>> {
        let mut ways = vec![Way::Dense];
        for (form, bounded, option, methods) in [
            (Form::Cp4, false, "--methods", &self.methods),
            (Form::Cp4, true, "bounded_methods", &self.bounded_methods),
            (Form::Cp3, false, "cp3_methods", &self.cp3_methods),
        ] {
            for &rank in &self.ranks {
                for method in methods {
                    let method = method.parse::<Method>().context(option)?;
                    ways.push(Way::Swept { form, method, bounded, rank });
                }
            }
        }
        for form in &self.forms {
            ways.push(Way::Equal { form: form.parse::<Form>().context("--forms")? });
        }
        Ok(ways)
    }

    /// The ranks of a way; none for the dense network.
    fn plan(&self, way: Way, arch: &Architecture) -> Result<Option<RankPlan>> {
        let at = |form: Form, rank: usize, why: &str| {
            let layer = |plan: RankPlan, name: &String| plan.with(name, form, rank, why);
            self.layers.iter().fold(RankPlan::default(), layer)
        };
        match way {
            Way::Dense => Ok(None),
            Way::Swept { form, rank, .. } => {
                let plan = at(form, rank, "a rank of the sweep");
                plan.check(arch).context("--ranks")?;
                Ok(Some(plan))
            }
            Way::Equal { form } => {
                let plan = at(Form::Cp4, self.equal_rank, "what others are held against");
                let equal = plan.at_equal_macs(arch, arch.input_shapes(), form);
                Ok(Some(equal.context("--forms")?))
            }
        }
    }

    /// How the dense network becomes that of a way; nothing for itself.
    fn recipe(&self, way: Way, arch: &Architecture, seed: u64) -> Result<Option<Recipe>> {
        let Some(plan) = self.plan(way, arch)? else { return Ok(None) };
        let bound = matches!(way, Way::Swept { bounded: true, .. }).then_some(MAX_ENERGY);
        let recipe =
            characters::recipe(plan, way.method(), bound, self.sweeps, &self.fine_tune, seed);
        Ok(Some(recipe))
    }
}

impl Way {
    /// The solver, which only CP forms and Jaderberg's first ask for.
    fn method(self) -> Method {
        match self {
            Way::Swept { method, .. } => method,
            Way::Dense | Way::Equal { .. } => Method::Als,
        }
    }

    /// What it is called where the rank is told beside it.
    fn label(self) -> String {
        match self {
            Way::Dense => "dense".into(),
            Way::Swept { form, method, bounded: false, .. } => format!("{form}, {method}"),
            Way::Swept { form, method, bounded: true, .. } => {
                format!("{form}, {method}, energy bounded")
            }
            Way::Equal { form } => form.to_string(),
        }
    }

    /// The name in tables, and of the folder.
    fn name(self) -> String {
        match self {
            Way::Dense => "dense".into(),
            Way::Swept { form, method, bounded, rank } => {
                let bounded = if bounded { "-bounded" } else { "" };
                format!("{form}-{method}{bounded}-rank-{rank}")
            }
            Way::Equal { form } => format!("{form}-at-equal-macs"),
        }
    }
}

impl Experiment for Charnet {
    type Settings = Settings;
    type Cell = Way;
    type Outcome = Found;

    fn seed(settings: &mut Settings, seed: u64) {
        settings.train.seed = seed;
        settings.fine_tune.seed = seed;
    }

    fn check(settings: &Settings) -> Result<()> {
        let Settings { timing_batch, threads, most_drop, .. } = settings;
        ensure!(*timing_batch > 0, "timing_batch: 0 is not at least 1");
        ensure!(!threads.is_empty(), "threads: none is not at least one number of threads");
        ensure!((0.0..1.0).contains(most_drop), "most_drop: {most_drop} is no share below 1");
        settings.train.check()?;
        let arch = arch::by_name("charnet")?;
        for way in settings.ways()? {
            if let Some(recipe) = settings.recipe(way, &arch, 0)? {
                recipe.check(true)?;
            }
        }
        settings.conv2.check()
    }

    fn prepare(context: &mut Context, settings: Settings) -> Result<Self> {
        let Settings { train_examples, validation_examples, test_examples, .. } = settings;
        let examples = [train_examples, validation_examples, test_examples];
        let start = Trained::new(context, examples, &settings.train)?;
        let (ways, threads) = (settings.ways()?, timing::set_threads(0));
        Ok(Self { settings, seed: context.seed, ways, start, threads })
    }

    fn cells(&self) -> Vec<Way> {
        self.ways.clone()
    }

    fn name(way: &Way) -> String {
        way.name()
    }

    fn run(&self, context: &Context, way: &Way) -> Result<Found> {
        let Self { settings, start, seed, .. } = self;
        let name = way.name();
        let quality = |stages: &Stages, when: &str, network: &Network| -> Result<Quality> {
            Ok(Quality {
                validation: stages.evaluate(
                    &format!("{when}-validation"),
                    network,
                    &start.validation,
                )?,
                test: stages.evaluate(&format!("{when}-test"), network, &start.test)?,
            })
        };
        let (network, layers, before, after, diverged) =
            match settings.recipe(*way, start.dense.architecture(), *seed)? {
                None => {
                    let network = start.dense.clone();
                    let after = quality(&context.stages, &name, &network)?;
                    (network, Vec::new(), None, after, false)
                }
                Some(recipe) => {
                    let stages = context.stages.within(&name)?;
                    let data = CompressData { train: start.train.clone(), test: None };
                    let (decomposed, tuned) =
                        decomposed_and_tuned(recipe, &start.dense, &data, &stages)?;
                    let before = quality(&stages, "decomposed", &decomposed.network)?;
                    match tuned {
                        Some(network) => {
                            let after = quality(&stages, "fine-tuned", &network)?;
                            (network, decomposed.layers, Some(before), after, false)
                        }
                        None => {
                            let Outcome { network, layers, .. } = decomposed;
                            (network, layers, Some(before.clone()), before, true)
                        }
                    }
                }
            };
        let Totals { params, macs, .. } = network.cost(&network.input().shape)?.total;
        let state = State { name, way: *way, params, macs, layers, before, after, diverged };
        Ok(Found { state, network })
    }

    fn report(&self, context: &Context, outcomes: Vec<Found>) -> Result<Findings> {
        report::write(self, context, &outcomes)
    }
}

/// The network as it was decomposed, and as it was fine-tuned, where that did not lose it.
fn decomposed_and_tuned(
    recipe: Recipe,
    dense: &Network,
    data: &CompressData,
    stages: &Stages,
) -> Result<(Outcome, Option<Network>)> {
    let mut plain = recipe.clone();
    plain.compress.fine_tune = None;
    let decomposed = plain.run(dense, Some(data), stages)?;
    let tuned = match recipe.run(dense, Some(data), stages) {
        Ok(done) if done.stages.last().is_some_and(|last| last.kept) => Some(done.network),
        Ok(_) => None,
        // What large cancelling terms may do to fine-tuning is a finding.
        Err(error @ TrainError::Diverged { .. }) => {
            eprintln!("note: {error}");
            None
        }
        Err(error) => return Err(error.into()),
    };
    Ok((decomposed, tuned))
}

/// Seconds of networks in an engine, all in turn; the first is what the others are held against.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Times {
    engine: EngineName,
    threads: usize,
    seconds: Vec<Timing>,
}

impl Times {
    /// What ran, and with how many threads.
    fn place(&self) -> String {
        format!("{}, {}", self.engine, threads_text(self.threads))
    }

    /// Times faster than the first network, by the medians.
    fn speedup(&self, at: usize) -> f64 {
        self.seconds[0].median / self.seconds[at].median
    }

    /// The same, with the median of the first over the quartiles of the other.
    fn faster(&self, at: usize) -> String {
        let (dense, other) = (self.seconds[0].median, &self.seconds[at]);
        let [low, high] = [dense / other.upper, dense / other.lower];
        format!("{:.2}× ({low:.2}–{high:.2})", self.speedup(at))
    }

    /// Median and quartiles in milliseconds.
    fn millis(&self, at: usize) -> String {
        let time = &self.seconds[at];
        format!("{:.2} ({})", 1e3 * time.median, quartiles(time))
    }
}

impl Charnet {
    /// Numbers of threads, each once.
    fn threads(&self) -> Vec<usize> {
        let mut found = Vec::new();
        for &asked in &self.settings.threads {
            let threads = if asked == 0 { self.threads } else { asked };
            if !found.contains(&threads) {
                found.push(threads);
            }
        }
        found
    }

    /// Every network in every engine at hand, all of them in turn, once for each number of threads.
    fn times(
        &self,
        context: &Context,
        stage: &str,
        networks: &[&Network],
        batch: usize,
    ) -> Result<Vec<Times>> {
        let engines: Vec<EngineName> = context.engines().into_iter().map(Engine::name).collect();
        let mut times = Vec::new();
        for threads in self.threads() {
            let stage = format!("{stage}-{threads}-threads");
            times.extend(context.stage(&stage, &(batch, &engines), networks, || {
                timing::set_threads(threads);
                let found = context.times(networks, batch);
                timing::set_threads(self.threads);
                let of = |(engine, seconds)| Times { engine, threads, seconds };
                Ok(found?.into_iter().map(of).collect::<Vec<_>>())
            })?);
        }
        Ok(times)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The settings that a command line asks for.
    pub(super) fn settings(args: &[&str]) -> Settings {
        let about =
            crate::description::Description::new(include_str!("../experiments/charnet.toml"));
        let all = std::iter::once("charnet").chain(args.iter().copied());
        let args = crate::experiment::command("charnet", &about).get_matches_from(all);
        about.settings(&args).unwrap().try_into().unwrap()
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_option() {
        let check = |args: &[&str], expected: &[&str]| {
            let message = format!("{:#}", Charnet::check(&settings(args)).unwrap_err());
            for expected in expected {
                assert!(message.contains(expected), "{message}");
            }
        };
        check(&["--methods", "nls,svd"], &["--methods", "svd", "power"]);
        check(&["--forms", "cp5"], &["--forms", "cp5", "jaderberg1"]);
        check(&["--forms", "low-rank"], &["--forms", "conv2"]);
        let dear = Settings { equal_rank: 1, ..settings(&["--forms", "jaderberg1"]) };
        let message = format!("{:#}", Charnet::check(&dear).unwrap_err());
        assert!(message.contains("multiply-adds cannot be brought"), "{message}");
    }

    /// The forms cost what CP-4 costs, and no more.
    #[test]
    fn forms_are_held_against_each_other_at_equal_cost() {
        let settings = settings(&[]);
        let arch = arch::by_name("charnet").unwrap();
        let macs = |way| {
            let plan = settings.plan(way, &arch).unwrap().unwrap();
            plan.cost(&arch, arch.input_shapes()).unwrap().total.macs as f64
        };
        let (form, rank) = (Form::Cp4, settings.equal_rank);
        let against = macs(Way::Swept { form, method: Method::Als, bounded: false, rank });
        for way in settings.ways().unwrap() {
            if let Way::Equal { .. } = way {
                let share = macs(way) / against;
                assert!((0.85..=1.0).contains(&share), "{}: {share}", way.name());
            }
        }
    }

    #[test]
    fn speed_is_told_with_its_quartiles() {
        let seconds =
            vec![Timing::of(vec![8.0; 3]), Timing { median: 1.0, lower: 0.8, upper: 1.6 }];
        let times = Times { engine: EngineName::Infer, threads: 1, seconds };
        assert_eq!(times.faster(1), "8.00× (5.00–10.00)");
        assert_eq!(times.millis(1), "1000.00 (800.00–1600.00)");
    }
}
