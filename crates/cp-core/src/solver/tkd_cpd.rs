//! Tucker-2 followed by a CP model of its core: [`TkdCpd`].

use std::ops::ControlFlow;

use ndarray::ArrayViewD;

use super::{Decomposition, Solver};
use crate::error::CpError;
use crate::problem::Stopwatch;
use crate::progress::{Progress, StopReason};
use crate::real::Real;
use crate::tucker::{Tucker2, TuckerDecomposition, TuckerSolver};

/// TKD-CPD: Tucker-2 of a convolution kernel, then a CP model of the core.
///
/// The core `[R₀, R₁, kh, kw]` of [`Tucker2`] is smaller than the kernel `[T, S, kh, kw]`, so its CP model is found sooner
/// and with fewer parameters per term: R (R₀ + R₁ + kh + kw) + T R₀ + S R₁ in all. As layers: 1×1 S → R₁, 1×1 R₁ → R, the
/// spatial ones, 1×1 R → R₀, 1×1 R₀ → T.
///
/// Since the factors are orthonormal, errors add up by squares: ‖X − X̂‖² = ‖X − 𝒢 ×₀ U⁽⁰⁾ ×₁ U⁽¹⁾‖² + ‖𝒢 − 𝒢̂‖².
///
/// As a [`Solver`] it returns the CP model of the kernel, A⁽ⁿ⁾ = U⁽ⁿ⁾ B⁽ⁿ⁾, with four factors; [`TkdCpd::decompose_parts`]
/// gives the parts too. The rank and all other options of the CP model are those of `solver`, whose starting factors, where
/// they are given, must fit the core.
///
/// ```
/// use cp_core::{Als, Init, Solver, TkdCpd};
/// use ndarray::{ArrayD, IxDyn};
///
/// let kernel = ArrayD::from_shape_fn(IxDyn(&[16, 8, 3, 3]), |i| {
///     ((i[0] + i[1]) as f64).sin() * (1 + i[2]) as f64 + (i[0] * i[1] + i[3]) as f64
/// });
/// let found = TkdCpd::new([4, 4], Als::new(6).init(Init::Random { seed: 3 })).decompose_parts(kernel.view())?;
/// assert_eq!(found.tucker.tucker.core.shape(), [4, 4, 3, 3]);
/// assert_eq!(found.core.cp.shape(), [4, 4, 3, 3]);
/// assert_eq!(found.combined.cp.shape(), [16, 8, 3, 3]);
/// let sum = found.tucker.rel_error.powi(2) + (1.0 - found.tucker.rel_error.powi(2)) * found.core.rel_error.powi(2);
/// assert!((found.combined.rel_error - sum.sqrt()).abs() < 1e-8);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: Phan et al. (2020), arXiv 2008.05441, §4.2 ("TKD-CPD").
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct TkdCpd<S> {
    tucker: Tucker2,
    solver: S,
}

/// A Tucker-2 model, a CP model of its core, and both as one CP model.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TkdCpdDecomposition<T = f64> {
    /// Tucker-2 of the tensor.
    pub tucker: TuckerDecomposition<T>,
    /// The CP model of `tucker.tucker.core`; its relative error is one of the core.
    pub core: Decomposition<T>,
    /// The CP model of the tensor, measured against the tensor; the trace holds the relative error that both parts together
    /// have after each iteration of the CP model.
    pub combined: Decomposition<T>,
}

impl<T: Real> TkdCpdDecomposition<T> {
    /// Number of entries of the factors of both stages, T R₀ + S R₁ + R (R₀ + R₁ + kh + kw): what a layer in this form
    /// stores.
    pub fn parameters(&self) -> usize {
        let tucker = &self.tucker.tucker;
        tucker.parameters() - tucker.core.len() + self.core.cp.parameters()
    }
}

impl<S> TkdCpd<S> {
    /// Tucker-2 with ranks `[R₀, R₁]` for the output and the input channels, then `solver` on the core.
    pub fn new(ranks: [usize; 2], solver: S) -> Self {
        Self { tucker: Tucker2::new(ranks), solver }
    }

    /// The first stage, where other options than the default ones are wanted.
    pub fn tucker(mut self, tucker: Tucker2) -> Self {
        self.tucker = tucker;
        self
    }

    /// Decomposes `tensor` and returns all parts.
    ///
    /// # Errors
    /// As [`Solver::decompose_with`] and [`TuckerSolver::decompose_with`].
    pub fn decompose_parts<T: Real>(
        &self,
        tensor: ArrayViewD<'_, T>,
    ) -> Result<TkdCpdDecomposition<T>, CpError>
    where
        S: Solver<T>,
    {
        self.parts(tensor, &mut |_| ControlFlow::Continue(()))
    }

    fn parts<T: Real>(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<TkdCpdDecomposition<T>, CpError>
    where
        S: Solver<T>,
    {
        let watch = Stopwatch::start();
        let tucker = self.tucker.decompose(tensor.view())?;
        let outside = tucker.rel_error.powi(2).min(1.0);
        let both = |inside: f64| (outside + (1.0 - outside) * inside * inside).sqrt();
        let core = self.solver.decompose_with(tucker.tucker.core.view(), &mut |progress| {
            observe(&Progress { rel_error: both(progress.rel_error), ..*progress })
        })?;
        let cp = tucker.tucker.expand(&core.cp)?;
        let trace = core.trace.iter().map(|&e| both(e)).collect();
        // Both have to have converged.
        let stop = if core.stop == StopReason::Converged { tucker.stop } else { core.stop };
        let mut combined = Decomposition::new(tensor, cp, trace, stop, 0.0);
        combined.seconds = watch.seconds();
        Ok(TkdCpdDecomposition { tucker, core, combined })
    }
}

impl<T: Real, S: Solver<T>> Solver<T> for TkdCpd<S> {
    fn name(&self) -> &'static str {
        "tkd-cpd"
    }

    fn decompose_with(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Decomposition<T>, CpError> {
        Ok(self.parts(tensor, observe)?.combined)
    }
}
