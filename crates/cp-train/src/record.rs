//! What a run leaves behind: `results/<experiment>/<run>/` with `config.toml`, `provenance.json` and `metrics.jsonl`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use cp_data::Source;
use cp_torch::tch::Device;
use serde::{Deserialize, Serialize};

use crate::checkpoint::write_atomic;
use crate::error::TrainError;
use crate::timing;
use crate::train::EpochMetrics;

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
    /// Commit of the sources, or "unknown" outside a checkout.
    pub commit: String,
    /// Whether the sources differed from the commit.
    pub dirty: bool,
    /// The command line.
    pub command: String,
    /// Start of the run, UTC.
    pub started: String,
    /// The libtorch that tch was built for.
    pub libtorch: String,
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
        let git = |args: &[&str]| {
            let output = Command::new("git")
                .arg("-C")
                .arg(env!("CARGO_MANIFEST_DIR"))
                .args(args)
                .output()
                .ok()?;
            output
                .status
                .success()
                .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".into()),
            dirty: git(&["status", "--porcelain", "--untracked-files=no"])
                .is_some_and(|changes| !changes.is_empty()),
            command: command_line(),
            started: timing::utc_now(),
            libtorch: "2.11.0".into(),
            device: match device {
                Device::Cpu => "cpu".into(),
                other => format!("{other:?}").to_lowercase(),
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
        rows.extend(
            self.data
                .iter()
                .map(|source| (source.file.clone(), format!("SHA-256 {}", source.sha256))),
        );
        rows
    }
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
fn processor() -> String {
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

    /// The epochs of `phase` that `metrics.jsonl` holds.
    ///
    /// # Errors
    /// Where the file cannot be read or a line is not what [`FileRecord`] writes.
    pub fn epochs(&self, phase: &str) -> Result<Vec<EpochMetrics>, TrainError> {
        let path = self.file("metrics.jsonl");
        let text = std::fs::read_to_string(&path).map_err(TrainError::io(&path))?;
        let mut epochs = Vec::new();
        for line in text.lines() {
            let line: Line = serde_json::from_str(line).map_err(|error| {
                TrainError::io(&path)(std::io::Error::new(std::io::ErrorKind::InvalidData, error))
            })?;
            if line.phase == phase {
                epochs.push(line.metrics);
            }
        }
        Ok(epochs)
    }

    /// Writes `config.toml`: the configuration as run. A folder that holds another configuration is refused, so that the files of
    /// two runs are never mixed.
    ///
    /// # Errors
    /// Where the configurations differ, or the file cannot be read or written.
    pub fn write_config<C: Serialize>(&self, config: &C) -> Result<(), TrainError> {
        let path = self.file("config.toml");
        let text = toml::to_string_pretty(config)
            .map_err(|error| TrainError::io(&path)(std::io::Error::other(error.to_string())))?;
        match std::fs::read_to_string(&path) {
            Ok(old) if old == text => return Ok(()),
            Ok(_) => {
                return Err(TrainError::Checkpoint {
                    path: self.path.clone(),
                    what: "the folder holds a run with another configuration".into(),
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(TrainError::io(&path)(error)),
        }
        write_atomic(&path, text.as_bytes())
    }

    /// Writes `provenance.json`.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write_provenance(&self, provenance: &Provenance) -> Result<(), TrainError> {
        let text = serde_json::to_string_pretty(provenance).unwrap_or_default();
        write_atomic(&self.file("provenance.json"), text.as_bytes())
    }
}
