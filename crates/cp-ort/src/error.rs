//! What can be wrong with the library, a model, or what is fed to it.

use std::path::PathBuf;

use crate::ElementType;

/// The error of this crate.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OrtError {
    /// A variable that is set and names no library.
    #[error(
        "{variable}={}: there is no ONNX Runtime library here; name {file}, or a folder that holds it, or unset {variable}",
        path.display(),
        file = crate::locate::FILE
    )]
    Variable {
        /// The variable.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// No library in any of the places.
    #[error(
        "there is no ONNX Runtime: run `cargo xtask setup`, or `pip install onnxruntime` and let POLYAD_ONNXRUNTIME name the folder of \
         the package (looked beside the program, in .onnxruntime/ of its workspace, and where the system keeps libraries: {reason})"
    )]
    NotFound {
        /// What the system's loader said.
        reason: String,
    },
    /// A library that does not load.
    #[error("{}: ONNX Runtime does not load: {reason}", path.display())]
    Load {
        /// The library.
        path: PathBuf,
        /// What the system's loader said.
        reason: String,
    },
    /// A library of a version that is too old, or that no one here knows.
    #[error(
        "{}: ONNX Runtime {version}, expected 1.{least} or later; `pip install --upgrade onnxruntime`, or run `cargo xtask setup` and \
         unset POLYAD_ONNXRUNTIME",
        path.display()
    )]
    Version {
        /// The library.
        path: PathBuf,
        /// Its version, as it gives it.
        version: String,
        /// The second number of the oldest version that will do.
        least: u32,
    },
    /// More threads than a session may have.
    #[error("{threads} threads, expected at most {most} (0 for the library's own choice)")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The limit.
        most: usize,
    },
    /// A file or folder that cannot be read or written.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the file system reports.
        reason: String,
    },
    /// A model that the library does not take.
    #[error("{model}: ONNX Runtime does not take it: {reason}")]
    Model {
        /// The file, or `model`.
        model: String,
        /// What the library says, in one line.
        reason: String,
    },
    /// An input that the model does not have.
    #[error("{model}: there is no input '{name}'; its inputs: {known}")]
    UnknownInput {
        /// The file, or `model`.
        model: String,
        /// The input.
        name: String,
        /// The inputs that there are, with type and shape.
        known: String,
    },
    /// An input that was not given.
    #[error("{model}: input '{name}' is missing; expected {expected}")]
    MissingInput {
        /// The file, or `model`.
        model: String,
        /// The input.
        name: String,
        /// Its type and shape.
        expected: String,
    },
    /// An input that was given twice.
    #[error("{model}: input '{name}' is given twice")]
    RepeatedInput {
        /// The file, or `model`.
        model: String,
        /// The input.
        name: String,
    },
    /// An input of the wrong type.
    #[error("{model}: input '{name}' is {got}, expected {expected}")]
    InputType {
        /// The file, or `model`.
        model: String,
        /// The input.
        name: String,
        /// The type given.
        got: ElementType,
        /// The model's.
        expected: ElementType,
    },
    /// An input with another number of axes, or another size along one whose size the model fixes.
    #[error("{model}: input '{name}' has shape {got:?}, expected {expected}")]
    InputShape {
        /// The file, or `model`.
        model: String,
        /// The input.
        name: String,
        /// The shape given.
        got: Vec<usize>,
        /// The model's, with the names of free axes.
        expected: String,
    },
    /// An input or output of a type that [`Tensor`](crate::Tensor) does not hold.
    #[error(
        "{model}: '{name}' is {ty}, which is not supported here (float32, float64, float16, int64, int32, int8, uint8 and bool are)"
    )]
    Unsupported {
        /// The file, or `model`.
        model: String,
        /// The input or output.
        name: String,
        /// Its type.
        ty: ElementType,
    },
    /// An output that the model does not have.
    #[error("there is no output '{name}'; the outputs: {known}")]
    UnknownOutput {
        /// The output.
        name: String,
        /// The outputs that there are.
        known: String,
    },
    /// A run that failed inside of the library.
    #[error("{model}: ONNX Runtime stopped: {reason}")]
    Run {
        /// The file, or `model`.
        model: String,
        /// What the library says, in one line.
        reason: String,
    },
    /// Times of nodes asked of a session that does not take them, or a second time.
    #[error("{model}: no profile is being taken; set `SessionOptions::profile`, and ask once")]
    NotProfiled {
        /// The file, or `model`.
        model: String,
    },
    /// A profile that is not as expected.
    #[error("{}: no profile of ONNX Runtime: {reason}", path.display())]
    Profile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}
