//! Sigmoid-weighted linear unit, also called swish.

use super::unary::unary;

unary! {
    /// x / (1 + e^−x) (Elfwing, Uchibe & Doya 2018).
    Silu = |x| x / (1.0 + (-x).exp()), values -4.0..=4.0, effect Rectifies
}
