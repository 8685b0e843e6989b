//! Identity.

use super::unary::unary;

unary! {
    /// x as it is.
    Identity = |x| x, effect Passes
}
