//! `cargo xtask demo`, `transfer`, `reproduce-alexnet`: experiments, run by the program of `cp-experiments`.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use crate::{setup, workspace};

pub(crate) const DEMO_HELP: &str = "\
Examples:
  cargo xtask demo                             the whole run; its report is named at the end
  cargo xtask demo -- --help                   every option (builds the program first)";

pub(crate) const TRANSFER_HELP: &str = "\
Examples:
  cargo xtask transfer --dataset cifar10
  cargo xtask transfer --dataset fashion-mnist --quick
  cargo xtask transfer --dataset cats-vs-dogs --data ~/data
  cargo xtask transfer --dataset cifar10 --backbone own
  cargo xtask transfer -- --help               every option (builds the program first)";

pub(crate) const AGREEMENT_HELP: &str = "\
Examples:
  cargo xtask agreement --data ~/data
  cargo xtask agreement --networks squeezenet1_1 --ratios 0.5
  cargo xtask agreement -- --help              every option (builds the program first)";

pub(crate) const LATENCY_HELP: &str = "\
Examples:
  cargo xtask latency                          ResNet-56 and AlexNet, batches of 8 on one thread
  cargo xtask latency --networks resnet56 --batch 1
  cargo xtask latency -- --help                every option (builds the program first)";

pub(crate) const CURVE_HELP: &str = "\
Examples:
  cargo xtask curve --network resnet20 --data ~/data --jobs 4
  cargo xtask curve --network resnet20 --quick
  cargo xtask curve --network resnet56 --resume
  cargo xtask curve -- --help                  every option (builds the program first)";

pub(crate) const TRAIN_RESNET_HELP: &str = "\
Examples:
  cargo xtask train-resnet --data ~/data       ResNet-20 on CIFAR-10 without batch 5
  cargo xtask train-resnet --resume            a killed run goes on
  cargo xtask train-resnet -- --help           every option (builds the program first)";

pub(crate) const ALEXNET_HELP: &str = "\
Examples:
  cargo xtask reproduce-alexnet                the tables, then the measured speed-ups
  cargo xtask reproduce-alexnet --smoke        a quick run
  cargo xtask reproduce-alexnet -- --help      every option (builds the program first)";

/// Sees to libtorch, then builds and starts the experiment in the user's folder; its exit code is ours.
///
/// All programs are built, and one example: only then does cargo choose the same features of all crates as for `cargo xtask test`,
/// those that dev-dependencies ask for too, and the two share what they build.
pub(crate) fn run(experiment: &str, args: &[OsString]) -> anyhow::Result<ExitCode> {
    setup::ensure()?;
    // `--` parts our arguments from the experiment's; it is not one of them.
    let args = match args {
        [first, rest @ ..] if first == "--" => rest,
        all => all,
    };
    eprintln!("Building the experiments (some minutes the first time) ...");
    let mut build = workspace::cargo_at_root();
    build.args(["build", "--quiet", "--workspace", "--bins", "--example", "layouts"]);
    let built = workspace::run(&mut build)?;
    if !built.success() {
        return Ok(workspace::exit_code(built));
    }
    // In the user's folder, where relative paths mean what they say.
    let mut program = Command::new(workspace::target_dir().join("debug/cp-experiments"));
    Ok(workspace::exit_code(workspace::run(program.arg(experiment).args(args))?))
}
