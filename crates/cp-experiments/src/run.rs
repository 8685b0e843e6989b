//! What the experiments share: common options, the run's folder, and stages that a resumed run does not repeat.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use cp_data::{DataDir, Dataset, Source};
use cp_net::Network;
use cp_report::{Block, Report};
use cp_torch::DeviceRequest;
use cp_train::{Key, Lock, Provenance, RunDir, Stages, timing};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Options of every experiment.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// Folder of the data sets and pretrained weights [default: $POLYAD_DATA, then the cache]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Folder for results; this run writes to RESULTS/EXPERIMENT/RUN
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(crate) results: PathBuf,
    /// Name of the run [default: the date and time]
    #[arg(long, value_name = "NAME")]
    pub(crate) run: Option<String>,
    /// Go on with the run NAME, or with the latest one
    #[arg(long)]
    pub(crate) resume: bool,
    /// Threads for libtorch and the decompositions [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
    /// Seed of everything random
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Where the network runs
    #[arg(long, default_value_t = DeviceRequest::Cpu, value_parser = device())]
    pub(crate) device: DeviceRequest,
    /// Print the results as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

/// `--device`.
fn device() -> impl TypedValueParser<Value = DeviceRequest> {
    PossibleValuesParser::new(["cpu", "cuda"]).try_map(|name| name.parse::<DeviceRequest>())
}

/// A run in progress: its folder, its device, and the files of the stages that are done.
pub(crate) struct Run {
    pub(crate) stages: Stages,
    pub(crate) seed: u64,
    pub(crate) json: bool,
    data: DataDir,
    /// Of the start; its data are those opened so far.
    provenance: Provenance,
    _lock: Lock,
}

impl Run {
    /// Opens the run's folder and writes the configuration into it.
    pub(crate) fn open<C: Serialize>(args: &RunArgs, experiment: &str, config: &C) -> Result<Self> {
        let threads = args.threads.map_or(0, usize::from);
        timing::set_threads(threads);
        // Fails only where a pool exists already, and then nothing has to be set.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        let device = cp_torch::device(args.device)?;
        let name = run_name(args, experiment)?;
        let dir = RunDir::open(&args.results, experiment, &name)?;
        let lock = dir.lock()?;
        let changed = dir.write_config(config)?;
        if !changed.is_empty() {
            eprintln!("note: {}; what depends on it is computed again", changed.join("; "));
        }
        // Now, and not at the end: the sources may change while a long run goes on.
        let provenance = Provenance::collect(device, args.seed, Vec::new());
        dir.write_provenance(&provenance)?;
        eprintln!("run folder: {}", dir.path().display());
        Ok(Self {
            stages: Stages::new(dir, device),
            seed: args.seed,
            json: args.json,
            data: DataDir::locate(args.data.clone()),
            provenance,
            _lock: lock,
        })
    }

    /// The run's folder.
    pub(crate) fn dir(&self) -> &RunDir {
        self.stages.dir()
    }

    /// The result of a stage that depends on `settings` and on networks, computed once.
    pub(crate) fn stage<C: Serialize, T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        settings: &C,
        networks: &[&Network],
        compute: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let mut key = Key::new(name, 1).setting("settings", settings);
        for (index, network) in networks.iter().enumerate() {
            key = key.network(&format!("network-{index}"), network);
        }
        self.stages.result(&key, compute)
    }

    /// Opens a data set and notes its files for the provenance.
    pub(crate) fn dataset(&mut self, name: &str, split: &str) -> Result<Arc<dyn Dataset>> {
        let set = cp_data::open(name, split, &self.data)?;
        self.note(set.sources());
        Ok(set)
    }

    /// Loads pretrained weights from the data folder and notes the file for the provenance.
    pub(crate) fn pretrained(&mut self, weights: &str, arch: &str) -> Result<Network> {
        let (path, source) = cp_data::pretrained(weights, &self.data)?;
        self.note(&[source]);
        let loaded = Network::load_as(&path, cp_net::arch::by_name(arch)?)?;
        for note in &loaded.notes {
            eprintln!("note: {note}");
        }
        Ok(loaded.network)
    }

    fn note(&mut self, sources: &[Source]) {
        for source in sources {
            if !self.provenance.data.contains(source) {
                self.provenance.data.push(source.clone());
            }
        }
    }

    /// Ends `report` with where it comes from and the configuration, writes it and `result.json`, and shows the outcome: the summary,
    /// or with `--json` the result.
    pub(crate) fn finish<C: Serialize>(
        &self,
        mut report: Report,
        config: &C,
        result: &serde_json::Value,
    ) -> Result<()> {
        self.dir().write_provenance(&self.provenance)?;
        report.add(Block::provenance(self.provenance.rows()));
        report.add(Block::code("Configuration", toml::to_string_pretty(config)?));
        report.write(self.dir().path())?;
        let text = serde_json::to_string_pretty(result)?;
        cp_train::write_atomic(&self.dir().file("result.json"), text.as_bytes())?;
        if self.json {
            println!("{text}");
        } else {
            let summary = self.dir().file("summary.md");
            println!(
                "{}",
                std::fs::read_to_string(&summary)
                    .with_context(|| format!("cannot read {}", summary.display()))?
            );
        }
        eprintln!("report: {}", self.dir().file("report.html").display());
        Ok(())
    }
}

/// The name of the run's folder: a new one, or with `--resume` the one to go on with.
fn run_name(args: &RunArgs, experiment: &str) -> Result<String> {
    let folder = args.results.join(experiment);
    if let Some(name) = &args.run {
        if name.is_empty() || Path::new(name).components().count() != 1 || name.starts_with('.') {
            bail!("--run {name:?} must be the name of a folder, not a path");
        }
        let exists = folder.join(name).exists();
        if args.resume && !exists {
            bail!("--resume: there is no run '{name}' in {}", folder.display());
        }
        if !args.resume && exists {
            bail!(
                "{} exists; add --resume to go on with it, or choose another --run",
                folder.join(name).display()
            );
        }
        return Ok(name.clone());
    }
    if !args.resume {
        // Colons would be awkward in file names.
        return Ok(timing::utc_now().replace(':', ""));
    }
    let entries = std::fs::read_dir(&folder)
        .with_context(|| format!("--resume: there is no run in {}", folder.display()))?;
    let mut runs = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            runs.push((
                entry.metadata()?.modified()?,
                entry.file_name().to_string_lossy().into_owned(),
            ));
        }
    }
    match runs.into_iter().max() {
        Some((_, name)) => Ok(name),
        None => bail!("--resume: there is no run in {}", folder.display()),
    }
}

/// Reads a configuration that is part of the program.
pub(crate) fn built_in<C: DeserializeOwned>(text: &str) -> C {
    // The tests parse every built-in configuration.
    toml::from_str(text).unwrap_or_else(|error| panic!("built-in configuration: {error}"))
}
