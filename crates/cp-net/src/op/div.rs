//! Quotient.

use super::broadcast::binary;

binary! {
    /// a / b, broadcast against each other.
    Div = |a, b| a / b, values 0.2..=2.0
}
