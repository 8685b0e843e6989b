//! Square root.

use super::unary::unary;

unary! {
    /// √x.
    Sqrt = f64::sqrt, values 0.1..=2.0
}
