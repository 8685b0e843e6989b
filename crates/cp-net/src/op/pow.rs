//! Power.

use super::broadcast::binary;

binary! {
    /// aᵇ, broadcast against each other.
    Pow = f64::powf, values 0.1..=2.0
}
