//! Softplus.

use super::unary::unary;

unary! {
    /// log(1 + e^x).
    Softplus = |x| x.max(0.0) + (-x.abs()).exp().ln_1p(), values -4.0..=4.0
}
