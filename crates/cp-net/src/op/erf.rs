//! Error function.

use super::unary::unary;

unary! {
    /// erf x = 2/√π ∫₀ˣ exp(−t²) dt.
    Erf = libm::erf, values -3.0..=3.0
}
