//! Logistic function.

use super::unary::unary;

unary! {
    /// 1 / (1 + e^−x).
    Sigmoid = |x| 1.0 / (1.0 + (-x).exp())
}
