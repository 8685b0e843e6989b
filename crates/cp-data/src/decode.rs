//! One image file to one array.

use std::io::{self, Cursor};
use std::path::Path;

use image::{DynamicImage, ImageError, ImageReader, Limits};
use ndarray::{Array3, ArrayView3};

use crate::{DataError, FileKind, printable};

/// No side of an image may be longer, nor may decoding take more than 512 MiB: a damaged header asks for anything.
const MAX_SIDE: u32 = 1 << 15;

/// Decodes a JPEG or PNG: `[1, height, width]` if it is grey, `[3, height, width]` if it has colors; alpha is dropped,
/// 16 bits become 8, and whatever lies behind the end of a JPEG (the film of a phone's moving photo) is left alone. Turning by an EXIF orientation is left out, as the usual training pipelines do.
///
/// `path` and `entry` (of an archive) are for messages.
pub(crate) fn decode(
    bytes: &[u8],
    path: &Path,
    entry: Option<&str>,
) -> Result<Array3<u8>, DataError> {
    let failed = |source: ImageError| {
        // The decoder's words may quote bytes of the file.
        let words = source.to_string();
        let plain = printable(&words);
        let source =
            if plain == words { source } else { ImageError::IoError(io::Error::other(plain)) };
        DataError::Decode { path: path.to_owned(), entry: entry.map(str::to_owned), source }
    };
    let kind = FileKind::of_bytes(&bytes[..bytes.len().min(4096)]);
    let readable = matches!(kind, FileKind::Jpeg | FileKind::Png | FileKind::Unknown);
    if let Some(way_out) = kind.way_out(path).filter(|_| !readable) {
        let (path, entry) = (path.to_owned(), entry.map(str::to_owned));
        return Err(DataError::NoImage { path, entry, kind, way_out });
    }
    let bytes = match kind {
        FileKind::Jpeg => match jpeg_end(bytes) {
            Some(end) => &bytes[..end],
            None => {
                return Err(DataError::TruncatedJpeg {
                    path: path.to_owned(),
                    entry: entry.map(str::to_owned),
                    bytes: bytes.len(),
                });
            }
        },
        _ => bytes,
    };
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| failed(error.into()))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    reader.limits(limits);
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
        Err(_) => Err(failed(ImageError::IoError(io::ErrorKind::InvalidData.into()))),
    }
}

/// Where the image in a JPEG ends: behind the first end-of-image marker on the way from segment to segment. The decoder
/// fills up a JPEG that was cut off with grey, so that this is the only sign of a cut.
///
/// A segment is a marker, then its length in two bytes; behind the segment that starts a scan come coded data, in which
/// 0xFF is followed by 0 or by a restart marker (ITU-T T.81, B.1.1). What lies inside of a segment (a thumbnail, with an end
/// of its own) is passed over with it.
fn jpeg_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 2;
    let mut scans = 0;
    loop {
        // To the next marker: through coded data, filling bytes, and what a careless writer left between segments.
        at += bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
        let marker = *bytes.get(at + 1)?;
        match marker {
            0xff => at += 1,
            0x00 | 0x01 | 0xd0..=0xd7 => at += 2,
            0xd9 if scans > 0 => return Some(at + 2),
            // Another image starts in the middle of this one, or it ends before it began.
            0xd8 | 0xd9 => return None,
            _ => {
                let length =
                    usize::from(*bytes.get(at + 2)?) << 8 | usize::from(*bytes.get(at + 3)?);
                scans += usize::from(marker == 0xda);
                at += 2 + length.max(2);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use image::{GrayImage, ImageFormat, Luma, Rgb, RgbImage};

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
    fn what_lies_behind_a_jpeg_is_left_alone() {
        for grey in [false, true] {
            let good = file(ImageFormat::Jpeg, grey, 77);
            let expected = decode(&good, Path::new("x"), None).unwrap();
            let trailers: [&[u8]; 6] = [
                &[0; 4000],
                b"\0\0\0\x18ftypmp42\xff\xda\0\x08moov",
                &good[..good.len() - 20],
                &good,
                b"\xff\xd9\xff\xda\xff\xd9\xff\xda\0",
                b"\xff",
            ];
            for trailer in trailers {
                let bytes = [&good, trailer].concat();
                assert_eq!(decode(&bytes, Path::new("x"), None).unwrap(), expected);
                // A cut stays a cut, whatever follows: nothing, or another image.
                let cut = &good[..good.len() - 20];
                let error = decode(cut, Path::new("x"), None).unwrap_err();
                assert!(matches!(error, DataError::TruncatedJpeg { .. }), "{error}");
                let error = decode(&[cut, &good].concat(), Path::new("x"), None).unwrap_err();
                assert!(matches!(error, DataError::TruncatedJpeg { .. }), "{error}");
            }
        }
    }

    #[test]
    fn a_thumbnail_in_a_jpeg_is_no_end_of_it() {
        let (good, small) = (file(ImageFormat::Jpeg, false, 77), file(ImageFormat::Jpeg, true, 3));
        let mut bytes = good[..2].to_vec();
        bytes.extend([0xff, 0xe1]);
        bytes.extend((small.len() as u16 + 2).to_be_bytes());
        bytes.extend(&small);
        bytes.extend(&good[2..]);
        assert_eq!(
            decode(&bytes, Path::new("x"), None).unwrap(),
            decode(&good, Path::new("x"), None).unwrap()
        );
        for cut in [4 + small.len(), bytes.len() - good.len() / 4, bytes.len() - 1] {
            let error = decode(&bytes[..cut], Path::new("x"), None).unwrap_err();
            assert!(matches!(error, DataError::TruncatedJpeg { .. }), "cut at {cut}: {error}");
        }
    }

    #[test]
    fn every_kind_of_png_becomes_grey_or_color() {
        use image::{DynamicImage, ImageBuffer, LumaA, Rgba};
        let rgba = DynamicImage::ImageRgba8(ImageBuffer::from_pixel(3, 2, Rgba([9, 8, 7, 0])));
        let grey_alpha = DynamicImage::ImageLumaA8(ImageBuffer::from_pixel(3, 2, LumaA([9, 0])));
        let deep =
            DynamicImage::ImageRgb16(ImageBuffer::from_pixel(3, 2, Rgb([0x0909, 0x0808, 0x0707])));
        let deep_grey = DynamicImage::ImageLuma16(ImageBuffer::from_pixel(3, 2, Luma([0x0909])));
        for (image, expected) in
            [(rgba, &[9, 8, 7][..]), (grey_alpha, &[9]), (deep, &[9, 8, 7]), (deep_grey, &[9])]
        {
            let mut bytes = Cursor::new(Vec::new());
            image.write_to(&mut bytes, ImageFormat::Png).unwrap();
            let image = decode(&bytes.into_inner(), Path::new("x"), None).unwrap();
            assert_eq!(image.shape(), [expected.len(), 2, 3]);
            assert!(
                image
                    .outer_iter()
                    .zip(expected)
                    .all(|(plane, value)| plane.iter().all(|v| v == value))
            );
        }
    }

    #[test]
    fn what_is_no_image_is_called_what_it_is() {
        for (bytes, words) in [
            (&b"version https://git-lfs.github.com/spec/v1\n"[..], "Git LFS pointer"),
            (b"<!DOCTYPE html><html></html>", "web page"),
            (b"RIFF\0\0\0\0WEBPVP8 ", "WebP; expected JPEG or PNG"),
            (b"", "empty"),
            (b"GIF89a", "convert it"),
        ] {
            let error =
                decode(bytes, Path::new("a.tar"), Some("cat/1.jpg")).unwrap_err().to_string();
            assert!(error.starts_with("a.tar: cat/1.jpg: ") && error.contains(words), "{error}");
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
