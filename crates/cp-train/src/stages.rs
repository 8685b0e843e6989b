//! [`Stages`]: the steps of a long run whose results are kept, so that a killed run does not repeat them.

#[cfg(feature = "torch")]
mod observed;
#[cfg_attr(not(feature = "torch"), path = "stages/without_torch.rs")]
mod torch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cp_data::Dataset;
use cp_net::Network;
use cp_plan::LayerStatistics;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[cfg(feature = "torch")]
pub use observed::Observation;

use crate::device::Device;
use crate::engine::{Engine, Inputs, Subject};
use crate::error::TrainError;
use crate::evaluate::Evaluation;
use crate::key::Key;
use crate::record::{RunDir, commit, write_atomic};
use crate::timing::{Timing, TimingOptions};

/// A run's folder with the results of its finished stages: `stages/NAME-DIGEST.json`, with a network `NAME-DIGEST.safetensors`
/// beside it where the stage makes one, and `NAME-DIGEST.checkpoint` of a training under way.
///
/// A stage is computed once for the same [`Key`]: where its file is there, it is read back. Where a setting has changed, what
/// depends on it is computed, what does not is kept, and the setting is named.
#[derive(Debug, Clone)]
pub struct Stages {
    dir: RunDir,
    /// The folder that several of them share.
    shared: RunDir,
    device: Device,
    engine: Engine,
    /// Statistics of layers' inputs by the digest of their key: too large for files, too dear to be gathered for every plan.
    statistics: Arc<Mutex<BTreeMap<String, LayerStatistics>>>,
}

/// A stage's file.
#[derive(Serialize, Deserialize)]
struct Kept<T> {
    stage: String,
    version: u32,
    inputs: BTreeMap<String, Value>,
    /// Commit of the program that computed it.
    commit: String,
    value: T,
}

/// That the file of a stage holds something else, with the way out of a stage.
pub(crate) fn damaged(path: &Path, error: &dyn std::fmt::Display) -> TrainError {
    let text = error.to_string();
    // The error of the reader begins with the path, and ends with what to do about a file of the user's.
    let what = text.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&text);
    let what = what.split("; ").next().unwrap_or(what).to_owned();
    TrainError::Stage { path: path.into(), what }
}

impl Stages {
    /// The stages in `dir`, with networks on `device`, timed in [`Engine::deployed`].
    pub fn new(dir: RunDir, device: impl Into<Device>) -> Self {
        let device = device.into();
        let (engine, _) = Engine::deployed(device);
        Self { shared: dir.clone(), dir, device, engine, statistics: Arc::default() }
    }

    /// The same with networks timed in `engine`.
    #[must_use]
    pub fn timed_in(self, engine: Engine) -> Self {
        Self { engine, ..self }
    }

    /// The stages of one of several runs that have stages in common: the folder `name` in this one.
    ///
    /// # Errors
    /// Where the folder cannot be made.
    pub fn within(&self, name: &str) -> Result<Self, TrainError> {
        let dir = RunDir::at(&self.dir.file(name))?;
        Ok(Self { dir, ..self.clone() })
    }

    /// The stages that all runs within a folder have in common.
    #[must_use]
    pub fn shared(&self) -> Self {
        Self { dir: self.shared.clone(), ..self.clone() }
    }

    /// The folder.
    pub fn dir(&self) -> &RunDir {
        &self.dir
    }

    /// Where networks run.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What plans from time go by, and what latency tables are of.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Seconds of a forward pass of each network in turn, in [`Stages::engine`]; the first network tells the shapes of the inputs.
    ///
    /// # Errors
    /// As [`Engine::latency`].
    pub fn latency(
        &self,
        networks: &[&Network],
        batch: usize,
        options: &TimingOptions,
    ) -> Result<Vec<Timing>, TrainError> {
        let Some(first) = networks.first() else { return Ok(Vec::new()) };
        let inputs = Inputs::of(first, first.architecture().input_shapes(), batch);
        let subjects: Vec<Subject<'_>> =
            networks.iter().map(|network| Subject::Network(network)).collect();
        self.engine.latency(&subjects, &inputs, options)
    }

    /// The result of the stage `key`: from its file, or computed and kept.
    ///
    /// # Errors
    /// Those of `compute`; a file that cannot be read or written, or holds something else.
    pub fn result<T: Serialize + DeserializeOwned, E: From<TrainError>>(
        &self,
        key: &Key,
        compute: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let path = self.path(key, "json")?;
        if path.exists() {
            let stage = |what: String| TrainError::Stage { path: path.clone(), what };
            let text = std::fs::read(&path).map_err(TrainError::io(&path))?;
            let text = String::from_utf8(text).map_err(|error| stage(error.to_string()))?;
            let kept: Kept<T> =
                serde_json::from_str(&text).map_err(|error| stage(error.to_string()))?;
            let differ = key.differences(&kept.inputs);
            if kept.version != key.version || !differ.is_empty() {
                return Err(stage(format!("made from other inputs: {}", differ.join("; "))).into());
            }
            return Ok(kept.value);
        }
        self.say_why(key);
        let kept = Kept {
            stage: key.stage.clone(),
            version: key.version,
            inputs: key.inputs.clone(),
            commit: commit().0,
            value: compute()?,
        };
        let text = serde_json::to_string_pretty(&kept)
            .map_err(|error| TrainError::Stage { path: path.clone(), what: error.to_string() })?;
        write_atomic(&path, text.as_bytes())?;
        Ok(kept.value)
    }

    /// Names the inputs that differ from those of the last result of this stage, where there is one.
    fn say_why(&self, key: &Key) {
        let Ok(entries) = std::fs::read_dir(self.dir.file("stages")) else { return };
        let newest = entries
            .flatten()
            .filter(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                let stem = name.strip_suffix(".json").and_then(|name| name.rsplit_once('-'));
                stem.is_some_and(|(stem, _)| stem == key.stage)
            })
            .max_by_key(|entry| entry.metadata().and_then(|found| found.modified()).ok());
        let Some(newest) = newest else { return };
        let old = std::fs::read_to_string(newest.path())
            .ok()
            .and_then(|text| serde_json::from_str::<Kept<Value>>(&text).ok());
        let Some(old) = old else { return };
        let mut why = key.differences(&old.inputs);
        if old.version != key.version {
            why.push("it is computed in another way now".into());
        }
        eprintln!("note: '{}' is computed again: {}", key.stage, why.join("; "));
    }

    /// The network that the stage `key` makes: from its file, or made and kept.
    ///
    /// # Errors
    /// Those of `make`; a file that cannot be read or written.
    pub fn network<E: From<TrainError>>(
        &self,
        key: &Key,
        make: impl FnOnce() -> Result<Network, E>,
    ) -> Result<Network, E> {
        Ok(self.network_and(key, || Ok::<_, E>((make()?, ())))?.0)
    }

    /// A network and what is to be said of it, both from their files, or made and kept.
    ///
    /// # Errors
    /// As [`Stages::network`].
    pub fn network_and<T: Serialize + DeserializeOwned, E: From<TrainError>>(
        &self,
        key: &Key,
        make: impl FnOnce() -> Result<(Network, T), E>,
    ) -> Result<(Network, T), E> {
        let path = self.path(key, "safetensors")?;
        let mut made = None;
        // The network first: where the result is there, the network is.
        let value = self.result(key, || {
            let (network, value) = make()?;
            network.save(&path).map_err(TrainError::from)?;
            made = Some(network);
            Ok::<_, E>(value)
        })?;
        match made {
            Some(network) => Ok((network, value)),
            None => Ok((Network::load(&path).map_err(|error| damaged(&path, &error))?, value)),
        }
    }

    /// The file of a stage that ends in `.{kind}`, in a folder that exists.
    pub(crate) fn path(&self, key: &Key, kind: &str) -> Result<PathBuf, TrainError> {
        let folder = self.dir.file("stages");
        std::fs::create_dir_all(&folder).map_err(TrainError::io(&folder))?;
        Ok(folder.join(format!("{}-{}.{kind}", key.stage, key.digest())))
    }

    /// Evaluates `network` on `set`, once: the result is kept under the stage `name`.
    ///
    /// # Errors
    /// As [`evaluate_in`](crate::evaluate_in).
    pub fn evaluate(
        &self,
        name: &str,
        network: &Network,
        set: &Arc<dyn Dataset>,
    ) -> Result<Evaluation, TrainError> {
        let key = Key::new(name, 2).network("network", network).data("data", &**set)?;
        self.result(&key, || self.evaluated(network, set))
    }

    /// Statistics of layers' inputs, gathered once in the life of this process.
    ///
    /// # Errors
    /// Those of `gather`.
    pub(crate) fn statistics(
        &self,
        key: &Key,
        gather: impl FnOnce() -> Result<LayerStatistics, TrainError>,
    ) -> Result<LayerStatistics, TrainError> {
        let digest = key.digest();
        let mut known = self.statistics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(&digest) {
            return Ok(found.clone());
        }
        // Jobs side by side wait for the first of them.
        let found = gather()?;
        known.insert(digest, found.clone());
        Ok(found)
    }
}
