//! The experiments of Polyad, one subcommand each; started by `cargo xtask`.
//!
//! An experiment is a TOML in `experiments/` (what, on which data, a grid, published figures with their source, the options of the
//! command line) and a file here behind the trait [`Experiment`](experiment::Experiment); [`EXPERIMENTS`] lists them.
//!
//! Every run writes `results/<experiment>/<run>/`: the settings as run, `provenance.json`, `metrics.jsonl`, the compressed
//! networks, `summary.md`, `report.html` and `result.json`. A killed run goes on with `--resume`.

mod agreement;
mod alexnet;
mod characters;
mod charnet;
mod context;
mod cpac;
mod curve;
mod demo;
mod description;
mod detectors;
mod experiment;
mod figures;
mod jobs;
mod latency;
mod peers;
mod speed;
mod stasgt;
mod third_party;
mod train_resnet;
mod transduction;
mod transfer;
mod zoo;

use std::process::ExitCode;

use anyhow::Result;
use clap::{ArgMatches, Command};

use crate::description::Description;
use crate::experiment::run;

/// An experiment: its name, its TOML, and its code.
type Entry =
    (&'static str, &'static str, fn(&'static str, &Description, &ArgMatches) -> Result<()>);

/// Every experiment.
#[rustfmt::skip]
const EXPERIMENTS: [Entry; 15] = [
    ("demo", include_str!("../experiments/demo.toml"), run::<demo::Demo>),
    ("charnet", include_str!("../experiments/charnet.toml"), run::<charnet::Charnet>),
    ("reproduce-alexnet", include_str!("../experiments/reproduce-alexnet.toml"), alexnet::run),
    ("agreement", include_str!("../experiments/agreement.toml"), run::<agreement::Agreement>),
    ("latency", include_str!("../experiments/latency.toml"), run::<latency::Latency>),
    ("speed", include_str!("../experiments/speed.toml"), run::<speed::Speed>),
    ("detectors", include_str!("../experiments/detectors.toml"), run::<detectors::Detectors>),
    ("third-party", include_str!("../experiments/third-party.toml"), run::<third_party::ThirdParty>),
    ("curve", include_str!("../experiments/curve.toml"), run::<curve::Curve>),
    ("train-resnet", include_str!("../experiments/train-resnet.toml"), run::<train_resnet::TrainResnet>),
    ("cpac", include_str!("../experiments/cpac.toml"), run::<cpac::Cpac>),
    ("stasgt", include_str!("../experiments/stasgt.toml"), run::<stasgt::Stasgt>),
    ("transduction", include_str!("../experiments/transduction.toml"), run::<transduction::Transduction>),
    ("transfer", include_str!("../experiments/transfer.toml"), run::<transfer::Transfer>),
    ("zoo", include_str!("../experiments/zoo.toml"), run::<zoo::Zoo>),
];

fn command() -> Command {
    let experiments =
        EXPERIMENTS.map(|(name, text, _)| experiment::command(name, &Description::new(text)));
    Command::new("cp-experiments")
        // No one starts this program but xtask.
        .bin_name("cargo xtask")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The experiments of Polyad")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(experiments)
}

fn main() -> ExitCode {
    // Where that fails, files may stay behind when the run is interrupted; no reason not to start it.
    let _ = cp_train::clean_up_when_interrupted();
    cp_torch::keep_freed_memory();
    cp_train::built_from(option_env!("POLYAD_COMMIT"));
    let matches = command().get_matches();
    // clap takes no other name.
    let Some((asked, args)) = matches.subcommand() else { return ExitCode::FAILURE };
    let Some((name, text, run)) = EXPERIMENTS.into_iter().find(|(name, ..)| *name == asked) else {
        return ExitCode::FAILURE;
    };
    match run(name, &Description::new(text), args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", cp_train::causes_in_words(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::experiment::Experiment;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn help_is_about_the_experiment() {
        let error = command().try_get_matches_from(["x", "curve", "--help"]).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("Compress a network to several budgets"), "{text}");
        assert!(text.contains("Usage: cargo xtask curve"), "{text}");
        for option in ["--network", "--budgets", "--quick", "--jobs", "--smoke", "--resume"] {
            assert!(text.contains(option), "{option}: {text}");
        }
    }

    /// The settings that every choice makes are those of the experiment, with and without each flag, and make sense.
    fn check<E: Experiment>(name: &'static str)
    where
        E::Settings: DeserializeOwned,
    {
        let (_, text, _) = EXPERIMENTS.into_iter().find(|(known, ..)| *known == name).unwrap();
        let about = Description::new(text);
        for way in about.required() {
            let flags: &[&[&str]] = if text.contains("[[flag]]") {
                &[&[], &["--quick"], &["--smoke"]]
            } else {
                &[&[], &["--smoke"]]
            };
            for flags in flags {
                let args = [vec![name.to_owned()], way.clone()].concat();
                let args = args.into_iter().chain(flags.iter().map(|&flag| flag.to_owned()));
                let matches = experiment::command(name, &about).get_matches_from(args);
                let settings: E::Settings = about.settings(&matches).unwrap().try_into().unwrap();
                E::check(&settings).unwrap();
            }
        }
    }

    #[test]
    fn all_settings_are_sound() {
        check::<demo::Demo>("demo");
        check::<charnet::Charnet>("charnet");
        check::<alexnet::Alexnet>("reproduce-alexnet");
        check::<agreement::Agreement>("agreement");
        check::<latency::Latency>("latency");
        check::<speed::Speed>("speed");
        check::<detectors::Detectors>("detectors");
        check::<third_party::ThirdParty>("third-party");
        check::<curve::Curve>("curve");
        check::<train_resnet::TrainResnet>("train-resnet");
        check::<cpac::Cpac>("cpac");
        check::<stasgt::Stasgt>("stasgt");
        check::<transduction::Transduction>("transduction");
        check::<transfer::Transfer>("transfer");
        check::<zoo::Zoo>("zoo");
    }

    /// Lines of the documentation that start an experiment.
    #[test]
    fn documented_commands_parse() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut seen = 0;
        for file in
            ["README.md", "CONTRIBUTING.md", "docs/compression.md", "docs/results/README.md"]
        {
            let text = std::fs::read_to_string(root.join(file)).unwrap();
            for (index, line) in text.lines().enumerate() {
                for rest in line.split("cargo xtask ").skip(1) {
                    let rest = rest.split(['`', '#']).next().unwrap_or("").trim();
                    let words: Vec<&str> = rest.split_whitespace().collect();
                    let Some(first) = words.first() else { continue };
                    if !EXPERIMENTS.iter().any(|(name, ..)| name == first) {
                        continue;
                    }
                    seen += 1;
                    // The name alone stands for an experiment with its choices.
                    if words.len() == 1 {
                        continue;
                    }
                    let all = std::iter::once("cargo-xtask").chain(words.iter().copied());
                    if let Err(error) = command().try_get_matches_from(all) {
                        panic!("{file}:{}: {rest}: {error}", index + 1);
                    }
                }
            }
        }
        assert!(seen > 10, "{seen} commands in the documentation");
    }
}
