//! Values that lie in files beside the model.
//!
//! A path is relative to the model's folder and stays below it: a model from a stranger cannot read what it was not given. Links are
//! followed first, so that none leads out.
//!
//! Source: <https://github.com/onnx/onnx/blob/main/docs/ExternalData.md>.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Component, Path, PathBuf};

use crate::error::TensorError;

/// Where the values of a tensor lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Path relative to the model's folder.
    pub(crate) location: String,
    /// First byte.
    pub(crate) offset: u64,
    /// Number of bytes; to the end of the file where it is not said.
    pub(crate) length: Option<u64>,
}

impl Place {
    /// The file below `folder`, and how many bytes of it are meant.
    fn file(&self, folder: Option<&Path>) -> Result<(PathBuf, u64), TensorError> {
        let location = || self.location.clone();
        let folder = folder.ok_or_else(|| TensorError::NoFolder { location: location() })?;
        let relative = Path::new(&self.location);
        let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        // A backslash parts folders on some systems, and is in no file name that exporters write.
        if self.location.is_empty()
            || self.location.contains('\\')
            || !relative.components().all(plain)
        {
            return Err(TensorError::Outside { location: location() });
        }
        let found = |source| TensorError::Missing { path: folder.join(relative), source };
        let path = folder.join(relative).canonicalize().map_err(found)?;
        if !path.starts_with(folder.canonicalize().map_err(found)?) {
            return Err(TensorError::Outside { location: location() });
        }
        let metadata = path.metadata().map_err(found)?;
        if !metadata.is_file() {
            let told = "is a folder, a pipe or a device, not a file";
            return Err(TensorError::Missing { path, source: std::io::Error::other(told) });
        }
        let size = metadata.len();
        let length = self.length.unwrap_or(size.saturating_sub(self.offset));
        match self.offset.checked_add(length) {
            Some(end) if end <= size => Ok((path, length)),
            _ => Err(TensorError::Short { path, offset: self.offset, length, size }),
        }
    }

    /// How many bytes there are.
    ///
    /// # Errors
    /// A path out of the folder, a file that is not there or too short.
    pub(crate) fn length(&self, folder: Option<&Path>) -> Result<u64, TensorError> {
        self.file(folder).map(|(_, length)| length)
    }

    /// The bytes.
    ///
    /// # Errors
    /// As [`Place::length`], and what the file system reports.
    pub(crate) fn read(&self, folder: Option<&Path>) -> Result<Vec<u8>, TensorError> {
        let (path, length) = self.file(folder)?;
        let read = || {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(self.offset))?;
            let mut bytes = Vec::new();
            file.take(length).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|source| TensorError::Missing { path: path.clone(), source })
    }
}
