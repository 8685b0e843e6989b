//! [`Context`]: what every experiment runs in: the run's folder and its stages, seed and threads, data sets and pretrained networks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use cp_data::{Characters, DataDir, Dataset, Part, Source, split_validation};
use cp_net::{Architecture, Network, arch};
use cp_onnx::{ExportOptions, export};
use cp_pytorch::StateDictOptions;
use cp_torch::DeviceRequest;
use cp_train::engine::{EngineName, Inputs, Subject};
use cp_train::timing::{Timing, TimingOptions};
use cp_train::{Device, Engine, Key, Lock, Origin, Provenance, RunDir, Stages, timing};
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
pub(crate) struct Context {
    pub(crate) stages: Stages,
    pub(crate) seed: u64,
    data: DataDir,
    /// Of the start; its data are those opened so far.
    provenance: Provenance,
    _lock: Lock,
}

impl Context {
    /// Opens the run's folder and writes the settings into it. With several `jobs`, each has one thread.
    pub(crate) fn open<S: Serialize>(
        args: &RunArgs,
        experiment: &str,
        settings: &S,
        jobs: usize,
    ) -> Result<Self> {
        let threads = if jobs > 1 { 1 } else { args.threads.map_or(0, usize::from) };
        timing::set_threads(threads);
        // Fails only where a pool exists already, and then nothing has to be set.
        let _ = rayon::ThreadPoolBuilder::new()
            .num_threads(if jobs > 1 { jobs } else { threads })
            .build_global();
        let device = Device::from(cp_torch::device(args.device)?);
        let name = run_name(args, experiment)?;
        let dir = RunDir::open(&args.results, experiment, &name)?;
        let lock = dir.lock()?;
        let changed = dir.write_config(settings)?;
        if !changed.is_empty() {
            eprintln!("note: {}; what depends on it is computed again", changed.join("; "));
        }
        // Now, and not at the end: the sources may change while a long run goes on.
        let mut provenance = Provenance::collect(device, args.seed, Vec::new());
        // No one starts the program but xtask.
        provenance.command = provenance.command.replacen("cp-experiments", "cargo xtask", 1);
        dir.write_provenance(&provenance)?;
        eprintln!("run folder: {}", dir.path().display());
        if let (_, Some(note)) = Engine::deployed(device) {
            eprintln!("note: {note}");
        }
        Ok(Self {
            stages: Stages::new(dir, device),
            seed: args.seed,
            data: DataDir::locate(args.data.clone()),
            provenance,
            _lock: lock,
        })
    }

    /// The run's folder.
    pub(crate) fn dir(&self) -> &RunDir {
        self.stages.dir()
    }

    /// The engine that users deploy with, and our own, in which ranks are as fast that are no multiples of anything.
    pub(crate) fn engines(&self) -> Vec<Engine> {
        let mut engines = vec![self.stages.engine(), Engine::Infer];
        engines.dedup();
        engines
    }

    /// Seconds of all networks in each of [`Self::engines`], all of them in turn, with the threads set.
    pub(crate) fn times(
        &self,
        networks: &[&Network],
        batch: usize,
    ) -> Result<Vec<(EngineName, Vec<Timing>)>> {
        let Some(first) = networks.first() else { return Ok(Vec::new()) };
        let inputs = Inputs::one(&first.input().shape, batch);
        let mut ready = Vec::new();
        for engine in self.engines() {
            for network in networks {
                ready.push(engine.ready(Subject::Network(network), &inputs)?);
            }
        }
        let times = timing::in_turn(&mut ready, &TimingOptions::default())?;
        let times = times.chunks(networks.len()).map(<[Timing]>::to_vec);
        Ok(self.engines().into_iter().map(Engine::name).zip(times).collect())
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

    /// Opens a data set and notes its files for the provenance. `drawn:N` are N characters drawn for the split, with the run's seed;
    /// a split of neither training nor validation is a test split.
    pub(crate) fn dataset(&mut self, name: &str, split: &str) -> Result<Arc<dyn Dataset>> {
        if let Some(count) = name.strip_prefix("drawn:") {
            let count = count.parse().with_context(|| format!("the data set '{name}'"))?;
            let part = match split {
                "train" | "train+validation" => Part::Train,
                "validation" | "even" => Part::Validation,
                _ => Part::Test,
            };
            return Ok(Arc::new(Characters::part(part, count, self.seed)));
        }
        let set = cp_data::open(name, split, &self.data)?;
        self.note(set.sources());
        Ok(set)
    }

    /// The network of `weights`: a file of the user's or of this project, which is named from its root with its folder; `drawn` for random
    /// weights of a network for `classes` classes; or published weights of the data folder. Files are noted for the provenance.
    pub(crate) fn network(&mut self, weights: &str, arch: &str, classes: usize) -> Result<Network> {
        if weights == "drawn" {
            return Ok(arch::by_name(arch)?.with_classes(classes)?.initialize(self.seed)?);
        }
        let path = match own_file(weights) {
            Some(path) => {
                // Networks of ours carry their architecture.
                if let Ok(network) = Network::load(&path) {
                    return Ok(network);
                }
                let file = path.display().to_string();
                self.note(&[Source { file, sha256: cp_data::sha256_file(&path)? }]);
                path
            }
            None => {
                let (path, source) = cp_data::pretrained(weights, &self.data)?;
                self.note(&[source]);
                path
            }
        };
        let arch = arch::by_name(arch)?;
        // As the publisher has them, where that is PyTorch's file.
        let loaded = match path.extension().and_then(|kind| kind.to_str()) {
            Some("safetensors") => Network::load_as(&path, arch)?,
            _ => cp_pytorch::state_dict(&path, &StateDictOptions::default())?.into_network(arch)?,
        };
        for note in &loaded.notes {
            eprintln!("note: {note}");
        }
        Ok(loaded.network)
    }

    /// What is known of the validation images of `dataset` beside `weights`, as [`Self::network`] takes them.
    pub(crate) fn origin(&self, weights: &str, dataset: &str) -> Result<Origin> {
        if weights == "drawn" {
            return Ok(Origin::Apart);
        }
        let sha256 = match own_file(weights) {
            Some(path) => cp_data::sha256_file(path)?,
            None => cp_data::pretrained(weights, &self.data)?.1.sha256,
        };
        let trained_on = cp_data::trained_on(&sha256);
        Ok(Origin::of(trained_on.as_deref(), dataset, "validation"))
    }

    /// A file of the data folder, noted for the provenance.
    pub(crate) fn file(&mut self, name: &str) -> Result<PathBuf> {
        let Some(path) = self.data.find(&[PathBuf::from(name)])? else {
            let places: Vec<String> =
                self.data.places().iter().map(|(_, place)| place.display().to_string()).collect();
            bail!(
                "{name}: is in none of {}; --data names the folder that it is in",
                places.join(", ")
            );
        };
        let source = Source { file: name.into(), sha256: cp_data::sha256_file(&path)? };
        self.note(&[source]);
        Ok(path)
    }

    /// A model of the data folder; `drawn` is a small one, written into the run's folder.
    pub(crate) fn model(
        &mut self,
        file: &str,
        draw: impl FnOnce() -> Result<Architecture>,
    ) -> Result<PathBuf> {
        if file != "drawn" {
            return self.file(file);
        }
        let path = self.dir().file("drawn.onnx");
        export(&draw()?.initialize(self.seed)?, &ExportOptions::default())?.save(&path)?;
        Ok(path)
    }

    /// Notes files for the provenance.
    pub(crate) fn note(&mut self, sources: &[Source]) {
        for source in sources {
            if !self.provenance.data.contains(source) {
                self.provenance.data.push(source.clone());
            }
        }
    }

    /// Where the results come from, with all data that were opened; written to the run's folder.
    pub(crate) fn provenance(&self) -> Result<&Provenance> {
        self.dir().write_provenance(&self.provenance)?;
        Ok(&self.provenance)
    }
}

/// A file that is named with its place: as it is, or from the root of this project.
fn own_file(weights: &str) -> Option<PathBuf> {
    let given = PathBuf::from(weights);
    let named = weights.contains('/') || given.is_file();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    named.then(|| if given.is_file() { given } else { root.join(weights) })
}

/// `count` examples of `set`, the classes in proportion; all where there are no more.
pub(crate) fn sample(set: Arc<dyn Dataset>, count: usize, seed: u64) -> Result<Arc<dyn Dataset>> {
    if count >= set.len() {
        return Ok(set);
    }
    let share = count as f64 / set.len() as f64;
    let (_, part) = split_validation(set, share, seed)?;
    Ok(Arc::new(part))
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
