//! `polyad compress`: a model made smaller, with its proof: the plan, every stage on the way, and what was gained and lost.

mod options;
mod outcome;
mod planning;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use cp_data::{DataDir, Dataset, Source};
use cp_net::Network;
use cp_plan::RankPlan;
use cp_torch::DeviceRequest;
use cp_torch::tch::Device;
use cp_train::timing::{self, Stopwatch, TimingOptions};
use cp_train::{EvalOptions, Provenance, RunDir, Stages, StatisticsOptions, TrainData, evaluate};
use serde::Serialize;

use crate::common::{Common, DeviceName, Usage};
use crate::output::{self, OutFile};

pub(crate) use options::Args;
use options::Goal;
use outcome::{Answer, Latency, Outcome};

pub(crate) fn run(args: &Args, common: &Common) -> anyhow::Result<()> {
    args.check()?;
    let watch = Stopwatch::start();
    args.config(common.seed).check(args.dataset.is_some())?;
    let goals = args.goals();
    let outs: Vec<PathBuf> = goals.iter().map(|goal| args.out_of(goal, goals.len())).collect();
    // Where nothing can be written, nothing is computed.
    for out in &outs {
        output::refuse_same_file(&args.model.path, out)?;
        drop(OutFile::new(out)?);
    }
    if let Some(plan) = &args.save_plan {
        if outs.contains(plan) {
            bail!("--save-plan and --out name the same file, {}", plan.display());
        }
        if goals.len() > 1 {
            return Err(Usage(
                "--save-plan is for one budget; with several, the work folder holds every plan"
                    .into(),
            )
            .into());
        }
        output::refuse_same_file(&args.model.path, plan)?;
        drop(OutFile::new(plan)?);
    }
    let data = open_data(args, common)?;
    let dense = args.model.load()?;
    timing::set_threads(common.threads.unwrap_or(0));
    let device = cp_torch::device(match common.device {
        DeviceName::Cpu => DeviceRequest::Cpu,
        DeviceName::Cuda => DeviceRequest::Cuda,
    })
    .context("--device")?;
    let fixed = planning::fixed(args, dense.architecture())?;
    let sources = data.as_ref().map_or_else(Vec::new, |data| data.sources.clone());
    let provenance = Provenance::collect(device, common.seed, sources);
    let work = Work::open(args, common, &dense, &fixed, data.as_ref(), device)?;
    let planner = planning::Planner {
        args,
        seed: common.seed,
        dense: &dense,
        data: data.as_ref().map(|data| &data.train),
        stages: &work.stages,
        fixed,
    };

    let mut outcomes = Vec::new();
    let dense_test = match data.as_ref().and_then(|data| data.test.as_ref()) {
        Some(test) => Some(work.stages.evaluate("dense-test", &dense, test)?),
        None => None,
    };
    for (goal, out) in goals.iter().zip(&outs) {
        let plan = planner.plan(goal)?;
        for warning in plan.warnings(dense.architecture(), &dense.input().shape)? {
            output::warn(&warning.to_string());
        }
        let stages = work.of(goal, goals.len())?;
        plan.save(stages.dir().file("plan.toml"))?;
        // The plan first: with it, a model that could not be written is soon made again.
        if let Some(path) = &args.save_plan {
            plan.save(path)?;
        }
        outcomes.push(one(args, common, &dense, data.as_ref(), goal, &plan, &stages, out)?);
    }
    let answer = Answer::new(args, &dense, dense_test, watch.seconds(), outcomes)?;
    if work.kept {
        work.stages.dir().write_provenance(&provenance)?;
        answer.write_report(args, work.stages.dir(), &provenance)?;
    }
    output::print(&answer, common.json)
}

/// One budget: the plan carried out, the model written, tested once and timed.
#[allow(clippy::too_many_arguments, reason = "one call")]
fn one(
    args: &Args,
    common: &Common,
    dense: &Network,
    data: Option<&Data>,
    goal: &Goal,
    plan: &RankPlan,
    stages: &Stages,
    out: &Path,
) -> anyhow::Result<Outcome> {
    let config = args.config(common.seed);
    let done = cp_train::compress(dense, plan, data.map(|data| &data.train), &config, stages)?;
    done.network.save(out)?;
    let test = match data.and_then(|data| data.test.as_ref()) {
        Some(set) => Some(stages.result("test", || {
            let model = stages.executor(&done.network)?;
            evaluate(&model, set, &EvalOptions::default())
        })?),
        None => None,
    };
    let latency = if data.is_some() || args.times_layers(goal) {
        Some(stages.result("latency", || {
            let models = [stages.executor(dense)?, stages.executor(&done.network)?];
            let models = models.each_ref();
            let options = TimingOptions::default();
            let shape = &dense.input().shape;
            let times = timing::latency(&models, shape, args.timing_batch, &options)?;
            Ok::<_, cp_train::TrainError>(Latency {
                batch: args.timing_batch,
                threads: timing::set_threads(0),
                dense_ms: 1e3 * times[0].median,
                compressed_ms: 1e3 * times[1].median,
                ratio: times[0].median / times[1].median,
            })
        })?)
    } else {
        None
    };
    Outcome::new(goal, dense, plan, done, test, latency, out)
}

/// What the network is fine-tuned, watched and tested on.
struct Data {
    train: TrainData,
    test: Option<Arc<dyn Dataset>>,
    sources: Vec<Source>,
}

fn open_data(args: &Args, common: &Common) -> anyhow::Result<Option<Data>> {
    let Some(name) = &args.dataset else { return Ok(None) };
    let folder = DataDir::locate(common.data.clone());
    let mut sources: Vec<Source> = Vec::new();
    let mut open = |split: &str| -> anyhow::Result<Arc<dyn Dataset>> {
        let set = cp_data::open(name, split, &folder)?;
        for source in set.sources() {
            if !sources.contains(source) {
                sources.push(source.clone());
            }
        }
        Ok(set)
    };
    let train = open(&args.train_split)?;
    let validation = open(&args.validation_split)?;
    let test = args.test_split.as_deref().map(&mut open).transpose()?;
    let refuse = |one: &str, other: &str, set: &dyn Dataset, why: &str| {
        Err(Usage(format!("{one} and {other} are both {}: {why}", set.name())).into())
    };
    if train.name() == validation.name() {
        let why = "what chooses must not be what trains";
        return refuse("--train-split", "--validation-split", &*train, why);
    }
    for (option, set) in [("--train-split", &train), ("--validation-split", &validation)] {
        if test.as_ref().is_some_and(|test| test.name() == set.name()) {
            let why = "what was trained or chosen on is no test";
            return refuse(option, "--test-split", &**set, why);
        }
    }
    Ok(Some(Data { train: TrainData { train, validation: Some(validation) }, test, sources }))
}

/// Where the stages of this command are kept: a folder of the user's, or one that vanishes at the end.
struct Work {
    stages: Stages,
    kept: bool,
    _vanishes: Option<tempfile::TempDir>,
}

/// What decides the result: a work folder goes on only with the same.
#[derive(Serialize)]
struct Settings<'a> {
    model: String,
    dataset: Option<&'a str>,
    train_split: &'a str,
    validation_split: &'a str,
    test_split: Option<&'a str>,
    timing_batch: usize,
    planning: planning::Settings,
    compress: cp_train::CompressConfig,
}

impl Work {
    fn open(
        args: &Args,
        common: &Common,
        dense: &Network,
        fixed: &planning::Fixed,
        data: Option<&Data>,
        device: Device,
    ) -> anyhow::Result<Self> {
        let Some(path) = args.work_folder(data.is_some()) else {
            let folder = tempfile::tempdir().context("a folder for temporary files")?;
            let dir = RunDir::open(folder.path(), "compress", "work")?;
            let stages = Stages::new(dir, device);
            return Ok(Self { stages, kept: false, _vanishes: Some(folder) });
        };
        let used = path.join("config.toml").exists();
        if used && !args.resume {
            bail!(
                "{}: holds the work of a compression; add --resume to go on with it, or choose another --work",
                path.display()
            );
        }
        if args.resume && !used {
            bail!("--resume: {} holds no work to go on with", path.display());
        }
        let dir = RunDir::at(&path)?;
        dir.write_config(&Settings {
            model: format!("{} ({})", args.model.path.display(), cp_train::fingerprint(dense)),
            dataset: args.dataset.as_deref(),
            train_split: &args.train_split,
            validation_split: &args.validation_split,
            test_split: args.test_split.as_deref(),
            timing_batch: args.timing_batch,
            planning: planning::Settings::new(args, fixed),
            compress: args.config(common.seed),
        })?;
        Ok(Self { stages: Stages::new(dir, device), kept: true, _vanishes: None })
    }

    /// The stages of one budget: the folder itself, or one of several in it.
    fn of(&self, goal: &Goal, goals: usize) -> anyhow::Result<Stages> {
        if goals == 1 {
            return Ok(self.stages.clone());
        }
        let dir = RunDir::open(self.stages.dir().path(), "budgets", &goal.label())?;
        Ok(Stages::new(dir, self.stages.device()))
    }
}

/// Of the images of a data set, so many.
fn statistics(args: &Args, seed: u64) -> Option<StatisticsOptions> {
    let images = args.statistics?;
    Some(StatisticsOptions { images, seed, ..StatisticsOptions::default() })
}
