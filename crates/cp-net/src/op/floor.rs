//! Rounding down.

use super::unary::unary;

unary! {
    /// ⌊x⌋, the largest whole number that is not above x.
    Floor = f64::floor, values -3.0..=3.0
}
