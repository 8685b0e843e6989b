//! [`Stages`]: the steps of a long run whose results are kept, so that a killed run does not repeat them.

use std::path::PathBuf;
use std::sync::Arc;

use cp_data::Dataset;
use cp_net::Network;
use cp_torch::Executor;
use cp_torch::tch::Device;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::checkpoint::write_atomic;
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::evaluate::{EvalOptions, Evaluation, evaluate};
use crate::record::RunDir;
use crate::train::{TrainData, train_from};

/// A run's folder with the results of its finished stages: `stages/NAME.json`, `NAME.safetensors`, and `NAME.checkpoint` of a
/// training under way.
///
/// A stage is computed once: where its file is there, it is read back. What decides the results must therefore be the same for
/// the whole folder ([`RunDir::write_config`]).
#[derive(Debug, Clone)]
pub struct Stages {
    dir: RunDir,
    device: Device,
}

impl Stages {
    /// The stages in `dir`, with networks on `device`.
    pub fn new(dir: RunDir, device: Device) -> Self {
        Self { dir, device }
    }

    /// The folder.
    pub fn dir(&self) -> &RunDir {
        &self.dir
    }

    /// Where networks run.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The result of the stage `name`: from its file, or computed and kept.
    ///
    /// # Errors
    /// Those of `compute`; a file that cannot be read or written, or holds something else.
    pub fn result<T: Serialize + DeserializeOwned, E: From<TrainError>>(
        &self,
        name: &str,
        compute: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let path = self.dir.file(&format!("stages/{name}.json"));
        if path.exists() {
            let text = std::fs::read_to_string(&path).map_err(TrainError::io(&path))?;
            return Ok(serde_json::from_str(&text).map_err(|error| TrainError::Stage {
                path: path.clone(),
                what: error.to_string(),
            })?);
        }
        let value = compute()?;
        let text = serde_json::to_string_pretty(&value)
            .map_err(|error| TrainError::Stage { path: path.clone(), what: error.to_string() })?;
        write_atomic(&path, text.as_bytes())?;
        Ok(value)
    }

    /// The network that the stage `name` makes: from its file, or made and kept.
    ///
    /// # Errors
    /// Those of `make`; a file that cannot be read or written.
    pub fn network<E: From<TrainError>>(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<Network, E>,
    ) -> Result<Network, E> {
        let path = self.network_path(name);
        if path.exists() {
            return Ok(Network::load(&path).map_err(TrainError::from)?);
        }
        let network = make()?;
        network.save(&path).map_err(TrainError::from)?;
        Ok(network)
    }

    /// Where the network of the stage `name` is kept.
    pub fn network_path(&self, name: &str) -> PathBuf {
        self.dir.file(&format!("{name}.safetensors"))
    }

    /// Trains `model` as the stage `name`; a killed run goes on from the last epoch, a finished one is read back.
    ///
    /// # Errors
    /// As [`train_from`].
    pub fn train(
        &self,
        name: &str,
        mut model: Executor,
        teacher: Option<&Executor>,
        data: &TrainData,
        config: &TrainConfig,
    ) -> Result<Network, TrainError> {
        let checkpoint = self.dir.file(&format!("{name}.checkpoint"));
        let network = self.network(name, || {
            let mut record = self.dir.record(name);
            train_from(&mut model, teacher, data, config, &mut record, Some(&checkpoint))?;
            Ok::<_, TrainError>(model.network()?)
        })?;
        match std::fs::remove_file(&checkpoint) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(TrainError::io(&checkpoint)(error))
            }
            _ => Ok(network),
        }
    }

    /// Evaluates `network` on `set`, once: the result is kept under the stage `name`.
    ///
    /// # Errors
    /// As [`evaluate`].
    pub fn evaluate(
        &self,
        name: &str,
        network: &Network,
        set: &Arc<dyn Dataset>,
    ) -> Result<Evaluation, TrainError> {
        self.result(name, || evaluate(&self.executor(network)?, set, &EvalOptions::default()))
    }

    /// The network on this run's device.
    ///
    /// # Errors
    /// Where the device has no memory for it.
    pub fn executor(&self, network: &Network) -> Result<Executor, TrainError> {
        Ok(Executor::new(network, self.device)?)
    }
}
