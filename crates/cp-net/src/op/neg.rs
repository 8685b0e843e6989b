//! Negation.

use super::unary::unary;

unary! {
    /// −x.
    Neg = |x| -x
}
