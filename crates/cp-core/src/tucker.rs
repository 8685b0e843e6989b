//! The Tucker form ⟦𝒢; U⁽⁰⁾, …, U⁽ᴺ⁻¹⁾⟧: [`TuckerTensor`], and what its solvers share.

mod hooi;
mod hosvd;
mod mode_product;
mod ranks;
pub(crate) mod subspace;

use std::ops::ControlFlow;

use ndarray::{Array2, ArrayD, ArrayViewD, IxDyn};

use crate::cp_tensor::CpTensor;
use crate::error::CpError;
use crate::linalg::{mat, mat_mut, product};
use crate::measure::{self, Scaled};
use crate::problem::{Problem, Stopwatch};
use crate::progress::{Progress, StopReason};
use crate::real::Real;
use crate::scale::{self, Scale};
use crate::tree::Dense;

pub use hooi::{Hooi, Tucker2, TuckerInit};
pub use hosvd::Hosvd;
pub(crate) use hosvd::{rank_within, truncate};
pub use mode_product::mode_product;
pub(crate) use mode_product::multiply;

/// A tensor as a smaller core multiplied by a matrix in some modes, X̂ = 𝒢 ×₀ U⁽⁰⁾ ×₁ U⁽¹⁾ …
///
/// A mode without a factor is not compressed: it stands in the core as it is, and no identity matrix is stored or multiplied.
/// Tucker-2 of a convolution kernel `[T, S, kh, kw]` has factors in modes 0 and 1 alone, and its three parts are the three
/// layers: U⁽¹⁾ᵀ a 1×1 convolution S → R₁, the core `[R₀, R₁, kh, kw]` a kh×kw convolution R₁ → R₀, U⁽⁰⁾ a 1×1 convolution
/// R₀ → T.
///
/// # Shapes
/// `core`: 𝒢, `[R₀, …, R_N₋₁]`; `factors[n]`: U⁽ⁿ⁾, `[Iₙ, Rₙ]`, or `None` where Rₙ = Iₙ.
///
/// Factors that a solver made have orthonormal columns; others need not. Methods panic where the fields do not fit
/// together; [`TuckerTensor::new`] checks that.
///
/// ```
/// use cp_core::{Tucker2, TuckerSolver};
/// use ndarray::{ArrayD, IxDyn};
///
/// // A kernel whose output channels come in multiples of two patterns and whose input channels are all alike.
/// let kernel = ArrayD::from_shape_fn(IxDyn(&[6, 5, 3, 3]), |i| (i[0] + 1) as f64 * (i[2] as f64 - 1.0) + (i[0] % 2 * i[3]) as f64);
/// let found = Tucker2::new([2, 1]).decompose(kernel.view())?;
/// assert!(found.rel_error < 1e-12);
/// assert_eq!(found.tucker.ranks(), [2, 1, 3, 3]);
/// assert!(found.tucker.factors[2].is_none());
/// assert_eq!(found.tucker.parameters(), 6 * 2 + 5 * 1 + 2 * 1 * 3 * 3);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: Tucker (1966); Kolda & Bader (2009), §4; Kim et al. (2016), arXiv 1511.06530, §3.1 for Tucker-2.
#[derive(Debug, Clone, PartialEq)]
pub struct TuckerTensor<T = f64> {
    /// 𝒢, `[R₀, …, R_N₋₁]`.
    pub core: ArrayD<T>,
    /// One entry for each mode: U⁽ⁿ⁾, `[Iₙ, Rₙ]`, or `None` for a mode that is not compressed.
    pub factors: Vec<Option<Array2<T>>>,
}

impl<T: Real> TuckerTensor<T> {
    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// Fewer than two modes, a mode of size 0, another number of factors than modes, a factor that does not fit the core,
    /// entries that are not finite.
    pub fn new(core: ArrayD<T>, factors: Vec<Option<Array2<T>>>) -> Result<Self, CpError> {
        let ranks = core.shape();
        if ranks.len() < 2 {
            return Err(CpError::Order { order: ranks.len() });
        }
        if factors.len() != ranks.len() {
            return Err(CpError::FactorCount { expected: ranks.len(), got: factors.len() });
        }
        let size = |(factor, &rank): (&Option<Array2<T>>, &usize)| {
            factor.as_ref().map_or(rank, |factor| factor.nrows())
        };
        let shape: Vec<usize> = factors.iter().zip(ranks).map(size).collect();
        let empty = |shape: &[usize]| shape.iter().position(|&size| size == 0);
        if let Some(mode) = empty(&shape).or(empty(ranks)) {
            return Err(CpError::EmptyMode { mode, shape });
        }
        for (mode, (factor, &rank)) in factors.iter().zip(ranks).enumerate() {
            let Some(factor) = factor else { continue };
            let got = [factor.nrows(), factor.ncols()];
            if got[1] != rank {
                return Err(CpError::FactorShape { mode, expected: [got[0], rank], got });
            }
            if let Some(((i, r), value)) = factor.indexed_iter().find(|(_, x)| !x.is_finite()) {
                let (index, value) = (vec![mode, i, r], value.widen());
                return Err(CpError::NotFinite { what: "factor", index, value });
            }
        }
        if let Some((index, value)) = core.indexed_iter().find(|(_, x)| !x.is_finite()) {
            let index = ndarray::Dimension::slice(&index).to_vec();
            return Err(CpError::NotFinite { what: "core", index, value: value.widen() });
        }
        Ok(Self { core, factors })
    }

    /// Number of modes N.
    pub fn order(&self) -> usize {
        self.factors.len()
    }

    /// Shape of the tensor, `[I₀, …, I_N₋₁]`.
    pub fn shape(&self) -> Vec<usize> {
        let size = |(factor, &rank): (&Option<Array2<T>>, &usize)| {
            factor.as_ref().map_or(rank, |factor| factor.nrows())
        };
        self.factors.iter().zip(self.core.shape()).map(size).collect()
    }

    /// Shape of the core, `[R₀, …, R_N₋₁]`; Rₙ = Iₙ in modes that are not compressed.
    pub fn ranks(&self) -> Vec<usize> {
        self.core.shape().to_vec()
    }

    /// Number of entries of the core and of the factors there are: what a layer in this form stores.
    pub fn parameters(&self) -> usize {
        self.core.len() + self.factors.iter().flatten().map(|factor| factor.len()).sum::<usize>()
    }

    /// The full tensor X̂, `[I₀, …, I_N₋₁]`.
    ///
    /// # Panics
    /// If the fields do not fit together.
    #[track_caller]
    pub fn reconstruct(&self) -> ArrayD<T> {
        let mut data: Vec<T> = self.core.iter().copied().collect();
        let mut shape = self.ranks();
        let factors: Vec<Option<Vec<T>>> = self.flat_factors();
        for mode in self.by_growth() {
            let Some(factor) = &factors[mode] else { continue };
            let factor = mat(factor, factor.len() / shape[mode], shape[mode]);
            data = multiply(&data, &mut shape, mode, factor);
        }
        ArrayD::from_shape_vec(IxDyn(&shape), data)
            .expect("the product of the sizes is the number of entries")
    }

    /// ‖X̂‖ = √⟨𝒢 ×₀ U⁽⁰⁾ᵀU⁽⁰⁾ ×₁ …, 𝒢⟩, in f64; equal to ‖𝒢‖ where the factors are orthonormal.
    pub fn norm(&self) -> f64 {
        let exponent = scale::exponent(self.core.iter().fold(0.0, |m, x| x.widen().abs().max(m)));
        let down = Scale::new(-exponent);
        let core: Vec<f64> = self.core.iter().map(|x| down.of(x.widen())).collect();
        let mut shape = self.ranks();
        let mut data = core.clone();
        for (mode, factor) in self.factors.iter().enumerate() {
            let Some(factor) = factor else { continue };
            let gram = crate::linalg::gram(factor.view()).into_raw_vec_and_offset().0;
            data = multiply(&data, &mut shape, mode, mat(&gram, factor.ncols(), factor.ncols()));
        }
        let square: f64 = data.iter().zip(&core).map(|(x, y)| x * y).sum();
        Scale::new(exponent).of(square.max(0.0).sqrt())
    }

    /// Relative error ‖X − X̂‖ / ‖X‖ from the entries, in f64. X̂ is built in blocks of rows of mode 0; where that mode is
    /// compressed, the work space is R₀/I₀ of the tensor in f64, and otherwise all of it.
    ///
    /// 0 where both tensors are zero, ∞ where only X is.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn rel_error(&self, tensor: ArrayViewD<'_, T>) -> f64 {
        assert!(
            tensor.shape() == self.shape(),
            "a model of shape {:?} for a tensor of {:?}",
            self.shape(),
            tensor.shape()
        );
        self.scaled_rel_error(&Scaled::new(Dense::new(&tensor)))
    }

    /// The same for a tensor whose norm is known.
    fn scaled_rel_error(&self, tensor: &Scaled<'_, T>) -> f64 {
        let down = Scale::new(-tensor.exponent);
        measure::ratio(self.residual(&tensor.tensor, down), tensor.norm)
    }

    /// ‖Y − 2ᵏ X̂‖ for the scale 2ᵏ and a tensor Y.
    fn residual(&self, tensor: &Dense<'_, T>, scale: Scale) -> f64 {
        /// Entries of X̂ that are built at a time: 4 MB.
        const ENTRIES: usize = 1 << 19;
        let mut data: Vec<f64> = self.core.iter().map(|x| scale.of(x.widen())).collect();
        let mut shape = self.ranks();
        let widen = |factor: &Array2<T>| -> Vec<f64> { factor.iter().map(|x| x.widen()).collect() };
        for mode in self.by_growth().into_iter().filter(|&mode| mode != 0) {
            let Some(factor) = &self.factors[mode] else { continue };
            let (size, rank) = factor.dim();
            data = multiply(&data, &mut shape, mode, mat(&widen(factor), size, rank));
        }
        let columns: usize = shape[1..].iter().product();
        let Some(factor) = &self.factors[0] else {
            return measure::distance(&tensor.data, &data).sqrt();
        };
        let rank = factor.ncols();
        let rows = (ENTRIES / columns).max(1);
        let mut model = vec![0.0; (rows * columns).min(tensor.data.len())];
        let mut total = 0.0;
        for (left, entries) in
            widen(factor).chunks(rows * rank).zip(tensor.data.chunks(rows * columns))
        {
            let rows = left.len() / rank;
            let model = &mut model[..entries.len()];
            product(
                mat_mut(model, rows, columns),
                mat(left, rows, rank),
                mat(&data, rank, columns),
            );
            total += measure::distance(entries, model);
        }
        total.sqrt()
    }

    /// The CP model of the tensor that a CP model of the core stands for: A⁽ⁿ⁾ = U⁽ⁿ⁾ B⁽ⁿ⁾, normalised.
    ///
    /// With orthonormal factors norms and angles of the terms stay what they were.
    ///
    /// # Errors
    /// A model of another shape than the core.
    pub fn expand(&self, cp_of_core: &CpTensor<T>) -> Result<CpTensor<T>, CpError> {
        let (expected, got) = (self.order(), cp_of_core.order());
        if expected != got {
            return Err(CpError::FactorCount { expected, got });
        }
        let mut cp = cp_of_core.clone();
        for (mode, (inner, &rank)) in cp.factors.iter_mut().zip(self.core.shape()).enumerate() {
            let (expected, got) = ([rank, inner.ncols()], [inner.nrows(), inner.ncols()]);
            if expected != got {
                return Err(CpError::FactorShape { mode, expected, got });
            }
            if let Some(factor) = &self.factors[mode] {
                let (u, b) = (factor.mapv(T::widen), inner.mapv(T::widen));
                *inner = u.dot(&b).mapv(T::narrow);
            }
        }
        cp.normalize();
        Ok(cp)
    }

    /// The same model in another number type (rounded to nearest when narrowing).
    pub fn cast<U: Real>(&self) -> TuckerTensor<U> {
        let narrow = |x: T| U::narrow(x.widen());
        TuckerTensor {
            core: self.core.mapv(narrow),
            factors: self.factors.iter().map(|f| f.as_ref().map(|f| f.mapv(narrow))).collect(),
        }
    }

    /// The factors in row-major order.
    fn flat_factors(&self) -> Vec<Option<Vec<T>>> {
        let flat = |f: &Option<Array2<T>>| f.as_ref().map(|f| f.iter().copied().collect());
        self.factors.iter().map(flat).collect()
    }

    /// The modes, those first that grow least when they are multiplied back, so that the products before the last stay small.
    fn by_growth(&self) -> Vec<usize> {
        let growth = |mode: usize| {
            self.factors[mode].as_ref().map_or(1.0, |f| f.nrows() as f64 / f.ncols() as f64)
        };
        let mut modes: Vec<usize> = (0..self.order()).collect();
        modes.sort_by(|&m, &n| growth(m).total_cmp(&growth(n)));
        modes
    }
}

/// A Tucker model and how it came about.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TuckerDecomposition<T = f64> {
    /// The model: factors with orthonormal columns.
    pub tucker: TuckerTensor<T>,
    /// Relative error ‖X − X̂‖ / ‖X‖ of `tucker` as it is returned, from the entries; 0 for a tensor of zeros.
    pub rel_error: f64,
    /// Relative error after each iteration, as the observer saw it.
    pub trace: Vec<f64>,
    /// Why the solver stopped.
    pub stop: StopReason,
    /// Wall-clock time of the call, the error included, in seconds.
    pub seconds: f64,
}

impl<T> TuckerDecomposition<T> {
    /// Iterations done.
    pub fn iterations(&self) -> usize {
        self.trace.len()
    }

    /// 1 − `rel_error`.
    pub fn fit(&self) -> f64 {
        1.0 - self.rel_error
    }
}

/// A Tucker model of the scaled tensor of a `Problem`, in row-major pieces.
#[derive(Debug, Clone)]
pub(crate) struct Parts<T> {
    /// 𝒢, `[R₀, …]`.
    pub(crate) core: Vec<T>,
    /// `[R₀, …, R_N₋₁]`.
    pub(crate) ranks: Vec<usize>,
    /// `[Iₙ, Rₙ]` each.
    pub(crate) factors: Vec<Option<Vec<T>>>,
}

impl<T: Real> Parts<T> {
    /// The model of 2ᵏ times what the parts are a model of. `None` where the core leaves the range of `T`.
    pub(crate) fn model(self, exponent: i32) -> Option<TuckerTensor<T>> {
        let up = Scale::new(exponent);
        let core: Vec<T> = self.core.iter().map(|x| T::narrow(up.of(x.widen()))).collect();
        let finite = core.iter().all(|x| x.is_finite());
        let factor = |(factor, &rank): (Option<Vec<T>>, &usize)| {
            factor.map(|data| {
                Array2::from_shape_vec((data.len() / rank, rank), data)
                    .expect("whole rows of a factor")
            })
        };
        let factors = self.factors.into_iter().zip(&self.ranks).map(factor).collect();
        let core = ArrayD::from_shape_vec(IxDyn(&self.ranks), core)
            .expect("as many entries as the ranks say");
        finite.then_some(TuckerTensor { core, factors })
    }

    /// The result of a solver that ends with this model of 2⁻ᵏ X.
    fn finish(
        self,
        problem: &Problem<'_, T>,
        trace: Vec<f64>,
        stop: StopReason,
        watch: Stopwatch,
    ) -> Result<TuckerDecomposition<T>, CpError> {
        let range = CpError::Range { largest: problem.largest };
        let tucker = self.model(problem.exponent).ok_or(range)?;
        let rel_error = tucker.scaled_rel_error(problem);
        Ok(TuckerDecomposition { tucker, rel_error, trace, stop, seconds: watch.seconds() })
    }

    /// Relative error of the scaled tensor, from the entries.
    fn rel_error(self, problem: &Problem<'_, T>) -> f64 {
        self.model(0).map_or(f64::INFINITY, |tucker| {
            measure::ratio(tucker.residual(&problem.tensor, Scale::new(0)), problem.norm)
        })
    }
}

/// An algorithm that finds a Tucker model of a tensor; what [`Solver`](crate::Solver) is for CP models.
pub trait TuckerSolver<T: Real>: Send + Sync {
    /// Decomposes `tensor` and calls `observe` after each iteration; [`ControlFlow::Break`] stops with the model found so
    /// far ([`StopReason::Observer`]).
    ///
    /// # Shapes
    /// `tensor`: `[I₀, …, I_N₋₁]` with N ≥ 2, any memory layout (copied where it is not row-major).
    ///
    /// # Errors
    /// Entries or options that no model can be found for: see [`CpError`]. Not converging is no error.
    fn decompose_with(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<TuckerDecomposition<T>, CpError>;

    /// Decomposes `tensor`.
    ///
    /// # Errors
    /// As [`TuckerSolver::decompose_with`].
    fn decompose(&self, tensor: ArrayViewD<'_, T>) -> Result<TuckerDecomposition<T>, CpError> {
        self.decompose_with(tensor, &mut |_| ControlFlow::Continue(()))
    }

    /// The method's name as on the command line: `hooi`, …
    fn name(&self) -> &'static str;
}
