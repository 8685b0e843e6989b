//! Checkpoints: one file that a killed training run goes on from, to the same result as an uninterrupted one.

use std::collections::BTreeMap;
use std::path::Path;

use cp_net::Network;
use cp_torch::tch::Tensor;
use cp_torch::{Executor, array_from_tensor, tensor_from_f32};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::metrics::EpochMetrics;
use crate::optimizer::Optimizer;
use crate::record::write_atomic;

/// Key of the JSON in the file's metadata.
const KEY: &str = "polyad-checkpoint";

/// The state of a training run after a whole number of epochs, each with its figures `M`.
///
/// Arrays are named `model.…`, `optimizer.…` and `best.…`; everything else is JSON in the metadata of the safetensors file.
pub(crate) struct Checkpoint<M = EpochMetrics> {
    pub(crate) header: Header<M>,
    pub(crate) model: BTreeMap<String, Tensor>,
    pub(crate) optimizer: BTreeMap<String, Tensor>,
    /// The arrays of the best epoch so far, where the run keeps it.
    pub(crate) best: BTreeMap<String, Tensor>,
}

/// What a checkpoint says about its run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header<M = EpochMetrics> {
    /// The configuration of the run, which must be the same when it goes on.
    pub(crate) config: TrainConfig,
    /// The data that the run trains on: names and sizes.
    pub(crate) data: String,
    /// Names and shapes of the arrays that are trained.
    pub(crate) trainable: Vec<String>,
    /// Updates made so far.
    pub(crate) steps: i64,
    /// Metrics of the epochs done.
    pub(crate) history: Vec<M>,
}

impl<M> Header<M> {
    pub(crate) fn new(
        config: &TrainConfig,
        data: String,
        model: &Executor,
        optimizer: &Optimizer,
        history: Vec<M>,
    ) -> Self {
        let (config, trainable) = (config.clone(), described(model));
        Self { config, data, trainable, steps: optimizer.steps(), history }
    }
}

/// Names and shapes of the arrays of `model` that are trained: what has to agree for a checkpoint to fit.
pub(crate) fn described(model: &Executor) -> Vec<String> {
    let trained = model.trainable();
    trained.iter().map(|(name, _, tensor)| format!("{name} {:?}", tensor.size())).collect()
}

impl<M: Serialize + DeserializeOwned> Checkpoint<M> {
    /// The state as it is now, and the network of the best epoch.
    pub(crate) fn of(
        header: Header<M>,
        model: &Executor,
        optimizer: &Optimizer,
        best: Option<&Network>,
    ) -> Result<Self, TrainError> {
        let arrays = best.iter().flat_map(|network| network.params());
        Ok(Self {
            header,
            model: model
                .tensors()
                .map(|(name, _, tensor)| (name.to_owned(), tensor.shallow_clone()))
                .collect(),
            optimizer: optimizer.state(),
            best: arrays
                .map(|(name, array)| Ok((name.clone(), tensor_from_f32(array.view())?)))
                .collect::<Result<_, TrainError>>()?,
        })
    }

    /// Writes the checkpoint so that the file at `path` is at every moment either the old one or the new one, whole.
    pub(crate) fn save(&self, path: &Path) -> Result<(), TrainError> {
        let arrays: Vec<(String, Vec<usize>, Vec<u8>)> = self
            .model
            .iter()
            .map(|(name, tensor)| (format!("model.{name}"), tensor))
            .chain(
                self.optimizer.iter().map(|(name, tensor)| (format!("optimizer.{name}"), tensor)),
            )
            .chain(self.best.iter().map(|(name, tensor)| (format!("best.{name}"), tensor)))
            .map(|(name, tensor)| {
                let array = array_from_tensor(tensor)?;
                let bytes = array.iter().flat_map(|value| value.to_le_bytes()).collect();
                Ok((name, array.shape().to_vec(), bytes))
            })
            .collect::<Result<_, TrainError>>()?;
        let corrupt = |what: String| TrainError::Checkpoint { path: path.into(), what };
        let views = arrays
            .iter()
            .map(|(name, shape, bytes)| {
                Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?))
            })
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(|error| corrupt(error.to_string()))?;
        let header =
            serde_json::to_string(&self.header).map_err(|error| corrupt(error.to_string()))?;
        let bytes =
            serialize(views, Some(std::collections::HashMap::from([(KEY.to_owned(), header)])))
                .map_err(|error| corrupt(error.to_string()))?;
        write_atomic(path, &bytes)
    }

    /// Reads the checkpoint at `path`.
    pub(crate) fn load(path: &Path) -> Result<Self, TrainError> {
        let bytes = std::fs::read(path).map_err(TrainError::io(path))?;
        let corrupt = |what: String| TrainError::Checkpoint {
            path: path.into(),
            what: format!("not a checkpoint ({what})"),
        };
        let (_, metadata) =
            SafeTensors::read_metadata(&bytes).map_err(|error| corrupt(error.to_string()))?;
        let header = metadata
            .metadata()
            .as_ref()
            .and_then(|map| map.get(KEY))
            .ok_or_else(|| corrupt(format!("its metadata has no '{KEY}'")))?;
        let header = serde_json::from_str(header).map_err(|error| corrupt(error.to_string()))?;
        let arrays =
            SafeTensors::deserialize(&bytes).map_err(|error| corrupt(error.to_string()))?;
        let (mut model, mut optimizer, mut best) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (name, view) in arrays.iter() {
            let values: Vec<f32> = view
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect();
            let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
            let tensor = Tensor::f_from_slice(&values)?.f_reshape(&shape)?;
            if let Some(name) = name.strip_prefix("model.") {
                model.insert(name.to_owned(), tensor);
            } else if let Some(name) = name.strip_prefix("optimizer.") {
                optimizer.insert(name.to_owned(), tensor);
            } else if let Some(name) = name.strip_prefix("best.") {
                best.insert(name.to_owned(), tensor);
            }
        }
        Ok(Self { header, model, optimizer, best })
    }

    /// Puts the saved arrays into a network of the same architecture.
    pub(crate) fn restore_network(
        &self,
        network: &mut Network,
        path: &Path,
    ) -> Result<(), TrainError> {
        restore(&self.model, network, path)
    }

    /// Puts the arrays of the best epoch into a network of the same architecture.
    pub(crate) fn restore_best(
        &self,
        network: &mut Network,
        path: &Path,
    ) -> Result<(), TrainError> {
        restore(&self.best, network, path)
    }
}

fn restore(
    arrays: &BTreeMap<String, Tensor>,
    network: &mut Network,
    path: &Path,
) -> Result<(), TrainError> {
    for (name, tensor) in arrays {
        network.set_param(name, array_from_tensor(tensor)?).map_err(|error| {
            TrainError::Checkpoint { path: path.into(), what: error.to_string() }
        })?;
    }
    Ok(())
}
