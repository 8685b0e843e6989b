//! What can go wrong while training, evaluating, timing or recording.

use std::path::PathBuf;

use crate::words::bytes_in_words;

/// The error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// An option has a value that makes no sense.
    #[error("{option} = {got}: expected {expected}")]
    Config {
        /// The option's name.
        option: &'static str,
        /// What was given.
        got: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// The loss is no longer a finite number.
    #[error(
        "the training loss became {loss} in epoch {epoch}, step {step}: try a lower learning rate (lr = {lr:.2e}) or a longer warm-up"
    )]
    Diverged {
        /// Epoch, from 0.
        epoch: usize,
        /// Step within the epoch, from 0.
        step: usize,
        /// The loss.
        loss: f64,
        /// The learning rate of that step.
        lr: f64,
    },
    /// A network whose outputs are no numbers.
    #[error(
        "the network '{network}' puts out NaN or infinity for images of '{data}', and no accuracy can be told: its weights are finite, but too large \
         for f32 on the way"
    )]
    OutputsNotFinite {
        /// Name of the architecture.
        network: String,
        /// The data set.
        data: String,
    },
    /// A data set without examples was given.
    #[error("data set '{name}' has no examples")]
    Empty {
        /// The data set.
        name: String,
    },
    /// A network and a data set that do not belong together.
    #[error("the network '{network}' {what}; the data set '{data}' has {has}")]
    Unfit {
        /// Name of the architecture.
        network: String,
        /// What it takes or gives.
        what: String,
        /// The data set.
        data: String,
        /// What it has.
        has: String,
    },
    /// A batch that memory cannot hold.
    #[error(
        "a batch of {batch} of shape {} needs about {} of memory, and {} are free: ask for less with {option}",
        shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("×"),
        bytes_in_words(*needed),
        bytes_in_words(u128::from(*free))
    )]
    Memory {
        /// Examples.
        batch: usize,
        /// Shape of one, without the batch axis.
        shape: Vec<usize>,
        /// Bytes that the inputs and maps take, at least.
        needed: u128,
        /// Bytes that can be had.
        free: u64,
        /// The options that decide it.
        option: &'static str,
    },
    /// libtorch is asked to run an ONNX model.
    #[error(
        "{}: an ONNX model as it lies there is run by ONNX Runtime alone: leave --engine out, or name onnxruntime",
        path.display()
    )]
    EngineModel {
        /// The model.
        path: PathBuf,
    },
    /// A shape is given for an input that the model does not have.
    #[error("--input: there is no input '{name}'; there are: {}", known.join(", "))]
    UnknownInput {
        /// What was named.
        name: String,
        /// The inputs.
        known: Vec<String>,
    },
    /// The shape of an input is known neither to the model nor from the command line.
    #[error(
        "input '{name}' is {shape}, and its sizes are not all fixed: name them without the batch, such as --input {name}=3x224x224"
    )]
    OpenInput {
        /// The input.
        name: String,
        /// What the model says of it.
        shape: String,
    },
    /// The model takes batches of one size.
    #[error("the model takes batches of a fixed size, not {batch}: {inputs}")]
    FixedBatch {
        /// What was asked for.
        batch: usize,
        /// Its inputs.
        inputs: String,
    },
    /// An input of a type that no values are drawn for.
    #[error("input '{name}' takes {element}, which no values can be drawn for")]
    InputType {
        /// The input.
        name: String,
        /// The type.
        element: String,
    },
    /// What libtorch is needed for, in a program that was built without it.
    #[error(
        "{what} needs libtorch, and this program was built without it (cargo's feature `torch`, which is on unless it is turned off): {way_out}"
    )]
    NeedsLibtorch {
        /// What was asked for, in the words of its option.
        what: &'static str,
        /// What can be had without.
        way_out: &'static str,
    },
    /// An engine in a process of its own stopped.
    #[error("{engine}: {what}")]
    Peer {
        /// The engine.
        engine: String,
        /// What it said.
        what: String,
    },
    /// No node of the running network could be told to be this layer.
    #[error(
        "layer '{layer}': ONNX Runtime tells the time of no node that could be it; plan with --engine infer, or leave the layer dense (--keep)"
    )]
    NotTimed {
        /// The layer.
        layer: String,
    },
    /// ONNX Runtime.
    #[error(transparent)]
    OnnxRuntime(#[from] cp_ort::OrtError),
    /// An ONNX model.
    #[error(transparent)]
    Onnx(Box<cp_onnx::OnnxError>),
    /// The network to learn from is not one of the same task.
    #[error("cannot learn from the dense network: {what} is not that of the compressed one")]
    Teacher {
        /// What differs.
        what: &'static str,
    },
    /// Statistics were asked for of a layer that they are not gathered for.
    #[error("layer '{layer}': of its inputs no statistics are gathered: {why}")]
    Statistics {
        /// The layer.
        layer: String,
        /// Why not.
        why: String,
    },
    /// Examples that a model cannot be fed with.
    #[error("{from}: {what}")]
    Inputs {
        /// The file, folder or data set.
        from: String,
        /// What is wrong with it.
        what: String,
    },
    /// A model without a part that can be trained.
    #[error("the model cannot be fine-tuned: {why}; leave out --epochs")]
    NoRegion {
        /// Why not.
        why: String,
    },
    /// Our own engine.
    #[error(transparent)]
    Infer(#[from] cp_infer::InferError),
    /// The decompositions.
    #[error(transparent)]
    Decompose(#[from] cp_core::CpError),
    /// Another process works in the folder.
    #[error("{}: another process is at work in this folder; wait for its end, or choose another folder", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// A recipe is no valid TOML of a recipe.
    #[error("{}{what}", path.as_ref().map_or_else(String::new, |path| format!("{}: ", path.display())))]
    Recipe {
        /// The file.
        path: Option<PathBuf>,
        /// What is wrong, and where.
        what: String,
    },
    /// A checkpoint does not belong to this run.
    #[error("{}: {what}; delete the file to start again, or run with the settings it was made with", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// The result of a finished stage cannot be taken up again.
    #[error("{}: not the result of this stage ({what}); delete the file to compute it again", path.display())]
    Stage {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data set.
    #[error(transparent)]
    Data(Box<cp_data::DataError>),
    /// The network.
    #[error(transparent)]
    Net(Box<cp_net::NetError>),
    /// The plan, or a decomposition that it asks for.
    #[error(transparent)]
    Plan(Box<cp_plan::PlanError>),
    /// libtorch.
    #[cfg(feature = "torch")]
    #[error(transparent)]
    Torch(Box<cp_torch::TorchError>),
}

#[cfg(feature = "torch")]
impl From<cp_torch::tch::TchError> for TrainError {
    fn from(error: cp_torch::tch::TchError) -> Self {
        Self::Torch(Box::new(error.into()))
    }
}

impl From<cp_data::DataError> for TrainError {
    fn from(error: cp_data::DataError) -> Self {
        Self::Data(Box::new(error))
    }
}

impl From<cp_net::NetError> for TrainError {
    fn from(error: cp_net::NetError) -> Self {
        Self::Net(Box::new(error))
    }
}

impl From<cp_plan::PlanError> for TrainError {
    fn from(error: cp_plan::PlanError) -> Self {
        Self::Plan(Box::new(error))
    }
}

impl From<cp_onnx::OnnxError> for TrainError {
    fn from(error: cp_onnx::OnnxError) -> Self {
        Self::Onnx(Box::new(error))
    }
}

#[cfg(feature = "torch")]
impl From<cp_torch::TorchError> for TrainError {
    fn from(error: cp_torch::TorchError) -> Self {
        Self::Torch(Box::new(error))
    }
}

impl TrainError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
