//! The experiments of Polyad, one subcommand each; started by `cargo xtask`.
//!
//! Every run writes `results/<experiment>/<run>/`: the configuration as run, `provenance.json`, `metrics.jsonl`, the
//! compressed networks, `summary.md` and `report.html`. A killed run goes on with `--resume`.

mod agreement;
mod alexnet;
mod curve;
mod demo;
mod figures;
mod latency;
mod run;
mod train_resnet;
mod transfer;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cp-experiments",
    version,
    about = "The experiments of Polyad",
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train CharNet on drawn characters, compress it, fine-tune it, time it
    Demo(demo::DemoArgs),
    /// Count and time the factorized AlexNets of the literature
    ReproduceAlexnet(alexnet::AlexnetArgs),
    /// Compress ImageNet networks without labels: agreement with the dense network
    Agreement(agreement::AgreementArgs),
    /// Plans from measured time against plans with the same multiply-adds
    Latency(latency::LatencyArgs),
    /// Compress a network to several budgets: accuracy against cost, beside published points
    Curve(curve::CurveArgs),
    /// Train the ResNet-20 that the compression experiments start from
    TrainResnet(train_resnet::TrainResnetArgs),
    /// Move a compressed pretrained network to another data set, at several ratios
    Transfer(transfer::TransferArgs),
}

fn main() -> std::process::ExitCode {
    // Where that fails, files may stay behind when the run is interrupted; no reason not to start it.
    let _ = cp_train::clean_up_when_interrupted();
    cp_torch::keep_freed_memory();
    let result = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::ReproduceAlexnet(args) => alexnet::run(&args),
        Command::Agreement(args) => agreement::run(&args),
        Command::Latency(args) => latency::run(&args),
        Command::Curve(args) => curve::run(&args),
        Command::TrainResnet(args) => train_resnet::run(&args),
        Command::Transfer(args) => transfer::run(&args),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
