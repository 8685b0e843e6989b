//! The options that every command takes, and the values that several of them parse.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use clap::{ArgAction, Args, Command};
use cp_net::{Architecture, InputSpec};
use cp_train::engine::Subject;
use cp_train::{Device, Engine};

/// Options of every command.
#[derive(Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Common {
    /// Folder of the data sets [default: $POLYAD_DATA, else the cache that `cargo xtask datasets fetch` fills].
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Number of processor threads [default: one for each core].
    #[arg(long, global = true, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<usize>,
    /// Seed of everything that is drawn at random.
    #[arg(long, global = true, value_name = "S", default_value_t = 0, value_parser = seed)]
    pub(crate) seed: u64,
    /// Where networks run: the processor, or the first CUDA device.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub(crate) device: DeviceRequest,
    /// What runs networks forward for times and accuracies.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub(crate) engine: EngineRequest,
    /// Print one line of JSON instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Common {
    /// Sets what holds for the whole process.
    pub(crate) fn start(&self) -> anyhow::Result<()> {
        if let Some(threads) = self.threads {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().with_context(
                || format!("--threads {threads}: cannot start that many threads; ask for fewer"),
            )?;
        }
        Ok(())
    }
}

/// `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum DeviceRequest {
    /// The processor.
    #[default]
    Cpu,
    /// The first CUDA device.
    Cuda,
}

impl DeviceRequest {
    /// The device.
    pub(crate) fn device(self) -> anyhow::Result<Device> {
        match self {
            DeviceRequest::Cpu => Ok(Device::Cpu),
            DeviceRequest::Cuda => Ok(Device::cuda().context("--device")?),
        }
    }
}

/// A command line that is well formed but asks for something that cannot be: exit code 2, like clap's own errors.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// `--input [NAME=]DIMS`: the shape of one example at an input, without the batch axis, such as `3x224x224`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InputShape {
    /// The input; where it is left out, the only one.
    pub(crate) name: Option<String>,
    /// Its sizes.
    pub(crate) sizes: Vec<usize>,
}

impl FromStr for InputShape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Names of values may have any sign in them, sizes have none.
        let (name, sizes) = match text.rsplit_once('=') {
            Some((name, sizes)) => (Some(name.to_owned()), sizes),
            None => (None, text),
        };
        let sizes: Result<Vec<usize>, _> = sizes.split('x').map(str::parse).collect();
        match sizes {
            Ok(sizes) if !sizes.contains(&0) && name.as_deref() != Some("") => {
                Ok(Self { name, sizes })
            }
            _ => Err("write the sizes of one example, such as 3x224x224 (channels, height, width), or NAME=3x224x224".into()),
        }
    }
}

/// The shapes by the names of inputs; one without a name is the only one's.
pub(crate) fn shapes_by_name(shapes: &[InputShape]) -> Result<BTreeMap<String, Vec<usize>>, Usage> {
    let mut found = BTreeMap::new();
    for InputShape { name, sizes } in shapes {
        if name.is_none() && shapes.len() > 1 {
            return Err(Usage(
                "--input: of several shapes each needs the name of its input, such as NAME=3x224x224".into(),
            ));
        }
        let name = name.clone().unwrap_or_else(|| cp_net::INPUT.into());
        if found.insert(name.clone(), sizes.clone()).is_some() {
            return Err(Usage(format!("--input: '{name}' is given twice")));
        }
    }
    Ok(found)
}

/// The inputs of `arch` in their order, each at the shape given by its name, else at that which it was built for. A shape without a
/// name is that of the only input.
pub(crate) fn input_shapes(
    arch: &Architecture,
    given: &BTreeMap<String, Vec<usize>>,
) -> anyhow::Result<Vec<(String, Vec<usize>)>> {
    let only = given.get(cp_net::INPUT).filter(|_| arch.inputs.len() == 1);
    let known = |name: &String| arch.inputs.iter().any(|input| input.name == *name);
    if let Some(unknown) = given.keys().find(|name| only.is_none() && !known(name)) {
        let names: Vec<&str> = arch.inputs.iter().map(|input| input.name.as_str()).collect();
        bail!("--input: there is no input '{unknown}'; there are: {}", names.join(", "));
    }
    let shape = |input: &InputSpec| {
        let sizes = given.get(&input.name).or(only).unwrap_or(&input.shape);
        (input.name.clone(), sizes.clone())
    };
    Ok(arch.inputs.iter().map(shape).collect())
}

/// `--engine`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum EngineRequest {
    /// On the processor infer for networks that it has kernels for, and ONNX Runtime for others and for ONNX models, or libtorch where its
    /// library is not found.
    #[default]
    Auto,
    /// ONNX Runtime; an error where its library is not found.
    #[value(name = "onnxruntime")]
    OnnxRuntime,
    /// Our own, in Rust, on the processor.
    Infer,
    /// libtorch.
    Torch,
}

impl EngineRequest {
    /// The engine for `subjects` on `device`.
    pub(crate) fn engine<'a>(
        self,
        device: Device,
        subjects: impl IntoIterator<Item = Subject<'a>>,
    ) -> anyhow::Result<Engine> {
        match self {
            EngineRequest::Torch => Ok(Engine::libtorch(device)?),
            EngineRequest::OnnxRuntime | EngineRequest::Infer if device != Device::Cpu => {
                let name = if self == EngineRequest::Infer { "infer" } else { "onnxruntime" };
                let told = format!("--engine {name} runs on the processor: leave --device out");
                Err(Usage(told).into())
            }
            EngineRequest::Infer => Ok(Engine::Infer),
            EngineRequest::OnnxRuntime => {
                cp_ort::library().context("--engine onnxruntime")?;
                Ok(Engine::OnnxRuntime)
            }
            EngineRequest::Auto => {
                let (engine, note) = Engine::auto(device, subjects);
                note.iter().for_each(|note| crate::output::note(note));
                Ok(engine)
            }
        }
    }
}

/// A count of at least one.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(count) => Ok(count),
        Err(_) => Err("not a whole number of at least 1".into()),
    }
}

/// A count of at least 0.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "not a whole number of at least 0".into())
}

/// A finite number above 0.
pub(crate) fn positive_number(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("not a finite number above 0".into()),
    }
}

/// A seed.
fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("not a whole number from 0 to {}", u64::MAX))
}

/// Timed runs: more than these would take days, and a slip of the finger should not start them.
const MOST_REPEATS: usize = 1_000_000;

/// A count of tries: of ranks, starts or passes. More than these would take days.
const MOST_TRIES: usize = 10_000;

/// A count of tries.
pub(crate) fn tries(text: &str) -> Result<usize, String> {
    match positive(text)? {
        count if count > MOST_TRIES => Err(format!("must be at most {MOST_TRIES}")),
        count => Ok(count),
    }
}

/// A count of timed runs.
pub(crate) fn repeats(text: &str) -> Result<usize, String> {
    match positive(text)? {
        repeats if repeats > MOST_REPEATS => Err(format!("must be at most {MOST_REPEATS}")),
        repeats => Ok(repeats),
    }
}

/// A number of threads: at most this many, as a slip of the finger should not bring the machine down.
const MOST_THREADS: usize = 1024;

/// A count of threads.
fn threads(text: &str) -> Result<usize, String> {
    match positive(text)? {
        threads if threads > MOST_THREADS => Err(format!("must be at most {MOST_THREADS}")),
        threads => Ok(threads),
    }
}

/// A number of at least zero.
pub(crate) fn non_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number >= 0.0 && number.is_finite() => Ok(number),
        _ => Err("not a finite number of at least 0".into()),
    }
}

/// A fraction compressed / dense, above 0 and below 1.
pub(crate) fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number < 1.0 => Ok(number),
        _ => Err("a ratio is compressed / dense, between 0 and 1, such as 0.5".into()),
    }
}

/// Options whose values are numbers, or begin like them, take what begins with a hyphen: `--tol -1` is then about the range of `--tol`,
/// and not about an option `-1` that there is not.
pub(crate) fn with_negative_numbers(command: Command) -> Command {
    let numbers = [
        TypeId::of::<usize>(),
        TypeId::of::<u64>(),
        TypeId::of::<f64>(),
        TypeId::of::<(usize, usize)>(),
        TypeId::of::<InputShape>(),
    ];
    let command = command.mut_args(|arg| {
        let kind = arg.get_value_parser().type_id();
        let is_number = numbers.iter().any(|number| kind == *number);
        let takes = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
        if arg.is_positional() || !takes {
            return arg;
        }
        // A value that may be left out must not take the next option in its place.
        let optional = arg.get_num_args().is_some_and(|count| count.min_values() == 0);
        if is_number && !optional {
            arg.allow_hyphen_values(true)
        } else {
            arg.allow_negative_numbers(true)
        }
    });
    command.mut_subcommands(with_negative_numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_of_positive_sizes_with_a_name_or_without() {
        let check = |text: &str, expect: Option<(Option<&str>, &[usize])>| {
            let expect = expect.map(|(name, sizes)| InputShape {
                name: name.map(Into::into),
                sizes: sizes.into(),
            });
            assert_eq!(text.parse().ok(), expect, "{text}");
        };
        check("3x224x224", Some((None, &[3, 224, 224])));
        check("80", Some((None, &[80])));
        check("x=3x8x8", Some((Some("x"), &[3, 8, 8])));
        check("a=b:0=2x4", Some((Some("a=b:0"), &[2, 4])));
        for wrong in ["3x0x224", "3x-1x2", "", "=3x4", "x=", "3x224x", "3.5"] {
            check(wrong, None);
        }
    }

    #[test]
    fn shapes_are_kept_by_name() {
        let shapes = |texts: &[&str]| {
            let parsed: Vec<InputShape> = texts.iter().map(|text| text.parse().unwrap()).collect();
            shapes_by_name(&parsed).map(|found| found.into_keys().collect::<Vec<_>>()).ok()
        };
        assert_eq!(shapes(&["3x4"]), Some(vec!["input".into()]));
        assert_eq!(shapes(&["a=3", "b=4"]), Some(vec!["a".into(), "b".into()]));
        assert_eq!(shapes(&["a=3", "4"]), None);
        assert_eq!(shapes(&["a=3", "a=4"]), None);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert_eq!(positive("7"), Ok(7));
        assert!(positive("0").is_err() && positive("-1").is_err() && positive("x").is_err());
        assert_eq!(non_negative("0"), Ok(0.0));
        assert!(
            non_negative("-1e-9").is_err()
                && non_negative("nan").is_err()
                && non_negative("inf").is_err()
        );
        assert_eq!(ratio("0.5"), Ok(0.5));
        assert!(
            ratio("0").is_err()
                && ratio("1").is_err()
                && ratio("2").is_err()
                && ratio("nan").is_err()
        );
    }
}
