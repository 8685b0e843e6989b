//! The zoo: every kind of convolution in one plain network, at one number of parameters, trained by one recipe on as many images.

use std::sync::Arc;

use anyhow::{Result, bail};
use cp_data::Dataset;
use cp_net::{Architecture, Form, Network, arch};
use cp_plan::cp_start;
use cp_train::engine::{Engine, EngineName, Inputs, Subject};
use cp_train::timing::{self, Timing, TimingOptions};
use cp_train::{CompressData, Evaluation, Preset, Recipe, Stages, Target, TrainConfig, TrainData};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::context::{Context, sample};
use crate::experiment::{Experiment, Findings};

mod report;

/// `experiments/zoo.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    dataset: String,
    test_split: String,
    /// The number of parameters that all come near to, and how near, as a share.
    params: usize,
    within: f64,
    /// 0 for all.
    train_examples: usize,
    test_examples: usize,
    /// Batches that the networks are timed at.
    batches: Vec<usize>,
    /// Some of the networks; all where it is empty.
    #[serde(default)]
    only: Vec<String>,
    train: TrainConfig,
    networks: Vec<Entry>,
}

/// A network of the zoo.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    arch: String,
    #[serde(default)]
    start: Start,
    /// Trainings, from the seed of the command line upward.
    #[serde(default = "one")]
    repeats: u64,
    /// The source's size, whatever the others have.
    #[serde(default)]
    own_size: bool,
}

fn one() -> u64 {
    1
}

/// How a training starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Start {
    /// At random, by the rules of its layers.
    #[default]
    Random,
    /// Factors from CP models of random kernels.
    Cpac,
    /// From the CP model of the network, trained for half of the epochs.
    Compressed,
}

pub(crate) struct Zoo {
    settings: Settings,
    data: TrainData,
    validation: Arc<dyn Dataset>,
    test: Arc<dyn Dataset>,
}

#[derive(Debug, Clone)]
pub(crate) struct Trained {
    name: String,
    network: Network,
    epochs: usize,
    /// Seconds of training.
    seconds: f64,
    validation: f64,
    test: Evaluation,
}

impl Settings {
    fn arch(&self, entry: &Entry, classes: usize) -> Result<Architecture> {
        Ok(arch::by_name(&entry.arch)?.with_classes(classes)?)
    }

    /// The networks that are asked for.
    fn entries(&self) -> impl Iterator<Item = &Entry> {
        let asked = |entry: &&Entry| self.only.is_empty() || self.only.contains(&entry.name);
        self.networks.iter().filter(asked)
    }
}

impl Experiment for Zoo {
    type Settings = Settings;
    type Cell = (usize, u64);
    type Outcome = Trained;

    fn seed(settings: &mut Settings, seed: u64) {
        settings.train.seed = seed;
    }

    fn check(settings: &Settings) -> Result<()> {
        let names: Vec<&str> = settings.networks.iter().map(|entry| entry.name.as_str()).collect();
        if let Some(name) = settings.only.iter().find(|name| !names.contains(&name.as_str())) {
            bail!("--only: {name} is none of {}", names.join(", "));
        }
        if settings.train.epochs < 2 {
            bail!(
                "--epochs: {} is not at least 2, of which the compressed network has half",
                settings.train.epochs
            );
        }
        for entry in &settings.networks {
            let count = settings.arch(entry, 10)?.param_count();
            let (params, within) = (settings.params as f64, settings.within);
            let off = (count as f64 / params - 1.0).abs();
            let free = entry.own_size || entry.start == Start::Compressed;
            if !free && off > within {
                bail!(
                    "the network {} has {count} parameters, which are not within {:.0} % of {}",
                    entry.name,
                    100.0 * within,
                    settings.params
                );
            }
        }
        Ok(settings.train.check()?)
    }

    fn prepare(context: &mut Context, settings: Settings) -> Result<Self> {
        let mut open = |split: &str, count: usize| {
            let set = context.dataset(&settings.dataset, split)?;
            if count == 0 { Ok(set) } else { sample(set, count, context.seed) }
        };
        let train = open("train", settings.train_examples)?;
        let validation = open("validation", settings.test_examples)?;
        let test = open(&settings.test_split, settings.test_examples)?;
        let data = TrainData { train, validation: Some(Arc::clone(&validation)) };
        Ok(Self { settings, data, validation, test })
    }

    fn cells(&self) -> Vec<(usize, u64)> {
        let seed = self.settings.train.seed;
        let index = |name: &str| self.settings.networks.iter().position(|other| other.name == name);
        let entries =
            self.settings.entries().filter_map(|entry| Some((index(&entry.name)?, entry)));
        let of = |(index, entry): (usize, &Entry)| {
            (0..entry.repeats).map(move |n| (n, (index, seed.wrapping_add(n))))
        };
        let mut cells: Vec<(u64, (usize, u64))> = entries.flat_map(of).collect();
        // Every network once, before any is trained again.
        cells.sort_by_key(|(n, (index, _))| (*n, *index));
        cells.into_iter().map(|(_, cell)| cell).collect()
    }

    fn name((index, seed): &(usize, u64)) -> String {
        format!("network {}, seed {seed}", index + 1)
    }

    fn run(&self, context: &Context, (index, seed): &(usize, u64)) -> Result<Trained> {
        let Self { settings, test, .. } = self;
        let entry = &settings.networks[*index];
        let folder = format!("{}-seed{seed}", entry.name.replace(' ', "-"));
        let stages = context.stages.within(&folder)?;
        let start = settings.arch(entry, test.classes().len())?.initialize(*seed)?;
        let config = TrainConfig { seed: *seed, ..settings.train.clone() };
        let network = match entry.start {
            Start::Random => self.trained(&stages, &start, &config)?,
            Start::Cpac => self.trained(&stages, &cp_start(&start, *seed)?, &config)?,
            Start::Compressed => {
                let half = config.epochs / 2;
                let dense = TrainConfig { epochs: config.epochs - half, ..config.clone() };
                let dense = self.trained(&stages, &start, &dense)?;
                self.compressed(&stages, &dense, half, *seed)?
            }
        };
        let mut epochs = Vec::new();
        for phase in ["trained", "fine-tuned"] {
            epochs.extend(stages.dir().epochs(phase)?);
        }
        let validation = stages.evaluate("validation", &network, &self.validation)?;
        Ok(Trained {
            name: entry.name.clone(),
            epochs: epochs.len(),
            seconds: epochs.iter().map(|epoch| epoch.seconds).sum(),
            validation: validation.top1,
            test: stages.evaluate("test", &network, test)?,
            network,
        })
    }

    fn report(&self, context: &Context, trained: Vec<Trained>) -> Result<Findings> {
        let times = self.times(context, &trained)?;
        let rows = self.rows(&trained, &times)?;
        let report = self.page(&trained, &rows)?;
        let result = json!({ "networks": rows, "test_examples": self.test.len() });
        Ok(Findings { report, result, rows: Vec::new(), fault: None })
    }
}

/// Median seconds of a network in an engine at a batch; none where the engine does not run it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Timed {
    engine: EngineName,
    batch: usize,
    timing: Option<Timing>,
}

impl Zoo {
    fn trained(&self, stages: &Stages, start: &Network, config: &TrainConfig) -> Result<Network> {
        let model = stages.executor(start)?;
        Ok(stages.train("trained", model, None, &self.data, config)?)
    }

    /// By the recipe of `polyad compress`, in CP-3, with so many epochs of fine-tuning.
    fn compressed(
        &self,
        stages: &Stages,
        dense: &Network,
        epochs: usize,
        seed: u64,
    ) -> Result<Network> {
        let ratio = self.settings.params as f64 / dense.param_count() as f64;
        let target = Target::ParamsRatio(ratio);
        let augmentation = self.settings.train.augmentation;
        let mut recipe = Recipe::with_data(Preset::Default, target, augmentation).seeded(seed);
        recipe.timing_batches.clear();
        recipe.plan.forms = vec![Form::Cp3];
        if let Some(tune) = &mut recipe.compress.fine_tune {
            tune.epochs = epochs;
        }
        let data = CompressData { train: self.data.clone(), test: None };
        Ok(recipe.run(dense, Some(&data), stages)?.network)
    }

    /// Every engine at hand, all networks in turn at each batch; an engine that does not run a network has no time for it.
    fn times(&self, context: &Context, trained: &[Trained]) -> Result<Vec<Vec<Timed>>> {
        let mut engines = context.engines();
        let torch = Engine::Torch(context.stages.device());
        if !engines.contains(&torch) {
            engines.push(torch);
        }
        let names: Vec<EngineName> = engines.iter().map(|engine| engine.name()).collect();
        let first = self.firsts(trained);
        let networks: Vec<&Network> = first.iter().map(|one| &one.network).collect();
        let key = (&self.settings.batches, names, timing::set_threads(0));
        context.stage("latency", &key, &networks, || {
            let mut times = vec![Vec::new(); networks.len()];
            for &engine in &engines {
                for &batch in &self.settings.batches {
                    let (mut ready, mut places) = (Vec::new(), Vec::new());
                    for (place, network) in networks.iter().enumerate() {
                        let inputs = Inputs::one(&network.input().shape, batch);
                        match engine.ready(Subject::Network(network), &inputs) {
                            Ok(own) => {
                                ready.push(own);
                                places.push(place);
                            }
                            Err(error) => eprintln!(
                                "note: {} is not timed in {}: {error}",
                                first[place].name,
                                engine.name()
                            ),
                        }
                    }
                    let found = timing::in_turn(&mut ready, &TimingOptions::default())?;
                    let timing =
                        |place| places.iter().position(|&p| p == place).map(|at| found[at]);
                    for (place, own) in times.iter_mut().enumerate() {
                        own.push(Timed { engine: engine.name(), batch, timing: timing(place) });
                    }
                }
            }
            Ok(times)
        })
    }

    /// The first training of every network.
    fn firsts<'a>(&self, trained: &'a [Trained]) -> Vec<&'a Trained> {
        let names = self.settings.entries().map(|entry| &entry.name);
        names.filter_map(|name| trained.iter().find(|one| one.name == *name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let about = crate::description::Description::new(include_str!("../experiments/zoo.toml"));
        let args = crate::experiment::command("zoo", &about).get_matches_from([
            "zoo",
            "--dataset",
            "cifar10",
        ]);
        about.settings(&args).unwrap().try_into().unwrap()
    }

    #[test]
    fn every_network_is_near_the_number_of_parameters() {
        Zoo::check(&settings()).unwrap();
        let mut wide = settings();
        wide.networks[0].arch = "plain(width=40)".into();
        let message = Zoo::check(&wide).unwrap_err().to_string();
        assert!(message.contains("dense") && message.contains("within 5 % of 270000"), "{message}");
    }

    #[test]
    fn names_that_there_are_not_are_refused() {
        let settings = Settings { only: vec!["mlp".into()], ..settings() };
        let message = Zoo::check(&settings).unwrap_err().to_string();
        assert!(message.contains("mlp") && message.contains("tensor train"), "{message}");
    }
}
