//! `polyad`: decompose arrays and compress networks from the command line.
//!
//! This file holds the flags and the glue; each subcommand is one file, which turns its flags into calls of the
//! libraries and their answers into a [`output::Report`].

mod attack;
mod bench;
mod common;
mod compress;
mod convert;
mod decompose;
mod eval;
mod inputs;
mod inspect;
mod model;
mod npy;
mod output;
mod preprocess;
mod run;
mod significance;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::common::Common;

const EXAMPLES: &str = "\
Examples:
  polyad inspect --arch resnet18
  polyad inspect resnet56.safetensors --arch resnet56
  polyad compress resnet56.safetensors --arch resnet56 --macs-ratio 0.5 --out half.safetensors
  polyad eval half.safetensors --dataset cifar10 --split test-1000
  polyad bench resnet56.safetensors half.safetensors --arch resnet56
  polyad convert half.safetensors half.onnx
  polyad run half.safetensors photo.jpg
  polyad decompose kernel.npy --rank 64 --out factors.npz

`polyad COMMAND --help` explains each. The exit code is 0 on success, 2 where the command line is wrong, and 1 for \
anything else that failed; 130 or 143 where it was interrupted, and then no unfinished file is left.";

/// Compress convolutional networks by CP tensor decomposition.
#[derive(Parser)]
#[command(name = "polyad", version, after_help = EXAMPLES, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand)]
enum Command {
    Decompose(decompose::Args),
    Inspect(inspect::Args),
    Eval(eval::Args),
    Compress(Box<compress::Args>),
    Bench(bench::Args),
    Convert(convert::Args),
    Run(run::Args),
    Attack(attack::Args),
    Significance(significance::Args),
}

fn main() -> ExitCode {
    // Where that fails, files may stay behind when the command is interrupted; no reason not to run it.
    let _ = cp_train::clean_up_when_interrupted();
    #[cfg(feature = "torch")]
    cp_torch::keep_freed_memory();
    cp_train::built_from(option_env!("POLYAD_COMMIT"));
    let matches = common::with_negative_numbers(Cli::command()).get_matches();
    let Cli { command, common } = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.format(&mut Cli::command()).exit(),
    };
    let done = common.start().and_then(|()| match command {
        Command::Decompose(args) => decompose::run(&args, &common),
        Command::Inspect(args) => inspect::run(&args, &common),
        Command::Eval(args) => eval::run(&args, &common),
        Command::Compress(args) => compress::run(&args, &common),
        Command::Bench(args) => bench::run(&args, &common),
        Command::Convert(args) => convert::run(&args, &common),
        Command::Run(args) => run::run(&args, &common),
        Command::Attack(args) => attack::run(&args, &common),
        Command::Significance(args) => significance::run(&args, &common),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // `polyad inspect … | head`: whoever reads has seen enough, and all files are written by then.
        Err(error) if output::reader_left(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Not `eprintln!`, which panics where standard error is closed.
            let _ = writeln!(std::io::stderr(), "error: {}", output::describe(&error));
            ExitCode::from(if error.is::<common::Usage>() { 2 } else { 1 })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of the documentation that call `polyad`, and the examples of its own help.
    #[test]
    fn documented_commands_parse() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut texts = vec![("--help".to_owned(), EXAMPLES.to_owned())];
        for command in Cli::command().get_subcommands() {
            for help in [command.get_after_help(), command.get_after_long_help()] {
                let text = help.map(ToString::to_string).unwrap_or_default();
                texts.push((format!("{} --help", command.get_name()), text));
            }
        }
        let mut files = vec![root.join("README.md")];
        for folder in ["docs", "docs/decompositions", "docs/results"] {
            let entries = std::fs::read_dir(root.join(folder)).unwrap();
            files.extend(entries.map(|entry| entry.unwrap().path()));
        }
        for file in files.iter().filter(|file| file.extension().is_some_and(|kind| kind == "md")) {
            texts.push((file.display().to_string(), std::fs::read_to_string(file).unwrap()));
        }
        let mut seen = 0;
        for (place, text) in texts {
            let text = text.replace("\\\n", " ");
            for line in text.lines().map(str::trim).filter(|line| line.starts_with("polyad ")) {
                let words: Vec<&str> =
                    line.split(" #").next().unwrap_or("").split_whitespace().collect();
                seen += 1;
                if let Err(error) = Cli::command().try_get_matches_from(&words)
                    && error.use_stderr()
                {
                    panic!("{place}: {line}: {error}");
                }
            }
        }
        assert!(seen > 25, "{seen} commands in the documentation");
    }
}
