//! A model made ready to run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{SessionInputValue, SessionOutputs};
use ort::value::DynValue;

use crate::message::one_line;
use crate::profile::{NodeTime, node_times};
use crate::value::check;
use crate::{ElementType, OrtError, Tensor, ValueInfo, library};

/// More threads than any machine has cores for; the library would make as many as it is told.
const MOST_THREADS: usize = 1024;

/// Where a model comes from.
#[derive(Debug, Clone, Copy)]
pub enum Model<'a> {
    /// The bytes of a file without external data.
    Bytes(&'a [u8]),
    /// A file; external data is found beside it.
    File(&'a Path),
}

impl<'a> From<&'a [u8]> for Model<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Model::Bytes(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Model<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Model::Bytes(bytes)
    }
}

impl<'a> From<&'a Path> for Model<'a> {
    fn from(path: &'a Path) -> Self {
        Model::File(path)
    }
}

impl<'a> From<&'a PathBuf> for Model<'a> {
    fn from(path: &'a PathBuf) -> Self {
        Model::File(path)
    }
}

/// What the library may do to the graph before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Optimize {
    /// All that it knows: constants folded, nodes fused, the memory layout of convolutions chosen.
    #[default]
    All,
    /// Nothing: the nodes run as they stand in the file.
    None,
}

/// How a session runs. One node runs at a time; threads share the work within it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionOptions {
    /// Threads that share the work within a node, the caller's among them; 0, the default, for the library's own choice (one for each
    /// core, and bound to it).
    pub threads: usize,
    /// Whether threads that wait for work keep a core busy, which is faster alone and slower beside others. Default: no.
    pub spinning: bool,
    /// Default: [`Optimize::All`].
    pub optimize: Optimize,
    /// A folder in which the library keeps a record of the times of nodes, for [`Session::node_times`]. Default: none is kept, which
    /// costs no time.
    pub profile: Option<PathBuf>,
    /// What messages call the model, where its file is not the user's. Default: the file.
    pub called: Option<String>,
}

/// A model made ready to run.
///
/// It may be sent to another thread; [`Session::run`] takes it mutably because the library's runs of one session are not made to
/// overlap. Sessions of one model beside each other are.
#[derive(Debug)]
pub struct Session {
    inner: ort::session::Session,
    model: String,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
    /// Where the profile goes, until it has been asked for.
    profile: Option<PathBuf>,
}

impl Session {
    /// Reads a model and makes it ready.
    ///
    /// # Errors
    /// Where there is no library ([`library`]), the file cannot be read, or the library does not take the model.
    pub fn new<'a>(
        model: impl Into<Model<'a>>,
        options: &SessionOptions,
    ) -> Result<Self, OrtError> {
        let model = model.into();
        let file = match model {
            Model::Bytes(_) => "model".to_owned(),
            Model::File(path) => path.display().to_string(),
        };
        let name = options.called.clone().unwrap_or_else(|| file.clone());
        if options.threads > MOST_THREADS {
            return Err(OrtError::Threads { threads: options.threads, most: MOST_THREADS });
        }
        if let Model::File(path) = model {
            // The library calls a file that it cannot read a broken model.
            std::fs::File::open(path).map_err(|error| io(path, &error))?;
        }
        if let Some(folder) = &options.profile {
            std::fs::create_dir_all(folder).map_err(|error| io(folder, &error))?;
        }
        let environment = library()?.environment();
        let inner = caught(|| {
            let mut builder = configure(SessionBuilder::new(environment)?, options)?;
            match model {
                Model::Bytes(bytes) => builder.commit_from_memory(bytes),
                Model::File(path) => builder.commit_from_file(path),
            }
        });
        let inner = inner.map_err(|reason| {
            // The library names the file that it was given.
            let reason = reason.replace(&format!("Load model from {file} failed:"), "");
            OrtError::Model { model: name.clone(), reason }
        })?;
        let inputs = inner.inputs().iter().map(ValueInfo::new).collect();
        let outputs = inner.outputs().iter().map(ValueInfo::new).collect();
        Ok(Session { inner, model: name, inputs, outputs, profile: options.profile.clone() })
    }

    /// What the model takes. An initializer that is listed as an input, too, is not among them.
    pub fn inputs(&self) -> &[ValueInfo] {
        &self.inputs
    }

    /// What the model gives.
    pub fn outputs(&self) -> &[ValueInfo] {
        &self.outputs
    }

    /// Runs the model. Inputs are read where they lie if they are in the order of rows; outputs are copied.
    ///
    /// # Errors
    /// Where an input is unknown, missing, given twice, or of another type or shape; where an output is of a type that [`Tensor`] does
    /// not hold; where the library stops.
    pub fn run(&mut self, inputs: &[(&str, Tensor)]) -> Result<Vec<(String, Tensor)>, OrtError> {
        let given = inputs.iter().map(|(name, x)| (*name, x.element_type(), x.shape().to_vec()));
        check(&self.model, &self.inputs, given)?;
        self.check_outputs()?;
        let outputs = caught(|| {
            let views = inputs.iter().map(|(name, x)| Ok((*name, x.view()?)));
            self.inner.run(views.collect::<ort::Result<Vec<_>>>()?)
        });
        let outputs =
            outputs.map_err(|reason| OrtError::Run { model: self.model.clone(), reason })?;
        Outputs { inner: outputs, model: &self.model }.to_tensors()
    }

    /// Runs the model on inputs that were made before, and copies nothing: the call to take the time of.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_prepared(&mut self, inputs: &Inputs) -> Result<Outputs<'_>, OrtError> {
        check(&self.model, &self.inputs, inputs.described())?;
        self.check_outputs()?;
        let outputs = caught(|| {
            let views = inputs.values.iter();
            self.inner
                .run(views.map(|(name, x)| (name, SessionInputValue::from(x))).collect::<Vec<_>>())
        });
        match outputs {
            Ok(inner) => Ok(Outputs { inner, model: &self.model }),
            Err(reason) => Err(OrtError::Run { model: self.model.clone(), reason }),
        }
    }

    /// Ends the profile and gives the time of each node, summed over all runs but the first `skip`, the slowest node first.
    ///
    /// The library has written its own record, which `chrome://tracing` shows, into [`SessionOptions::profile`].
    ///
    /// # Errors
    /// Where no profile was taken, or its record is not as expected.
    pub fn node_times(&mut self, skip: usize) -> Result<Vec<NodeTime>, OrtError> {
        let Some(folder) = self.profile.take() else {
            return Err(OrtError::NotProfiled { model: self.model.clone() });
        };
        let file = caught(|| self.inner.end_profiling());
        let file = file.map_err(|reason| OrtError::Profile { path: folder, reason })?;
        node_times(Path::new(&file), skip)
    }

    fn check_outputs(&self) -> Result<(), OrtError> {
        let other = self.outputs.iter().find(|output| matches!(output.ty, ElementType::Other(_)));
        let Some(output) = other else { return Ok(()) };
        let (name, ty) = (output.name.clone(), output.ty.clone());
        Err(OrtError::Unsupported { model: self.model.clone(), name, ty })
    }
}

fn configure(builder: SessionBuilder, options: &SessionOptions) -> ort::Result<SessionBuilder> {
    let level = match options.optimize {
        Optimize::All => GraphOptimizationLevel::All,
        Optimize::None => GraphOptimizationLevel::Disable,
    };
    let mut builder = builder
        .with_log_level(LogLevel::Fatal)?
        .with_parallel_execution(false)?
        .with_inter_threads(1)?
        .with_intra_threads(options.threads)?
        .with_intra_op_spinning(options.spinning)?
        .with_optimization_level(level)?;
    if let Some(folder) = &options.profile {
        // The library adds the time, by the second, which two sessions may share.
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let start = format!("onnxruntime-{}-{number}", std::process::id());
        builder = builder.with_profiling(folder.join(start))?;
    }
    Ok(builder)
}

/// Inputs as the library wants them, made once for many runs.
#[derive(Debug)]
pub struct Inputs {
    values: Vec<(String, DynValue)>,
}

impl Inputs {
    /// Takes the arrays over; one that is not in the order of rows is copied.
    ///
    /// # Errors
    /// Where there is no library.
    pub fn new<N: Into<String>>(
        inputs: impl IntoIterator<Item = (N, Tensor)>,
    ) -> Result<Self, OrtError> {
        library()?;
        let mut values = Vec::new();
        for (name, tensor) in inputs {
            let value = caught(|| tensor.into_value());
            let value = value.map_err(|reason| OrtError::Run { model: "inputs".into(), reason })?;
            values.push((name.into(), value));
        }
        Ok(Inputs { values })
    }

    fn described(&self) -> impl Iterator<Item = (&str, ElementType, Vec<usize>)> {
        self.values.iter().map(|(name, value)| {
            let sizes = value.dtype().tensor_shape().map_or(&[][..], |shape| &shape[..]);
            let sizes = sizes.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect();
            (name.as_str(), ElementType::of(value.dtype()), sizes)
        })
    }
}

/// Outputs of a run, where the library put them.
#[derive(Debug)]
pub struct Outputs<'s> {
    inner: SessionOutputs<'s>,
    model: &'s str,
}

impl Outputs<'_> {
    /// A copy of one output.
    ///
    /// # Errors
    /// Where there is none of this name.
    pub fn tensor(&self, name: &str) -> Result<Tensor, OrtError> {
        let found = self.inner.iter().position(|(known, _)| known == name);
        let Some(at) = found else {
            let known = self.inner.keys().map(|key| format!("'{key}'")).collect::<Vec<_>>();
            return Err(OrtError::UnknownOutput { name: name.into(), known: known.join(", ") });
        };
        self.copy(name, &self.inner[at])
    }

    /// Copies of all outputs, in the model's order.
    ///
    /// # Errors
    /// Where one is of a type that [`Tensor`] does not hold.
    pub fn to_tensors(&self) -> Result<Vec<(String, Tensor)>, OrtError> {
        let outputs = self.inner.iter();
        outputs.map(|(name, value)| Ok((name.to_owned(), self.copy(name, &value)?))).collect()
    }

    fn copy(&self, name: &str, value: &DynValue) -> Result<Tensor, OrtError> {
        let model = || self.model.to_owned();
        let copied = caught(|| Tensor::copy_of(value));
        let copied = copied.map_err(|reason| OrtError::Run { model: model(), reason })?;
        copied.ok_or_else(|| OrtError::Unsupported {
            model: model(),
            name: name.to_owned(),
            ty: ElementType::of(value.dtype()),
        })
    }
}

/// What a call of `ort` gives, or why not in one line. `ort` panics at what it holds for impossible, such as types newer than it is.
fn caught<T>(call: impl FnOnce() -> ort::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| one_line(error.message())),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(one_line(&text.unwrap_or_else(|| "unexpected answer of the library".into())))
        }
    }
}

fn io(path: &Path, error: &std::io::Error) -> OrtError {
    OrtError::Io { path: path.to_owned(), reason: error.to_string() }
}
