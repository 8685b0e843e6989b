//! Higher-order orthogonal iteration: [`Hooi`], and [`Tucker2`] for convolution kernels.

use std::ops::ControlFlow;

use ndarray::{Array2, ArrayViewD};

use super::hosvd::{columns, truncate};
use super::ranks::Ranks;
use super::{Parts, TuckerDecomposition, TuckerSolver, TuckerTensor, multiply, subspace};
use crate::error::CpError;
use crate::measure;
use crate::problem::{Problem, Stopwatch, check_option};
use crate::progress::{Progress, StopReason, iterate};
use crate::random::{self, Purpose};
use crate::real::Real;
use crate::tree::Dense;

/// The starting factors of [`Hooi`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TuckerInit {
    /// The sequentially truncated HOSVD ([`Hosvd`](super::Hosvd)).
    Hosvd,
    /// Orthonormalised standard normal columns.
    Random {
        /// Seed of the draw.
        seed: u64,
    },
    /// Given factors, for instance an earlier result; only the spaces that their columns span matter, and the core is not
    /// read.
    Factors(TuckerTensor<f64>),
}

/// Higher-order orthogonal iteration (HOOI): the Tucker model with given ranks that is nearest to the tensor.
///
/// Minimises ‖X − 𝒢 ×₀ U⁽⁰⁾ … ×_N₋₁ U⁽ᴺ⁻¹⁾‖ over orthonormal U⁽ⁿ⁾, which is the same as maximising ‖𝒢‖. A sweep replaces
/// each factor in turn by the leading Rₙ left singular vectors of the unfolding of X ×_{m≠n} U⁽ᵐ⁾ᵀ; the error never rises.
/// It is not convex: the answer is a stationary point, from the default start nearly always a good one.
///
/// # Ranks
/// One for each mode, or for each of [`Hooi::modes`]. A rank of 0 or above the size of its mode is an error; one above the
/// product of the others is lowered to that, which changes nothing about the model.
///
/// # Cost
/// Per sweep and mode, 2 ∏ Iₘ · max R operations for the products and a singular value decomposition of a matrix `[Iₙ, ∏_{m≠n} Rₘ]`.
///
/// ```
/// use cp_core::{Hooi, Hosvd, TuckerSolver};
/// use ndarray::Array;
///
/// let x = Array::from_shape_fn((7, 6, 5), |(i, j, k)| 1.0 / (1 + i + 2 * j + 3 * k) as f64).into_dyn();
/// let found = Hooi::new([2, 2, 2]).decompose(x.view())?;
/// let start = Hosvd::new([2, 2, 2]).decompose(x.view())?;
/// assert!(found.rel_error <= start.rel_error + 1e-12);
/// // The core has the norm of the model: its factors are orthonormal.
/// assert!((found.tucker.norm() - cp_core::norm(found.tucker.core.view())).abs() < 1e-12);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: De Lathauwer, De Moor & Vandewalle (2000), "On the best rank-1 and rank-(R₁, …, R_N) approximation of
/// higher-order tensors", SIAM J. Matrix Anal. Appl. 21, algorithm 4.2; Kolda & Bader (2009), figure 4.4.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Hooi {
    ranks: Ranks,
    max_iters: usize,
    tol: f64,
    init: TuckerInit,
}

/// Sweeps, unless [`Hooi::max_iters`] says otherwise.
const MAX_ITERS: usize = 100;
/// Change of the fit that ends a run, unless [`Hooi::tol`] says otherwise.
const TOL: f64 = 1e-8;

impl Hooi {
    /// HOOI for these ranks, one for each mode: 100 sweeps at most, tolerance 1e-8, from the ST-HOSVD.
    pub fn new(ranks: impl Into<Vec<usize>>) -> Self {
        let ranks = Ranks { modes: None, ranks: ranks.into() };
        Self { ranks, max_iters: MAX_ITERS, tol: TOL, init: TuckerInit::Hosvd }
    }

    /// The modes to compress; the ranks belong to them in this order, and the others get no factor. Default: all.
    pub fn modes(mut self, modes: impl Into<Vec<usize>>) -> Self {
        self.ranks.modes = Some(modes.into());
        self
    }

    /// Most sweeps; default 100. With 0 the start is returned.
    pub fn max_iters(mut self, sweeps: usize) -> Self {
        self.max_iters = sweeps;
        self
    }

    /// Stops when the fit changes by less than this between two sweeps; default 1e-8. With 0 there are exactly
    /// [`max_iters`](Self::max_iters) sweeps.
    pub fn tol(mut self, tol: f64) -> Self {
        self.tol = tol;
        self
    }

    /// Where to start; default [`TuckerInit::Hosvd`].
    pub fn init(mut self, init: TuckerInit) -> Self {
        self.init = init;
        self
    }

    /// The starting factors, `[Iₙ, Rₙ]` with orthonormal columns for each mode with a rank.
    fn start<T: Real>(
        &self,
        tensor: &Dense<'_, T>,
        ranks: &[Option<usize>],
    ) -> Result<Vec<Option<Vec<T>>>, CpError> {
        let shape = &tensor.shape;
        match &self.init {
            TuckerInit::Hosvd => {
                Ok(truncate(&tensor.data, shape, &mut |mode, _| ranks[mode])?.factors)
            }
            TuckerInit::Random { seed } => {
                let widest = ranks.iter().flatten().max().copied().unwrap_or(0);
                let drawn = random::factors(shape, widest, *seed, Purpose::TuckerStart);
                let factor = |(rank, drawn): (&Option<usize>, Array2<f64>)| {
                    rank.map(|rank| orthonormal(&drawn.slice(ndarray::s![.., ..rank]).to_owned()))
                        .transpose()
                };
                ranks.iter().zip(drawn).map(factor).collect()
            }
            TuckerInit::Factors(given) => {
                let (expected, got) = (shape.len(), given.factors.len());
                if expected != got {
                    return Err(CpError::FactorCount { expected, got });
                }
                let factor = |(mode, rank): (usize, &Option<usize>)| {
                    let Some(rank) = *rank else { return Ok(None) };
                    let expected = [shape[mode], rank];
                    // A mode without a factor stands for the identity.
                    let got = given.factors[mode]
                        .as_ref()
                        .map_or([shape[mode]; 2], |f| [f.nrows(), f.ncols()]);
                    let factor = given.factors[mode].as_ref().filter(|_| got == expected);
                    let factor = factor.ok_or(CpError::FactorShape { mode, expected, got })?;
                    if let Some(((i, r), &value)) =
                        factor.indexed_iter().find(|(_, x)| !x.is_finite())
                    {
                        let index = vec![mode, i, r];
                        return Err(CpError::NotFinite { what: "factor", index, value });
                    }
                    orthonormal(factor).map(Some)
                };
                ranks.iter().enumerate().map(factor).collect()
            }
        }
    }
}

/// An orthonormal basis of the columns.
fn orthonormal<T: Real>(factor: &Array2<f64>) -> Result<Vec<T>, CpError> {
    let (rows, rank) = factor.dim();
    let largest = factor.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    let scale = if largest > 0.0 { largest } else { 1.0 };
    let data: Vec<f64> = factor.iter().map(|x| x / scale).collect();
    Ok(subspace::of_matrix(&data, rows, rank, false)?.leading(rank))
}

impl<T: Real> TuckerSolver<T> for Hooi {
    fn name(&self) -> &'static str {
        "hooi"
    }

    fn decompose_with(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<TuckerDecomposition<T>, CpError> {
        let watch = Stopwatch::start();
        check_option("tol", self.tol)?;
        let problem = Problem::new(&tensor, 1)?;
        let ranks = self.ranks.resolve(&problem.tensor.shape)?;
        let mut factors = self.start(&problem.tensor, &ranks)?;
        let modes: Vec<(usize, usize)> =
            ranks.iter().enumerate().filter_map(|(n, rank)| Some((n, (*rank)?))).collect();
        let (trace, stop) = if problem.norm == 0.0 || modes.is_empty() {
            (Vec::new(), StopReason::Converged)
        } else {
            iterate(self.max_iters, self.tol, observe, &mut |_| {
                sweep(&problem, &modes, &mut factors).map(Into::into)
            })?
        };
        project(&problem, factors).finish(&problem, trace, stop, watch)
    }
}

/// Replaces the factor of each of `modes`, which come with their ranks, in turn; returns the relative error after it.
fn sweep<T: Real>(
    problem: &Problem<'_, T>,
    modes: &[(usize, usize)],
    factors: &mut [Option<Vec<T>>],
) -> Result<f64, CpError> {
    // ‖𝒢‖², known once the last factor is.
    let mut core = 0.0;
    for &(mode, rank) in modes {
        let (data, shape) = contract(&problem.tensor, factors, Some(mode));
        let basis = subspace::of_unfolding(&data, &shape, mode)?;
        factors[mode] = Some(basis.leading(rank));
        core = basis.s[..rank].iter().map(|s| s * s).sum();
    }
    // ‖X − X̂‖² = ‖X‖² − ‖𝒢‖², where that has digits left.
    let cheap = 1.0 - core / (problem.norm * problem.norm);
    Ok(measure::cheap_or_direct(cheap, 256.0 * T::EPSILON, || {
        project(problem, factors.to_vec()).rel_error(problem)
    }))
}

/// The best core for given factors, X ×₀ U⁽⁰⁾ᵀ ×₁ ….
fn project<T: Real>(problem: &Problem<'_, T>, factors: Vec<Option<Vec<T>>>) -> Parts<T> {
    let (core, ranks) = contract(&problem.tensor, &factors, None);
    Parts { core, ranks, factors }
}

/// X multiplied by the transposed factors of all modes but one, those first that shrink it most.
fn contract<T: Real>(
    tensor: &Dense<'_, T>,
    factors: &[Option<Vec<T>>],
    skip: Option<usize>,
) -> (Vec<T>, Vec<usize>) {
    let mut shape = tensor.shape.clone();
    let rank = |mode: usize| factors[mode].as_ref().map_or(0, |f| f.len() / tensor.shape[mode]);
    let mut modes: Vec<usize> =
        (0..shape.len()).filter(|&n| Some(n) != skip && factors[n].is_some()).collect();
    let share = |mode: usize| rank(mode) as f64 / tensor.shape[mode] as f64;
    modes.sort_by(|&m, &n| share(m).total_cmp(&share(n)));
    let mut data: Option<Vec<T>> = None;
    for mode in modes {
        let Some(factor) = &factors[mode] else { continue };
        let from = data.as_deref().unwrap_or(&tensor.data);
        data = Some(multiply(from, &mut shape, mode, columns(factor, rank(mode)).transpose()));
    }
    (data.unwrap_or_else(|| tensor.data.to_vec()), shape)
}

/// Tucker-2 of a convolution kernel: HOOI on modes 0 and 1, the output and the input channels.
///
/// Turns a kernel `[T, S, kh, kw]` into three layers: 1×1 S → R₁, kh×kw R₁ → R₀ and 1×1 R₀ → T, with S R₁ + R₀ R₁ kh kw +
/// R₀ T parameters. Takes any order ≥ 2; the modes from 2 on get no factor. [`tucker2_ranks`](crate::rank::tucker2_ranks)
/// proposes ranks.
///
/// ```
/// use cp_core::{Tucker2, TuckerSolver};
/// use ndarray::{ArrayD, IxDyn};
///
/// let kernel = ArrayD::from_shape_fn(IxDyn(&[16, 8, 3, 3]), |i| ((i[0] * 3 + i[1] * 5 + i[2] * 7 + i[3]) as f64).cos());
/// let found = Tucker2::new([2, 2]).decompose(kernel.view())?;
/// assert!(found.rel_error < 1e-9); // cos(a + b) has rank 2 between any two groups of indices
/// assert_eq!(found.tucker.core.shape(), [2, 2, 3, 3]);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: Kim et al. (2016), "Compression of deep convolutional neural networks for fast and low power mobile
/// applications", arXiv 1511.06530, §3.1.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Tucker2 {
    hooi: Hooi,
}

impl Tucker2 {
    /// Tucker-2 with R₀ output and R₁ input channels in between; ranks as for [`Hooi`].
    pub fn new([output, input]: [usize; 2]) -> Self {
        Self { hooi: Hooi::new([output, input]).modes([0, 1]) }
    }

    /// Most sweeps; default 100. With 0 the start is returned.
    pub fn max_iters(mut self, sweeps: usize) -> Self {
        self.hooi = self.hooi.max_iters(sweeps);
        self
    }

    /// Stops when the fit changes by less than this between two sweeps; default 1e-8.
    pub fn tol(mut self, tol: f64) -> Self {
        self.hooi = self.hooi.tol(tol);
        self
    }

    /// Where to start; default [`TuckerInit::Hosvd`].
    pub fn init(mut self, init: TuckerInit) -> Self {
        self.hooi = self.hooi.init(init);
        self
    }
}

impl<T: Real> TuckerSolver<T> for Tucker2 {
    fn name(&self) -> &'static str {
        "tucker2"
    }

    fn decompose_with(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<TuckerDecomposition<T>, CpError> {
        self.hooi.decompose_with(tensor, observe)
    }
}
