//! Product.

use super::broadcast::binary;

binary! {
    /// a · b, broadcast against each other.
    Mul = |a, b| a * b
}
