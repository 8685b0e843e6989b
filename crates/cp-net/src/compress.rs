//! Applying a [`RankPlan`]: all its layers decomposed and replaced.

use std::ops::ControlFlow;

use cp_core::{CpTensor, Solver, StopReason, Svd, truncated_svd};
use ndarray::Ix2;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cost::Totals;
use crate::error::NetError;
use crate::factorize::Form;
use crate::network::Network;
use crate::plan::{PlannedLayer, RankPlan};

/// Makes the CP solver for a rank and a layer. Called once per group of a layer, from several threads.
pub type SolverFactory<'a> = dyn Fn(usize, &str) -> Box<dyn Solver<f32>> + Sync + 'a;

/// What [`compress`] tells while it works; from several threads, the layers mixed.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Work on a layer has begun.
    Started {
        /// The layer.
        layer: &'a str,
        /// Its rank.
        rank: usize,
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
    pub rank: usize,
    /// ‖K − K̂‖ / ‖K‖ over all groups.
    pub rel_error: f64,
    /// Σ (norm of each rank-one term)² / ‖K‖²; above about 10 the terms cancel each other and fine-tuning suffers.
    pub component_energy: f64,
    /// Iterations of the solver, the most of any group; 0 for low-rank.
    pub iterations: usize,
    /// Why the solver of the last group stopped; `None` for low-rank.
    pub stop: Option<StopReason>,
    /// Cost of the layer before, for the network's own input shape.
    pub before: Totals,
    /// Cost of the layer after.
    pub after: Totals,
}

/// Decomposes the layers of `plan` in parallel and replaces them. The result does not depend on the number of threads.
///
/// Convolutions with a spatial extent are decomposed by the solver that `solver` makes, linear layers and 1×1 convolutions
/// by truncated SVD. Reports come in the order of the plan.
///
/// # Errors
/// As [`RankPlan::check`]; [`NetError::NotFinite`] for NaN or infinity in a kernel; [`NetError::Decompose`] where a solver
/// gives up. The network is unchanged then.
pub fn compress(
    net: &mut Network,
    plan: &RankPlan,
    solver: &SolverFactory<'_>,
    progress: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Vec<LayerReport>, NetError> {
    plan.check(&*net)?;
    for planned in &plan.layers {
        let count = net.kernel(&planned.name)?.iter().filter(|value| !value.is_finite()).count();
        if count > 0 {
            return Err(NetError::NotFinite { layer: planned.name.clone(), count });
        }
    }
    // Collected before looking for errors, so that the first layer's is reported, whichever thread was faster.
    let found: Vec<Result<Found, NetError>> =
        plan.layers.par_iter().map(|planned| decompose(net, planned, solver, progress)).collect();
    let found = found.into_iter().collect::<Result<Vec<Found>, NetError>>()?;

    let input = net.input().shape.clone();
    let before = net.cost(&input)?;
    let mut compressed = net.clone();
    for (planned, found) in plan.layers.iter().zip(&found) {
        match &found.factors {
            Factors::Cp(factors) => compressed.factorize(&planned.name, planned.form, factors)?,
            Factors::Svd(svds) => compressed.factorize_low_rank(&planned.name, svds)?,
        }
    }
    let after = compressed.cost(&input)?;
    let reports = plan.layers.iter().zip(found).map(|(planned, found)| {
        let name = &planned.name;
        let of =
            |cost: &crate::Cost| cost.layer(name).map_or_else(Totals::default, |layer| layer.cost);
        LayerReport {
            layer: name.clone(),
            form: planned.form,
            rank: planned.rank,
            rel_error: compressed
                .arch
                .factorized
                .get(name)
                .map_or(found.rel_error, |record| record.rel_error),
            component_energy: found.component_energy,
            iterations: found.iterations,
            stop: found.stop,
            before: of(&before),
            after: of(&after),
        }
    });
    let reports = reports.collect();
    *net = compressed;
    Ok(reports)
}

/// One decomposition per group.
enum Factors {
    Cp(Vec<CpTensor<f32>>),
    Svd(Vec<Svd<f32>>),
}

struct Found {
    factors: Factors,
    rel_error: f64,
    component_energy: f64,
    iterations: usize,
    stop: Option<StopReason>,
}

fn decompose(
    net: &Network,
    planned: &PlannedLayer,
    solver: &SolverFactory<'_>,
    progress: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Found, NetError> {
    let PlannedLayer { name: layer, form, rank, .. } = planned;
    let failed = |source| NetError::Decompose { layer: layer.clone(), source };
    progress(Event::Started { layer, rank: *rank });
    let tensors = net.tensors(layer, *form)?;
    // Sums over the groups of ‖K‖², ‖K − K̂‖² and Σ ‖term‖².
    let (mut total, mut residual, mut energy) = (0.0, 0.0, 0.0);
    let (mut iterations, mut stop) = (0, None);
    let (mut models, mut svds) = (Vec::new(), Vec::new());
    for (group, tensor) in tensors.iter().enumerate() {
        let square = cp_core::norm(tensor.view()).powi(2);
        total += square;
        if *form == Form::LowRank {
            let matrix =
                tensor.view().into_dimensionality::<Ix2>().map_err(|_| NetError::Factors {
                    layer: layer.clone(),
                    what: "order of the matrix",
                    expected: vec![2],
                    got: vec![tensor.ndim()],
                })?;
            let svd = truncated_svd(matrix, *rank).map_err(failed)?;
            let kept = svd.s.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>();
            energy += kept;
            residual += (square - kept).max(0.0);
            svds.push(svd);
        } else {
            let mut observe = |at: &cp_core::Progress| {
                let (iteration, rel_error) = (at.iteration, at.rel_error);
                progress(Event::Iteration { layer, group, iteration, rel_error });
                ControlFlow::Continue(())
            };
            let found =
                solver(*rank, layer).decompose_with(tensor.view(), &mut observe).map_err(failed)?;
            energy += found.component_energy * square;
            residual += found.rel_error.powi(2) * square;
            iterations = iterations.max(found.iterations());
            stop = Some(found.stop);
            models.push(found.cp);
        }
    }
    let rel_error = if residual == 0.0 { 0.0 } else { (residual / total).sqrt() };
    let component_energy = if energy == 0.0 { 0.0 } else { energy / total };
    progress(Event::Finished { layer, rel_error });
    let factors = if *form == Form::LowRank { Factors::Svd(svds) } else { Factors::Cp(models) };
    Ok(Found { factors, rel_error, component_energy, iterations, stop })
}
