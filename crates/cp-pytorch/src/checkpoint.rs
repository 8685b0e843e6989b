//! What `torch.save` writes, in both of its formats: a pickle whose tensors are views of storages that lie beside it.

mod before_1_6;
mod select;
mod zipped;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::rc::Rc;

use cp_net::{Architecture, FileKind, Loaded, NetError, Network, read_file};
use ndarray::ArrayD;

pub(crate) use zipped::check_order;

use crate::archive::Archive;
use crate::error::{CheckpointError, PyTorchError};
use crate::limits::{Budget, MAX_PICKLE};
use crate::pickle::{self, value::*};
use crate::tensor::{Decoded, TensorError};

/// What of a file is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateDictOptions {
    /// The entry of a training checkpoint that is the state dict, such as `model` or, of one inside another, `ema.state_dict`. Without
    /// it, the only entry that looks like one is taken.
    pub key: Option<String>,
}

/// Arrays by name, as `module.state_dict()` has them. Types of floating-point numbers become f32.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StateDict {
    pub(crate) arrays: BTreeMap<String, ArrayD<f32>>,
    pub(crate) integers: BTreeMap<String, ArrayD<i64>>,
    key: Option<String>,
}

impl StateDict {
    /// The arrays of floating-point numbers: weights, biases, statistics.
    pub fn arrays(&self) -> &BTreeMap<String, ArrayD<f32>> {
        &self.arrays
    }

    /// The arrays of whole numbers and truth values (0 and 1): counters such as `num_batches_tracked`, indices.
    pub fn integers(&self) -> &BTreeMap<String, ArrayD<i64>> {
        &self.integers
    }

    /// The entry of the checkpoint that this is; `None` where the file is a state dict as a whole.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The arrays of floating-point numbers by themselves.
    pub fn into_arrays(self) -> BTreeMap<String, ArrayD<f32>> {
        self.arrays
    }

    /// The network of this architecture with these weights. Names are matched as [`Network::from_arrays`] does it; the notes also say
    /// which entry of a checkpoint was taken, and which arrays of whole numbers were left out.
    ///
    /// # Errors
    /// As [`Network::from_arrays`].
    pub fn into_network(self, arch: Architecture) -> Result<Loaded, NetError> {
        let mut loaded = Network::from_arrays(arch, self.arrays)?;
        if let Some(key) = self.key {
            loaded.notes.insert(0, format!("the checkpoint's entry '{key}' was taken"));
        }
        let mut left_out =
            self.integers.into_keys().filter(|name| !name.ends_with("num_batches_tracked"));
        if let Some(first) = left_out.next() {
            let count = 1 + left_out.count();
            let note = format!("{count} arrays of whole numbers were left out ('{first}')");
            loaded.notes.push(note);
        }
        Ok(loaded)
    }
}

/// The state dict in a file of PyTorch's (`.pth`, `.pt`, `.th`, `.pth.tar`): in a zip archive, as PyTorch writes it since 1.6, or in the
/// format before. It may be the whole file or an entry of a training checkpoint. What the file is, its contents say, not its name.
///
/// Views, whatever their strides, come as the arrays that they show; f16, bf16 and f64 become f32.
///
/// # Errors
/// [`PyTorchError::File`] where the file cannot be read; [`PyTorchError::Checkpoint`], which names the file, for everything else: other
/// formats and what to do about them, damaged files, checkpoints of which several entries would do, tensors that are not read.
pub fn state_dict(
    path: impl AsRef<Path>,
    options: &StateDictOptions,
) -> Result<StateDict, PyTorchError> {
    let path = path.as_ref();
    let bytes = read_file(path, "a checkpoint of PyTorch")?;
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let read = of_bytes(&bytes, options.key.as_deref(), &file);
    read.map_err(|source| PyTorchError::Checkpoint { path: path.into(), source: Box::new(source) })
}

/// The state dict in these bytes, of a file called `file`.
pub(crate) fn of_bytes(
    bytes: &[u8],
    key: Option<&str>,
    file: &str,
) -> Result<StateDict, CheckpointError> {
    match FileKind::of(bytes) {
        FileKind::Pickle => before_1_6::read(bytes, key, file),
        FileKind::Tar => Err(CheckpointError::Tar { file: file.into() }),
        _ if bytes.starts_with(b"PK") => zipped::read(bytes, &Archive::open(bytes)?, key, file),
        kind => Err(CheckpointError::Kind { kind }),
    }
}

/// A pickle with its objects.
fn unpickled(bytes: &[u8], part: &str) -> Result<(Heap, Value, usize), CheckpointError> {
    if bytes.len() > MAX_PICKLE {
        return Err(CheckpointError::LargePickle { bytes: bytes.len(), most: MAX_PICKLE });
    }
    pickle::run(bytes).map_err(|source| CheckpointError::Pickle { part: part.into(), source })
}

/// The arrays of the state dict that `root` is or has; `storage` finds the bytes of one by its key.
fn arrays<'a>(
    heap: &Heap,
    root: &Value,
    key: Option<&str>,
    file: &str,
    budget: &Budget,
    storage: impl Fn(&Storage) -> Result<Cow<'a, [u8]>, CheckpointError>,
) -> Result<StateDict, CheckpointError> {
    let chosen = select::choose(heap, root, key, file)?;
    let mut found = StateDict { key: chosen.key, ..StateDict::default() };
    let mut storages: HashMap<Rc<str>, Cow<'a, [u8]>> = HashMap::new();
    for (name, tensor) in chosen.tensors {
        let wrong = |source| CheckpointError::Tensor { name: name.into(), source };
        let of = &tensor.storage;
        if !storages.contains_key(&of.key) {
            storages.insert(of.key.clone(), storage(of)?);
        }
        let bytes = storages.get(&of.key).map_or(&[][..], |bytes| bytes);
        let size = of.dtype.map_or(1, crate::dtype::Dtype::size);
        let expected = of.count.saturating_mul(size as u64);
        if bytes.len() as u64 != expected {
            return Err(wrong(TensorError::Length { expected, got: bytes.len() }));
        }
        let bytes = match of.part {
            None => bytes,
            Some([first, count]) => {
                let range = |first: usize, count: usize| {
                    let start = first.checked_mul(size)?;
                    bytes.get(start..start.checked_add(count.checked_mul(size)?)?)
                };
                range(first, count)
                    .ok_or_else(|| CheckpointError::StorageClash { key: of.key.to_string() })?
            }
        };
        match tensor.layout.read(bytes, tensor.dtype, budget).map_err(wrong)? {
            Decoded::Float(array) => {
                found.integers.remove(name);
                found.arrays.insert(name.into(), array);
            }
            Decoded::Integer(array) => {
                found.arrays.remove(name);
                found.integers.insert(name.into(), array);
            }
        }
    }
    Ok(found)
}
