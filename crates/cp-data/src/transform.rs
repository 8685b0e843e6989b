//! From an image as stored to an image as the network takes it: resize, crop, flip, channels; still `u8`.

use fast_image_resize::images::Image;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use ndarray::{Array3, ArrayView3, ArrayViewMut3, Axis, CowArray, s};
use rand::Rng;

use crate::DataError;

/// How to change the size of an image. Bilinear (triangle) filter, widened when shrinking, so without aliasing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// The shorter side gets this many pixels, the other follows (rounded down), as torchvision's `Resize(int)`.
    ShorterSide(usize),
    /// Exactly this size, whatever becomes of the proportions.
    Exact {
        /// Pixels.
        height: usize,
        /// Pixels.
        width: usize,
    },
    /// So that a middle crop of this size fits, in the image's own proportions; each image by itself, whatever the
    /// others are. A smaller image is enlarged until it covers the size. A larger one stays as it is up to 5/4 of the size,
    /// and beyond is shrunk to 8/7 of it: to 256 pixels for 224, the convention of ImageNet evaluation since Krizhevsky et al.
    /// (2012).
    Cover {
        /// Pixels.
        height: usize,
        /// Pixels.
        width: usize,
    },
}

/// How much larger than the crop [`Resize::Cover`] leaves an image that it shrinks, and from where on it shrinks.
const MARGIN: (usize, usize) = (8, 7);
const LARGE: (usize, usize) = (5, 4);

/// Which part of the (resized) image to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Crop {
    /// All of it.
    #[default]
    None,
    /// The middle; an odd pixel is left over at the bottom and right.
    Center {
        /// Pixels.
        height: usize,
        /// Pixels.
        width: usize,
    },
    /// A random part of the image with a black border of `padding` pixels on every side.
    Random {
        /// Pixels.
        height: usize,
        /// Pixels.
        width: usize,
        /// Pixels added on each side.
        padding: usize,
    },
}

/// Resize, then crop, then flip, then change the channels. The default leaves images as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transform {
    /// New size.
    pub resize: Option<Resize>,
    /// Part to take.
    pub crop: Crop,
    /// Mirror left and right with probability ½.
    pub flip: bool,
    /// Channels wanted: 1 → 3 repeats the grey, 3 → 1 takes the luma of ITU-R BT.601 (0.299 R + 0.587 G + 0.114 B).
    pub channels: Option<usize>,
}

impl Transform {
    /// Whether two applications to one image can differ.
    pub fn is_random(&self) -> bool {
        self.flip || matches!(self.crop, Crop::Random { .. })
    }

    /// Shape of the result for an image of shape `[channels, height, width]`.
    ///
    /// # Errors
    /// If the crop does not fit, a size is 0, or the channels cannot be converted.
    pub fn output_shape(
        &self,
        [channels, height, width]: [usize; 3],
    ) -> Result<[usize; 3], DataError> {
        let (height, width) = self.resized(height, width)?;
        let (height, width) = match self.crop {
            Crop::None => (height, width),
            Crop::Center { height: h, width: w } => fitting(h, w, height, width)?,
            Crop::Random { height: h, width: w, padding } => fitting(
                h,
                w,
                height.saturating_add(2 * padding),
                width.saturating_add(2 * padding),
            )?,
        };
        match (channels, self.channels) {
            (from, None) => Ok([from, height, width]),
            (from, Some(to)) if from == to || (from, to) == (1, 3) || (from, to) == (3, 1) => {
                Ok([to, height, width])
            }
            (from, Some(to)) => Err(DataError::Channels { from, to }),
        }
    }

    /// The transformed image.
    ///
    /// # Shapes
    /// `image`: `[channels, height, width]`; result: [`output_shape`](Self::output_shape).
    ///
    /// # Errors
    /// Those of [`output_shape`](Self::output_shape).
    pub fn apply(
        &self,
        image: ArrayView3<'_, u8>,
        rng: &mut impl Rng,
    ) -> Result<Array3<u8>, DataError> {
        let mut out = Array3::zeros(self.output_shape(shape_of(&image))?);
        self.apply_into(image, rng, out.view_mut())?;
        Ok(out)
    }

    /// As [`apply`](Self::apply), into the black image `out`.
    pub(crate) fn apply_into(
        &self,
        image: ArrayView3<'_, u8>,
        rng: &mut impl Rng,
        out: ArrayViewMut3<'_, u8>,
    ) -> Result<(), DataError> {
        let [_, height, width] = shape_of(&image);
        let (new_height, new_width) = self.resized(height, width)?;
        let image = if (new_height, new_width) == (height, width) {
            CowArray::from(image)
        } else {
            CowArray::from(resize_bilinear(image, new_height, new_width)?)
        };
        self.crop_flip_convert(image.view(), rng, out)
    }

    fn crop_flip_convert(
        &self,
        image: ArrayView3<'_, u8>,
        rng: &mut impl Rng,
        mut out: ArrayViewMut3<'_, u8>,
    ) -> Result<(), DataError> {
        let [channels, height, width] = shape_of(&image);
        let [out_channels, out_height, out_width] = shape_of(&out.view());
        // Where the first pixel of the crop lies in the image; negative in the border.
        let (top, left) = match self.crop {
            Crop::None => (0, 0),
            Crop::Center { .. } => {
                (((height - out_height) / 2) as isize, ((width - out_width) / 2) as isize)
            }
            Crop::Random { padding, .. } => {
                let top = rng.random_range(0..=height + 2 * padding - out_height);
                let left = rng.random_range(0..=width + 2 * padding - out_width);
                (top as isize - padding as isize, left as isize - padding as isize)
            }
        };
        let mirror = self.flip && rng.random::<bool>();
        let image = if (channels, out_channels) == (3, 1) {
            CowArray::from(luma(image))
        } else {
            CowArray::from(image)
        };

        // Columns of the result that lie inside the image; the others stay black.
        let first = (-left).clamp(0, out_width as isize) as usize;
        let last = (width as isize - left).clamp(0, out_width as isize) as usize;
        if first >= last {
            return Ok(());
        }
        let from = (first as isize + left) as usize;
        let columns = if mirror { out_width - last..out_width - first } else { first..last };
        for (c, mut target) in out.outer_iter_mut().enumerate() {
            let plane = image.index_axis(Axis(0), c.min(image.len_of(Axis(0)) - 1));
            for (y, mut target) in target.outer_iter_mut().enumerate() {
                let row = y as isize + top;
                if !(0..height as isize).contains(&row) {
                    continue;
                }
                let source = plane.slice(s![row as usize, from..from + columns.len()]);
                let mut target = target.slice_mut(s![columns.clone()]);
                if mirror {
                    target.assign(&source.slice(s![..;-1]));
                } else {
                    target.assign(&source);
                }
            }
        }
        Ok(())
    }

    fn resized(&self, height: usize, width: usize) -> Result<(usize, usize), DataError> {
        let (h, w) = match self.resize {
            None => (height, width),
            Some(Resize::Exact { height, width }) => (height, width),
            _ if height == 0 || width == 0 => (0, 0),
            Some(Resize::ShorterSide(side)) if height <= width => (side, side * width / height),
            Some(Resize::ShorterSide(side)) => (side * height / width, side),
            Some(Resize::Cover { height: rows, width: columns }) => {
                // The axis that is the shorter one, measured by the size wanted, decides.
                let by_height = rows * width >= columns * height;
                let (short, target) = if by_height { (height, rows) } else { (width, columns) };
                let short_after = if short < target {
                    target
                } else if LARGE.1 * short > LARGE.0 * target {
                    target * MARGIN.0 / MARGIN.1
                } else {
                    short
                };
                match by_height {
                    _ if short_after == short => (height, width),
                    true => (short_after, (short_after * width / height).max(columns)),
                    false => ((short_after * height / width).max(rows), short_after),
                }
            }
        };
        if h == 0 || w == 0 {
            return Err(DataError::Option {
                option: "image size",
                value: format!("{h}x{w}"),
                expected: "height and width of at least 1 pixel",
            });
        }
        Ok((h, w))
    }
}

pub(crate) fn shape_of(image: &ArrayView3<'_, u8>) -> [usize; 3] {
    image.dim().into()
}

fn fitting(
    crop_height: usize,
    crop_width: usize,
    height: usize,
    width: usize,
) -> Result<(usize, usize), DataError> {
    if crop_height == 0 || crop_width == 0 || crop_height > height || crop_width > width {
        return Err(DataError::CropTooLarge { crop_height, crop_width, height, width });
    }
    Ok((crop_height, crop_width))
}

/// Grey from RGB, ITU-R BT.601: `[3, H, W]` to `[1, H, W]`.
fn luma(image: ArrayView3<'_, u8>) -> Array3<u8> {
    let (_, height, width) = image.dim();
    Array3::from_shape_fn((1, height, width), |(_, y, x)| {
        let [r, g, b] = [0, 1, 2].map(|c| u32::from(image[[c, y, x]]));
        ((299 * r + 587 * g + 114 * b + 500) / 1000) as u8
    })
}

/// `[C, H, W]` to `[C, height, width]`, plane by plane.
fn resize_bilinear(
    image: ArrayView3<'_, u8>,
    height: usize,
    width: usize,
) -> Result<Array3<u8>, DataError> {
    let (channels, old_height, old_width) = image.dim();
    let failed = |_| DataError::Option {
        option: "image size",
        value: format!("{old_height}x{old_width} to {height}x{width}"),
        expected: "sizes that fit into memory",
    };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    let mut resizer = Resizer::new();
    let mut out = Vec::with_capacity(channels * height * width);
    for plane in image.outer_iter() {
        let plane: Vec<u8> = plane.iter().copied().collect();
        let plane = Image::from_vec_u8(old_width as u32, old_height as u32, plane, PixelType::U8);
        let plane = plane.map_err(|error| failed(error.to_string()))?;
        let mut resized = Image::new(width as u32, height as u32, PixelType::U8);
        resizer
            .resize(&plane, &mut resized, &options)
            .map_err(|error| failed(error.to_string()))?;
        out.extend_from_slice(resized.buffer());
    }
    Array3::from_shape_vec((channels, height, width), out)
        .map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn rng() -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(9)
    }

    /// `[1, height, width]` with 10·row + column + 1 at each place, so that no pixel is black.
    fn ramp(height: usize, width: usize) -> Array3<u8> {
        Array3::from_shape_fn((1, height, width), |(_, y, x)| (10 * y + x + 1) as u8)
    }

    #[test]
    fn the_default_changes_nothing() {
        let image = ramp(5, 7);
        assert_eq!(Transform::default().apply(image.view(), &mut rng()).unwrap(), image);
        assert!(!Transform::default().is_random());
    }

    #[test]
    fn a_center_crop_is_in_the_middle() {
        let transform =
            Transform { crop: Crop::Center { height: 2, width: 4 }, ..Transform::default() };
        let out = transform.apply(ramp(5, 7).view(), &mut rng()).unwrap();
        assert_eq!(out, array![[[12, 13, 14, 15], [22, 23, 24, 25]]]);
    }

    #[test]
    fn random_crops_are_parts_of_the_image_in_a_black_border_and_reach_every_place() {
        let (image, padding) = (ramp(4, 5), 2);
        let mut bordered = Array3::<u8>::zeros((1, 8, 9));
        bordered.slice_mut(s![.., 2..6, 2..7]).assign(&image);
        let crop = Crop::Random { height: 4, width: 5, padding };
        for flip in [false, true] {
            let transform = Transform { crop, flip, ..Transform::default() };
            let (mut rng, mut seen) = (rng(), std::collections::BTreeSet::new());
            for _ in 0..2000 {
                let out = transform.apply(image.view(), &mut rng).unwrap();
                let mut found = None;
                for (top, left) in (0..=4).flat_map(|top| (0..=4).map(move |left| (top, left))) {
                    let part = bordered.slice(s![.., top..top + 4, left..left + 5]);
                    if out == part {
                        found = Some((top, left, false));
                    } else if flip && out == part.slice(s![.., .., ..;-1]) {
                        found = Some((top, left, true));
                    }
                }
                seen.insert(found.expect("a part of the image"));
            }
            assert_eq!(seen.len(), if flip { 50 } else { 25 });
        }
    }

    #[test]
    fn a_crop_wholly_in_the_border_is_black() {
        let crop = Crop::Random { height: 1, width: 1, padding: 3 };
        let transform = Transform { crop, flip: true, ..Transform::default() };
        let mut rng = rng();
        let black = (0..500)
            .filter(|_| transform.apply(ramp(1, 1).view(), &mut rng).unwrap()[[0, 0, 0]] == 0)
            .count();
        assert!((470..500).contains(&black), "{black} of 500, expected 48/49 of them");
    }

    #[test]
    fn channels_are_copied_or_weighted() {
        let grey = array![[[10_u8, 200]]];
        let to_three = Transform { channels: Some(3), ..Transform::default() };
        assert_eq!(
            to_three.apply(grey.view(), &mut rng()).unwrap(),
            array![[[10, 200]], [[10, 200]], [[10, 200]]]
        );
        let color = array![[[255_u8, 0, 0, 80]], [[0, 255, 0, 80]], [[0, 0, 255, 80]]];
        let to_one = Transform { channels: Some(1), ..Transform::default() };
        assert_eq!(to_one.apply(color.view(), &mut rng()).unwrap(), array![[[76, 150, 29, 80]]]);
        let to_two = Transform { channels: Some(2), ..Transform::default() };
        assert!(matches!(
            to_two.apply(color.view(), &mut rng()),
            Err(DataError::Channels { from: 3, to: 2 })
        ));
    }

    #[test]
    fn sizes_after_a_resize() {
        let sizes = |resize, height, width| {
            let transform = Transform { resize: Some(resize), ..Transform::default() };
            transform.output_shape([3, height, width]).map(|[_, height, width]| (height, width))
        };
        assert_eq!(sizes(Resize::ShorterSide(64), 128, 191).unwrap(), (64, 95));
        assert_eq!(sizes(Resize::ShorterSide(64), 33, 16).unwrap(), (132, 64));
        assert_eq!(sizes(Resize::Exact { height: 3, width: 9 }, 33, 16).unwrap(), (3, 9));
        assert!(sizes(Resize::ShorterSide(0), 10, 10).is_err());
        assert!(sizes(Resize::Exact { height: 1, width: 0 }, 10, 10).is_err());
    }

    #[test]
    fn a_cover_fits_every_image_by_itself() {
        let size = |rows, columns, height, width| {
            let resize = Some(Resize::Cover { height: rows, width: columns });
            let crop = Crop::Center { height: rows, width: columns };
            let transform = Transform { resize, crop, ..Transform::default() };
            assert_eq!(transform.output_shape([3, height, width]).unwrap(), [3, rows, columns]);
            transform.resized(height, width).unwrap()
        };
        // As it is; enlarged; a little larger and left; shrunk to 8/7.
        assert_eq!(size(8, 8, 8, 8), (8, 8));
        assert_eq!(size(8, 8, 6, 6), (8, 8));
        assert_eq!(size(8, 8, 9, 9), (9, 9));
        assert_eq!(size(224, 224, 300, 600), (256, 512));
        assert_eq!(size(112, 112, 200, 105), (213, 112));
        assert_eq!(size(128, 128, 105, 200), (128, 243));
        // A network that is not square: what decides is the side that is too short for it.
        assert_eq!(size(32, 128, 64, 256), (36, 144));
        assert_eq!(size(32, 128, 128, 128), (128, 128));
        assert_eq!(size(32, 128, 16, 16), (128, 128));
        // Every image of cats-vs-dogs-like sizes at every size of a network, square or not.
        for side in [1, 7, 32, 100, 112, 128, 224] {
            for (height, width) in [(33, 60), (128, 128), (128, 513), (105, 200), (1, 1), (500, 3)]
            {
                size(side, side, height, width);
                size(side, 2 * side + 1, height, width);
                size(3 * side, side, height, width);
            }
        }
    }

    #[test]
    fn resizing_keeps_flat_images_flat_and_averages_when_shrinking() {
        let half = Transform {
            resize: Some(Resize::Exact { height: 8, width: 8 }),
            ..Transform::default()
        };
        let flat = Array3::from_shape_fn((3, 16, 16), |(c, _, _)| [10, 100, 250][c]);
        let out = half.apply(flat.view(), &mut rng()).unwrap();
        assert_eq!(out.shape(), [3, 8, 8]);
        assert!(
            out.outer_iter()
                .zip([10, 100, 250])
                .all(|(plane, value)| plane.iter().all(|&v| v == value))
        );
        // A checkerboard becomes grey, not black or white: the filter is as wide as the step.
        let board =
            Array3::from_shape_fn((1, 16, 16), |(_, y, x)| if (x + y) % 2 == 0 { 0 } else { 200 });
        assert!(half.apply(board.view(), &mut rng()).unwrap().iter().all(|v| v.abs_diff(100) <= 5));
    }

    #[test]
    fn crops_that_do_not_fit_are_errors() {
        for crop in [
            Crop::Center { height: 6, width: 1 },
            Crop::Center { height: 0, width: 1 },
            Crop::Random { height: 1, width: 12, padding: 2 },
        ] {
            let transform = Transform { crop, ..Transform::default() };
            let error = transform.apply(ramp(5, 7).view(), &mut rng()).unwrap_err();
            assert!(matches!(error, DataError::CropTooLarge { .. }), "{error}");
        }
    }
}
