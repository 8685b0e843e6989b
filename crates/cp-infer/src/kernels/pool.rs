//! [`Pool`]: the largest value or the mean of windows.

use pulp::{Simd, WithSimd};

use super::{load, store};
use crate::block::{Block, LANES, ZERO};

/// What becomes of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooling {
    Max,
    Mean,
}

/// A window along one axis, as far as it lies in the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) start: usize,
    pub(crate) count: usize,
    /// Distance of its values.
    pub(crate) step: usize,
    /// Values that a mean is over, which may count the padding.
    pub(crate) of: usize,
}

/// All windows of one map of one block.
pub(crate) struct Pool<'a> {
    pub(crate) pooling: Pooling,
    pub(crate) rows: &'a [Extent],
    pub(crate) columns: &'a [Extent],
    /// `[H, width]`.
    pub(crate) input: &'a [Block],
    pub(crate) width: usize,
    /// `[rows, columns]`.
    pub(crate) output: &'a mut [Block],
}

impl WithSimd for Pool<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.pooling {
            Pooling::Max => {
                let low = [f32::NEG_INFINITY; LANES];
                pool(simd, self, low, false, |a, b| simd.max_f32s(a, b));
            }
            Pooling::Mean => pool(simd, self, ZERO, true, |a, b| simd.add_f32s(a, b)),
        }
    }
}

#[inline(always)]
fn pool<S: Simd>(
    simd: S,
    pool: Pool<'_>,
    start: Block,
    mean: bool,
    join: impl Fn(S::f32s, S::f32s) -> S::f32s,
) {
    let mut made = pool.output.iter_mut();
    for row in pool.rows {
        for column in pool.columns {
            let Some(made) = made.next() else { return };
            let scale = simd.splat_f32s(1.0 / (row.of * column.of) as f32);
            for v in 0..LANES / S::F32_LANES {
                let mut value = load::<S>(&start, v);
                for y in 0..row.count {
                    let line = (row.start + y * row.step) * pool.width + column.start;
                    if column.step == 1 && column.count == 3 {
                        // The usual window; the compiler leaves the checks out.
                        if let [a, b, c] = &pool.input[line..line + 3] {
                            let ab = join(load::<S>(a, v), load::<S>(b, v));
                            value = join(value, join(ab, load::<S>(c, v)));
                        }
                        continue;
                    }
                    for x in 0..column.count {
                        value = join(value, load::<S>(&pool.input[line + x * column.step], v));
                    }
                }
                let value = if mean { simd.mul_f32s(value, scale) } else { value };
                store::<S>(made, v, value);
            }
        }
    }
}
