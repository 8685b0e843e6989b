//! Applying a [`RankPlan`]: all its layers decomposed and replaced.

use std::ops::ControlFlow;

use cp_core::StopReason;
use cp_net::{Cost, Form, NetError, Network, Rank, Totals};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::decompose::Decomposer;
use crate::error::PlanError;
use crate::factorize::Factorize;
use crate::model::KernelModel;
use crate::plan::{PlannedLayer, RankPlan};

/// What [`compress`] tells while it works; from several threads, the layers mixed.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Work on a layer has begun.
    Started {
        /// The layer.
        layer: &'a str,
        /// Its rank.
        rank: Rank,
    },
    /// A solver has done an iteration (low-rank layers have none).
    Iteration {
        /// The layer.
        layer: &'a str,
        /// The group, from 0.
        group: usize,
        /// Iterations done, from 1.
        iteration: usize,
        /// ‖K − K̂‖ / ‖K‖ of the group.
        rel_error: f64,
    },
    /// A layer is decomposed.
    Finished {
        /// The layer.
        layer: &'a str,
        /// ‖K − K̂‖ / ‖K‖.
        rel_error: f64,
    },
}

/// What became of one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Name of the dense layer.
    pub layer: String,
    /// Its new form.
    pub form: Form,
    /// Its rank (of each group).
    pub rank: Rank,
    /// ‖K − K̂‖ / ‖K‖ over all groups.
    pub rel_error: f64,
    /// ‖(K − K̂) Σ^½‖ / ‖KΣ^½‖ in the metric of the layer's inputs, the largest of any group, where the decomposer had their
    /// statistics: the relative change of the layer's output.
    #[serde(default)]
    pub weighted_error: Option<f64>,
    /// Σ (norm of each rank-one term)² / ‖K‖²; above about 10 the terms cancel each other and fine-tuning suffers.
    pub component_energy: f64,
    /// Iterations of the solver, the most of any group; 0 for low-rank.
    pub iterations: usize,
    /// Why the solver of the last group stopped; `None` for low-rank.
    pub stop: Option<StopReason>,
    /// Cost of the layer (and those that share its kernel) before, for the network's own input shape.
    pub before: Totals,
    /// Cost of the layer after.
    pub after: Totals,
}

/// Decomposes the layers of `plan` in parallel and replaces them. The result does not depend on the number of threads.
///
/// Reports come in the order of the plan.
///
/// # Errors
/// As [`RankPlan::check`]; [`NetError::NotFinite`] for NaN or infinity in a kernel; [`PlanError::Decompose`] where a solver
/// gives up. The network is unchanged then.
pub fn compress(
    net: &mut Network,
    plan: &RankPlan,
    decomposer: &Decomposer,
    progress: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Vec<LayerReport>, PlanError> {
    // The whole rewriting of the graph, so that nothing is decomposed in vain.
    plan.preview(&*net)?;
    for planned in &plan.layers {
        let count = net.kernel(&planned.name)?.iter().filter(|value| !value.is_finite()).count();
        if count > 0 {
            return Err(NetError::NotFinite { layer: planned.name.clone(), count }.into());
        }
    }
    // Collected before looking for errors, so that the first layer's is reported, whichever thread was faster.
    let found: Vec<Result<Groups, PlanError>> = plan
        .layers
        .par_iter()
        .map(|planned| decompose(net, planned, decomposer, progress))
        .collect();
    let found = found.into_iter().collect::<Result<Vec<Groups>, PlanError>>()?;

    let input = net.architecture().input_shapes();
    let before = net.cost(&input)?;
    let mut compressed = net.clone();
    for (planned, found) in plan.layers.iter().zip(&found) {
        compressed.factorize_with(&planned.name, planned.form, &found.models)?;
    }
    let after = compressed.cost(&input)?;
    let mut reports = Vec::with_capacity(plan.layers.len());
    for (planned, found) in plan.layers.iter().zip(found) {
        let name = &planned.name;
        // All layers that share the kernel are replaced.
        let users = net.architecture().kernel_users(name)?;
        let of = |cost: &Cost| -> Totals {
            users.iter().filter_map(|user| cost.layer(&user.name)).map(|layer| layer.cost).sum()
        };
        reports.push(LayerReport {
            layer: name.clone(),
            form: planned.form,
            rank: planned.rank,
            rel_error: compressed
                .architecture()
                .factorized
                .get(name)
                .map_or(found.rel_error, |record| record.rel_error),
            weighted_error: found.weighted_error,
            component_energy: found.component_energy,
            iterations: found.iterations,
            stop: found.stop,
            before: of(&before),
            after: of(&after),
        });
    }
    *net = compressed;
    Ok(reports)
}

/// The models of all groups of a layer.
struct Groups {
    models: Vec<KernelModel>,
    rel_error: f64,
    weighted_error: Option<f64>,
    component_energy: f64,
    iterations: usize,
    stop: Option<StopReason>,
}

fn decompose(
    net: &Network,
    planned: &PlannedLayer,
    decomposer: &Decomposer,
    progress: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Groups, PlanError> {
    let PlannedLayer { name: layer, form, rank, .. } = planned;
    progress(Event::Started { layer, rank: *rank });
    // Sums over the groups of ‖K‖², ‖K − K̂‖² and Σ ‖term‖².
    let (mut total, mut residual, mut energy) = (0.0, 0.0, 0.0);
    let mut groups = Groups {
        models: Vec::new(),
        rel_error: 0.0,
        weighted_error: None,
        component_energy: 0.0,
        iterations: 0,
        stop: None,
    };
    let known_as = net.architecture().layer_of(net.node(layer)?);
    for (group, tensor) in net.tensors(layer, *form)?.iter().enumerate() {
        let mut observe = |at: &cp_core::Progress| {
            let (iteration, rel_error) = (at.iteration, at.rel_error);
            progress(Event::Iteration { layer, group, iteration, rel_error });
            ControlFlow::Continue(())
        };
        let found = decomposer
            .decompose(known_as, group, tensor.view(), *form, *rank, &mut observe)
            .map_err(|source| PlanError::Decompose { layer: layer.clone(), source })?;
        let square = cp_core::norm(tensor.view()).powi(2);
        total += square;
        energy += found.component_energy * square;
        residual += found.rel_error.powi(2) * square;
        groups.weighted_error = match (groups.weighted_error, found.weighted_error) {
            (Some(a), Some(b)) => Some(f64::max(a, b)),
            (a, b) => a.or(b),
        };
        groups.iterations = groups.iterations.max(found.iterations);
        groups.stop = found.stop;
        groups.models.push(found.model);
    }
    groups.rel_error = if residual == 0.0 { 0.0 } else { (residual / total).sqrt() };
    groups.component_energy = if energy == 0.0 { 0.0 } else { energy / total };
    progress(Event::Finished { layer, rel_error: groups.rel_error });
    Ok(groups)
}
