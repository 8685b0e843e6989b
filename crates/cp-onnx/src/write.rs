//! A model as a file.

use std::io::Write as _;
use std::path::Path;

use cp_net::AtomicFile;

use crate::error::OnnxError;
use crate::external::Place;
use crate::limits::MAX_BYTES;
use crate::model::Model;
use crate::proto::{Message, Payload, graph, tensor};

/// Bytes of values below which a tensor stays in the model when others go beside it, as onnx's own helper has it.
const SMALL: usize = 1024;

impl Model {
    /// Writes the model to `path`, whole or not at all.
    ///
    /// Values that lay in other files are taken into this one, so that the result is one file that can be moved, and holds nothing of
    /// the weights that are gone. Where it would be larger than 2 GiB, which readers of protocol buffers refuse, they and the
    /// initializers go to `NAME.data` beside it instead, which is complete before the model names it.
    ///
    /// # Errors
    /// External data that cannot be read; [`OnnxError::Exists`], a `NAME.data` that is there already: it is never written over, since
    /// other models (this one, where it was read from there) may read it; what the file system reports.
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
        if total > most {
            return self.save_beside(path, most);
        }
        let mut model = self.clone();
        if external {
            tensor::each_mut(&mut model.root, &mut |tensor| {
                if let Some(bytes) = self.external(tensor)? {
                    tensor::inline(tensor, bytes);
                }
                Ok::<_, OnnxError>(())
            })?;
        }
        cp_net::write_atomic(path, &model.encode()).map_err(io)
    }

    /// With the values of large initializers, and of what lay in other files before, in `NAME.data`.
    fn save_beside(&self, path: &Path, most: u64) -> Result<(), OnnxError> {
        let io = |source| OnnxError::Io { path: path.into(), source };
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".data");
        let data = path.with_file_name(&name);
        if data.symlink_metadata().is_ok() {
            return Err(OnnxError::Exists { path: data });
        }
        let data_io = |source| OnnxError::Io { path: data.clone(), source };
        let location = name.to_string_lossy().into_owned();
        let mut model = self.clone();
        // Before anything is written: how large the model itself will be.
        let mut rest = self.root.len() as u64;
        initializers(&self.root, &mut |tensor| {
            let moved = tensor::raw(tensor).map_or(0, |bytes| bytes.len());
            rest -= if moved >= SMALL { moved as u64 } else { 0 };
        });
        if rest > most {
            return Err(OnnxError::TooLarge { path: Some(path.into()), bytes: rest, most });
        }
        let file = AtomicFile::create(&data).map_err(data_io)?;
        let mut offset = 0;
        let mut failed = None;
        let written = file.write(|file| {
            let mut put = |tensor: &mut Message, bytes: &[u8]| {
                file.write_all(bytes)?;
                let place = Place { location: location.clone(), offset, length: None };
                tensor::relocate(tensor, &place, bytes.len() as u64);
                offset += bytes.len() as u64;
                Ok::<_, std::io::Error>(())
            };
            tensor::each_mut(&mut model.root, &mut |tensor| {
                let bytes = self.external(tensor).map_err(|error| {
                    failed = Some(error);
                    std::io::Error::other("external data")
                })?;
                bytes.map_or(Ok(()), |bytes| put(tensor, &bytes))
            })?;
            initializers_mut(&mut model.root, &mut |tensor| {
                let bytes = tensor::raw(tensor).filter(|bytes| bytes.len() >= SMALL).cloned();
                bytes.map_or(Ok(()), |bytes| put(tensor, &bytes))
            })
        });
        if let Some(failed) = failed {
            return Err(failed);
        }
        written.map_err(data_io)?;
        cp_net::write_atomic(path, &model.encode()).map_err(io)
    }
}

/// The initializers of the main graph.
fn initializers(root: &Message, then: &mut impl FnMut(&Message)) {
    for (_, graph) in root.children(crate::proto::model::GRAPH) {
        graph.children(graph::INITIALIZERS).for_each(|(_, tensor)| then(tensor));
    }
}

/// The same, to change them.
fn initializers_mut<E>(
    root: &mut Message,
    then: &mut impl FnMut(&mut Message) -> Result<(), E>,
) -> Result<(), E> {
    let fields = root.fields.iter_mut().filter(|field| field.number == crate::proto::model::GRAPH);
    for field in fields {
        let Payload::Message(graph, _) = &mut field.payload else { continue };
        for field in graph.fields.iter_mut().filter(|field| field.number == graph::INITIALIZERS) {
            if let Payload::Message(tensor, _) = &mut field.payload {
                then(tensor)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ExportOptions, export, exported_network};

    /// A model of which more than `MOST` bytes are weights.
    fn model() -> (cp_net::Network, Model) {
        let net = cp_net::arch::by_name("small-cnn").unwrap().initialize(1).unwrap();
        let model = export(&net, &ExportOptions::default()).unwrap();
        (net, model)
    }

    const MOST: u64 = 40_000;

    #[test]
    fn large_models_have_their_weights_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let (path, data) = (folder.path().join("m.onnx"), folder.path().join("m.onnx.data"));
        let (net, model) = model();
        assert!(model.encode().len() as u64 > MOST);
        model.save_within(&path, MOST).unwrap();
        assert!(path.metadata().unwrap().len() < MOST);
        let again = Model::open(&path).unwrap();
        assert_eq!(exported_network(&again).unwrap().as_ref(), Some(&net));
        let names = |model: &Model| -> Vec<String> {
            model.layers().unwrap().into_iter().map(|layer| layer.name).collect()
        };
        assert_eq!(names(&again), names(&model));
        // Read from there, and put beside another: the same values.
        let other = folder.path().join("other.onnx");
        again.save_within(&other, MOST).unwrap();
        let other_data = folder.path().join("other.onnx.data");
        assert_eq!(std::fs::read(other_data).unwrap(), std::fs::read(&data).unwrap());
        // And into one file, which needs none beside it.
        let whole = folder.path().join("whole.onnx");
        again.save(&whole).unwrap();
        std::fs::remove_file(&data).unwrap();
        let whole = Model::open(&whole).unwrap();
        assert_eq!(exported_network(&whole).unwrap(), Some(net));
        let error = Model::open(&path).unwrap_err();
        assert!(error.to_string().contains("m.onnx.data"), "{error}");
    }

    #[test]
    fn data_of_others_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (path, data) = (folder.path().join("m.onnx"), folder.path().join("m.onnx.data"));
        let (_, model) = model();
        std::fs::write(&data, "not ours").unwrap();
        let error = model.save_within(&path, MOST).unwrap_err();
        assert!(matches!(error, OnnxError::Exists { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&data).unwrap(), "not ours");
        assert!(!path.exists());
        // A model that reads from where it would be written.
        std::fs::remove_file(&data).unwrap();
        model.save_within(&path, MOST).unwrap();
        let before = std::fs::read(&data).unwrap();
        let again = Model::open(&path).unwrap();
        again.save_within(&path, MOST).unwrap_err();
        assert_eq!(std::fs::read(&data).unwrap(), before);
        // Small enough for one file, it may.
        again.save(&path).unwrap();
        assert_eq!(Model::open(&path).unwrap().encode(), model.encode());
    }

    #[test]
    fn what_stays_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (_, model) = model();
        let error = model.save_within(&folder.path().join("m.onnx"), 100).unwrap_err();
        assert!(matches!(error, OnnxError::TooLarge { .. }), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
