//! [`Clamp`]: what is done to a sum before it is stored.

use pulp::Simd;

/// The bounds between which values are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Clamp {
    /// As they are.
    None,
    /// At least 0.
    Relu,
    /// Between two numbers.
    Between(f32, f32),
}

impl Clamp {
    /// This, and the one behind it; `None` where no single one does both.
    pub(crate) fn then(self, next: Clamp) -> Option<Clamp> {
        match (self, next) {
            (Clamp::None, next) => Some(next),
            (before, Clamp::None) => Some(before),
            (Clamp::Relu, Clamp::Relu) => Some(Clamp::Relu),
            _ => None,
        }
    }

    /// Of every lane.
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(self, simd: S, value: S::f32s) -> S::f32s {
        match self {
            Clamp::None => value,
            Clamp::Relu => simd.max_f32s(value, simd.splat_f32s(0.0)),
            Clamp::Between(low, high) => {
                let value = simd.max_f32s(value, simd.splat_f32s(low));
                simd.min_f32s(value, simd.splat_f32s(high))
            }
        }
    }
}
