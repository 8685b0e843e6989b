//! [`Winograd`]: a dense 3×3 convolution by tiles of 4×4 outputs, with a quarter of the multiply-adds.

use std::ops::Range;

use crate::block::{Block, Blocks};
use crate::geometry::Geometry;
use crate::kernels::activation::Clamp;
use crate::kernels::product::{Packed, Pixels, Product, ProductInto, Sink};
use crate::kernels::target::Target;
use crate::kernels::winograd::{Backward, Forward, POINTS, TILE};
use crate::level::Level;
use crate::lower::Rules;
use crate::map::Map;
use crate::pack::Weights;
use crate::step::{Frame, Input, Scratch, Step};
use crate::steps::Ends;
use crate::steps::rows::{Rows, Strip, Strips};
use crate::steps::workers::Own;

/// Blocks of the transformed tiles of a strip, inputs and outputs: half of a usual L2 cache.
const STRIP: usize = 512 * 1024 / size_of::<Block>();

/// Tiles of a strip that fill the tiles of the products, even where they do not fit.
const TILES: usize = 14;

/// F(4×4, 3×3) over strips of rows of tiles: transformed, 36 products over all channels, transformed back.
#[derive(Debug)]
pub(crate) struct Winograd {
    /// One product for each of the 36 points.
    points: Vec<Packed>,
    /// `[T / 16]`.
    bias: Blocks,
    /// Of the map with as many rows and columns as whole tiles have.
    rows: Rows,
    output: Map,
    /// Rows of tiles of a strip.
    height: usize,
    ends: Ends,
}

impl Winograd {
    /// Whether it is faster than a direct convolution: where a map has tiles enough to pay for the weights, which are four times as many, and
    /// channels enough to pay for the transforms.
    pub(crate) fn suits(weights: &Weights, geometry: Geometry) -> bool {
        let window = (weights.groups, geometry.kernel, geometry.stride, geometry.dilation);
        window == (1, [3; 2], [1; 2], [1; 2])
            && weights.inputs.min(weights.outputs) >= 32
            && weights.inputs + weights.outputs >= 96
            && geometry.output.pixels() >= 144
            && geometry.output.height >= TILE
            && geometry.output.width >= TILE
    }

    pub(crate) fn new(weights: &Weights, geometry: Geometry, rules: Rules, ends: Ends) -> Self {
        let output = geometry.output;
        let whole = |size: usize| size.next_multiple_of(TILE);
        let tiled = Map { height: whole(output.height), width: whole(output.width), ..output };
        let rows = Rows { geometry: Geometry { output: tiled, ..geometry }, copied: true };
        let points = (0..POINTS)
            .map(|point| weights.at_point(point).packed(rules.level.panel_blocks(), |_, _| 0));
        let (all, columns) = (tiled.height / TILE, tiled.width / TILE);
        let each = POINTS * (geometry.input.blocks() + output.blocks()) * columns;
        let height = (STRIP / each).max(TILES.div_ceil(columns)).min(all.div_ceil(rules.workers));
        let height = all.div_ceil(all.div_ceil(height));
        let bias = weights.bias_blocks();
        Self { points: points.collect(), bias, rows, output, height, ends }
    }

    /// Tiles of a row.
    fn columns(&self) -> usize {
        self.rows.geometry.output.width / TILE
    }

    /// Tiles of a strip.
    fn tiles(&self) -> usize {
        self.height * self.columns()
    }

    /// Blocks of the copied rows of a strip, of its transformed inputs and of its transformed outputs.
    fn sizes(&self) -> [usize; 3] {
        let input = self.rows.geometry.input;
        let of = |map: Map| POINTS * map.blocks() * self.tiles();
        [self.rows.size(1, self.height * TILE), of(input), of(self.output)]
    }
}

impl Winograd {
    /// Makes the rows of tiles of one strip.
    fn strip(
        &self,
        level: Level,
        [input, residual]: [Input<'_>; 2],
        strip: Strip,
        own: &mut Own<'_>,
    ) {
        let [lines, inputs, _] = self.sizes();
        let (lines, rest) = own.scratch.split_at_mut(lines);
        let (inputs, outputs) = rest.split_at_mut(inputs);
        let (geometry, pitch) = (self.rows.geometry, self.rows.pitch());
        let (from, to) = (geometry.input.blocks(), self.output.blocks());
        let (columns, height) = (self.columns(), strip.rows / TILE);
        let tiles = height * columns;
        self.rows.copy(input, strip, lines);
        for block in 0..from {
            let lines = &lines[block * self.rows.image(strip.rows)..];
            for row in 0..height {
                level.run(Forward {
                    input: &lines[row * TILE * pitch..],
                    pitch,
                    tiles: columns,
                    output: &mut inputs[block * tiles + row * columns..],
                    stride: from * tiles,
                });
            }
        }
        for (point, packed) in self.points.iter().enumerate() {
            let product = Product {
                packed,
                panels: 0..packed.panels.len(),
                input: inputs,
                input_start: point * from * tiles,
                input_stride: tiles,
                pixels: Pixels::flat(tiles),
                sink: Sink { start: 0, residual: None, clamp: Clamp::None },
            };
            let mut target = Target::whole(outputs, point * to * tiles, tiles);
            level.run(ProductInto(&product, &mut target));
        }
        for block in 0..to {
            for row in 0..height {
                let y = strip.row + row * TILE;
                let len = TILE.min(self.output.height - y) * self.output.width;
                let at = strip.image * self.output.pixels() + y * self.output.width;
                let added = residual.start + block * residual.stride + at;
                level.run(Backward {
                    input: &outputs[block * tiles + row * columns..],
                    stride: to * tiles,
                    tiles: columns,
                    bias: &self.bias[block],
                    residual: self.ends.residual.map(|_| &residual.blocks()[added..][..len]),
                    clamp: self.ends.clamp,
                    output: own.target.row(block, at, len),
                    width: self.output.width,
                });
            }
        }
    }
}

impl Step for Winograd {
    fn run(&self, frame: &mut Frame<'_>) {
        let (level, count) = (frame.level, frame.count);
        let open = self.ends.open(frame);
        let inputs = open.inputs;
        let tiled = self.rows.geometry.output;
        let strips = Strips { map: tiled, height: self.height * TILE, images: 1, count };
        let run = |range: Range<usize>, mut own: Own<'_>| {
            for index in range {
                self.strip(level, inputs, strips.strip(index), &mut own);
            }
        };
        // The last row of tiles may reach beyond the map.
        let start = |index| {
            let (image, row) = (index / strips.of_image(), index % strips.of_image());
            image * self.output.pixels() + row * strips.height * self.output.width
        };
        let blocks = self.output.blocks();
        open.workers.strips(open.output, blocks, self.scratch(), strips.len(), start, run);
    }

    fn scratch(&self) -> Scratch {
        Scratch { blocks: self.sizes().iter().sum(), table: 0 }
    }
}
