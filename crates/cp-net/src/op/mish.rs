//! Mish.

use super::unary::unary;

unary! {
    /// x · tanh(log(1 + e^x)) (Misra 2019).
    Mish = |x| x * (x.max(0.0) + (-x.abs()).exp().ln_1p()).tanh(), values -4.0..=4.0, effect Rectifies
}
