//! Networks as `.safetensors` files: the arrays as f32, the architecture as JSON in the metadata under [`METADATA_KEY`].
//!
//! Writing is atomic: a reader finds the old file or the new one, and a killed writer leaves neither half.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};
use safetensors::{Dtype, SafeTensors, View, tensor::TensorView};
use serde::Serialize;

use crate::arch;
use crate::atomic::write_atomic;
use crate::error::NetError;
use crate::file::architecture::{FORMAT, from_header, in_file};
use crate::file::arrays::{Loaded, check_values, other_head};
use crate::file::kind::FileKind;
use crate::file::names::matched;
use crate::file::read::{foreign, read_file};
use crate::network::Network;
use crate::network::architecture::Architecture;
use crate::network::check::check_shapes;

/// The metadata key under which a model file holds its architecture.
pub const METADATA_KEY: &str = "polyad";

/// The JSON under [`METADATA_KEY`].
#[derive(Serialize)]
struct Header<'a> {
    format: u32,
    architecture: Cow<'a, Architecture>,
}

impl Network {
    /// Loads a network that [`Network::save`] wrote.
    ///
    /// # Errors
    /// [`NetError::Io`], [`NetError::ForeignFile`] for a file of another kind, [`NetError::BadFile`] for a truncated one, [`NetError::NoArchitecture`] for weights
    /// alone (see [`Network::load_as`]), [`NetError::BadValues`] for weights that are no numbers; all name the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, NetError> {
        let path = path.as_ref();
        let bytes = read(path)?;
        let Some(arch) = architecture(path, &bytes)? else {
            return Err(NetError::NoArchitecture { path: path.into(), known: arch::names() });
        };
        let file = deserialized(path, &bytes)?;
        let views = file.iter().map(|(name, view)| (name.to_string(), view)).collect();
        network(path, views, arch)
    }

    /// Loads weights from elsewhere into an architecture, by name. What wrappers add to names (`module.`, `_orig_mod.`, …) or any other
    /// prefix of all of them is dropped, and so are counters such as `num_batches_tracked`. Where only the last layer has another number
    /// of outputs than the architecture, its number of classes is that of the weights. Arrays of f64, f16 and bf16 become f32.
    ///
    /// # Errors
    /// As [`Network::load`]; where the weights do not fit, [`NetError::ParamMismatch`] names missing, unexpected and mis-shaped arrays.
    pub fn load_as(path: impl AsRef<Path>, arch: Architecture) -> Result<Loaded, NetError> {
        let path = path.as_ref();
        arch.check()?;
        let bytes = read(path)?;
        let file = deserialized(path, &bytes)?;
        let wanted = arch.params().map(|(name, _)| name).collect();
        let found = matched(file.names(), &wanted);
        let mut notes = found.notes;
        let views: BTreeMap<String, TensorView<'_>> = file
            .iter()
            .filter_map(|(name, view)| Some((found.names.get(name)?.clone(), view)))
            .collect();
        let shapes = views.iter().map(|(name, view)| (name.as_str(), view.shape())).collect();
        let arch = match other_head(&arch, &shapes) {
            Some((other, note)) => {
                notes.push(note);
                other
            }
            None => arch,
        };
        Ok(Loaded { network: network(path, views, arch)?, notes })
    }

    /// Writes the network to `path`, replacing what is there only when the whole file is on the disk. Equal networks give
    /// equal files.
    ///
    /// # Errors
    /// [`NetError::Io`], naming the file; nothing is left behind then.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), NetError> {
        let path = path.as_ref();
        let header = Header { format: FORMAT, architecture: Cow::Borrowed(&self.arch) };
        let json = serde_json::to_string(&header)
            .map_err(|source| NetError::BadArchitecture { path: path.into(), source })?;
        // One key only: the file format's maps have no order, and a file should depend on its contents alone.
        let metadata = HashMap::from([(METADATA_KEY.to_string(), json)]);
        let tensors = self.params.iter().map(|(name, array)| (name.as_str(), Array(array)));
        let bytes = safetensors::serialize(tensors, Some(metadata))
            .map_err(|source| NetError::BadFile { path: path.into(), source })?;
        write_atomic(path, &bytes).map_err(|source| io_error(path, source))
    }
}

impl Architecture {
    /// The architecture in the metadata of a model file, or `None` where it holds weights alone.
    ///
    /// # Errors
    /// As [`Network::load`].
    pub fn read(path: impl AsRef<Path>) -> Result<Option<Self>, NetError> {
        let path = path.as_ref();
        architecture(path, &read(path)?)
    }
}

fn io_error(path: &Path, source: io::Error) -> NetError {
    NetError::Io { path: path.into(), source }
}

/// The bytes of a safetensors file, or what the file is in its place.
fn read(path: &Path) -> Result<Vec<u8>, NetError> {
    let bytes = read_file(path, "a safetensors file")?;
    match FileKind::of(&bytes) {
        FileKind::Safetensors => Ok(bytes),
        kind => Err(foreign(path, kind, "a safetensors file", kind.way_out())),
    }
}

fn deserialized<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>, NetError> {
    SafeTensors::deserialize(bytes)
        .map_err(|source| NetError::BadFile { path: path.into(), source })
}

fn architecture(path: &Path, bytes: &[u8]) -> Result<Option<Architecture>, NetError> {
    let (_, metadata) = SafeTensors::read_metadata(bytes)
        .map_err(|source| NetError::BadFile { path: path.into(), source })?;
    let json = metadata.metadata().as_ref().and_then(|map| map.get(METADATA_KEY));
    json.map(|json| from_header(path, json)).transpose()
}

/// The network of these arrays, if they are what `arch` asks for, and numbers.
fn network(
    path: &Path,
    views: BTreeMap<String, TensorView<'_>>,
    arch: Architecture,
) -> Result<Network, NetError> {
    let shapes = views.iter().map(|(name, view)| (name.as_str(), view.shape())).collect();
    check_shapes(&arch, &shapes).map_err(|error| in_file(path, error))?;
    let mut params = BTreeMap::new();
    for (name, view) in views {
        let array = to_array(path, &name, &view)?;
        params.insert(name, array);
    }
    check_values(&arch, &params).map_err(|error| in_file(path, error))?;
    Ok(Network { arch, params })
}

fn to_array(path: &Path, name: &str, view: &TensorView<'_>) -> Result<ArrayD<f32>, NetError> {
    let bytes = view.data();
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F64 => narrowed(name, bytes.as_chunks().0).map_err(|error| in_file(path, error))?,
        Dtype::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => {
            bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()
        }
        other => {
            return Err(NetError::Dtype {
                path: path.into(),
                name: name.into(),
                dtype: other.to_string(),
            });
        }
    };
    ArrayD::from_shape_vec(IxDyn(view.shape()), values).map_err(|_| NetError::BadFile {
        path: path.into(),
        source: safetensors::SafeTensorError::InvalidTensorView(
            view.dtype(),
            view.shape().to_vec(),
            bytes.len(),
        ),
    })
}

/// f64 as f32, where that keeps the numbers.
fn narrowed(name: &str, bytes: &[[u8; 8]]) -> Result<Vec<f32>, NetError> {
    let wide = || bytes.iter().map(|bytes| f64::from_le_bytes(*bytes));
    let bad = |count, size| NetError::Conversion { name: name.into(), count, size };
    let lost = |x: &f64| x.is_finite() && (*x as f32).is_infinite();
    match wide().filter(lost).count() {
        0 => {}
        count => return Err(bad(count, "large")),
    }
    // Single small numbers become 0 without harm; an array of nothing else is gone.
    let values: Vec<f32> = wide().map(|x| x as f32).collect();
    let written = wide().filter(|x| *x != 0.0).count();
    if written > 0 && !values.iter().any(|x| x.is_normal() || !x.is_finite()) {
        return Err(bad(written, "small"));
    }
    Ok(values)
}

/// An array as the writer wants it.
struct Array<'a>(&'a ArrayD<f32>);

impl View for Array<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.0.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn data_len(&self) -> usize {
        self.0.len() * size_of::<f32>()
    }
}
