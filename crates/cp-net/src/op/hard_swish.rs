//! Hard swish.

use super::unary::unary;

unary! {
    /// x · min(max(x / 6 + 1/2, 0), 1) (Howard et al. 2019).
    HardSwish = |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0), values -5.0..=5.0, effect Rectifies
}
