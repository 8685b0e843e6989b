//! Difference.

use super::broadcast::binary;

binary! {
    /// a − b, broadcast against each other.
    Sub = |a, b| a - b
}
