//! `polyad compress`: a model made smaller, with its proof: the plan, every stage on the way, and what was gained and lost.
//! The options become a [`Recipe`]; the recipe does the work.

mod options;
mod outcome;
mod recipe;
mod source;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use cp_data::{DataDir, Dataset, Identity, shared_entries};
use cp_net::{TemporaryFolder, Totals};
use cp_plan::PlanError;
use cp_train::timing::{self, Stopwatch};
use cp_train::{
    CompressData, Device, Engine, Lock, Multiple, Origin, Provenance, Purpose, Recipe, RunDir,
    Stages, Target, TrainData, TrainError, check_fit, check_memory,
};
use serde::Serialize;

use crate::common::{Common, Usage};
use crate::output::{self, OutFile};

pub(crate) use options::Args;
use outcome::{Answer, Made};
use source::Source;

pub(crate) fn run(args: &Args, common: &Common) -> anyhow::Result<()> {
    args.check()?;
    let watch = Stopwatch::start();
    timing::set_threads(common.threads.unwrap_or(0));
    let source = Source::open(args, &args.recipes(None, common.seed)?, common.seed)?;
    let dense = &source.network;
    let mut recipes = args.recipes(Some(dense.architecture()), common.seed)?;
    recipes = recipes.into_iter().map(|recipe| source.adapt(recipe)).collect();
    let outs: Vec<PathBuf> =
        recipes.iter().map(|recipe| args.out_of(&recipe.target, recipes.len())).collect();
    // Where nothing can be written, nothing is computed.
    outs.iter().try_for_each(|out| source.check_out(out))?;
    let mut written: Vec<&PathBuf> = outs.iter().collect();
    written.extend(&args.save_plan);
    written.extend(&args.save_recipe);
    for (index, out) in written.iter().enumerate() {
        if written[..index].contains(out) {
            bail!(
                "two of --out, --save-plan and --save-recipe name the same file, {}",
                out.display()
            );
        }
        output::refuse_same_file(args.files_read(), out)?;
        drop(OutFile::new(out)?);
    }
    if args.save_plan.is_some() && recipes.len() > 1 {
        return Err(Usage(
            "--save-plan is for one budget; with several, the work folder holds every plan".into(),
        )
        .into());
    }
    let data = open_data(args, common)?;
    let device = common.device.device()?;
    let engine = common.engine.engine(device, [source.subject()])?;
    let arch = dense.architecture();
    let timed = recipes.iter().flat_map(|recipe| &recipe.timing_batches);
    if let Some(&largest) = timed.max() {
        let shapes = arch.input_shapes();
        check_memory(arch, shapes, largest, Purpose::Forward, device, "--timing-batch")?;
    }
    if let Some(Data { sets: CompressData { train, test }, .. }) = &data {
        let sets = [Some(&train.train), train.validation.as_ref(), test.as_ref()];
        sets.into_iter().flatten().try_for_each(|set| check_fit(arch, &**set))?;
    }
    let model_sum = cp_data::sha256_file(&args.model.path)?;
    let origin = args.dataset.as_ref().map(|dataset| {
        let trained_on = cp_data::trained_on(&model_sum);
        Origin::of(trained_on.as_deref(), dataset, &args.validation_split)
    });
    if let Some(note) = origin.and_then(Origin::note) {
        output::note(note);
    }
    if let Some(origin) = origin {
        recipes.iter_mut().for_each(|recipe| recipe.heed(origin));
    }
    if let Some(path) = &args.save_recipe {
        recipes[0].save(path)?;
    }
    let mut sources = vec![cp_data::Source {
        file: args.model.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        sha256: model_sum,
    }];
    sources.extend(data.as_ref().map_or_else(Vec::new, |data| data.sources.clone()));
    let provenance = Provenance::collect(device, common.seed, sources);
    let work = Work::open(args, &recipes, device, engine)?;
    if work.kept {
        work.stages.dir().write_provenance(&provenance)?;
    }

    // An ONNX model is timed as it is written, by default for one example and for several.
    let batches = if args.timing_batch.is_empty() { vec![1, 8] } else { args.timing_batch.clone() };
    let sets = data.as_ref().map(|data| &data.sets);
    let mut made = Vec::new();
    for (recipe, out) in recipes.iter().zip(&outs) {
        let stages = match recipes.len() {
            1 => work.stages.clone(),
            _ => work.stages.within(&format!("budgets/{}", recipe.target.label()))?,
        };
        let mut done = source.compress(recipe, sets, &stages).map_err(|error| {
            if work.kept {
                let dir = work.stages.dir().path().display();
                output::note(&format!("what was finished is kept in {dir}: --resume uses it"));
            }
            with_way_out(error, recipe)
        })?;
        for note in done.distilled.iter().flat_map(|distilled| &distilled.notes) {
            output::note(note);
        }
        if source.sized {
            for warning in done.outcome.plan.warnings(arch, arch.input_shapes())? {
                output::warn(&warning.to_string());
            }
        }
        if let Some(note) = short_of_budget(recipe, &done.outcome.cost) {
            output::note(&note);
        }
        if let Some(path) = &args.save_plan {
            done.outcome.plan.save(path)?;
        }
        source.save(&done, out)?;
        let (latency, changes) = source.compare(out, &batches)?;
        if let Some(change) = changes.iter().find(|change| !change.relative.is_finite()) {
            // Half precision may not hold what the factors come to.
            let _ = std::fs::remove_file(out);
            bail!(
                "{}: is not written: its output '{}' would be NaN or infinite where the dense one is a number; a milder budget, or a model \
                 in f32, may help",
                out.display(),
                change.output
            );
        }
        done.outcome.latency.extend(latency);
        // For the report alone.
        let profiled = match work.kept {
            true => source.profiled(engine, &done, out)?,
            false => None,
        };
        made.push(Made::new(recipe, dense, done, (changes, profiled), &stages, out)?);
    }
    let answer = Answer::new(args, &recipes, &source, origin, watch.seconds(), made)?;
    if work.kept {
        answer.write_report(args, work.stages.dir(), &provenance)?;
    }
    output::print(&answer, common.json)
}

/// `error`, and what else there is to try where ranks in multiples of a number do not come down to the budget.
fn with_way_out(error: TrainError, recipe: &Recipe) -> anyhow::Error {
    let unreachable = matches!(
        &error,
        TrainError::Plan(plan) if matches!(**plan, PlanError::BudgetUnreachable { .. })
    );
    match recipe.plan.multiple {
        Multiple::Of(multiple) if unreachable && multiple > 1 => anyhow!(
            "{error}; ranks are multiples of {multiple}: --multiple 1 may come closer, and may be slower"
        ),
        _ => recipe::in_words_of_options(error),
    }
}

/// What there is to say of a plan that leaves more than a hundredth of its budget unused because ranks are multiples of a number.
fn short_of_budget(recipe: &Recipe, [before, after]: &[Totals; 2]) -> Option<String> {
    let (asked, reached) = match recipe.target {
        Target::ParamsRatio(asked) => (asked, after.params as f64 / before.params as f64),
        Target::MacsRatio(asked) => (asked, after.macs as f64 / before.macs as f64),
        _ => return None,
    };
    let multiple = recipe.multiple();
    (multiple > 1 && reached < 0.99 * asked).then(|| {
        format!(
            "ranks in multiples of {multiple} reach {reached:.3} of what {asked} allows: the nearest below it; --multiple 1 comes closer, and \
             may be slower"
        )
    })
}

/// What the network is fine-tuned, watched and tested on, and the files that it comes from.
struct Data {
    sets: CompressData,
    sources: Vec<cp_data::Source>,
}

fn open_data(args: &Args, common: &Common) -> anyhow::Result<Option<Data>> {
    let Some(name) = &args.dataset else { return Ok(None) };
    let folder = DataDir::locate(common.data.clone());
    let mut sources: Vec<cp_data::Source> = Vec::new();
    let mut said = Vec::new();
    let mut open = |split: &str| -> anyhow::Result<Arc<dyn Dataset>> {
        let set = cp_data::open(name, split, &folder)?;
        for note in set.notes() {
            if !said.contains(&note) {
                output::note(&note.to_string());
                said.push(note);
            }
        }
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
    let apart = |one: (&str, &Arc<dyn Dataset>), other: (&str, &Arc<dyn Dataset>), why: &str| {
        let shared = shared_entries(&**one.1, &**other.1);
        let Some(first) = shared.first() else { return Ok(()) };
        let told = format!(
            "{} {} and {} {} share {} examples, such as {first}: {why}",
            one.0,
            one.1.name(),
            other.0,
            other.1.name(),
            shared.len()
        );
        Err(anyhow::Error::from(Usage(told)))
    };
    let (trains, chooses) = (("--train-split", &train), ("--validation-split", &validation));
    apart(trains, chooses, "what chooses must not be what trains")?;
    if let Some(test) = &test {
        for set in [trains, chooses] {
            apart(set, ("--test-split", test), "what was trained or chosen on is no test")?;
        }
        let tested = Identity::of(&**test)?;
        for set in [&train, &validation] {
            let equal = tested.overlap(&Identity::of(&**set)?).equal;
            if let Some((one, other)) = equal.first() {
                output::note(&format!(
                    "{} images of {} have the content of images of {}, such as {one} and {other}: the test flatters by as many",
                    equal.len(),
                    test.name(),
                    set.name()
                ));
            }
        }
    }
    let train = TrainData { train, validation: Some(validation) };
    Ok(Some(Data { sets: CompressData { train, test }, sources }))
}

/// Where the stages of this command are kept: a folder of the user's, or one that vanishes at the end.
struct Work {
    stages: Stages,
    kept: bool,
    _lock: Lock,
    _vanishes: Option<TemporaryFolder>,
}

/// The settings of the command, for `config.toml`.
#[derive(Serialize)]
struct Settings<'a> {
    dataset: Option<&'a str>,
    train_split: &'a str,
    validation_split: &'a str,
    test_split: Option<&'a str>,
    recipe: &'a [Recipe],
}

impl Work {
    fn open(
        args: &Args,
        recipes: &[Recipe],
        device: Device,
        engine: Engine,
    ) -> anyhow::Result<Self> {
        let Some(path) = args.work_folder() else {
            let folder = TemporaryFolder::create().context("a folder for temporary files")?;
            let dir = RunDir::open(folder.path(), "compress", "work")?;
            let lock = dir.lock()?;
            let stages = Stages::new(dir, device).timed_in(engine);
            return Ok(Self { stages, kept: false, _lock: lock, _vanishes: Some(folder) });
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
        let dir = RunDir::at(&path).with_context(|| {
            let path = path.display();
            format!("{path}: is no folder for stages; choose another with --work")
        })?;
        let lock = dir.lock()?;
        let changed = dir.write_config(&Settings {
            dataset: args.dataset.as_deref(),
            train_split: &args.train_split,
            validation_split: &args.validation_split,
            test_split: args.test_split.as_deref(),
            recipe: recipes,
        })?;
        if !changed.is_empty() {
            output::note(&format!(
                "--resume: {}; what depends on it is computed again",
                changed.join("; ")
            ));
        }
        let stages = Stages::new(dir, device).timed_in(engine);
        Ok(Self { stages, kept: true, _lock: lock, _vanishes: None })
    }
}
