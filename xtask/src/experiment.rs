//! `cargo xtask demo`, `curve`, …: the experiments, whose names and one-line descriptions are those of
//! `crates/cp-experiments/experiments/*.toml`. The program of cp-experiments runs them and knows their options.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use serde::Deserialize;

use crate::needs::{self, Needs};
use crate::{onnxruntime, setup, workspace};

/// Where the experiments' TOMLs are.
const FOLDER: &str = "crates/cp-experiments/experiments";

/// What xtask reads of an experiment's TOML.
#[derive(Deserialize)]
struct About {
    about: String,
}

/// Names and descriptions of all experiments, in the order of their names but for the demo, which comes first.
pub(crate) fn all(root: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root.join(FOLDER)).context(FOLDER)? {
        let path = entry?.path();
        let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        if path.extension().is_some_and(|kind| kind == "toml") {
            let text = std::fs::read_to_string(&path)?;
            let about: About =
                toml::from_str(&text).with_context(|| format!("cannot read {}", path.display()))?;
            found.push((name.to_owned(), about.about));
        }
    }
    found.sort_by_key(|(name, _)| (name != "demo", name.clone()));
    Ok(found)
}

/// The subcommands of all experiments. Their arguments, `--help` too, are handed on.
pub(crate) fn subcommands(root: &Path) -> anyhow::Result<Vec<clap::Command>> {
    let rest = || {
        clap::Arg::new("args")
            .num_args(0..)
            .trailing_var_arg(true)
            .allow_hyphen_values(true)
            .value_parser(clap::value_parser!(OsString))
    };
    let one =
        |(name, about)| clap::Command::new(name).about(about).disable_help_flag(true).arg(rest());
    Ok(all(root)?.into_iter().map(one).collect())
}

/// Fetches the data that is missing (unless `--no-fetch` stands in the arguments), libtorch and ONNX Runtime, then builds and starts the
/// experiment in the user's folder; its exit code is ours.
///
/// All programs are built, and one example: only then does cargo choose the same features of all crates as for `cargo xtask test`,
/// those that dev-dependencies ask for too, and the two share what they build.
pub(crate) fn run(experiment: &str, args: &[OsString]) -> anyhow::Result<ExitCode> {
    run_with(experiment, args, &[])
}

/// As [`run`], with variables set.
pub(crate) fn run_with(
    experiment: &str,
    args: &[OsString],
    variables: &[(&str, &OsStr)],
) -> anyhow::Result<ExitCode> {
    // `--` parts our arguments from the experiment's; it is not one of them.
    let mut args = match args {
        [first, rest @ ..] if first == "--" => rest.to_vec(),
        all => all.to_vec(),
    };
    if needs::wanted(&mut args) {
        let root = workspace::root();
        let path = root.join(FOLDER).join(format!("{experiment}.toml"));
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Needs::of(&text, &args)?.fetch(&root)?;
    }
    setup::ensure()?;
    eprintln!(
        "Building the experiments, which know their options (some minutes the first time) ..."
    );
    let mut build = workspace::cargo_at_root();
    build.args(["build", "--quiet", "--workspace", "--bins", "--example", "layouts"]);
    let built = workspace::run(&mut build)?;
    if !built.success() {
        return Ok(workspace::exit_code(built));
    }
    // In the user's folder, where relative paths mean what they say.
    let mut program = Command::new(workspace::target_dir().join("debug/cp-experiments"));
    onnxruntime::point(&mut program, &workspace::root());
    program.envs(variables.iter().copied());
    Ok(workspace::exit_code(workspace::run(program.arg(experiment).args(args))?))
}
