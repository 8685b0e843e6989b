//! Sums that were kept when a file was first fetched, for files of which the publisher prints none, or only a part of one.
//!
//! `cargo xtask datasets fetch` writes them beside the file, as `FILE.sha256`, in the form of `sha256sum`: the sum, two
//! spaces, the file's name.

use std::fs;
use std::path::{Path, PathBuf};

use crate::DataError;

/// Where the sum of `file` is kept.
fn place(file: &Path) -> PathBuf {
    file.with_added_extension("sha256")
}

/// The sum of `file` at its first fetch, with the place where it is kept; nothing where it was not fetched that way.
///
/// # Errors
/// If the file that should hold it cannot be read, or does not.
pub(crate) fn sum(file: &Path) -> Result<Option<(String, PathBuf)>, DataError> {
    let place = place(file);
    if !place.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(&place).map_err(DataError::io(&place))?;
    let sum = text.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    if sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(Some((sum, place)));
    }
    Err(DataError::KeptSum { path: place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_as_sha256sum_writes_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.pth");
        assert_eq!(sum(&file).unwrap(), None);
        let known = "BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let place = dir.path().join("x.pth.sha256");
        fs::write(&place, format!("{known}  x.pth\n")).unwrap();
        assert_eq!(sum(&file).unwrap(), Some((known.to_lowercase(), place.clone())));
        fs::write(&place, "nonsense").unwrap();
        let error = sum(&file).unwrap_err().to_string();
        assert!(error.contains("x.pth.sha256") && error.contains("delete it"), "{error}");
    }
}
