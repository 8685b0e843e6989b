//! `cargo xtask`: sets up libtorch, ONNX Runtime and the data sets, and starts everything else.
//!
//! Thin on purpose: it depends on no crate of the workspace, builds in seconds, and leaves the work to pip, curl, tar and
//! cargo. One file per subcommand; `workspace`, `install`, `pip`, `libtorch`, `onnxruntime`, `manifest`, `sums` and `download` are what
//! several of them share.

mod bench;
mod check;
mod datasets;
mod docs_python;
mod doctor;
mod download;
mod engines;
mod experiment;
mod install;
mod libtorch;
#[cfg(test)]
mod loopback;
mod manifest;
mod needs;
mod onnxruntime;
mod peers;
mod pip;
mod results;
mod setup;
mod sums;
mod test;
mod venv;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Set up, test and run Polyad",
    version
)]
#[command(
    arg_required_else_help = true,
    after_help = "Start with `cargo xtask demo`; if anything is in the way, `cargo xtask doctor` says what."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install libtorch into .libtorch/, ONNX Runtime into .onnxruntime/ and what tests of docs/ need into .python/ (the other commands do this themselves)
    Setup(setup::SetupArgs),
    /// Say what is installed, what is missing, and what to do about it
    Doctor,
    /// Run the tests of the whole workspace
    #[command(after_help = test::EXAMPLES)]
    Test(Rest),
    /// Format, lints, documentation, tests: cheapest first, warnings denied
    Check,
    /// What the continuous integration runs: `check` on the locked dependencies
    Ci,
    /// List, download and check the data sets
    #[command(subcommand)]
    Datasets(datasets::DatasetsCommand),
    /// The recorded runs in docs/results: write the README's table, record a run, check
    Results {
        #[command(subcommand)]
        command: Option<results::ResultsCommand>,
    },
    /// Run the benchmarks of the whole workspace
    #[command(after_help = bench::EXAMPLES)]
    Bench(Rest),
}

/// Arguments that are handed on.
#[derive(Args)]
struct Rest {
    /// Handed on as they are
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// The whole command line: the commands here, and the experiments.
fn command() -> anyhow::Result<clap::Command> {
    Ok(Cli::command().subcommands(experiment::subcommands(&workspace::root())?))
}

fn start() -> anyhow::Result<ExitCode> {
    let matches = command()?.get_matches();
    if let Some((name, args)) = matches.subcommand()
        && experiment::all(&workspace::root())?.iter().any(|(known, _)| known == name)
    {
        let rest = args.get_many::<OsString>("args").unwrap_or_default();
        return experiment::run(name, &rest.cloned().collect::<Vec<_>>());
    }
    match Cli::from_arg_matches(&matches)?.command {
        Command::Setup(args) => setup::run(&args),
        Command::Doctor => doctor::run(),
        Command::Test(rest) => test::run(&rest.args),
        Command::Check => check::run(check::Lock::MayChange),
        Command::Ci => check::run(check::Lock::Fixed),
        Command::Datasets(command) => datasets::run(&command),
        Command::Results { command } => {
            results::run(&command.unwrap_or(results::ResultsCommand::Write))
        }
        Command::Bench(rest) => bench::run(&rest.args),
    }
}

fn main() -> ExitCode {
    start().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().unwrap().debug_assert();
    }

    #[test]
    fn arguments_of_an_experiment_are_handed_on_untouched() {
        for args in [
            &["--dataset", "cifar10", "--quick", "--", "-v"][..],
            &["--help"],
            &["-h"],
            &[],
            &["--version", "x"],
        ] {
            let all = ["cargo xtask", "transfer"].iter().chain(args);
            let matches = command().unwrap().get_matches_from(all);
            let (name, found) = matches.subcommand().unwrap();
            let found = found.get_many::<OsString>("args").unwrap_or_default();
            assert_eq!(name, "transfer");
            assert!(
                found.eq(args.iter().map(OsString::from).collect::<Vec<_>>().iter()),
                "{args:?}"
            );
        }
    }

    #[test]
    fn names_that_are_no_experiments_are_refused_at_once() {
        let error =
            command().unwrap().try_get_matches_from(["cargo xtask", "transfers"]).unwrap_err();
        assert!(error.to_string().contains("'transfer'"), "{error}");
    }

    /// Lines of the documentation that call xtask.
    #[test]
    fn documented_commands_parse() {
        let mut seen = 0;
        let mut files =
            vec!["README.md".to_owned(), "CONTRIBUTING.md".into(), "ARCHITECTURE.md".into()];
        for folder in ["docs", "docs/results", "docs/decompositions", "benches", "datasets"] {
            for entry in std::fs::read_dir(workspace::root().join(folder)).unwrap() {
                let name = entry.unwrap().file_name().to_string_lossy().into_owned();
                if name.ends_with(".md") {
                    files.push(format!("{folder}/{name}"));
                }
            }
        }
        for file in files {
            let text = std::fs::read_to_string(workspace::root().join(&file)).unwrap();
            for (index, line) in text.lines().enumerate() {
                for rest in line.split("cargo xtask ").skip(1) {
                    let words = rest.split(['`', '#', ')']).next().unwrap_or("").split_whitespace();
                    let words: Vec<&str> = words.collect();
                    // A command that only stands in a sentence, or for any of them.
                    if words
                        .first()
                        .is_none_or(|name| name.chars().any(|c| c.is_uppercase() || c == '…'))
                    {
                        continue;
                    }
                    seen += 1;
                    let all = std::iter::once("cargo-xtask").chain(words.iter().copied());
                    if let Err(error) = command().unwrap().try_get_matches_from(all)
                        && error.use_stderr()
                        && error.kind()
                            != clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                    {
                        panic!("{file}:{}: cargo xtask {}: {error}", index + 1, words.join(" "));
                    }
                }
            }
        }
        assert!(seen > 20, "{seen} commands in the documentation");
    }
}
