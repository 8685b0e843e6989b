//! Gzip and zstd, told apart from plain files by their first bytes.

use std::io::Read;
use std::path::Path;

use flate2::bufread::GzDecoder;

use crate::DataError;

/// The largest window a zstd frame may ask for, as log₂ of its bytes: 128 MiB, the reference decoder's own limit.
/// Files packed for size use more than the 8 MiB that every decoder must allow (the CIFAR-10 batches: 29.3 MiB).
const WINDOW_LOG_MAX: u32 = 27;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    /// By magic number (RFC 1952 §2.3.1, RFC 8878 §3.1.1).
    pub(crate) fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
            _ => Packing::Plain,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Packing::Plain => "plain",
            Packing::Gzip => "gzip",
            Packing::Zstd => "zstd",
        }
    }
}

/// The content of a file that was read whole.
pub(crate) fn unpack(path: &Path, raw: Vec<u8>) -> Result<Vec<u8>, DataError> {
    let packing = Packing::of(&raw);
    let failed =
        |source| DataError::Unpack { path: path.to_owned(), format: packing.name(), source };
    let mut bytes = Vec::new();
    match packing {
        Packing::Plain => return Ok(raw),
        Packing::Gzip => {
            // One member or several; zeros behind them fill up a block of the medium, as gzip itself takes it.
            let mut rest = raw.as_slice();
            while !rest.iter().all(|&byte| byte == 0) {
                GzDecoder::new(&mut rest).read_to_end(&mut bytes).map_err(failed)?;
            }
        }
        Packing::Zstd => {
            let mut decoder = zstd::Decoder::new(raw.as_slice()).map_err(failed)?;
            decoder.window_log_max(WINDOW_LOG_MAX).map_err(failed)?;
            decoder.read_to_end(&mut bytes).map_err(failed)?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn round_trips() {
        let bytes: Vec<u8> = (0..10_000_u32).map(|i| (i * i % 251) as u8).collect();
        let path = Path::new("x");
        assert_eq!(unpack(path, bytes.clone()).unwrap(), bytes);
        assert_eq!(unpack(path, gzip(&bytes)).unwrap(), bytes);
        assert_eq!(unpack(path, zstd::encode_all(bytes.as_slice(), 3).unwrap()).unwrap(), bytes);
    }

    #[test]
    fn several_members_and_zeros_behind() {
        for pieces in [&[&b"one"[..], b"two", b""][..], &[b"onetwo"], &[b"", b"onetwo"]] {
            let raw: Vec<u8> = pieces.iter().flat_map(|piece| gzip(piece)).collect();
            assert_eq!(unpack(Path::new("x"), raw.clone()).unwrap(), b"onetwo");
            assert_eq!(
                unpack(Path::new("x"), [raw.clone(), vec![0; 700]].concat()).unwrap(),
                b"onetwo"
            );
            let other = [raw, b"\0\0something".to_vec()].concat();
            assert!(matches!(unpack(Path::new("x"), other), Err(DataError::Unpack { .. })));
        }
    }

    #[test]
    fn a_window_of_64_mib_is_read() {
        // A streamed frame (of unknown size) states its window in full: here 2²⁶ bytes, eight times the required minimum.
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(26).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(&[7; 1000]).unwrap();
        let raw = encoder.finish().unwrap();
        assert_eq!(unpack(Path::new("x"), raw).unwrap(), [7; 1000]);
    }

    #[test]
    fn every_cut_is_an_error() {
        let bytes: Vec<u8> = (0..3000_u32).map(|i| (i * i % 251) as u8).collect();
        for raw in [gzip(&bytes), zstd::encode_all(bytes.as_slice(), 3).unwrap()] {
            for cut in (4..raw.len()).step_by(7) {
                let error = unpack(Path::new("dir/x.gz"), raw[..cut].to_vec()).unwrap_err();
                assert!(matches!(error, DataError::Unpack { .. }), "{error}");
                assert!(error.to_string().starts_with("dir/x.gz: cannot unpack"), "{error}");
            }
        }
    }
}
