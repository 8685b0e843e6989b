//! What a run leaves behind: `results/<experiment>/<run>/` with `config.toml`, `provenance.json` and `metrics.jsonl`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cp_data::Source;
use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::engine::Engine;
use crate::error::TrainError;
use crate::key::differences;
use crate::libtorch;
use crate::metrics::EpochMetrics;
use crate::timing;

/// Receives the figures of a training run.
pub trait Record {
    /// Called once before training; `done` are the epochs that a resumed run has behind it.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn begin(&mut self, done: &[EpochMetrics]) -> Result<(), TrainError>;

    /// Called after every epoch.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn epoch(&mut self, metrics: &EpochMetrics) -> Result<(), TrainError>;
}

/// Keeps nothing: the returned report has all the figures too.
#[derive(Debug, Default)]
pub struct NoRecord;

impl Record for NoRecord {
    fn begin(&mut self, _done: &[EpochMetrics]) -> Result<(), TrainError> {
        Ok(())
    }

    fn epoch(&mut self, _metrics: &EpochMetrics) -> Result<(), TrainError> {
        Ok(())
    }
}

/// Appends the epochs of one phase of an experiment to a JSON-lines file, and prints a line for each.
pub struct FileRecord {
    path: PathBuf,
    phase: String,
}

#[derive(Serialize, Deserialize)]
struct Line {
    phase: String,
    #[serde(flatten)]
    metrics: EpochMetrics,
}

impl FileRecord {
    /// Records to `path` under the name `phase`.
    pub fn new(path: impl Into<PathBuf>, phase: impl Into<String>) -> Self {
        Self { path: path.into(), phase: phase.into() }
    }
}

impl Record for FileRecord {
    fn begin(&mut self, done: &[EpochMetrics]) -> Result<(), TrainError> {
        // A killed run may have written an epoch whose checkpoint it did not finish, or the other way round: the lines of this
        // phase are written again from the checkpoint's history.
        let old = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(TrainError::io(&self.path)(error)),
        };
        let mut text = String::new();
        for line in old.lines() {
            // A line cut off by a kill is dropped.
            if serde_json::from_str::<Line>(line).is_ok_and(|parsed| parsed.phase != self.phase) {
                text.push_str(line);
                text.push('\n');
            }
        }
        for metrics in done {
            text.push_str(&self.line(metrics));
        }
        write_atomic(&self.path, text.as_bytes())
    }

    fn epoch(&mut self, metrics: &EpochMetrics) -> Result<(), TrainError> {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.path)
            .map_err(TrainError::io(&self.path))?;
        file.write_all(self.line(metrics).as_bytes()).map_err(TrainError::io(&self.path))?;
        let validation = metrics.validation.map_or(String::new(), |v| {
            format!(", validation loss {:.4}, top-1 {:.2} %", v.loss, 100.0 * v.top1)
        });
        eprintln!(
            "{}: epoch {}, lr {:.2e}, loss {:.4}, top-1 {:.2} %{validation}, {:.1} s",
            self.phase,
            metrics.epoch + 1,
            metrics.lr,
            metrics.train_loss,
            100.0 * metrics.train_top1,
            metrics.seconds
        );
        Ok(())
    }
}

impl FileRecord {
    fn line(&self, metrics: &EpochMetrics) -> String {
        let line = Line { phase: self.phase.clone(), metrics: metrics.clone() };
        // Strings and numbers always have a JSON form; a NaN becomes null.
        serde_json::to_string(&line).unwrap_or_default() + "\n"
    }
}

/// Where a result comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of Polyad.
    pub version: String,
    /// Commit that the program was built from, or "unknown" outside a checkout ([`built_from`]).
    pub commit: String,
    /// Whether the sources differed from the commit.
    pub dirty: bool,
    /// The command line.
    pub command: String,
    /// Start of the session, UTC.
    pub started: String,
    /// Number of the process.
    pub process: u32,
    /// Version of the libtorch that is loaded; `none` where the program was built without.
    pub libtorch: String,
    /// Version of the ONNX Runtime that is at hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onnxruntime: Option<String>,
    /// `cpu` or the name of the accelerator.
    pub device: String,
    /// Model of the processor.
    pub processor: String,
    /// Threads of libtorch's operations.
    pub threads: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Files that data and weights were read from, with their SHA-256.
    pub data: Vec<Source>,
}

impl Provenance {
    /// Collects everything that can be found out by itself; at the start of a run, so that it tells of the sources that were built.
    pub fn collect(device: Device, seed: u64, data: Vec<Source>) -> Self {
        let (commit, dirty) = commit();
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            commit,
            dirty,
            command: command_line(),
            started: timing::utc_now(),
            process: std::process::id(),
            libtorch: libtorch::version(),
            onnxruntime: Engine::OnnxRuntime.version().map(Into::into),
            device: match device {
                Device::Cpu => "cpu".into(),
                other @ Device::Cuda(_) => format!("{other:?}").to_lowercase(),
            },
            processor: processor(),
            threads: timing::set_threads(0),
            seed,
            data,
        }
    }

    /// Name and value of every field as text, for reports.
    pub fn rows(&self) -> Vec<(String, String)> {
        let mut rows: Vec<(String, String)> = [
            ("command", self.command.clone()),
            (
                "commit",
                format!(
                    "{}{}",
                    self.commit,
                    if self.dirty { " (with uncommitted changes)" } else { "" }
                ),
            ),
            ("version", self.version.clone()),
            ("started", self.started.clone()),
            ("device", self.device.clone()),
            ("processor", self.processor.clone()),
            ("threads", self.threads.to_string()),
            ("libtorch", self.libtorch.clone()),
            ("seed", self.seed.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if let Some(version) = &self.onnxruntime {
            rows.insert(8, ("ONNX Runtime".into(), version.clone()));
        }
        rows.extend(
            self.data
                .iter()
                .map(|source| (source.file.clone(), format!("SHA-256 {}", source.sha256))),
        );
        rows
    }
}

static BUILT_FROM: OnceLock<(String, bool)> = OnceLock::new();

/// Tells which commit the program was built from: a hash, with ` dirty` behind it where the sources differed. Programs call it first,
/// with what their build script has found out.
pub fn built_from(commit: Option<&str>) {
    let Some(commit) = commit else { return };
    let (hash, dirty) = match commit.split_once(' ') {
        Some((hash, _)) => (hash, true),
        None => (commit, false),
    };
    // A program is built once; whoever comes second says the same.
    let _ = BUILT_FROM.set((hash.into(), dirty));
}

/// The commit that the program was built from, or "unknown", and whether the sources differed from it.
pub(crate) fn commit() -> (String, bool) {
    BUILT_FROM.get().cloned().unwrap_or_else(|| ("unknown".into(), false))
}

/// The command line without the folder of the program.
fn command_line() -> String {
    let mut args = std::env::args();
    let program = args.next().unwrap_or_default();
    let name = Path::new(&program)
        .file_name()
        .map_or(program.clone(), |name| name.to_string_lossy().into_owned());
    std::iter::once(name).chain(args).collect::<Vec<_>>().join(" ")
}

/// The processor's name as Linux gives it.
pub(crate) fn processor() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let name = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.into());
    format!("{name}, {cores} cores")
}

/// The right to work in a run's folder; the system takes it back when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: std::fs::File,
}

/// The folder of one run.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Opens `results/<experiment>/<run>`, made where it is missing.
    ///
    /// # Errors
    /// Where it cannot be made or written to.
    pub fn open(results: &Path, experiment: &str, run: &str) -> Result<Self, TrainError> {
        let path = results.join(experiment).join(run);
        std::fs::create_dir_all(&path).map_err(TrainError::io(&path))?;
        Ok(Self { path })
    }

    /// Opens the folder `path`, made where it is missing.
    ///
    /// # Errors
    /// Where it cannot be made or written to.
    pub fn at(path: &Path) -> Result<Self, TrainError> {
        std::fs::create_dir_all(path).map_err(TrainError::io(path))?;
        Ok(Self { path: path.to_owned() })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of `name` in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A record of the epochs of `phase` in `metrics.jsonl`.
    pub fn record(&self, phase: &str) -> FileRecord {
        FileRecord::new(self.file("metrics.jsonl"), phase)
    }

    /// The epochs of `phase` that `metrics.jsonl` holds; none where there is no such file.
    ///
    /// # Errors
    /// Where the file cannot be read or a line is not what [`FileRecord`] writes.
    pub fn epochs(&self, phase: &str) -> Result<Vec<EpochMetrics>, TrainError> {
        let path = self.file("metrics.jsonl");
        let Some(text) = kept(&path)? else { return Ok(Vec::new()) };
        let mut epochs = Vec::new();
        for line in text.lines() {
            let line: Line = serde_json::from_str(line).map_err(|error| damaged(&path, &error))?;
            if line.phase == phase {
                epochs.push(line.metrics);
            }
        }
        Ok(epochs)
    }

    /// Writes `config.toml`: the configuration as run, and returns the options in which it differs from the one before, each as
    /// `option is …, was …`. Stages know what went into them ([`Key`](crate::Key)), so that no results are mixed.
    ///
    /// # Errors
    /// Where the file cannot be read or written.
    pub fn write_config<C: Serialize>(&self, config: &C) -> Result<Vec<String>, TrainError> {
        let path = self.file("config.toml");
        let wrong = |error: String| TrainError::io(&path)(std::io::Error::other(error));
        let text = toml::to_string_pretty(config).map_err(|error| wrong(error.to_string()))?;
        let mut changed = Vec::new();
        let json = |text: &str| -> Result<serde_json::Value, String> {
            let table: toml::Table =
                text.parse().map_err(|error: toml::de::Error| error.to_string())?;
            serde_json::to_value(table).map_err(|error| error.to_string())
        };
        match std::fs::read(&path) {
            Ok(old) if old == text.as_bytes() => return Ok(changed),
            Ok(old) => match json(&String::from_utf8_lossy(&old)) {
                Ok(old) => differences("", &json(&text).map_err(wrong)?, &old, &mut changed),
                // Stages know what went into them: it is only not told.
                Err(_) => changed
                    .push("config.toml is damaged, so that what has changed is not known".into()),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(TrainError::io(&path)(error)),
        }
        write_atomic(&path, text.as_bytes())?;
        Ok(changed)
    }

    /// Writes `provenance.json`, the list of all sessions of the run: one for its start, one for each time it was taken up
    /// again. A session that is there already is replaced, for what it knows of its data grows.
    ///
    /// # Errors
    /// Where the file cannot be read or written.
    pub fn write_provenance(&self, session: &Provenance) -> Result<(), TrainError> {
        let path = self.file("provenance.json");
        let wrong = |error: serde_json::Error| TrainError::io(&path)(error.into());
        let mut sessions: Vec<Provenance> = match kept(&path)? {
            Some(text) => serde_json::from_str(&text).map_err(|error| damaged(&path, &error))?,
            None => Vec::new(),
        };
        sessions
            .retain(|known| (&known.started, known.process) != (&session.started, session.process));
        sessions.push(session.clone());
        let text = serde_json::to_string_pretty(&sessions).map_err(wrong)?;
        write_atomic(&path, text.as_bytes())
    }

    /// Keeps other processes from working in this folder, as long as the result lives.
    ///
    /// # Errors
    /// [`TrainError::Busy`] where another one works in it.
    pub fn lock(&self) -> Result<Lock, TrainError> {
        let path = self.file(".lock");
        let file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(TrainError::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(TrainError::Busy { path: self.path.clone() })
            }
            Err(std::fs::TryLockError::Error(error)) => Err(TrainError::io(&path)(error)),
        }
    }
}

/// The text of a record, where there is one.
fn kept(path: &Path) -> Result<Option<String>, TrainError> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes).map_err(|error| damaged(path, &error))?;
            Ok(Some(text))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TrainError::io(path)(error)),
    }
}

/// A record that was cut off or written over: no result is read from it, so that it may go.
fn damaged(path: &Path, error: &dyn std::fmt::Display) -> TrainError {
    let told = format!("is damaged ({error}); delete the file: no result depends on it");
    TrainError::io(path)(std::io::Error::new(std::io::ErrorKind::InvalidData, told))
}

/// [`cp_net::write_atomic`], the folder made where it is missing.
///
/// # Errors
/// [`TrainError::Io`] naming `path`; the old file, if any, is then untouched.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(TrainError::io(parent))?;
    }
    cp_net::write_atomic(path, bytes).map_err(TrainError::io(path))
}
