//! How much the outputs of a model suffer from each of its layers alone, measured without labels.

use std::collections::BTreeMap;

use cp_net::TemporaryFolder;

use super::Host;
use crate::engine::{Subject, changes_on};
use crate::error::TrainError;
use crate::progress;
use crate::sensitivity::{SensitivityOptions, means, per_squared_error};

/// Most runs that outputs are compared on.
const RUNS: usize = 16;

impl Host {
    /// For every layer of `layers`, the squared relative change of the output that moves most per squared relative error of its kernel, by
    /// decomposing it alone: weights for [`Objective::SumOfSquares`](cp_plan::Objective).
    ///
    /// # Errors
    /// Where there are no examples; a form with several ranks; what decomposition and ONNX Runtime refuse.
    pub(crate) fn sensitivities(
        &self,
        layers: &[String],
        options: &SensitivityOptions,
    ) -> Result<BTreeMap<String, f64>, TrainError> {
        let Some([work, _]) = &self.examples else {
            return Err(TrainError::Config {
                option: "plan.by",
                got: "no examples".into(),
                expected: "examples to measure on (--inputs)",
            });
        };
        let dense = &self.view.network;
        let planned = options.probes(dense.architecture(), layers)?;
        let folder = TemporaryFolder::create().map_err(TrainError::io(std::env::temp_dir()))?;
        let path = folder.path().join("model.onnx");
        let bar = progress::bar(planned.len() as u64, "probe layers");
        let mut weights = Vec::new();
        for planned in &planned {
            let name = &planned.name;
            bar.set_message(name.clone());
            let (probed, rel_error) = options.probed(dense, planned)?;
            self.with_factors(self.model.clone(), &probed, std::slice::from_ref(name))?
                .save(&path)?;
            let runs = (0..work.runs().min(RUNS)).map(|run| work.run(run));
            let changes = changes_on(Subject::Model(&self.path), Subject::Model(&path), runs)?;
            let moved = changes.iter().map(|change| change.relative).fold(0.0, f64::max);
            weights.push((name.as_str(), per_squared_error(moved.powi(2), rel_error)));
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(means(weights.into_iter()))
    }
}
