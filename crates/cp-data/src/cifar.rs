//! The binary version of CIFAR-10 and CIFAR-100, plain or packed with gzip or zstd.
//!
//! Records without header: the label (CIFAR-10) or the coarse and the fine label (CIFAR-100), one byte each, then
//! 32×32 red, green and blue bytes, row by row. Reference: <https://www.cs.toronto.edu/~kriz/cifar.html>, "Binary version".

use std::path::Path;

use ndarray::Array4;

use crate::{DataError, unpack};

/// Bytes of the pixels of a record: 3 planes of 32×32.
const PIXELS: usize = 3 * 32 * 32;

/// Which labels a record starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// CIFAR-10: one label, 0 to 9.
    Cifar10,
    /// CIFAR-100, using the fine label, 0 to 99.
    Cifar100Fine,
    /// CIFAR-100, using the coarse label, 0 to 19.
    Cifar100Coarse,
}

impl Labels {
    /// Bytes before the pixels, which of them is the label, and the number of classes.
    fn layout(self) -> (usize, usize, usize) {
        match self {
            Labels::Cifar10 => (1, 0, 10),
            Labels::Cifar100Fine => (2, 1, 100),
            Labels::Cifar100Coarse => (2, 0, 20),
        }
    }
}

/// Reads a file of records: pixels `[N, 3, 32, 32]` and `N` labels.
///
/// # Errors
/// If the file cannot be read or unpacked, does not hold a whole number of records (at least one), or has a label out
/// of range.
pub fn read(path: impl AsRef<Path>, labels: Labels) -> Result<(Array4<u8>, Vec<usize>), DataError> {
    let path = path.as_ref();
    let raw = std::fs::read(path).map_err(DataError::io(path))?;
    let mut pixels = Vec::new();
    let labels = parse_into(path, &unpack::unpack(path, raw)?, labels, &mut pixels)?;
    Ok((to_array(pixels)?, labels))
}

/// Appends the pixels of an unpacked file's records to `pixels` and gives their labels; `path` is for messages.
pub(crate) fn parse_into(
    path: &Path,
    bytes: &[u8],
    labels: Labels,
    pixels: &mut Vec<u8>,
) -> Result<Vec<usize>, DataError> {
    let (before, at, classes) = labels.layout();
    let record_bytes = before + PIXELS;
    if bytes.is_empty() || !bytes.len().is_multiple_of(record_bytes) {
        let record = bytes.len() / record_bytes;
        return Err(DataError::CifarLength {
            path: path.to_owned(),
            bytes: bytes.len(),
            record_bytes,
            record,
        });
    }
    pixels.reserve(bytes.len() / record_bytes * PIXELS);
    let mut found = Vec::with_capacity(bytes.len() / record_bytes);
    for (record, content) in bytes.chunks_exact(record_bytes).enumerate() {
        let label = usize::from(content[at]);
        if label >= classes {
            return Err(DataError::Label { path: path.to_owned(), record, label, classes });
        }
        found.push(label);
        pixels.extend_from_slice(&content[before..]);
    }
    Ok(found)
}

/// `[N, 3, 32, 32]` from the pixels of N records.
pub(crate) fn to_array(pixels: Vec<u8>) -> Result<Array4<u8>, DataError> {
    let bytes = pixels.len();
    let shape = (bytes / PIXELS, 3, 32, 32);
    Array4::from_shape_vec(shape, pixels).map_err(|_| DataError::Option {
        option: "bytes of CIFAR images",
        value: bytes.to_string(),
        expected: "a multiple of 3072",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(labels: &[u8], red: u8, green: u8, blue: u8) -> Vec<u8> {
        [labels, &[red; 1024], &[green; 1024], &[blue; 1024]].concat()
    }

    fn check(bytes: &[u8], labels: Labels) -> Result<(Array4<u8>, Vec<usize>), DataError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("batch.bin");
        std::fs::write(&path, bytes).unwrap();
        read(&path, labels)
    }

    #[test]
    fn records_by_hand() {
        let (pixels, labels) =
            check(&[record(&[3], 1, 2, 3), record(&[9], 4, 5, 6)].concat(), Labels::Cifar10)
                .unwrap();
        assert_eq!(labels, [3, 9]);
        assert_eq!(pixels.shape(), [2, 3, 32, 32]);
        assert_eq!((pixels[[0, 0, 31, 31]], pixels[[0, 1, 0, 0]], pixels[[1, 2, 5, 7]]), (1, 2, 6));

        let hundred = record(&[19, 99], 1, 2, 3);
        assert_eq!(check(&hundred, Labels::Cifar100Fine).unwrap().1, [99]);
        assert_eq!(check(&hundred, Labels::Cifar100Coarse).unwrap().1, [19]);
        let packed = zstd::encode_all(hundred.as_slice(), 3).unwrap();
        assert_eq!(check(&packed, Labels::Cifar100Fine).unwrap().1, [99]);
    }

    #[test]
    fn a_cut_file_names_the_record() {
        let bytes = [record(&[3], 1, 2, 3), record(&[9], 4, 5, 6)].concat();
        for cut in [0, 1, 3072, 3074, 5000, 6145] {
            let error = check(&bytes[..cut], Labels::Cifar10).unwrap_err();
            let record = cut / 3073;
            assert!(error.to_string().contains(&format!("record {record} is cut off")), "{error}");
        }
        // Two CIFAR-10 records are no whole CIFAR-100 records.
        assert!(matches!(check(&bytes, Labels::Cifar100Fine), Err(DataError::CifarLength { .. })));
    }

    #[test]
    fn labels_are_range_checked() {
        let bytes = [record(&[3], 1, 2, 3), record(&[10], 4, 5, 6)].concat();
        let error = check(&bytes, Labels::Cifar10).unwrap_err();
        assert!(
            matches!(error, DataError::Label { record: 1, label: 10, classes: 10, .. }),
            "{error}"
        );
        assert!(check(&record(&[20, 5], 0, 0, 0), Labels::Cifar100Coarse).is_err());
        assert!(check(&record(&[0, 100], 0, 0, 0), Labels::Cifar100Fine).is_err());
    }
}
