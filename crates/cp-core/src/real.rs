//! The number types: [`Real`], f32 and f64.

use ndarray::NdFloat;

mod sealed {
    /// Keeps [`Real`](super::Real) to the two types, and the linear algebra library out of its documentation.
    pub trait Sealed: faer::traits::RealField {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// The number type of a tensor: `f32` or `f64`. Sealed.
///
/// Tensors and factors are held in `T`, and the large matrix products run in `T`. Grams, small solves, norms and errors
/// are f64 for both types: the normal equations square the condition number, and f32 has no digits to lose there.
pub trait Real: sealed::Sealed + NdFloat {
    /// Default of [`Als::ridge`](crate::Als::ridge), relative to the mean diagonal entry of the normal matrix.
    ///
    /// It has to stay above the rounding noise of the right-hand side, so it is larger in f32.
    const DEFAULT_RIDGE: f64;

    /// Distance from 1 to the next larger number, as f64.
    const EPSILON: f64;

    /// Widens; exact.
    fn widen(self) -> f64;

    /// Rounds to nearest; ±∞ where `value` is out of range.
    fn narrow(value: f64) -> Self;
}

impl Real for f32 {
    const DEFAULT_RIDGE: f64 = 1e-7;
    const EPSILON: f64 = f32::EPSILON as f64;

    #[inline(always)]
    fn widen(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn narrow(value: f64) -> Self {
        value as f32
    }
}

impl Real for f64 {
    const DEFAULT_RIDGE: f64 = 1e-12;
    const EPSILON: f64 = f64::EPSILON;

    #[inline(always)]
    fn widen(self) -> f64 {
        self
    }

    #[inline(always)]
    fn narrow(value: f64) -> Self {
        value
    }
}
