//! [`Decomposer`]: how the kernel of a layer becomes a [`KernelModel`].

mod blocks;
mod parts;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;
use std::sync::Arc;

use cp_core::{
    Als, AlsQr, Auto, CpError, CpTensor, DataAwareAls, DataAwareTucker2, Decomposition, Epc, Init,
    InputStatistics, Nls, NonNegAls, PowerMethod, Progress, SampledAls, Solver, StopReason, Svd,
    TkdCpd, Tucker2, TuckerSolver, truncated_svd, weighted_rel_error, weighted_svd,
};
use cp_net::{Form, Rank};
use ndarray::{ArrayViewD, Ix2};
use serde::{Deserialize, Serialize};

use crate::model::KernelModel;
use crate::models::Models;

pub(crate) use parts::in_parts;

/// The CP solvers of cp-core, by the names that [`Solver::name`] has for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Alternating least squares by the normal equations: [`Als`].
    Als,
    /// Alternating least squares by QR: [`AlsQr`].
    AlsQr,
    /// The same with the pseudo-inverse: [`AlsQr::svd`].
    AlsQrSvd,
    /// Damped Gauss–Newton: [`Nls`].
    Nls,
    /// ALS, then NLS where it gains: [`Auto`].
    Auto,
    /// Tensor power method: [`PowerMethod`].
    Power,
    /// Non-negative factors: [`NonNegAls`].
    Nonneg,
    /// Sampled least squares: [`SampledAls`].
    SampledAls,
}

impl Method {
    /// All of them.
    pub const ALL: [Method; 8] = [
        Method::Als,
        Method::AlsQr,
        Method::AlsQrSvd,
        Method::Nls,
        Method::Auto,
        Method::Power,
        Method::Nonneg,
        Method::SampledAls,
    ];

    /// The name as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Method::Als => "als",
            Method::AlsQr => "als-qr",
            Method::AlsQrSvd => "als-qr-svd",
            Method::Nls => "nls",
            Method::Auto => "auto",
            Method::Power => "power",
            Method::Nonneg => "nonneg",
            Method::SampledAls => "sampled-als",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no method named '{0}'; there are: als, als-qr, als-qr-svd, nls, auto, power, nonneg, sampled-als"
)]
pub struct UnknownMethod(pub String);

impl FromStr for Method {
    type Err = UnknownMethod;

    fn from_str(name: &str) -> Result<Self, UnknownMethod> {
        Method::ALL
            .into_iter()
            .find(|method| method.name() == name)
            .ok_or_else(|| UnknownMethod(name.into()))
    }
}

/// Second moments of the inputs of layers, one per group, by the layers' names.
pub type LayerStatistics = BTreeMap<String, Vec<Arc<InputStatistics>>>;

/// How kernels are decomposed: which solver, for how long, from which seed.
///
/// CP forms and Jaderberg's first scheme, with a basis for every channel or for all, use [`method`](Decomposer::method); Tucker-2 its orthogonal
/// iteration; low-rank pairs the singular value decomposition, as do Jaderberg's second scheme, the decoupled form and `denton-svd`; `denton` greedy
/// terms. Clusters and colours are sought from starts of the seed. Where there are [`statistics`](Decomposer::statistics) of a layer's inputs, the change of the layer's
/// output is minimised in place of that of its kernel: ALS-Σ from the start that plain ALS gives, data-aware Tucker-2,
/// reduced-rank regression for pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct Decomposer {
    /// Solver of CP forms.
    pub method: Method,
    /// Most iterations of a solver.
    pub max_iters: usize,
    /// Change of the fit between iterations that ends a solver.
    pub tol: f64,
    /// Component energy above which [`Epc`] shrinks the terms at the price of a slightly larger error; `None` for never. With
    /// statistics this is done to the start, and ALS-Σ gets a ridge that keeps the energy down.
    pub max_energy: Option<f64>,
    /// Seed of random starts.
    pub seed: u64,
    /// Second moments of inputs.
    pub statistics: LayerStatistics,
    /// CP models to go on from, those of [`Profile::models`](crate::Profile::models): of the same kernels, so that what a plan promises is
    /// what it gives. Without them every decomposition starts at random.
    pub models: Models,
}

/// Relative ridge of ALS-Σ where energies are bounded: from a corrected start it keeps them between 1 and 3 on the layers of ResNet-20
/// (`cargo xtask curve`, docs/results/curve-resnet20).
const RIDGE: f64 = 1e-3;

/// [`Epc::tol`] of corrections: the energy has to come below about 10, not to its least, which takes several times as many cycles.
const CORRECTION: f64 = 3e-3;

/// Above this, terms cancel each other and fine-tuning suffers (Phan et al. 2020 see it from 10 to 100 on).
pub const MAX_ENERGY: f64 = 10.0;

impl Default for Decomposer {
    /// Plain ALS, 100 sweeps, tolerance 1e-8, corrected where the energy is above [`MAX_ENERGY`], seed 0, no statistics.
    fn default() -> Self {
        Self {
            method: Method::Als,
            max_iters: 100,
            tol: 1e-8,
            max_energy: Some(MAX_ENERGY),
            seed: 0,
            statistics: LayerStatistics::new(),
            models: Models::default(),
        }
    }
}

/// A model and what its solver says of it.
#[derive(Debug, Clone)]
pub struct Decomposed {
    /// The model.
    pub model: KernelModel,
    /// ‖K − K̂‖ / ‖K‖.
    pub rel_error: f64,
    /// ‖(K − K̂) Σ^½‖ / ‖KΣ^½‖, where there are statistics.
    pub weighted_error: Option<f64>,
    /// Σ (norm of each term)² / ‖K‖² of a CP model; of the others, whose parts are orthogonal, what is kept of ‖K‖².
    pub component_energy: f64,
    /// Iterations of the solver.
    pub iterations: usize,
    /// Why it stopped; `None` for closed forms.
    pub stop: Option<StopReason>,
}

impl Decomposer {
    /// Plain ALS with so many sweeps, and no correction: what most of the literature does.
    pub fn als(sweeps: usize, seed: u64) -> Self {
        Self { max_iters: sweeps, max_energy: None, seed, ..Self::default() }
    }

    /// The CP solver of a rank.
    pub fn solver(&self, rank: usize, init: Init) -> Box<dyn Solver<f32>> {
        let (iters, tol, seed) = (self.max_iters, self.tol, self.seed);
        match self.method {
            Method::Als => Box::new(Als::new(rank).max_iters(iters).tol(tol).init(init)),
            Method::AlsQr => Box::new(AlsQr::new(rank).max_iters(iters).tol(tol).init(init)),
            Method::AlsQrSvd => Box::new(AlsQr::svd(rank).max_iters(iters).tol(tol).init(init)),
            Method::Nls => Box::new(Nls::new(rank).max_iters(iters).tol(tol).init(init)),
            Method::Auto => {
                let auto = Auto::new(rank).max_iters(iters).tol(tol).init(init);
                Box::new(auto.max_energy(self.max_energy.unwrap_or(f64::INFINITY)))
            }
            Method::Power => Box::new(PowerMethod::new(rank).max_iters(iters).seed(seed)),
            Method::Nonneg => Box::new(NonNegAls::new(rank).max_iters(iters).tol(tol).init(init)),
            Method::SampledAls => {
                Box::new(SampledAls::new(rank).epochs(iters).tol(tol).seed(seed).init(init))
            }
        }
    }

    /// The model of `tensor`, one of [`Network::tensors`](cp_net::Network::tensors), in `form` at `rank`.
    ///
    /// # Errors
    /// What the solvers refuse: entries that are not finite, ranks that the tensor does not have, statistics of another size.
    pub fn decompose(
        &self,
        layer: &str,
        group: usize,
        tensor: ArrayViewD<'_, f32>,
        form: Form,
        rank: Rank,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Decomposed, CpError> {
        let statistics = self.statistics.get(layer).and_then(|groups| groups.get(group));
        match (form, rank, statistics) {
            (Form::LowRank, Rank::One(rank), statistics) => low_rank(tensor, rank, statistics),
            (Form::Tucker2, Rank::Two(ranks), None) => {
                let found = Tucker2::new(ranks).max_iters(self.max_iters).tol(self.tol);
                let found = found.decompose(tensor)?;
                let (rel_error, iterations) = (found.rel_error, found.iterations());
                Ok(Decomposed {
                    model: KernelModel::Tucker2(found.tucker),
                    rel_error,
                    weighted_error: None,
                    component_energy: kept(rel_error),
                    iterations,
                    stop: Some(found.stop),
                })
            }
            (Form::Tucker2, Rank::Two(ranks), Some(statistics)) => {
                let aware = DataAwareTucker2::new(ranks, Arc::clone(statistics));
                let found = aware.max_iters(self.max_iters).tol(self.tol);
                let found = found.decompose_with(tensor, observe)?;
                Ok(Decomposed {
                    model: KernelModel::Tucker2(found.tucker),
                    rel_error: found.rel_error,
                    weighted_error: Some(found.weighted_error),
                    component_energy: kept(found.rel_error),
                    iterations: found.trace.len(),
                    stop: Some(found.stop),
                })
            }
            (Form::TkdCpd, Rank::Three([out, input, rank]), statistics) => {
                let solver = self.solver(rank, Init::Random { seed: self.seed });
                let found = TkdCpd::new([out, input], solver).decompose_parts(tensor.view())?;
                let core = self.corrected(found.tucker.tucker.core.view(), found.core)?;
                let tucker = found.tucker.tucker;
                let expanded = tucker.expand(&core.cp)?;
                let rel_error = cp_core::rel_error(tensor.view(), &expanded);
                let weighted_error = match statistics {
                    Some(statistics) => Some(weighted_rel_error(tensor, &expanded, statistics)?),
                    None => None,
                };
                Ok(Decomposed {
                    rel_error,
                    weighted_error,
                    component_energy: core.component_energy * kept(found.tucker.rel_error),
                    iterations: core.iterations(),
                    stop: Some(core.stop),
                    model: KernelModel::TkdCpd { tucker, core: core.cp },
                })
            }
            (form, rank, statistics) if in_parts(form) => {
                self.in_parts(tensor, form, rank, statistics)
            }
            (_, rank, _) => {
                let got = rank.parts().len();
                let rank = rank.one().ok_or(CpError::RankCount { expected: 1, got })?;
                let known = self.models.up_to(layer, form, rank);
                let before = known.and_then(|groups| groups.get(group)).filter(|_| self.goes_on());
                let (found, weighted) = self.cp(layer, group, tensor, rank, before, observe)?;
                Ok(cp_found(found, weighted))
            }
        }
    }

    /// Whether the CP method can start from a model: the power method finds its terms one by one, wherever it is told to start.
    pub(crate) fn goes_on(&self) -> bool {
        self.method != Method::Power
    }

    /// A CP model, and its weighted error where there are statistics: from a random start, or from `before`, a model of another
    /// rank, with the terms that its residual asks for.
    pub(crate) fn cp(
        &self,
        layer: &str,
        group: usize,
        tensor: ArrayViewD<'_, f32>,
        rank: usize,
        before: Option<&CpTensor<f32>>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<(Decomposition<f32>, Option<f64>), CpError> {
        let statistics = self.statistics.get(layer).and_then(|groups| groups.get(group));
        let init = match before {
            None => Init::Random { seed: self.seed },
            Some(before) => {
                let seed = self.seed.wrapping_add(rank as u64);
                Init::Factors(cp_core::extend(tensor.view(), before, rank, seed)?)
            }
        };
        let Some(statistics) = statistics else {
            let plain = self.solver(rank, init).decompose_with(tensor.view(), observe)?;
            return Ok((self.corrected(tensor, plain)?, None));
        };
        // A random start is far from any minimum; plain ALS leads near one for less, and its correction to one of low energy. A
        // model of another rank is near already.
        let init = match before {
            None => {
                let plain = self.solver(rank, init).decompose_with(tensor.view(), observe)?;
                Init::Factors(self.corrected(tensor.view(), plain)?.cp.cast())
            }
            Some(_) => match init {
                Init::Factors(start) => Init::Factors(self.low_energy(tensor.view(), start)?),
                other => other,
            },
        };
        let mut aware = DataAwareAls::new(rank, Arc::clone(statistics))
            .max_iters(self.max_iters)
            .tol(self.tol)
            .init(init);
        if self.max_energy.is_some() {
            aware = aware.ridge(RIDGE);
        }
        let found = aware.decompose_with(tensor.view(), observe)?;
        let weighted = weighted_rel_error(tensor, &found.cp, statistics)?;
        Ok((found, Some(weighted)))
    }

    /// `start`, or where its energy is too high a model of about the same error with smaller terms.
    fn low_energy(
        &self,
        tensor: ArrayViewD<'_, f32>,
        start: CpTensor<f64>,
    ) -> Result<CpTensor<f64>, CpError> {
        let energy = start.component_energy(cp_core::norm(tensor.view()));
        if self.max_energy.is_none_or(|most| energy <= most) {
            return Ok(start);
        }
        let epc = Epc::new(start.rank()).tol(CORRECTION);
        let smaller = epc.correct(tensor, &start.cast(), &mut |_| ControlFlow::Continue(()))?;
        Ok(if smaller.component_energy < energy { smaller.cp.cast() } else { start })
    }

    /// `found`, or where its energy is too high the model with smaller terms.
    fn corrected(
        &self,
        tensor: ArrayViewD<'_, f32>,
        found: Decomposition<f32>,
    ) -> Result<Decomposition<f32>, CpError> {
        // Non-negative terms do not cancel each other, and would not stay non-negative.
        let high = self.max_energy.is_some_and(|most| found.component_energy > most);
        if !high || self.method == Method::Nonneg {
            return Ok(found);
        }
        let epc = Epc::new(found.cp.rank()).tol(CORRECTION);
        let smaller = epc.correct(tensor, &found.cp, &mut |_| ControlFlow::Continue(()))?;
        Ok(if smaller.component_energy < found.component_energy { smaller } else { found })
    }
}

fn cp_found(found: Decomposition<f32>, weighted_error: Option<f64>) -> Decomposed {
    Decomposed {
        rel_error: found.rel_error,
        weighted_error,
        component_energy: found.component_energy,
        iterations: found.iterations(),
        stop: Some(found.stop),
        model: KernelModel::Cp(found.cp),
    }
}

/// Share of ‖K‖² that an orthogonal projection with this relative error keeps.
fn kept(rel_error: f64) -> f64 {
    (1.0 - rel_error * rel_error).max(0.0)
}

/// The best pair of matrices for the kernel, or for the output where there are statistics.
fn low_rank(
    tensor: ArrayViewD<'_, f32>,
    rank: usize,
    statistics: Option<&Arc<InputStatistics>>,
) -> Result<Decomposed, CpError> {
    let shape = tensor.shape().to_vec();
    let matrix = tensor
        .view()
        .into_dimensionality::<Ix2>()
        .map_err(|_| CpError::FactorCount { expected: 2, got: shape.len() })?;
    let (svd, weighted_error): (Svd<f32>, Option<f64>) = match statistics {
        None => (truncated_svd(matrix, rank)?, None),
        Some(statistics) => {
            let (svd, weighted) = weighted_svd(matrix, rank, statistics)?;
            (svd, Some(weighted))
        }
    };
    let model = KernelModel::LowRank(svd);
    let rel_error = model.rel_error(tensor);
    let component_energy = kept(rel_error);
    Ok(Decomposed { model, rel_error, weighted_error, component_energy, iterations: 0, stop: None })
}
