//! [`Experiment`]: what an experiment has to say for itself, and how one runs.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clap::{ArgMatches, Args as _, Command, FromArgMatches as _};
use cp_report::{Block, Report};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::context::{Context, RunArgs};
use crate::description::Description;
use crate::jobs::in_parallel;

/// An experiment: a grid of cells, each of which is computed by itself, and a report of all. Its settings and its command line are
/// in `experiments/NAME.toml`.
///
/// What takes long goes through the stages of the context, so that a killed run does not repeat it.
pub(crate) trait Experiment: Sized + Sync {
    /// What decides the result.
    type Settings: Serialize + DeserializeOwned;
    /// A point of the grid.
    type Cell: Sync;
    /// What is found there.
    type Outcome: Send;

    /// Takes the seed of the command line, where the settings have some of their own.
    fn seed(_settings: &mut Self::Settings, _seed: u64) {}

    /// Refuses what makes no sense, before a folder is made or anything is read.
    fn check(settings: &Self::Settings) -> Result<()>;

    /// Reads or makes what all cells have in common.
    fn prepare(context: &mut Context, settings: Self::Settings) -> Result<Self>;

    /// The grid.
    fn cells(&self) -> Vec<Self::Cell>;

    /// What a cell is called in messages.
    fn name(cell: &Self::Cell) -> String;

    /// Computes one cell.
    fn run(&self, context: &Context, cell: &Self::Cell) -> Result<Self::Outcome>;

    /// Says what came out; `outcomes` are in the order of the cells.
    fn report(&self, context: &Context, outcomes: Vec<Self::Outcome>) -> Result<Findings>;
}

/// Refuses names of `option` that are none of the table `known`.
pub(crate) fn all_known<T>(
    option: &str,
    names: &[String],
    known: &BTreeMap<String, T>,
) -> Result<()> {
    let Some(name) = names.iter().find(|name| !known.contains_key(*name)) else { return Ok(()) };
    let known: Vec<&str> = known.keys().map(String::as_str).collect();
    bail!("{option}: {name} is none of {}", known.join(", "))
}

/// What an experiment found.
pub(crate) struct Findings {
    /// For people.
    pub(crate) report: Report,
    /// For programs.
    pub(crate) result: Value,
    /// For the table of the README.
    pub(crate) rows: Vec<Row>,
    /// What is not as it must be, by which the run fails after its report is written.
    pub(crate) fault: Option<String>,
}

/// A row of the table in the README, as text: dense and compressed, with units.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    pub(crate) network: String,
    pub(crate) data: String,
    pub(crate) params: String,
    pub(crate) macs: String,
    pub(crate) top1: String,
    pub(crate) speed: String,
}

/// `result.json`.
#[derive(Serialize)]
struct Record<'a, S> {
    experiment: &'a str,
    provenance: &'a cp_train::Provenance,
    rows: &'a [Row],
    settings: &'a S,
    result: &'a Value,
    /// SHA-256 of the pages beside it, by which a page is known to be what the run wrote.
    pages: BTreeMap<String, String>,
}

/// The subcommand of an experiment.
pub(crate) fn command(name: &'static str, about: &Description) -> Command {
    // The options of all experiments bring a description of their own.
    let command = RunArgs::augment_args(about.command(name)).about(about.about.clone());
    if about.jobs { command.arg(jobs()) } else { command }
}

fn jobs() -> clap::Arg {
    clap::Arg::new("jobs")
        .long("jobs")
        .value_name("N")
        .default_value("1")
        .value_parser(clap::value_parser!(u16).range(1..))
        .help("Networks to work on at the same time, with one thread each")
}

/// Runs the experiment `name` as the command line asks for.
pub(crate) fn run<E: Experiment>(
    name: &'static str,
    about: &Description,
    args: &ArgMatches,
) -> Result<()> {
    let mut common = RunArgs::from_arg_matches(args)?;
    common.threads = common.threads.or(about.threads);
    let mut settings: E::Settings =
        (about.settings(args)?).try_into().map_err(|error: toml::de::Error| {
            anyhow::anyhow!("the settings of {name}: {}", error.message())
        })?;
    E::seed(&mut settings, common.seed);
    E::check(&settings)?;
    let jobs = if about.jobs { args.get_one::<u16>("jobs").copied().unwrap_or(1) } else { 1 };
    if jobs > 1 && common.threads.is_some() {
        bail!("--threads does not go with --jobs, which have one thread each");
    }
    let folder = about.folder(name, args);
    let written = serde_json::to_value(&settings)?;
    let shown = toml::to_string_pretty(&settings)?;
    let mut context = Context::open(&common, &folder, &settings, jobs.into())?;
    let experiment = E::prepare(&mut context, settings)?;
    let cells = experiment.cells();
    let outcomes = in_parallel(&cells, jobs.into(), |cell| {
        experiment.run(&context, cell).with_context(|| E::name(cell))
    })?;
    let mut found = experiment.report(&context, outcomes)?;
    let provenance = context.provenance()?;
    found.report.add(Block::provenance(provenance.rows()));
    found.report.add(Block::code("Configuration", shown));
    let dir = context.dir();
    found.report.write(dir.path())?;
    let record = Record {
        experiment: &folder,
        provenance,
        rows: &found.rows,
        settings: &written,
        result: &found.result,
        pages: pages(dir.path())?,
    };
    let text = serde_json::to_string_pretty(&record)? + "\n";
    cp_train::write_atomic(&dir.file("result.json"), text.as_bytes())?;
    if common.json {
        print!("{text}");
    } else {
        let summary = dir.file("summary.md");
        let text = std::fs::read_to_string(&summary);
        println!("{}", text.with_context(|| format!("cannot read {}", summary.display()))?);
    }
    eprintln!("report: {}", dir.file("report.html").display());
    match found.fault {
        Some(fault) => bail!("{fault}"),
        None => Ok(()),
    }
}

/// Sums of `summary.md` and the plots in `dir`.
fn pages(dir: &Path) -> Result<BTreeMap<String, String>> {
    let mut names = vec!["summary.md".to_owned()];
    if let Ok(plots) = std::fs::read_dir(dir.join("plots")) {
        for plot in plots {
            names.push(format!("plots/{}", plot?.file_name().to_string_lossy()));
        }
    }
    let sum = |name: String| -> Result<(String, String)> {
        let bytes = std::fs::read(dir.join(&name))?;
        let sum = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((name, sum))
    };
    names.into_iter().map(sum).collect()
}
