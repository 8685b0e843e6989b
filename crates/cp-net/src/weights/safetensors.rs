//! Networks as `.safetensors` files: the arrays as f32, the architecture as JSON in the metadata under [`METADATA_KEY`].
//!
//! Writing is atomic: a reader finds the old file or the new one, and a killed writer leaves neither half.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::Path;

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};
use safetensors::{Dtype, SafeTensors, View, tensor::TensorView};
use serde::{Deserialize, Serialize};

use crate::atomic::write_atomic;
use crate::check::check_shapes;
use crate::error::NetError;
use crate::network::{Architecture, Network};

/// The metadata key under which a model file holds its architecture.
pub const METADATA_KEY: &str = "polyad";

/// The format that [`Network::save`] writes; files of a later one are refused.
const FORMAT: u32 = 1;

/// The JSON under [`METADATA_KEY`].
#[derive(Serialize, Deserialize)]
struct Header<'a> {
    format: u32,
    architecture: Cow<'a, Architecture>,
}

impl Network {
    /// Loads a network that [`Network::save`] wrote.
    ///
    /// # Errors
    /// [`NetError::Io`], [`NetError::BadFile`] for a truncated or foreign file, [`NetError::NoArchitecture`] for weights
    /// alone (see [`Network::load_as`]); all name the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, NetError> {
        let path = path.as_ref();
        let bytes = read(path)?;
        let Some(arch) = architecture(path, &bytes)? else {
            return Err(NetError::NoArchitecture { path: path.into() });
        };
        load_tensors(path, &bytes, arch)
    }

    /// Loads weights from elsewhere into an architecture, by name. Of the names, a `module.` in front of all of them (as
    /// torch's `DataParallel` leaves it) is dropped, and so are counters named `num_batches_tracked`. Arrays of f64, f16
    /// and bf16 become f32.
    ///
    /// # Errors
    /// As [`Network::load`]; where the weights do not fit, [`NetError::ParamMismatch`] lists every missing, unexpected
    /// and mis-shaped name.
    pub fn load_as(path: impl AsRef<Path>, arch: Architecture) -> Result<Self, NetError> {
        let path = path.as_ref();
        arch.check()?;
        load_tensors(path, &read(path)?, arch)
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

fn read(path: &Path) -> Result<Vec<u8>, NetError> {
    fs::read(path).map_err(|source| io_error(path, source))
}

fn architecture(path: &Path, bytes: &[u8]) -> Result<Option<Architecture>, NetError> {
    let (_, metadata) = SafeTensors::read_metadata(bytes)
        .map_err(|source| NetError::BadFile { path: path.into(), source })?;
    let Some(json) = metadata.metadata().as_ref().and_then(|map| map.get(METADATA_KEY)) else {
        return Ok(None);
    };
    let bad = |source| NetError::BadArchitecture { path: path.into(), source };
    // The format first: a later one may hold what this version cannot read.
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let Version { format } = serde_json::from_str(json).map_err(bad)?;
    if format > FORMAT {
        return Err(NetError::FormatVersion {
            path: path.into(),
            version: format,
            supported: FORMAT,
        });
    }
    let header: Header<'_> = serde_json::from_str(json).map_err(bad)?;
    let arch = header.architecture.into_owned();
    arch.check().map_err(|error| in_file(path, error))?;
    Ok(Some(arch))
}

fn in_file(path: &Path, source: NetError) -> NetError {
    NetError::InFile { path: path.into(), source: Box::new(source) }
}

fn load_tensors(path: &Path, bytes: &[u8], arch: Architecture) -> Result<Network, NetError> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|source| NetError::BadFile { path: path.into(), source })?;
    let mut views: BTreeMap<&str, TensorView<'_>> =
        file.iter().filter(|(name, _)| !name.ends_with(".num_batches_tracked")).collect();
    const WRAPPER: &str = "module.";
    if views.keys().all(|name| name.starts_with(WRAPPER)) {
        views = views.into_iter().map(|(name, view)| (&name[WRAPPER.len()..], view)).collect();
    }
    let shapes = views.iter().map(|(name, view)| (*name, view.shape())).collect();
    check_shapes(&arch, &shapes).map_err(|error| in_file(path, error))?;
    let params = views
        .into_iter()
        .map(|(name, view)| Ok((name.to_string(), to_array(path, name, &view)?)))
        .collect::<Result<BTreeMap<_, _>, NetError>>()?;
    Ok(Network { arch, params })
}

fn to_array(path: &Path, name: &str, view: &TensorView<'_>) -> Result<ArrayD<f32>, NetError> {
    let bytes = view.data();
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
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
