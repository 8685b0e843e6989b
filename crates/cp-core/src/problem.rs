//! The checks that all solvers make of tensors and options, and the scaling of tensors: [`Problem`].

use std::ops::Deref;
use std::time::Instant;

use ndarray::{Array1, ArrayView2, ArrayViewD};

use crate::cp_tensor::CpTensor;
use crate::error::CpError;
use crate::measure::Scaled;
use crate::real::Real;
use crate::scale::Scale;
use crate::tree::Dense;

/// A tensor that passed the checks that all solvers make.
pub(crate) struct Problem<'a, T: Real> {
    scaled: Scaled<'a, T>,
    pub(crate) started: Stopwatch,
}

/// The scaled tensor, its norm and exponent.
impl<'a, T: Real> Deref for Problem<'a, T> {
    type Target = Scaled<'a, T>;

    fn deref(&self) -> &Scaled<'a, T> {
        &self.scaled
    }
}

/// The crate's one look at the clock, for [`Decomposition::seconds`](crate::Decomposition::seconds); no result depends on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "the one place in this crate")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn seconds(self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

impl<'a, T: Real> Problem<'a, T> {
    /// Checks tensor and rank.
    pub(crate) fn new(tensor: &'a ArrayViewD<'_, T>, rank: usize) -> Result<Self, CpError> {
        let started = Stopwatch::start();
        let shape = tensor.shape().to_vec();
        if shape.len() < 2 {
            return Err(CpError::Order { order: shape.len() });
        }
        if let Some(mode) = shape.iter().position(|&size| size == 0) {
            return Err(CpError::EmptyMode { mode, shape });
        }
        if rank == 0 {
            return Err(CpError::RankZero);
        }
        let scaled = Scaled::new(Dense::new(tensor));
        // Squares of NaN are NaN, and those of infinities infinite, but those of large numbers may be too.
        if !(scaled.norm.is_finite() && scaled.largest.is_finite())
            && let Some((at, x)) = tensor.iter().enumerate().find(|(_, x)| !x.is_finite())
        {
            let (what, index, value) = ("tensor", index_of(at, &shape), x.widen());
            return Err(CpError::NotFinite { what, index, value });
        }
        reserve(&shape, rank)?;
        Ok(Self { scaled, started })
    }

    /// The model of X for a model of 2⁻ᵏ X with normalised factors.
    ///
    /// # Shapes
    /// `factors[n]`: `[Iₙ, R]`, row-major; `weights`: `[R]`.
    pub(crate) fn model(
        &self,
        factors: Vec<Vec<T>>,
        weights: &[f64],
    ) -> Result<CpTensor<T>, CpError> {
        let rank = weights.len();
        let up = Scale::new(self.exponent);
        let weights: Array1<T> = weights.iter().map(|&w| T::narrow(up.of(w))).collect();
        if weights.iter().any(|w| !w.is_finite()) {
            return Err(CpError::Range { largest: self.largest });
        }
        let factors = factors.iter().zip(&self.tensor.shape).map(|(data, &size)| {
            ArrayView2::from_shape((size, rank), data).expect("one row for each index").to_owned()
        });
        Ok(CpTensor { weights, factors: factors.collect() })
    }
}

/// The check of an option that has to be a finite number, at least 0; one that is not set passes.
pub(crate) fn check_option(
    option: &'static str,
    value: impl Into<Option<f64>>,
) -> Result<(), CpError> {
    let expected = "a finite number, at least 0";
    match value.into().filter(|value| !(value.is_finite() && *value >= 0.0)) {
        Some(value) => Err(CpError::InvalidOption { option, value, expected }),
        None => Ok(()),
    }
}

/// Index of the entry at a place in row-major order.
fn index_of(mut place: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (i, &size) in index.iter_mut().zip(shape).rev() {
        *i = place % size;
        place /= size;
    }
    index
}

/// Finds out whether the work space can be had, so that an absurd rank is an error and not an abort.
fn reserve(shape: &[usize], rank: usize) -> Result<(), CpError> {
    let split = crate::tree::split(shape);
    let group = |modes: &[usize]| modes.iter().product::<usize>() as u128;
    // A Gram per mode and two more of the size, two partial products and a Khatri–Rao product, factors and their copies.
    let grams = (shape.len() as u128 + 2).saturating_mul(rank as u128);
    let rows = grams.saturating_add(4 * (group(&shape[..split]) + group(&shape[split..])));
    let bytes = rows.saturating_mul(rank as u128).saturating_mul(size_of::<f64>() as u128);
    let refused = || CpError::OutOfMemory { rank, shape: shape.to_vec(), bytes };
    let len = usize::try_from(bytes).map_err(|_| refused())?;
    Vec::<u8>::new().try_reserve_exact(len).map_err(|_| refused())
}
