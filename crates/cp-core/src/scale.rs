//! Scaling by powers of two: exact, and keeps squares of huge or tiny entries inside the range.

/// Multiplication by 2ᵏ in two steps, since 2ᵏ itself may be out of range.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale(f64, f64);

impl Scale {
    /// By 2ᵏ.
    pub(crate) fn new(k: i32) -> Self {
        let half = k / 2;
        Self(2f64.powi(half), 2f64.powi(k - half))
    }

    /// 2ᵏ `value`.
    #[inline(always)]
    pub(crate) fn of(self, value: f64) -> f64 {
        value * self.0 * self.1
    }
}

/// The exponent k with 2ᵏ ≤ `largest` < 2ᵏ⁺¹; 0 for 0.
pub(crate) fn exponent(largest: f64) -> i32 {
    if largest == 0.0 {
        return 0;
    }
    // Denormal numbers have no exponent of their own: lift them first.
    let (lifted, offset) =
        if largest < f64::MIN_POSITIVE { (largest * 2f64.powi(64), 64) } else { (largest, 0) };
    ((lifted.to_bits() >> 52) & 0x7ff) as i32 - 1023 - offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_bracket_the_value() {
        for value in
            [1.0, 1.5, 2.0, 0.3, 1e30, 1e-30, 1e300, f64::MAX, f64::MIN_POSITIVE, 5e-324, 1e-310]
        {
            let k = exponent(value);
            let scaled = Scale::new(-k).of(value);
            assert!((1.0..2.0).contains(&scaled), "{value:e} became {scaled}");
            assert_eq!(Scale::new(k).of(scaled).to_bits(), value.to_bits(), "{value:e}");
        }
        assert_eq!(exponent(0.0), 0);
    }
}
