//! [`Each`], [`Pairs`] and [`Largest`]: functions of one value, sums and products of two, the largest of several.

use pulp::{Simd, WithSimd};

use super::activation::Clamp;
use super::{load, store};
use crate::block::{Block, LANES};

/// A function of one value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Function {
    Clamp(Clamp),
    /// 1 / (1 + e⁻ˣ).
    Sigmoid,
    /// x / (1 + e⁻ˣ).
    Silu,
    /// αx + β between 0 and 1.
    HardSigmoid {
        alpha: f32,
        beta: f32,
    },
    /// x · (x / 6 + 1/2 between 0 and 1).
    HardSwish,
    /// x, or so many times it where it is negative.
    LeakyRelu(f32),
}

/// output = function(input) of every lane.
pub(crate) struct Each<'a> {
    pub(crate) function: Function,
    pub(crate) input: &'a [Block],
    pub(crate) output: &'a mut [Block],
}

impl WithSimd for Each<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { function, input, output } = self;
        match function {
            Function::Clamp(clamp) => {
                for (x, y) in input.iter().zip(output) {
                    for v in 0..LANES / S::F32_LANES {
                        store::<S>(y, v, clamp.apply(simd, load::<S>(x, v)));
                    }
                }
            }
            Function::Sigmoid => each(input, output, |x| 1.0 / (1.0 + exp(-x))),
            Function::Silu => each(input, output, |x| x / (1.0 + exp(-x))),
            Function::HardSigmoid { alpha, beta } => {
                each(input, output, |x| (alpha * x + beta).clamp(0.0, 1.0));
            }
            Function::HardSwish => {
                each(input, output, |x| x * (x * (1.0 / 6.0) + 0.5).clamp(0.0, 1.0));
            }
            Function::LeakyRelu(slope) => {
                each(input, output, |x| if x > 0.0 { x } else { slope * x });
            }
        }
    }
}

/// Lane by lane, which the compiler makes vectors of.
#[inline(always)]
fn each(input: &[Block], output: &mut [Block], function: impl Fn(f32) -> f32) {
    for (x, y) in input.iter().zip(output) {
        for lane in 0..LANES {
            y[lane] = function(x[lane]);
        }
    }
}

/// eˣ = 2ⁿ · eʳ with n = round(x / ln 2), within 2 units in the last place; 0 or the largest power beyond what f32 holds.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// 1.5 · 2²³: a sum with it is rounded to a whole number, which stands in its lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first with so few digits that its multiples are exact (Cody & Waite 1980).
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.3, 88.3);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * HIGH - n * LOW;
    // Taylor's series: the next term is below 2⁻²⁴ for |r| ≤ ln 2 / 2.
    let series = 1.0 / 720.0 * r + 1.0 / 120.0;
    let series = series * r + 1.0 / 24.0;
    let series = series * r + 1.0 / 6.0;
    let series = series * r + 0.5;
    let series = series * r + 1.0;
    let series = series * r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    series * f32::from_bits(exponent << 23)
}

/// A function of two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pair {
    Sum,
    Product,
}

/// output = clamp(a ∘ b); b has as many blocks, or one that goes with all.
pub(crate) struct Pairs<'a> {
    pub(crate) pair: Pair,
    pub(crate) a: &'a [Block],
    pub(crate) b: &'a [Block],
    pub(crate) output: &'a mut [Block],
    pub(crate) clamp: Clamp,
}

impl WithSimd for Pairs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.pair {
            Pair::Sum => pairs(simd, self, |a, b| simd.add_f32s(a, b)),
            Pair::Product => pairs(simd, self, |a, b| simd.mul_f32s(a, b)),
        }
    }
}

#[inline(always)]
fn pairs<S: Simd>(simd: S, kernel: Pairs<'_>, function: impl Fn(S::f32s, S::f32s) -> S::f32s) {
    let Pairs { a, b, output, clamp, .. } = kernel;
    for (index, (a, y)) in a.iter().zip(output).enumerate() {
        let b = if b.len() == 1 { &b[0] } else { &b[index] };
        for v in 0..LANES / S::F32_LANES {
            let value = function(load::<S>(a, v), load::<S>(b, v));
            store::<S>(y, v, clamp.apply(simd, value));
        }
    }
}

/// The largest of the same pixel in `pieces` neighboring blocks.
pub(crate) struct Largest<'a> {
    pub(crate) pieces: usize,
    /// `[pieces, stride]`.
    pub(crate) input: &'a [Block],
    pub(crate) stride: usize,
    /// `[pixels]`.
    pub(crate) output: &'a mut [Block],
}

impl WithSimd for Largest<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { pieces, input, stride, output } = self;
        for (pixel, y) in output.iter_mut().enumerate() {
            for v in 0..LANES / S::F32_LANES {
                let mut largest = load::<S>(&input[pixel], v);
                for piece in 1..pieces {
                    let x = load::<S>(&input[piece * stride + pixel], v);
                    largest = simd.max_f32s(x, largest);
                }
                store::<S>(y, v, largest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials() {
        for step in -8_700..=8_830 {
            let x = step as f32 / 100.0;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / expected - 1.0).abs() < 3e-7, "{x}: {found}, not {expected}");
        }
        assert!(exp(-1e30) < 1e-37);
        assert!(exp(f32::INFINITY) > 1e38);
        assert!(exp(f32::NAN).is_nan());
    }
}
