//! [`Tile`]: the sums of a few pixels times a few vectors of output channels, in registers from the bias to the store.

use pulp::{Simd, WithSimd};

use super::product::{Packed, Panel, Product, Sink};
use super::target::Target;
use super::{load, store};
use crate::block::{Block, LANES};

/// G × C pixels times V vectors of output channels.
///
/// Every input channel costs V loads of weights and a broadcast for each pixel. The pixels come in G runs of C neighbors; the address of a
/// run is a register, so that C is as large as a map is wide, or 1 where pixels lie anywhere.
pub(super) struct Tile<'a, 'b, const G: usize, const C: usize, const V: usize> {
    pub(super) product: &'a Product<'a>,
    pub(super) panel: &'a Panel,
    /// Where the runs start in the input, `[G]`.
    pub(super) inputs: &'a [u32],
    /// Where they start in the output, `[G]`.
    pub(super) outputs: &'a [u32],
    pub(super) output: &'a mut Target<'b>,
}

impl<const G: usize, const C: usize, const V: usize> WithSimd for Tile<'_, '_, G, C, V> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { product, panel, inputs, outputs, output } = self;
        let packed = product.packed;
        let vectors = LANES / S::F32_LANES;
        let blocks = V / vectors;

        let mut sums = [bias::<S, C, V>(simd, packed, panel); G];

        let starts: &[u32] = &inputs[..G];
        let mut weights = &packed.weights[panel.weights.clone()];
        for term in &packed.terms[panel.terms.clone()] {
            let at = product.input_start
                + term.block as usize * product.input_stride
                + term.offset as usize;
            let mut runs: [&[Block; C]; G] = [&[[0.0; LANES]; C]; G];
            for g in 0..G {
                // The slice has the length that it is made for; the compiler sees it and leaves the panic out.
                if let Ok(run) = product.input[at + starts[g] as usize..][..C].try_into() {
                    runs[g] = run;
                }
            }
            let (first, end) = (usize::from(term.first), usize::from(term.end).min(LANES));
            let (now, rest) = weights.split_at((end - first) * blocks);
            weights = rest;
            for (channel, weight) in (first..end).zip(now.chunks_exact(blocks)) {
                let mut w = [simd.splat_f32s(0.0); V];
                for v in 0..V {
                    w[v] = load::<S>(&weight[v / vectors], v % vectors);
                }
                for g in 0..G {
                    for c in 0..C {
                        let x = simd.splat_f32s(runs[g][c][channel]);
                        for v in 0..V {
                            sums[g][c][v] = simd.mul_add_e_f32s(x, w[v], sums[g][c][v]);
                        }
                    }
                }
            }
        }

        for g in 0..G {
            product.sink.store::<S, C, V>(simd, panel, outputs[g] as usize, sums[g], output);
        }
    }
}

/// C pixels that start as the bias.
#[inline(always)]
pub(super) fn bias<S: Simd, const C: usize, const V: usize>(
    simd: S,
    packed: &Packed,
    panel: &Panel,
) -> [[S::f32s; V]; C] {
    let vectors = LANES / S::F32_LANES;
    let bias = &packed.bias[panel.first..][..V / vectors];
    let mut start = [simd.splat_f32s(0.0); V];
    for v in 0..V {
        start[v] = load::<S>(&bias[v / vectors], v % vectors);
    }
    [start; C]
}

impl Sink<'_> {
    /// Adds the residual to C neighboring pixels, clamps them, and stores them from pixel `at` on.
    #[inline(always)]
    pub(super) fn store<S: Simd, const C: usize, const V: usize>(
        &self,
        simd: S,
        panel: &Panel,
        at: usize,
        sums: [[S::f32s; V]; C],
        output: &mut Target<'_>,
    ) {
        self.store_block::<S, C, V, 0>(simd, panel, at, sums, output);
        if V * S::F32_LANES > LANES {
            self.store_block::<S, C, V, 1>(simd, panel, at, sums, output);
        }
    }

    /// The same of block `BLOCK` of the panel: a constant, since sums that are indexed by a variable lie in memory all the while.
    #[inline(always)]
    fn store_block<S: Simd, const C: usize, const V: usize, const BLOCK: usize>(
        &self,
        simd: S,
        panel: &Panel,
        at: usize,
        mut sums: [[S::f32s; V]; C],
        output: &mut Target<'_>,
    ) {
        let vectors = LANES / S::F32_LANES;
        let channels = panel.first + BLOCK;
        if let Some(residual) = self.residual {
            let start = residual.start + channels * residual.stride + at;
            let added = &residual.values[start..][..C];
            for c in 0..C {
                for v in 0..vectors {
                    let sum = &mut sums[c][BLOCK * vectors + v];
                    *sum = simd.add_f32s(*sum, load::<S>(&added[c], v));
                }
            }
        }
        let made = output.row(channels, self.start + at, C);
        for c in 0..C {
            for v in 0..vectors {
                let sum = sums[c][BLOCK * vectors + v];
                store::<S>(&mut made[c], v, self.clamp.apply(simd, sum));
            }
        }
    }
}
