//! Layers timed by the whole model: those whose inputs have no known size, such as those in branches, cannot be timed alone.

use std::path::Path;

use cp_net::Network;

use super::Host;
use crate::engine::{Engine, Inputs, Subject};
use crate::error::TrainError;
use crate::progress;
use crate::timing::{Timing, TimingOptions};

impl Host {
    /// Those of `layers` with which alone, factorized as in `compressed`, the model is no faster than dense at one of the batches, each with its
    /// time relative to dense; all of them where they are no gain together.
    pub(crate) fn slower_layers(
        &self,
        compressed: &Network,
        layers: &[String],
        batches: &[usize],
        options: &TimingOptions,
    ) -> Result<Vec<(String, f64)>, TrainError> {
        let folder =
            cp_net::TemporaryFolder::create().map_err(TrainError::io(std::env::temp_dir()))?;
        let path = folder.path().join("model.onnx");
        let relative = |names: &[String]| -> Result<f64, TrainError> {
            self.with_factors(self.model.clone(), compressed, names)?.save(&path)?;
            let mut worst = 0.0_f64;
            for &batch in batches {
                let [dense, one] = self.beside(&path, batch, options)?;
                worst = worst.max(one.median / dense.median);
            }
            Ok(worst)
        };
        let bar = progress::bar(layers.len() as u64, "time layers in the whole");
        let (mut slower, mut faster) = (Vec::new(), Vec::new());
        for layer in layers {
            let time = relative(std::slice::from_ref(layer))?;
            match time < 1.0 {
                true => faster.push(layer.clone()),
                false => slower.push((layer.clone(), time)),
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        if !faster.is_empty() {
            let time = relative(&faster)?;
            if time >= 1.0 {
                slower.extend(faster.into_iter().map(|layer| (layer, time)));
            }
        }
        Ok(slower)
    }

    /// Times of a pass of this model and of the one in `other`, in turn.
    fn beside(
        &self,
        other: &Path,
        batch: usize,
        options: &TimingOptions,
    ) -> Result<[Timing; 2], TrainError> {
        let shapes = Engine::model_shapes(&self.path, &self.given)?;
        let subjects = [Subject::Model(&self.path), Subject::Model(other)];
        let time = |batch| {
            let inputs = Inputs { shapes: shapes.clone(), batch };
            Engine::OnnxRuntime.latency(&subjects, &inputs, options)
        };
        let found = match time(batch) {
            Err(TrainError::FixedBatch { .. }) => time(1)?,
            found => found?,
        };
        Ok([found[0], found[1]])
    }
}
