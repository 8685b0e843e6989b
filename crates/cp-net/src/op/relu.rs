//! Rectified linear unit.

use super::unary::unary;

unary! {
    /// max(x, 0).
    Relu = |x| x.max(0.0), effect Rectifies
}
