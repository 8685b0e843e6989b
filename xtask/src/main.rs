//! `cargo xtask`: sets up libtorch and the data sets, and starts everything else.
//!
//! Thin on purpose: it depends on no crate of the workspace, builds in seconds, and leaves the work to pip, curl, tar and
//! cargo. One file per subcommand; `workspace`, `libtorch`, `manifest` and `download` are what several of them share.

mod bench;
mod check;
mod datasets;
mod doctor;
mod download;
mod experiment;
mod libtorch;
mod manifest;
mod peers;
mod setup;
mod test;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

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
    /// Install libtorch into .libtorch/ (the other commands do this themselves)
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
    /// Train, compress, fine-tune and time a network on drawn characters (about 10 minutes)
    #[command(after_help = experiment::DEMO_HELP)]
    Demo(Rest),
    /// Compress a pretrained network at several ratios and move it to another data set
    #[command(after_help = experiment::TRANSFER_HELP)]
    Transfer(Rest),
    /// Compress ImageNet networks without labels: agreement with the dense network
    #[command(after_help = experiment::AGREEMENT_HELP)]
    Agreement(Rest),
    /// Plans from measured time against plans with the same multiply-adds
    #[command(after_help = experiment::LATENCY_HELP)]
    Latency(Rest),
    /// Compress a network to several budgets: accuracy against cost, beside published points
    #[command(after_help = experiment::CURVE_HELP)]
    Curve(Rest),
    /// Train the ResNet-20 that the compression experiments start from (about an hour)
    #[command(after_help = experiment::TRAIN_RESNET_HELP)]
    TrainResnet(Rest),
    /// Parameters, multiply-adds and speed of the factorized AlexNets of the literature
    #[command(after_help = experiment::ALEXNET_HELP)]
    ReproduceAlexnet(Rest),
    /// List, download and check the data sets
    #[command(subcommand)]
    Datasets(datasets::DatasetsCommand),
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

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Doctor => doctor::run(),
        Command::Test(rest) => test::run(&rest.args),
        Command::Check => check::run(check::Lock::MayChange),
        Command::Ci => check::run(check::Lock::Fixed),
        Command::Demo(rest) => experiment::run("demo", &rest.args),
        Command::Transfer(rest) => experiment::run("transfer", &rest.args),
        Command::Agreement(rest) => experiment::run("agreement", &rest.args),
        Command::Latency(rest) => experiment::run("latency", &rest.args),
        Command::Curve(rest) => experiment::run("curve", &rest.args),
        Command::TrainResnet(rest) => experiment::run("train-resnet", &rest.args),
        Command::ReproduceAlexnet(rest) => experiment::run("reproduce-alexnet", &rest.args),
        Command::Datasets(command) => datasets::run(&command),
        Command::Bench(rest) => bench::run(&rest.args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_of_an_experiment_are_handed_on_untouched() {
        let cli = Cli::parse_from(["x", "transfer", "--dataset", "cifar10", "--quick", "--", "-v"]);
        let Command::Transfer(rest) = cli.command else { panic!("not parsed as transfer") };
        assert_eq!(rest.args, ["--dataset", "cifar10", "--quick", "--", "-v"]);
    }
}
