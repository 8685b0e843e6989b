//! What can be wrong with a file of PyTorch's.

use std::path::PathBuf;

use cp_net::{FileKind, NetError};

use crate::archive::ArchiveError;
use crate::pickle::PickleError;
use crate::program::ProgramError;
use crate::tensor::TensorError;

/// The error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PyTorchError {
    /// A file that cannot be read.
    #[error(transparent)]
    File(#[from] NetError),
    /// No state dict can be had from a file.
    #[error("{}: {source}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<CheckpointError>,
    },
    /// No network can be had from an exported program.
    #[error("{}: {source}", path.display())]
    Program {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<ProgramError>,
    },
}

/// Why no state dict can be had from a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file of another kind.
    #[error("is {kind}, not a checkpoint of PyTorch; {}", kind.way_out())]
    Kind {
        /// What it is.
        kind: FileKind,
    },
    /// What `torch.jit.save` writes.
    #[error(
        "is a TorchScript archive: a program with weights. Write its weights in Python with torch.save(torch.jit.load(\"{file}\").state_dict(), \
         \"weights.pth\"), and read those"
    )]
    TorchScript {
        /// The file's name.
        file: String,
    },
    /// What `torch.export.save` writes.
    #[error(
        "is an exported program, which has its architecture in it: give it as a model, without --arch"
    )]
    ExportedProgram,
    /// PyTorch's format of 2016.
    #[error(
        "is a tar archive; if it is a checkpoint of PyTorch 0.1, write it again in Python with torch.save(torch.load(\"{file}\", \
         weights_only=False), \"weights.pth\")"
    )]
    Tar {
        /// The file's name.
        file: String,
    },
    /// A pickle that `torch.save` did not write.
    #[error(
        "is a Python pickle that torch.save did not write; load it in Python and write its weights with torch.save(STATE_DICT, \"weights.pth\")"
    )]
    OtherPickle,
    /// A version of the format that is not known.
    #[error(
        "is written in version {version} of PyTorch's format, expected {expected}; write it again with torch.save"
    )]
    Version {
        /// The version found.
        version: String,
        /// What is known.
        expected: &'static str,
    },
    /// Numbers the other way round.
    #[error("was written on a big-endian machine; load it in Python and save it on another one")]
    BigEndian,
    /// The archive is damaged.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A pickle that is damaged, or too large.
    #[error("its pickle '{part}' cannot be read: {source}")]
    Pickle {
        /// Which of its pickles.
        part: String,
        /// What is wrong.
        source: PickleError,
    },
    /// More bytes of pickle than any checkpoint has.
    #[error(
        "its pickle has {bytes} bytes, expected at most {most}; keep large lists and arrays out of the checkpoint"
    )]
    LargePickle {
        /// How many.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// A file that ends before its last storage.
    #[error("ends in the storage '{key}'; it is cut off, fetch or copy it again")]
    Storage {
        /// The storage.
        key: String,
    },
    /// A storage that occurs with two types or lengths, or that nothing says the type of.
    #[error("says different things about the storage '{key}'; the file is damaged")]
    StorageClash {
        /// The storage.
        key: String,
    },
    /// A whole module, which only its own code can make.
    #[error(
        "{} is a whole module of the class `{class}`, which takes its code to load. On a machine that has the class: \
         torch.save(torch.load(\"{file}\", weights_only=False){}.state_dict(), \"weights.pth\")",
        key.as_ref().map_or("it".into(), |key| format!("its entry '{key}'")), index(key)
    )]
    WholeModule {
        /// The file's name.
        file: String,
        /// The entry of a checkpoint that it is.
        key: Option<String>,
        /// Its class.
        class: String,
    },
    /// A checkpoint in which no entry, or more than one, looks like a state dict.
    #[error(
        "{}; choose with --key NAME. It has: {}",
        if fitting.is_empty() { "nothing in it looks like a state dict (names and tensors)".into() }
        else { format!("several entries look like state dicts: {}", fitting.join(", ")) },
        keys.join(", ")
    )]
    Choose {
        /// Entries that look like state dicts.
        fitting: Vec<String>,
        /// All entries, and what they are.
        keys: Vec<String>,
    },
    /// No entry of that name.
    #[error("has no entry '{key}'; --key NAME takes one of: {}", keys.join(", "))]
    UnknownKey {
        /// The name asked for.
        key: String,
        /// The entries that there are.
        keys: Vec<String>,
    },
    /// The entry that was asked for holds no weights.
    #[error("its entry '{key}' is {kind}, not a state dict (names and tensors)")]
    NoStateDict {
        /// The entry.
        key: String,
        /// What it is.
        kind: String,
    },
    /// A value of a state dict that is no tensor.
    #[error(
        "'{name}' is {kind}, not a tensor. Keep the tensors alone, in Python: \
         torch.save({{k: v for k, v in torch.load(\"{file}\", weights_only=False){}.items() if isinstance(v, torch.Tensor)}}, \"weights.pth\")",
        index(key)
    )]
    NoTensor {
        /// Its name.
        name: String,
        /// What it is.
        kind: String,
        /// The file's name.
        file: String,
        /// The entry of a checkpoint that the state dict is.
        key: Option<String>,
    },
    /// A tensor of a kind that is not read.
    #[error("'{name}' is {kind}, which is not read; {way_out}")]
    Refused {
        /// Its name.
        name: String,
        /// What it is.
        kind: &'static str,
        /// What to do about it in Python.
        way_out: &'static str,
    },
    /// A tensor that cannot be read.
    #[error("'{name}' {source}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        source: TensorError,
    },
}

/// `["a"]["b"]` of the key `a.b`.
fn index(key: &Option<String>) -> String {
    key.iter().map(|key| format!("[\"{}\"]", key.replace('.', "\"][\""))).collect()
}
