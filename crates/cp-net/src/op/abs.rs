//! Absolute value.

use super::unary::unary;

unary! {
    /// |x|.
    Abs = f64::abs
}
