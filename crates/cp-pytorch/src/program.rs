//! Programs that `torch.export` wrote, as networks: a graph of ATen's operations in JSON, and raw weights beside it.

mod aten;
mod build;
mod call;
mod container;
mod schema;

use std::path::Path;

use cp_net::{NetError, Network, read_file};

use crate::archive::{Archive, ArchiveError};
use crate::error::{CheckpointError, PyTorchError};
use crate::limits::Budget;
use crate::tensor::TensorError;

pub(crate) use container::is_program;

/// Why no network can be had from an exported program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// A file of another kind.
    #[error(
        "is {kind}, not an exported program of PyTorch; write one in Python with torch.export.save(torch.export.export(model.eval(), inputs), \"model.pt2\")"
    )]
    Kind {
        /// What it is.
        kind: cp_net::FileKind,
    },
    /// The archive is damaged.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Weights that are pickled, as before PyTorch 2.9, and cannot be read.
    #[error("its weights: {0}")]
    Weights(#[from] CheckpointError),
    /// JSON that is none, or not of the schema.
    #[error("its '{part}' cannot be read: {source}")]
    Json {
        /// Which file of the archive.
        part: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// More JSON than any program has.
    #[error("its '{part}' has {bytes} bytes, expected at most {most}")]
    LargeJson {
        /// Which file of the archive.
        part: String,
        /// How many bytes.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// A version of the schema that is not known.
    #[error(
        "is written in schema {got}, this version reads {expected}.x; export the model again with PyTorch 2.5 to 2.11"
    )]
    Schema {
        /// As the file says.
        got: String,
        /// The major version that is read.
        expected: i64,
    },
    /// Several programs in one archive.
    #[error("holds several programs ({}); export the one that is wanted by itself", .0.join(", "))]
    Several(Vec<String>),
    /// A weight that cannot be read.
    #[error("its weight '{name}' {source}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        source: TensorError,
    },
    /// A weight that is not there.
    #[error("has no values of its weight '{name}'; the file is incomplete")]
    Missing {
        /// Its name.
        name: String,
    },
    /// An input or output that networks here do not have.
    #[error("its {which} '{name}' is {what}, which is not supported{way_out}")]
    Signature {
        /// `input` or `output`.
        which: &'static str,
        /// Its name.
        name: String,
        /// What it is.
        what: String,
        /// What to do about it.
        way_out: &'static str,
    },
    /// Operations that have no counterpart, or are used in a way that has none.
    #[error("has operations that are not supported:{}", lines(.0))]
    Unsupported(Vec<String>),
    /// The graph is no network.
    #[error("is no network: {0}")]
    Network(#[from] NetError),
    /// A shape that comes out otherwise than PyTorch says: what is known here about an operation is wrong.
    #[error(
        "'{value}' has shape {got:?} here and {expected:?} in PyTorch: please report this file"
    )]
    Shape {
        /// The value.
        value: String,
        /// As PyTorch says, without the batch axis.
        expected: Vec<usize>,
        /// As it comes out.
        got: Vec<usize>,
    },
}

/// Operations that a message lists before the rest is counted.
const SHOWN: usize = 20;

fn lines(all: &[String]) -> String {
    let mut text: String = all.iter().take(SHOWN).map(|line| format!("\n  {line}")).collect();
    if all.len() > SHOWN {
        text += &format!("\n  … ({} more)", all.len() - SHOWN);
    }
    text
}

/// The network of an exported program (`.pt2`), with its weights under the names that they have in PyTorch.
///
/// A layer is called like its module (`layers.0.conv1`), other operations like the values of PyTorch's graph (`relu_1`). The first axis of every
/// input is the batch, whether it was exported as dynamic or with a size; other dynamic axes have the size that the example had.
///
/// # Errors
/// [`PyTorchError::File`] where the file cannot be read; [`PyTorchError::Program`], which names the file, for everything else. Operations
/// that have no counterpart are listed all at once.
pub fn exported_program(path: impl AsRef<Path>) -> Result<Network, PyTorchError> {
    let path = path.as_ref();
    let bytes = read_file(path, "an exported program of PyTorch")?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    of_bytes(&bytes, &name)
        .map_err(|source| PyTorchError::Program { path: path.into(), source: Box::new(source) })
}

fn of_bytes(bytes: &[u8], name: &str) -> Result<Network, ProgramError> {
    let kind = || ProgramError::Kind { kind: cp_net::FileKind::of(bytes) };
    if !bytes.starts_with(b"PK") {
        return Err(kind());
    }
    let archive = Archive::open(bytes)?;
    let budget = Budget::of(bytes.len());
    let contents = container::read(&archive, &budget)?.ok_or_else(kind)?;
    build::network(contents, name)
}
