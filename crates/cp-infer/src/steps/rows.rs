//! [`Rows`]: the rows of a map that windows read, with their padding.
//!
//! With windows at distance s along a row, its columns are sorted by their remainder: all that are 0 mod s, then all that are 1, …, so that a tap
//! finds what neighboring windows read side by side, whatever the stride is.

use crate::block::{Block, ZERO};
use crate::geometry::Geometry;
use crate::map::Map;
use crate::step::Input;

/// The rows of a convolution's input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) geometry: Geometry,
    /// Whether they are copied; else windows read the map, in which all of them lie.
    pub(crate) copied: bool,
}

/// A strip: output rows of one image, or all of those of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Strip {
    pub(crate) image: usize,
    pub(crate) images: usize,
    pub(crate) row: usize,
    pub(crate) rows: usize,
}

/// All strips of some images: `height` output rows of one image, or all rows of `images`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strips {
    pub(crate) map: Map,
    pub(crate) height: usize,
    pub(crate) images: usize,
    /// Images in all.
    pub(crate) count: usize,
}

impl Strips {
    /// How many for each image, or for several.
    pub(crate) fn of_image(self) -> usize {
        self.map.height.div_ceil(self.height)
    }

    pub(crate) fn len(self) -> usize {
        self.count.div_ceil(self.images) * self.of_image()
    }

    pub(crate) fn strip(self, index: usize) -> Strip {
        let image = index / self.of_image() * self.images;
        let row = index % self.of_image() * self.height;
        let images = self.images.min(self.count - image);
        Strip { image, images, row, rows: self.height.min(self.map.height - row) }
    }

    /// The first pixel of a strip, of all images; of the one behind the last, the end.
    pub(crate) fn start(self, index: usize) -> usize {
        let image = (index / self.of_image() * self.images).min(self.count);
        image * self.map.pixels() + index % self.of_image() * self.height * self.map.width
    }
}

impl Rows {
    /// Those of a convolution, copied where need be.
    pub(crate) fn new(geometry: Geometry) -> Self {
        Self { geometry, copied: !geometry.is_inside() || geometry.stride[1] > 1 }
    }

    /// Columns of each remainder.
    fn columns(self) -> usize {
        self.geometry.pitch().div_ceil(self.geometry.stride[1])
    }

    /// Pixels from row to row.
    pub(crate) fn pitch(self) -> usize {
        if self.copied {
            self.columns() * self.geometry.stride[1]
        } else {
            self.geometry.input.width
        }
    }

    /// Pixels from image to image, for `rows` output rows.
    pub(crate) fn image(self, rows: usize) -> usize {
        if self.copied {
            self.geometry.rows(rows) * self.pitch()
        } else {
            self.geometry.input.pixels()
        }
    }

    /// Where column `column` of a row with its padding lies.
    fn place(self, column: usize) -> usize {
        let stride = self.geometry.stride[1];
        if self.copied { column % stride * self.columns() + column / stride } else { column }
    }

    /// Where tap `tap` of the first window of a row lies.
    pub(crate) fn tap(self, tap: usize) -> usize {
        self.place(tap * self.geometry.dilation[1])
    }

    /// Blocks that are copied for `rows` output rows of `images`.
    pub(crate) fn size(self, images: usize, rows: usize) -> usize {
        if self.copied { self.geometry.input.blocks() * images * self.image(rows) } else { 0 }
    }

    /// Copies what a strip reads: `[channels / 16, images, rows, pitch]`.
    pub(crate) fn copy(self, input: Input<'_>, strip: Strip, to: &mut [Block]) {
        if !self.copied {
            return;
        }
        let (map, pitch, rows) =
            (self.geometry.input, self.pitch(), self.geometry.rows(strip.rows));
        let mut lines = to.chunks_exact_mut(pitch);
        for block in 0..map.blocks() {
            for image in 0..strip.images {
                let image = (strip.image + image) * map.pixels();
                let from =
                    &input.blocks()[input.start + block * input.stride + image..][..map.pixels()];
                for row in 0..rows {
                    let is_read = is_read(row, self.geometry, 0);
                    if let Some(to) = lines.next().filter(|_| is_read) {
                        self.copy_row(from, strip.row * self.geometry.stride[0] + row, to, ZERO);
                    }
                }
            }
        }
    }

    /// Row `row` of a map, counted from the first of the padding, between zeros; its pixels are blocks or numbers.
    pub(crate) fn copy_row<T: Copy>(self, map: &[T], row: usize, to: &mut [T], zero: T) {
        let Geometry { input, stride: [_, stride], before: [above, left], .. } = self.geometry;
        let row = row.checked_sub(above).filter(|row| *row < input.height);
        let Some(row) = row else {
            to.fill(zero);
            return;
        };
        let row = &map[row * input.width..][..input.width];
        if stride == 1 {
            let (before, rest) = to.split_at_mut(left);
            let (middle, behind) = rest.split_at_mut(input.width);
            before.fill(zero);
            middle.copy_from_slice(row);
            behind.fill(zero);
            return;
        }
        for (remainder, to) in to.chunks_exact_mut(self.columns()).enumerate() {
            if !is_read(remainder, self.geometry, 1) {
                continue;
            }
            for (index, to) in to.iter_mut().enumerate() {
                // In the padding in front the difference wraps around, and lies behind the row as well.
                let column = (index * stride + remainder).wrapping_sub(left);
                *to = row.get(column).copied().unwrap_or(zero);
            }
        }
    }
}

/// Whether a tap of any window can meet `position` along an axis: not where windows are further apart than they are large.
fn is_read(position: usize, geometry: Geometry, axis: usize) -> bool {
    let Geometry { kernel, dilation, stride, .. } = geometry;
    (0..kernel[axis]).any(|tap| tap * dilation[axis] % stride[axis] == position % stride[axis])
}
