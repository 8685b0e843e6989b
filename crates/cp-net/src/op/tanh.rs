//! Hyperbolic tangent.

use super::unary::unary;

unary! {
    /// tanh(x).
    Tanh = f64::tanh
}
