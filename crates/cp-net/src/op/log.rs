//! Natural logarithm.

use super::unary::unary;

unary! {
    /// ln x.
    Log = f64::ln, values 0.1..=2.0
}
