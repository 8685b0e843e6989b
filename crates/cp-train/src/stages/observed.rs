//! A training that is looked at on its way, as a stage.

use std::path::Path;

use cp_net::Network;
use cp_torch::Executor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Stages;
use super::torch::{remove, training_key};
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::key::Key;
use crate::record::write_atomic;
use crate::train::train_observed;
use crate::train_data::TrainData;

/// What is looked at during a training: every `every` steps, by `look`, which is bound to what [`Observe`](crate::Observe) is.
pub struct Observation<'a, T> {
    /// Steps between two looks.
    pub every: usize,
    /// What `look` depends on beside the network, added to the key of the stage.
    pub of: &'a dyn Fn(Key) -> Result<Key, TrainError>,
    /// One look.
    pub look: &'a mut dyn FnMut(&Executor) -> Result<T, TrainError>,
}

impl Stages {
    /// [`Stages::train`] without a teacher, and what was seen on the way, each with the steps made until then. A killed run goes on from the
    /// last epoch and has seen the same in the end as an uninterrupted one.
    ///
    /// # Errors
    /// As [`Stages::train`]; those of [`Observation::look`]; where it is to look every 0 steps.
    pub fn train_observed<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        mut model: Executor,
        data: &TrainData,
        config: &TrainConfig,
        observation: Observation<'_, T>,
    ) -> Result<(Network, Vec<(usize, T)>), TrainError> {
        let Observation { every, of, look } = observation;
        if every == 0 {
            let (got, expected) = ("0".into(), "at least 1 step");
            return Err(TrainError::Config { option: "every", got, expected });
        }
        let key = of(training_key(name, &model, data, config)?.setting("every", &every))?;
        let (checkpoint, notes) = (self.path(&key, "checkpoint")?, self.path(&key, "observed")?);
        let found = self.network_and(&key, || {
            let mut seen: Vec<(usize, T)> = begun(&checkpoint, &notes)?;
            let mut first = true;
            let mut observe = |steps: usize, model: &Executor| {
                // What a killed run saw behind its last checkpoint is seen again.
                if std::mem::take(&mut first) {
                    seen.retain(|(before, _)| *before < steps);
                }
                if steps.is_multiple_of(every) {
                    seen.push((steps, look(model)?));
                    write(&notes, &seen)?;
                }
                Ok(())
            };
            let mut record = self.dir.record(name);
            let file = Some(checkpoint.as_path());
            train_observed(&mut model, None, data, config, &mut record, file, &mut observe)?;
            Ok::<_, TrainError>((model.network()?, seen))
        })?;
        remove(&checkpoint)?;
        remove(&notes)?;
        Ok(found)
    }
}

/// What a killed run has seen. Without its notes, its checkpoint is of no use: what was seen before it would be missing.
fn begun<T: Serialize + DeserializeOwned>(
    checkpoint: &Path,
    notes: &Path,
) -> Result<Vec<(usize, T)>, TrainError> {
    if notes.exists() {
        let text = std::fs::read(notes).map_err(TrainError::io(notes))?;
        return serde_json::from_slice(&text).map_err(|error| TrainError::Checkpoint {
            path: notes.into(),
            what: error.to_string(),
        });
    }
    remove(checkpoint)?;
    let none = Vec::new();
    write(notes, &none)?;
    Ok(none)
}

fn write<T: Serialize>(notes: &Path, seen: &[(usize, T)]) -> Result<(), TrainError> {
    let text = serde_json::to_string(seen)
        .map_err(|error| TrainError::Checkpoint { path: notes.into(), what: error.to_string() })?;
    write_atomic(notes, text.as_bytes())
}
