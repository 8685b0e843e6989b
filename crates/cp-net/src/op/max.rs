//! Largest value.

use super::broadcast::binary;

binary! {
    /// The largest of all inputs at each position, broadcast against each other.
    Max = f64::max, inputs 2..=usize::MAX
}
