//! Reciprocal.

use super::unary::unary;

unary! {
    /// 1 / x.
    Reciprocal = f64::recip, values 0.2..=2.0
}
