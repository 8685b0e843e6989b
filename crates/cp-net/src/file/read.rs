//! Reading whole files, and naming those that are not what was expected.

use std::fs;
use std::path::Path;

use super::kind::FileKind;
use crate::error::NetError;

/// All bytes of the file at `path`; `expected` is what it should be.
///
/// # Errors
/// [`NetError::ForeignFile`] for a folder or a device, which may have no end, and [`NetError::Io`].
pub fn read_file(path: &Path, expected: &'static str) -> Result<Vec<u8>, NetError> {
    let io = |source| NetError::Io { path: path.into(), source };
    let kind = fs::metadata(path).map_err(io)?.file_type();
    // Pipes have an end, and come from `<(command)`.
    #[cfg(unix)]
    let is_pipe = std::os::unix::fs::FileTypeExt::is_fifo(&kind);
    #[cfg(not(unix))]
    let is_pipe = false;
    if kind.is_dir() {
        return Err(foreign(path, FileKind::Folder, expected, "name the file in it"));
    }
    if !kind.is_file() && !is_pipe {
        return Err(foreign(path, FileKind::Device, expected, "name the file"));
    }
    fs::read(path).map_err(io)
}

/// The text of the file at `path`, such as a plan; `expected` and `way_out` are for the message about anything else.
///
/// # Errors
/// [`NetError::ForeignFile`] naming what the file is, and [`NetError::Io`].
pub fn read_text(
    path: &Path,
    expected: &'static str,
    way_out: &'static str,
) -> Result<String, NetError> {
    let bytes = read_file(path, expected)?;
    let kind = FileKind::of(&bytes);
    match (kind, String::from_utf8(bytes)) {
        (FileKind::Empty | FileKind::Text | FileKind::Plan, Ok(text)) => Ok(text),
        (FileKind::Text | FileKind::Plan, Err(_)) => {
            Err(foreign(path, FileKind::Text, expected, "save it as UTF-8"))
        }
        _ => Err(foreign(path, kind, expected, way_out)),
    }
}

pub(super) fn foreign(
    path: &Path,
    kind: FileKind,
    expected: &'static str,
    way_out: &'static str,
) -> NetError {
    NetError::ForeignFile { path: path.into(), kind, expected, way_out }
}
