//! Lossless compression before a CP decomposition: [`Precompressed`].

use std::fmt;
use std::ops::ControlFlow;

use ndarray::{Array2, ArrayViewD};

use crate::cp_tensor::CpTensor;
use crate::error::CpError;
use crate::init::Init;
use crate::problem::{Problem, Stopwatch};
use crate::progress::Progress;
use crate::real::Real;
use crate::solver::{Decomposition, Solver};
use crate::tucker::{Parts, rank_within, truncate};

/// A solver that works on a smaller tensor and loses nothing by it.
///
/// The fibers of a mode span a space of dimension at most ∏_{m≠n} Iₘ, and less where slices are linearly dependent. With an
/// orthonormal basis U⁽ⁿ⁾ of that space, X = Y ×ₙ U⁽ⁿ⁾, and ‖X − X̂‖ = ‖Y − Ŷ‖ for every model with A⁽ⁿ⁾ = U⁽ⁿ⁾ B⁽ⁿ⁾; no best
/// model needs a part outside of the space. So `solver` gets Y, its factors are multiplied back, and error, norms and angles
/// of the terms stay what they were.
///
/// # When
/// Where a mode is larger than the product of the others (a few long fibers, or the merged modes of a matrix), and where
/// channels are copies or sums of others. Trained kernels have full rank: there this costs one decomposition of each
/// unfolding, about Iₙ / R sweeps each, and changes nothing, for a mode is compressed only if a tenth of it goes. Modes
/// of size below 10 are left alone.
///
/// # Starts
/// A random or HOSVD start inside of `solver` draws for the compressed shape, so it is another start than without
/// compression. Given factors do not fit the compressed shape: use [`Precompressed::from_factors`], which projects them,
/// U⁽ⁿ⁾ᵀA⁽ⁿ⁾. What a given factor has outside of the space is dropped; it could only have added to the error.
///
/// ```
/// use cp_core::{Als, Precompressed, Solver};
/// use ndarray::Array;
///
/// // 500 slices, but only 3·2 = 6 directions.
/// let x = Array::from_shape_fn((500, 3, 2), |(i, j, k)| ((i * (j + 1)) as f64).cos() + ((i * k) as f64).sin()).into_dyn();
/// let plain = Als::new(4).max_iters(200).decompose(x.view())?;
/// let small = Precompressed::new(Als::new(4).max_iters(200)).decompose(x.view())?;
/// assert_eq!(small.cp.shape(), [500, 3, 2]);
/// assert!(small.rel_error < plain.rel_error + 0.05);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: Bro & Andersson (1998), "Improving the speed of multiway algorithms: part II: compression", Chemometr.
/// Intell. Lab. Syst. 42; Kolda & Bader (2009), §3.4 ("CANDELINC").
#[must_use]
pub struct Precompressed<S> {
    inner: Inner<S>,
    tol: f64,
}

/// Makes the solver for a start in the compressed space.
type Build<S> = Box<dyn Fn(Init) -> S + Send + Sync>;

enum Inner<S> {
    Solver(S),
    Start { start: CpTensor<f64>, build: Build<S> },
}

impl<S: fmt::Debug> fmt::Debug for Precompressed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Precompressed");
        match &self.inner {
            Inner::Solver(solver) => debug.field("solver", solver),
            Inner::Start { start, .. } => debug.field("start", start),
        };
        debug.field("tol", &self.tol).finish_non_exhaustive()
    }
}

/// Smallest mode that is looked at.
const SMALLEST: usize = 10;
/// Share of a mode's size that has to remain at most for the mode to be compressed.
const WORTH: f64 = 0.9;

impl<S> Precompressed<S> {
    /// `solver` on the compressed tensor. Its start has to be one that fits every shape.
    pub fn new(solver: S) -> Self {
        Self { inner: Inner::Solver(solver), tol: 0.0 }
    }

    /// The solver that `build` makes for a given start, which is first projected onto the compressed space: `build` gets an
    /// [`Init::Factors`] of the compressed shape.
    ///
    /// ```
    /// use cp_core::{Als, Init, Precompressed, Solver};
    /// use ndarray::Array;
    ///
    /// let x = Array::from_shape_fn((400, 4, 3), |(i, j, k)| ((i * (j + 1) + 7 * k) as f64).cos()).into_dyn();
    /// let first = Als::new(5).max_iters(10).decompose(x.view())?;
    /// let solver = Precompressed::from_factors(first.cp, |init| Als::new(5).max_iters(20).init(init));
    /// assert!(solver.decompose(x.view())?.rel_error < first.rel_error);
    /// # Ok::<(), cp_core::CpError>(())
    /// ```
    pub fn from_factors(
        start: CpTensor<f64>,
        build: impl Fn(Init) -> S + Send + Sync + 'static,
    ) -> Self {
        Self { inner: Inner::Start { start, build: Box::new(build) }, tol: 0.0 }
    }

    /// Relative error that compression may cost, 0 ≤ `tol` < 1; default 0, which drops rounding noise alone: singular values
    /// up to 16 ε max(1, √(Iₙ / ∏ Iₘ)) of the largest one. Errors of compression and of the model add up by squares.
    pub fn tol(mut self, tol: f64) -> Self {
        self.tol = tol;
        self
    }
}

impl<T: Real, S: Solver<T>> Solver<T> for Precompressed<S> {
    /// The name of the solver inside; `precompressed` where that is made from a start.
    fn name(&self) -> &'static str {
        match &self.inner {
            Inner::Solver(solver) => solver.name(),
            Inner::Start { .. } => "precompressed",
        }
    }

    fn decompose_with(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Decomposition<T>, CpError> {
        let watch = Stopwatch::start();
        if !(0.0..1.0).contains(&self.tol) {
            let (option, expected) = ("tol", "a number from 0 to below 1");
            return Err(CpError::InvalidOption { option, value: self.tol, expected });
        }
        let problem = Problem::new(&tensor, 1)?;
        let parts = compress(&problem, self.tol)?;
        if parts.factors.iter().all(Option::is_none) {
            drop((problem, parts));
            let mut found = match &self.inner {
                Inner::Solver(solver) => solver.decompose_with(tensor, observe),
                Inner::Start { start, build } => {
                    build(Init::Factors(start.clone())).decompose_with(tensor, observe)
                }
            }?;
            found.seconds = watch.seconds();
            return Ok(found);
        }
        let (exponent, largest) = (problem.exponent, problem.largest);
        drop(problem);
        let small = parts.model(exponent).ok_or(CpError::Range { largest })?;
        // What compression dropped, for the errors on the way: 0 unless a tolerance was set.
        let dropped = if self.tol > 0.0 { small.rel_error(tensor.view()).powi(2) } else { 0.0 };
        let both = |inside: f64| (dropped + (1.0 - dropped).max(0.0) * inside * inside).sqrt();
        let mut watched = |progress: &Progress| {
            observe(&Progress { rel_error: both(progress.rel_error), ..*progress })
        };
        let found = match &self.inner {
            Inner::Solver(solver) => solver.decompose_with(small.core.view(), &mut watched),
            Inner::Start { start, build } => {
                let start = project(start, &small.factors, tensor.shape())?;
                build(Init::Factors(start)).decompose_with(small.core.view(), &mut watched)
            }
        }?;
        let cp = small.expand(&found.cp)?;
        let trace = found.trace.iter().map(|&e| both(e)).collect();
        let mut found = Decomposition::new(tensor, cp, trace, found.stop, 0.0);
        found.seconds = watch.seconds();
        Ok(found)
    }
}

/// The tensor in the bases of the modes where that pays.
fn compress<T: Real>(problem: &Problem<'_, T>, tol: f64) -> Result<Parts<T>, CpError> {
    let shape = problem.tensor.shape.clone();
    let entries = problem.tensor.data.len() as f64;
    let modes = shape.iter().filter(|&&size| size >= SMALLEST).count().max(1);
    let share = (tol * problem.norm).powi(2) / modes as f64;
    truncate(&problem.tensor.data, &shape, &mut |mode, s| {
        let size = shape[mode];
        if size < SMALLEST || problem.norm == 0.0 {
            return None;
        }
        let Some(largest) = s.first() else { return Some(size) };
        let noise =
            16.0 * T::EPSILON * (size as f64 / (entries / size as f64)).sqrt().max(1.0) * largest;
        let rank = s.iter().take_while(|&&s| s > noise).count().max(1);
        let rank = rank.min(rank_within(s, share));
        (rank as f64 <= WORTH * size as f64).then_some(rank)
    })
}

/// U⁽ⁿ⁾ᵀA⁽ⁿ⁾ in the modes with a basis.
fn project<T: Real>(
    start: &CpTensor<f64>,
    bases: &[Option<Array2<T>>],
    shape: &[usize],
) -> Result<CpTensor<f64>, CpError> {
    if start.factors.len() != shape.len() {
        let (expected, got) = (shape.len(), start.factors.len());
        return Err(CpError::FactorCount { expected, got });
    }
    let mut factors = Vec::new();
    for (mode, (factor, basis)) in start.factors.iter().zip(bases).enumerate() {
        let got = [factor.nrows(), factor.ncols()];
        if got[0] != shape[mode] {
            return Err(CpError::FactorShape { mode, expected: [shape[mode], got[1]], got });
        }
        factors.push(match basis {
            Some(basis) => basis.mapv(T::widen).t().dot(factor),
            None => factor.clone(),
        });
    }
    CpTensor::new(start.weights.clone(), factors)
}
