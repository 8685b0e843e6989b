//! One image file to one array.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageFormat, ImageReader, Limits};
use ndarray::{Array3, ArrayView3};

use crate::DataError;

/// No side of an image may be longer, nor may decoding take more than 512 MiB: a damaged header asks for anything.
const MAX_SIDE: u32 = 1 << 15;

/// Decodes a JPEG or PNG: `[1, height, width]` if it is grey, `[3, height, width]` if it has colors; alpha is dropped
/// and 16 bits become 8. Turning by an EXIF orientation is left out, as the usual training pipelines do.
///
/// `path` and `entry` (of an archive) are for messages.
pub(crate) fn decode(
    bytes: &[u8],
    path: &Path,
    entry: Option<&str>,
) -> Result<Array3<u8>, DataError> {
    let failed = |source| DataError::Decode {
        path: path.to_owned(),
        entry: entry.map(str::to_owned),
        source,
    };
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| failed(error.into()))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    reader.limits(limits);
    if reader.format() == Some(ImageFormat::Jpeg) && !jpeg_has_end(bytes) {
        return Err(DataError::TruncatedJpeg {
            path: path.to_owned(),
            entry: entry.map(str::to_owned),
            bytes: bytes.len(),
        });
    }
    let image = reader.decode().map_err(failed)?;
    let (height, width) = (image.height() as usize, image.width() as usize);
    let (channels, interleaved) = match image {
        DynamicImage::ImageLuma8(image) => (1, image.into_raw()),
        DynamicImage::ImageRgb8(image) => (3, image.into_raw()),
        image if image.color().has_color() => (3, image.into_rgb8().into_raw()),
        image => (1, image.into_luma8().into_raw()),
    };
    let interleaved = ArrayView3::from_shape((height, width, channels), &interleaved);
    match interleaved {
        Ok(interleaved) => {
            Ok(interleaved.permuted_axes([2, 0, 1]).as_standard_layout().into_owned())
        }
        Err(_) => Err(failed(image::ImageError::IoError(std::io::ErrorKind::InvalidData.into()))),
    }
}

/// Whether an end-of-image marker follows the last start of a scan. The decoder fills up a JPEG that was cut off with
/// grey; within a scan neither marker can occur by chance, since 0xFF is followed by 0 there (ITU-T T.81, B.1.1.5).
fn jpeg_has_end(bytes: &[u8]) -> bool {
    let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xff, marker]);
    match (last(0xda), last(0xd9)) {
        (Some(scan), Some(end)) => end > scan,
        _ => false,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use image::{GrayImage, Luma, Rgb, RgbImage};

    use super::*;

    /// A small image file with some structure in it.
    pub(crate) fn file(format: ImageFormat, grey: bool, shade: u8) -> Vec<u8> {
        let (width, height) = (20, 14);
        let mut bytes = Cursor::new(Vec::new());
        if grey {
            let image =
                GrayImage::from_fn(width, height, |x, y| Luma([shade.wrapping_add((x * y) as u8)]));
            image.write_to(&mut bytes, format).unwrap();
        } else {
            let image =
                RgbImage::from_fn(width, height, |x, y| Rgb([shade, (x * 9) as u8, (y * 9) as u8]));
            image.write_to(&mut bytes, format).unwrap();
        }
        bytes.into_inner()
    }

    #[test]
    fn png_is_exact_and_planar() {
        let image = decode(&file(ImageFormat::Png, false, 77), Path::new("x"), None).unwrap();
        assert_eq!(image.shape(), [3, 14, 20]);
        assert_eq!((image[[0, 3, 4]], image[[1, 3, 4]], image[[2, 3, 4]]), (77, 36, 27));
        let image = decode(&file(ImageFormat::Png, true, 5), Path::new("x"), None).unwrap();
        assert_eq!((image.shape(), image[[0, 3, 4]]), (&[1, 14, 20][..], 17));
    }

    #[test]
    fn jpeg_is_close() {
        let image = decode(&file(ImageFormat::Jpeg, false, 77), Path::new("x"), None).unwrap();
        assert_eq!(image.shape(), [3, 14, 20]);
        assert!(image[[0, 3, 4]].abs_diff(77) < 20);
        assert_eq!(
            decode(&file(ImageFormat::Jpeg, true, 5), Path::new("x"), None).unwrap().shape(),
            [1, 14, 20]
        );
    }

    #[test]
    fn every_cut_is_an_error_that_names_the_entry() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png] {
            let bytes = file(format, false, 77);
            for cut in 0..bytes.len() - 1 {
                // A PNG's pixels may be complete before its end chunk (12 bytes) is.
                if format == ImageFormat::Png && cut >= bytes.len() - 12 {
                    continue;
                }
                let error =
                    decode(&bytes[..cut], Path::new("a.tar"), Some("cat/1.jpg")).unwrap_err();
                assert!(
                    error.to_string().starts_with("a.tar: cat/1.jpg: "),
                    "{format:?} cut at {cut}: {error}"
                );
            }
        }
    }

    #[test]
    fn flipped_bytes_never_panic() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png] {
            for grey in [false, true] {
                let good = file(format, grey, 77);
                for at in 0..good.len() {
                    for flip in [0x01, 0x10, 0xff] {
                        let mut bytes = good.clone();
                        bytes[at] ^= flip;
                        let _ = decode(&bytes, Path::new("x"), None);
                    }
                }
            }
        }
    }
}
