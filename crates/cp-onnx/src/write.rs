//! A model as a file.

use std::io::Write as _;
use std::path::Path;

use cp_net::AtomicFile;

use crate::error::OnnxError;
use crate::external::Place;
use crate::limits::MAX_BYTES;
use crate::model::Model;
use crate::proto::{Message, tensor};

impl Model {
    /// Writes the model to `path`, whole or not at all.
    ///
    /// Values that lay in other files are taken into this one, so that the result is one file that can be moved, and holds nothing of
    /// the weights that are gone. Where it would be larger than 2 GiB, which readers of protocol buffers refuse, they go to
    /// `NAME.data` beside it instead, which is complete before the model names it.
    ///
    /// # Errors
    /// External data that cannot be read; what the file system reports.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), OnnxError> {
        self.save_within(path.as_ref(), MAX_BYTES)
    }

    /// The values of `tensor`, where they lie in another file.
    fn external(&self, tensor: &Message) -> Result<Option<Vec<u8>>, OnnxError> {
        let read = || match tensor::place(tensor)? {
            Some(place) => place.read(self.folder()).map(Some),
            None => Ok(None),
        };
        read().map_err(|source| self.tensor_error(tensor, source))
    }

    fn save_within(&self, path: &Path, most: u64) -> Result<(), OnnxError> {
        let io = |source| OnnxError::Io { path: path.into(), source };
        let mut total = self.root.len() as u64;
        let mut external = false;
        tensor::each(&self.root, &mut |tensor| {
            let length = || match tensor::place(tensor)? {
                // A field's tag and length, and those of the messages around it, which grow.
                Some(place) => place.length(self.folder()).map(|length| Some(length + 64)),
                None => Ok(None),
            };
            let length = length().map_err(|source| self.tensor_error(tensor, source))?;
            external |= length.is_some();
            total = total.saturating_add(length.unwrap_or(0));
            Ok::<_, OnnxError>(())
        })?;
        let mut model = self.clone();
        if external && total <= most {
            tensor::each_mut(&mut model.root, &mut |tensor| {
                if let Some(bytes) = self.external(tensor)? {
                    tensor::inline(tensor, bytes);
                }
                Ok::<_, OnnxError>(())
            })?;
        } else if external {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(".data");
            let data = path.with_file_name(&name);
            let location = name.to_string_lossy().into_owned();
            let data_io = |source| OnnxError::Io { path: data.clone(), source };
            let file = AtomicFile::create(&data).map_err(data_io)?;
            let mut offset = 0;
            let mut failed = None;
            let written = file.write(|file| {
                tensor::each_mut(&mut model.root, &mut |tensor| {
                    let bytes = self.external(tensor).map_err(|error| {
                        failed = Some(error);
                        std::io::Error::other("external data")
                    })?;
                    let Some(bytes) = bytes else { return Ok(()) };
                    file.write_all(&bytes)?;
                    let place = Place { location: location.clone(), offset, length: None };
                    tensor::relocate(tensor, &place, bytes.len() as u64);
                    offset += bytes.len() as u64;
                    Ok(())
                })
            });
            if let Some(failed) = failed {
                return Err(failed);
            }
            written.map_err(data_io)?;
        }
        let bytes = model.encode();
        if bytes.len() as u64 > most {
            let (path, bytes) = (Some(path.into()), bytes.len() as u64);
            return Err(OnnxError::TooLarge { path, bytes, most });
        }
        cp_net::write_atomic(path, &bytes).map_err(io)
    }
}
