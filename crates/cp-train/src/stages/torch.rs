//! The steps that run in libtorch.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use cp_data::Dataset;
use cp_net::Network;
use cp_plan::LayerStatistics;
use cp_torch::Executor;

use super::Stages;
use crate::calibrate::{CalibrationOptions, calibrate};
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::evaluate::{EvalOptions, Evaluation, evaluate};
use crate::key::{Key, fingerprint};
use crate::sensitivity::{Sensitivity, SensitivityOptions, sensitivity};
use crate::statistics::{StatisticsOptions, input_statistics};
use crate::train::train_from;
use crate::train_data::TrainData;

impl Stages {
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
        let mut key = training_key(name, &model, data, config)?;
        if let Some(teacher) = teacher {
            key = key.setting("teacher", &fingerprint(&teacher.network()?));
        }
        let checkpoint = self.path(&key, "checkpoint")?;
        let network = self.network(&key, || {
            let mut record = self.dir.record(name);
            train_from(&mut model, teacher, data, config, &mut record, Some(&checkpoint))?;
            Ok::<_, TrainError>(model.network()?)
        })?;
        remove(&checkpoint)?;
        Ok(network)
    }

    /// The network on this run's device.
    ///
    /// # Errors
    /// Where the device has no memory for it.
    pub fn executor(&self, network: &Network) -> Result<Executor, TrainError> {
        Ok(Executor::new(network, self.device.into())?)
    }

    /// `network` fine-tuned as the stage `name`, the nodes `frozen` apart, from the labels and where `config` says so from `dense`.
    pub(crate) fn fine_tuned(
        &self,
        name: &str,
        network: &Network,
        frozen: &BTreeSet<String>,
        dense: &Network,
        data: &TrainData,
        config: &TrainConfig,
    ) -> Result<Network, TrainError> {
        let mut model = self.executor(network)?;
        model.freeze(|node| frozen.contains(node));
        if model.trainable().is_empty() {
            return Err(TrainError::Config {
                option: "frozen_parts",
                got: "all that could be trained".into(),
                expected: "at least one part that is trained",
            });
        }
        let teacher = match config.distill {
            Some(_) => Some(self.executor(dense)?),
            None => None,
        };
        self.train(name, model, teacher.as_ref(), data, config)
    }

    /// `network` with the statistics of its batch normalizations measured anew.
    pub(crate) fn calibrated(
        &self,
        network: &Network,
        data: &Arc<dyn Dataset>,
        options: &CalibrationOptions,
    ) -> Result<Network, TrainError> {
        let mut model = self.executor(network)?;
        calibrate(&mut model, data, options)?;
        Ok(model.network()?)
    }

    /// `network` on all of `set`.
    pub(super) fn evaluated(
        &self,
        network: &Network,
        set: &Arc<dyn Dataset>,
    ) -> Result<Evaluation, TrainError> {
        evaluate(&self.executor(network)?, set, &EvalOptions::default())
    }

    /// Second moments of the inputs of `layers`.
    pub(crate) fn input_statistics(
        &self,
        network: &Network,
        layers: &[String],
        data: &Arc<dyn Dataset>,
        options: &StatisticsOptions,
    ) -> Result<LayerStatistics, TrainError> {
        input_statistics(&self.executor(network)?, layers, data, options, 2)
    }

    /// How much `network` suffers from each of its layers alone; what is found is kept as `key` says.
    pub(crate) fn sensitivity(
        &self,
        key: &Key,
        network: &Network,
        data: &TrainData,
        options: &SensitivityOptions,
    ) -> Result<Sensitivity, TrainError> {
        let cache = self.path(key, "jsonl")?;
        sensitivity(network, data, options, self.device, Some(&cache))
    }
}

/// What goes into the training of `model`, a teacher apart.
pub(super) fn training_key(
    name: &str,
    model: &Executor,
    data: &TrainData,
    config: &TrainConfig,
) -> Result<Key, TrainError> {
    // The number of workers changes nothing in the result.
    let settings = TrainConfig { workers: 0, ..config.clone() };
    let trained: Vec<String> =
        model.trainable().into_iter().map(|(name, ..)| name.to_owned()).collect();
    let key = Key::new(name, 1)
        .setting("trained", &trained)
        .network("network", &model.network()?)
        .setting("fine_tune", &settings)
        .data("train", &*data.train)?;
    match &data.validation {
        Some(set) => key.data("validation", &**set),
        None => Ok(key),
    }
}

/// Removes the file, where it is there.
pub(super) fn remove(path: &Path) -> Result<(), TrainError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(TrainError::io(path)(error))
        }
        _ => Ok(()),
    }
}
