//! How much the outputs of a model suffer from each of its layers alone, measured without labels.

use std::collections::BTreeMap;

use cp_net::Rank;
use cp_plan::{Decomposer, PlannedLayer, RankPlan};

use super::Host;
use crate::engine::{Subject, changes_on};
use crate::error::TrainError;
use crate::progress;
use crate::sensitivity::{ProbeRank, SensitivityOptions};

/// Most runs that outputs are compared on.
const RUNS: usize = 16;

impl Host {
    /// For every layer of `layers`, the squared relative change of the output that moves most per squared relative error of its kernel, by
    /// decomposing it alone: weights for [`Objective::SumOfSquares`](cp_plan::Objective).
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
        let input = &dense.architecture().input_shapes();
        let decomposer = Decomposer {
            max_iters: options.max_iters,
            seed: options.seed,
            ..Decomposer::default()
        };
        let folder =
            cp_net::TemporaryFolder::create().map_err(TrainError::io(std::env::temp_dir()))?;
        let path = folder.path().join("model.onnx");
        let bar = progress::bar(layers.len() as u64, "probe layers");
        let mut weights = BTreeMap::new();
        for name in layers {
            bar.set_message(name.clone());
            let Some(form) = options.form.suited_to(&dense.architecture().node(name)?.op) else {
                continue;
            };
            let (mut sum, mut count) = (0.0, 0);
            for rank in &options.ranks {
                let even = dense.breakeven(name, form, input)?.params;
                let rank = match rank {
                    ProbeRank::Rank(rank) => *rank,
                    ProbeRank::Share(share) => (share * even) as usize,
                };
                let rank = Rank::One(rank.clamp(1, (even as usize).max(1)));
                let planned = PlannedLayer { name: name.clone(), form, rank, why: String::new() };
                let plan = RankPlan { layers: vec![planned], dense: Vec::new() };
                let mut probed = dense.clone();
                let reports = cp_plan::compress(&mut probed, &plan, &decomposer, &|_| {})?;
                self.with_factors(self.model.clone(), &probed, std::slice::from_ref(name))?
                    .save(&path)?;
                let runs = (0..work.runs().min(RUNS)).map(|run| work.run(run));
                let subjects = [Subject::Model(&self.path), Subject::Model(&path)];
                let changes = changes_on(subjects[0], subjects[1], runs)?;
                let moved = changes.iter().map(|change| change.relative).fold(0.0, f64::max);
                let error = reports.first().map_or(0.0, |report| report.rel_error);
                sum += moved.powi(2) / error.powi(2).max(1e-6);
                count += 1;
            }
            weights.insert(name.clone(), sum / f64::from(count.max(1)));
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(weights)
    }
}
