//! [`PlainProduct`]: the product of a first layer, straight from the planes of an image.

use pulp::{Simd, WithSimd};

use super::load;
use super::product::{Packed, Panel, Sink, part, tiles, too_long};
use super::target::Target;
use super::tile::bias;
use crate::block::LANES;

/// output = clamp(weights · input + bias + residual), where every term of [`Packed`] is one number for each pixel: `offset` numbers behind
/// that of the first term.
///
/// With three channels, a block of 16 would be mostly empty, and be read for nothing.
pub(crate) struct PlainProduct<'a> {
    pub(crate) packed: &'a Packed,
    pub(crate) input: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) width: usize,
    /// Numbers from row to row of the input.
    pub(crate) pitch: usize,
    pub(crate) sink: Sink<'a>,
}

/// A [`PlainProduct`] and where it goes.
pub(crate) struct PlainInto<'a, 'b>(pub(crate) &'a PlainProduct<'a>, pub(crate) &'a mut Target<'b>);

impl WithSimd for PlainInto<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self(product, output) = self;
        for panel in &product.packed.panels {
            match (S::F32_LANES, panel.blocks) {
                (LANES, 2) => wide::<S, 2>(simd, product, panel, output),
                (LANES, _) => wide::<S, 1>(simd, product, panel, output),
                (8, _) => narrow::<S, 2>(simd, product, panel, output),
                _ => narrow::<S, 4>(simd, product, panel, output),
            }
        }
    }
}

macro_rules! panel {
    ($name:ident, $most:literal, $sizes:tt) => {
        #[inline(always)]
        fn $name<S: Simd, const V: usize>(
            simd: S,
            product: &PlainProduct<'_>,
            panel: &Panel,
            output: &mut Target<'_>,
        ) {
            let tiles = product.width.div_ceil($most);
            for row in 0..product.rows {
                for tile in 0..tiles {
                    let part = part(product.width, tiles, tile);
                    let input = row * product.pitch + part.start;
                    let at = row * product.width + part.start;
                    tiles!(run part.len() as u32, $sizes, |_G, C| {
                        let output = &mut *output;
                        simd.vectorize(PlainTile::<'_, '_, C, V> { product, panel, input, at, output });
                    });
                }
            }
        }
    };
}

// The sizes of the tiles of a product.
panel!(wide, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14]);
panel!(narrow, 6, [1 2 3 4 5 6]);

/// C neighboring pixels times V vectors of output channels.
struct PlainTile<'a, 'b, const C: usize, const V: usize> {
    product: &'a PlainProduct<'a>,
    panel: &'a Panel,
    input: usize,
    at: usize,
    output: &'a mut Target<'b>,
}

impl<const C: usize, const V: usize> WithSimd for PlainTile<'_, '_, C, V> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { product, panel, input, at, output } = self;
        let packed = product.packed;
        let vectors = LANES / S::F32_LANES;
        let mut sums = bias::<S, C, V>(simd, packed, panel);
        let terms = &packed.terms[panel.terms.clone()];
        let weights = packed.weights[panel.weights.clone()].chunks_exact(V / vectors);
        for (term, weight) in terms.iter().zip(weights) {
            let pixels = &product.input[input + term.offset as usize..][..C];
            let mut w = [simd.splat_f32s(0.0); V];
            for v in 0..V {
                w[v] = load::<S>(&weight[v / vectors], v % vectors);
            }
            for c in 0..C {
                let x = simd.splat_f32s(pixels[c]);
                for v in 0..V {
                    sums[c][v] = simd.mul_add_e_f32s(x, w[v], sums[c][v]);
                }
            }
        }
        product.sink.store::<S, C, V>(simd, panel, at, sums, output);
    }
}
