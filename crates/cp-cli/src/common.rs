//! The options that every command takes, and the values that several of them parse.

use std::any::TypeId;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, Command};
use cp_torch::DeviceRequest;

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
    #[arg(long, global = true, default_value_t = DeviceRequest::Cpu, value_parser = device())]
    pub(crate) device: DeviceRequest,
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
fn device() -> impl TypedValueParser<Value = DeviceRequest> {
    PossibleValuesParser::new(["cpu", "cuda"]).try_map(|name| name.parse::<DeviceRequest>())
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

/// `--input 3x224x224`: the shape of one example, without the batch axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InputShape(pub(crate) Vec<usize>);

impl FromStr for InputShape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sizes: Result<Vec<usize>, _> = text.split('x').map(str::parse).collect();
        match sizes {
            Ok(sizes) if sizes.len() == 3 && sizes.iter().all(|&size| size > 0) => Ok(Self(sizes)),
            _ => Err("write channels, height and width like 3x224x224".into()),
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
    fn shapes_of_three_positive_sizes_only() {
        let check = |text: &str, expect: Option<[usize; 3]>| {
            assert_eq!(
                text.parse::<InputShape>().ok().map(|shape| shape.0),
                expect.map(Vec::from),
                "{text}"
            );
        };
        check("3x224x224", Some([3, 224, 224]));
        check("1x28x30", Some([1, 28, 30]));
        check("3x224", None);
        check("3x224x224x1", None);
        check("3x0x224", None);
        check("3x-1x2", None);
        check("", None);
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
