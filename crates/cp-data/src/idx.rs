//! IDX files, the format of MNIST and Fashion-MNIST, plain or packed with gzip or zstd.
//!
//! Two zero bytes, the element type (8: unsigned byte), the number of axes, each length as a big-endian `u32`, then the
//! elements, last axis fastest. Reference: <http://yann.lecun.com/exdb/mnist/>, "The IDX file format".

use std::path::Path;

use ndarray::{Array1, Array3, ArrayD, IxDyn};

use crate::{DataError, unpack};

/// Reads an IDX file of unsigned bytes.
///
/// # Errors
/// If the file cannot be read or unpacked, is no IDX file of unsigned bytes, or is longer or shorter than its header says.
pub fn read(path: impl AsRef<Path>) -> Result<ArrayD<u8>, DataError> {
    let path = path.as_ref();
    let raw = std::fs::read(path).map_err(DataError::io(path))?;
    parse(path, &unpack::unpack(path, raw)?)
}

/// Reads an IDX file of grey images: `[N, height, width]`.
///
/// # Errors
/// As [`read`], and if there are not three axes.
pub fn read_images(path: impl AsRef<Path>) -> Result<Array3<u8>, DataError> {
    images(path.as_ref(), read(path.as_ref())?)
}

/// Reads an IDX file of labels: `N` of them.
///
/// # Errors
/// As [`read`], and if there is not one axis.
pub fn read_labels(path: impl AsRef<Path>) -> Result<Array1<u8>, DataError> {
    labels(path.as_ref(), read(path.as_ref())?)
}

pub(crate) fn images(path: &Path, array: ArrayD<u8>) -> Result<Array3<u8>, DataError> {
    let shape = array.shape().to_vec();
    let expected = "images: [N, height, width]";
    array.into_dimensionality().map_err(|_| DataError::IdxShape {
        path: path.to_owned(),
        shape,
        expected,
    })
}

pub(crate) fn labels(path: &Path, array: ArrayD<u8>) -> Result<Array1<u8>, DataError> {
    let shape = array.shape().to_vec();
    let expected = "labels: [N]";
    array.into_dimensionality().map_err(|_| DataError::IdxShape {
        path: path.to_owned(),
        shape,
        expected,
    })
}

/// The array in the content of an unpacked file; `path` is for messages.
pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<ArrayD<u8>, DataError> {
    let truncated = |expected: usize| DataError::Truncated {
        path: path.to_owned(),
        expected: expected as u64,
        got: bytes.len() as u64,
    };
    let Some((&magic, rest)) = bytes.split_first_chunk::<4>() else { return Err(truncated(4)) };
    let [0, 0, 8, axes @ 1..=255] = magic else {
        return Err(DataError::IdxMagic { path: path.to_owned(), magic });
    };
    let header = 4 + 4 * usize::from(axes);
    let Some(lengths) = rest.get(..header - 4) else { return Err(truncated(header)) };
    let shape: Vec<usize> = lengths
        .chunks_exact(4)
        .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize)
        .collect();

    // A header can promise more than fits into memory, or into a number.
    let elements = shape.iter().try_fold(1_usize, |product, &length| product.checked_mul(length));
    let total = elements.and_then(|elements| elements.checked_add(header)).unwrap_or(usize::MAX);
    if bytes.len() < total {
        return Err(truncated(total));
    }
    if bytes.len() > total {
        return Err(DataError::TrailingBytes { path: path.to_owned(), expected: total as u64 });
    }
    let elements = bytes[header..].to_vec();
    ArrayD::from_shape_vec(IxDyn(&shape), elements).map_err(|_| DataError::IdxShape {
        path: path.to_owned(),
        shape,
        expected: "a shape that fits into memory",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(shape: &[u32], elements: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, shape.len() as u8];
        bytes.extend(shape.iter().flat_map(|length| length.to_be_bytes()));
        bytes.extend(elements);
        bytes
    }

    #[test]
    fn a_small_file_by_hand() {
        let array = parse(Path::new("x"), &file(&[2, 1, 3], &[1, 2, 3, 4, 5, 6])).unwrap();
        assert_eq!(array.shape(), [2, 1, 3]);
        assert_eq!(array[[1, 0, 0]], 4);
    }

    #[test]
    fn every_cut_is_an_error_that_names_the_file() {
        let bytes = file(&[3, 2, 2], &[0; 12]);
        for cut in 0..bytes.len() {
            let error = parse(Path::new("dir/x-ubyte"), &bytes[..cut]).unwrap_err();
            assert!(matches!(error, DataError::Truncated { .. }), "{error}");
            assert!(error.to_string().starts_with("dir/x-ubyte: cut off"), "{error}");
        }
    }

    #[test]
    fn damaged_headers_are_errors() {
        let good = file(&[3, 2, 2], &[0; 12]);
        for at in 0..16 {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] ^= flip;
                assert!(parse(Path::new("x"), &bytes).is_err(), "byte {at} ^ {flip:02x}");
            }
        }
        assert!(matches!(
            parse(Path::new("x"), &[good, vec![0]].concat()),
            Err(DataError::TrailingBytes { .. })
        ));
        assert!(parse(Path::new("x"), &file(&[u32::MAX; 8], &[])).is_err());
        assert!(parse(Path::new("x"), &file(&[0, u32::MAX, u32::MAX, u32::MAX], &[])).is_err());
    }

    #[test]
    fn images_and_labels_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels");
        std::fs::write(&path, file(&[3], &[1, 2, 3])).unwrap();
        assert_eq!(read_labels(&path).unwrap().to_vec(), [1, 2, 3]);
        assert!(matches!(read_images(&path), Err(DataError::IdxShape { .. })));
    }
}
