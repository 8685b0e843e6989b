//! [`Depthwise`]: one row of a convolution of every channel by itself.

use pulp::{Simd, WithSimd};

use super::activation::Clamp;
use super::{load, store};
use crate::block::{Block, LANES};

/// The window of a depthwise convolution, for one block of channels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window<'a> {
    /// `[kh · kw]`.
    pub(crate) weights: &'a [Block],
    pub(crate) bias: &'a Block,
    /// Taps along a row, kw.
    pub(crate) taps: usize,
    /// Distance of the windows along a row, in pixels.
    pub(crate) stride: usize,
    /// Distance of the taps along a row, in pixels.
    pub(crate) dilation: usize,
    pub(crate) clamp: Clamp,
}

/// Rows of output, each from kh rows of input that lie anywhere.
///
/// A tile of columns keeps its sums in registers; with 3 or 5 taps at distance 1, the compiler also keeps the pixels that neighboring windows
/// share.
pub(crate) struct Depthwise<'a> {
    pub(crate) window: Window<'a>,
    /// Rows with their padding.
    pub(crate) input: &'a [Block],
    /// Where the rows of each window start, `[rows · kh]`.
    pub(crate) starts: &'a [u32],
    /// `[rows, pitch]`, of which the first `width` of each row are made.
    pub(crate) output: &'a mut [Block],
    pub(crate) pitch: usize,
    pub(crate) width: usize,
}

impl WithSimd for Depthwise<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (self.window.taps, self.window.stride, self.window.dilation) {
            (3, 1, 1) => rows::<S, 3, 1>(simd, self),
            (3, 2, 1) => rows::<S, 3, 2>(simd, self),
            (5, 1, 1) => rows::<S, 5, 1>(simd, self),
            (_, 1, _) => rows::<S, 0, 1>(simd, self),
            _ => rows::<S, 0, 0>(simd, self),
        }
    }
}

/// With `K` taps at distance 1, or any at any for 0, and windows at distance `STEP`, or any for 0.
#[inline(always)]
fn rows<S: Simd, const K: usize, const STEP: usize>(simd: S, kernel: Depthwise<'_>) {
    let Depthwise { window, input, starts, output, pitch, width } = kernel;
    let height = window.weights.len() / window.taps;
    for (row, starts) in starts.chunks_exact(height).enumerate() {
        let made = &mut output[row * pitch..][..width];
        match S::F32_LANES {
            LANES => columns::<S, K, STEP, 8, 1>(simd, window, input, starts, made),
            8 => columns::<S, K, STEP, 4, 2>(simd, window, input, starts, made),
            _ => columns::<S, K, STEP, 2, 4>(simd, window, input, starts, made),
        }
    }
}

/// One row by tiles of `C` columns, then one by one.
#[inline(always)]
fn columns<S: Simd, const K: usize, const STEP: usize, const C: usize, const V: usize>(
    simd: S,
    window: Window<'_>,
    input: &[Block],
    starts: &[u32],
    output: &mut [Block],
) {
    let mut x = 0;
    while x + C <= output.len() {
        tile::<S, K, STEP, C, V>(simd, window, input, starts, x, &mut output[x..][..C]);
        x += C;
    }
    if C > 4 && x + 4 <= output.len() {
        tile::<S, K, STEP, 4, V>(simd, window, input, starts, x, &mut output[x..][..4]);
        x += 4;
    }
    while x < output.len() {
        tile::<S, K, STEP, 1, V>(simd, window, input, starts, x, &mut output[x..][..1]);
        x += 1;
    }
}

#[inline(always)]
fn tile<S: Simd, const K: usize, const STEP: usize, const C: usize, const V: usize>(
    simd: S,
    window: Window<'_>,
    input: &[Block],
    starts: &[u32],
    x: usize,
    output: &mut [Block],
) {
    let (taps, dilation) = if K == 0 { (window.taps, window.dilation) } else { (K, 1) };
    let stride = if STEP == 0 { window.stride } else { STEP };
    let mut sums = [[simd.splat_f32s(0.0); V]; C];
    for v in 0..V {
        let bias = load::<S>(window.bias, v);
        for sum in &mut sums {
            sum[v] = bias;
        }
    }
    let reach = (C - 1) * stride + (taps - 1) * dilation + 1;
    for (&start, weights) in starts.iter().zip(window.weights.chunks_exact(taps)) {
        let row = &input[start as usize + x * stride..][..reach];
        for k in 0..taps {
            let pixels = &row[k * dilation..][..(C - 1) * stride + 1];
            for v in 0..V {
                let w = load::<S>(&weights[k], v);
                for c in 0..C {
                    let pixel = load::<S>(&pixels[c * stride], v);
                    sums[c][v] = simd.mul_add_e_f32s(pixel, w, sums[c][v]);
                }
            }
        }
    }
    for c in 0..C {
        for v in 0..V {
            store::<S>(&mut output[c], v, window.clamp.apply(simd, sums[c][v]));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "sums of small whole numbers are exact")]

    use super::*;
    use crate::block::ZERO;
    use crate::level::Level;

    fn pixel(index: usize) -> Block {
        std::array::from_fn(|lane| ((index * 5 + lane) % 7) as f32 - 3.0)
    }

    /// Two rows of `width` windows, between NaN that must stay.
    fn check(
        level: Level,
        [height, taps]: [usize; 2],
        stride: usize,
        dilation: usize,
        width: usize,
    ) {
        let reach = (width - 1) * stride + (taps - 1) * dilation + 1;
        let input: Vec<Block> = (0..(height + 1) * reach).map(pixel).collect();
        let weights: Vec<Block> = (0..height * taps).map(|tap| pixel(tap + 2)).collect();
        let window = Window {
            weights: &weights,
            bias: &pixel(9),
            taps,
            stride,
            dilation,
            clamp: Clamp::Relu,
        };
        let starts: Vec<u32> = (0..2)
            .flat_map(|row| (0..height).map(move |tap| ((row + tap) * reach) as u32))
            .collect();
        let pitch = width + 3;
        let mut output = vec![[f32::NAN; LANES]; 2 * pitch];
        level.run(Depthwise {
            window,
            input: &input,
            starts: &starts,
            output: &mut output,
            pitch,
            width,
        });
        for (index, found) in output.iter().enumerate() {
            let (row, column) = (index / pitch, index % pitch);
            if column >= width {
                assert!(found.iter().all(|value| value.is_nan()), "{level}: wrote at {index}");
                continue;
            }
            let mut expected = ZERO;
            for (lane, expected) in expected.iter_mut().enumerate() {
                let mut sum = pixel(9)[lane];
                for y in 0..height {
                    for x in 0..taps {
                        let at = (row + y) * reach + column * stride + x * dilation;
                        sum += input[at][lane] * weights[y * taps + x][lane];
                    }
                }
                *expected = sum.max(0.0);
            }
            assert_eq!(
                found, &expected,
                "{level} {height}×{taps}, {stride}, {dilation}, {width}: {index}"
            );
        }
    }

    #[test]
    fn every_kind_of_row_at_every_level() {
        for level in Level::all() {
            for width in [1, 2, 4, 7, 8, 9, 13, 21] {
                for kernel in [[1, 1], [3, 3], [5, 5], [2, 4], [1, 9]] {
                    for (stride, dilation) in [(1, 1), (2, 1), (1, 2), (3, 2)] {
                        check(level, kernel, stride, dilation, width);
                    }
                }
            }
        }
    }
}
