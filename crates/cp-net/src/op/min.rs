//! Smallest value.

use super::broadcast::binary;

binary! {
    /// The smallest of all inputs at each position, broadcast against each other.
    Min = f64::min, inputs 2..=usize::MAX
}
