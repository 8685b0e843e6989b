//! Exponential function.

use super::unary::unary;

unary! {
    /// eˣ.
    Exp = f64::exp
}
