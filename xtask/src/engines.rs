//! `cargo xtask bench engines`: networks in our engines and in those of other people, in turn.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::{experiment, venv, workspace};

/// The Python environment, below the root.
const ENVIRONMENT: &str = "target/engines";

/// The variable by which the experiment finds the interpreter.
const VARIABLE: &str = "POLYAD_ENGINES_PYTHON";

/// All that networks are timed in.
const ENGINES: &str = "torch,onnxruntime,infer,openvino,ncnn,tract";

/// Installs the engines that have Python packages in `target/engines`, and starts the experiment `speed` in all engines with `args`.
pub(crate) fn run(args: &[OsString]) -> anyhow::Result<ExitCode> {
    let root = workspace::root();
    let python = venv::make(&root.join(ENVIRONMENT))?;
    let listed = root.join("benches/engines/requirements.txt");
    venv::install(&python, |pip| {
        pip.args(["--no-deps", "--only-binary=:all:", "-r"]).arg(&listed)
    })?;
    let mut all: Vec<OsString> = args.to_vec();
    if !args.iter().any(|arg| arg.to_string_lossy().starts_with("--engines")) {
        all.extend(["--engines", ENGINES].map(OsString::from));
    }
    experiment::run_with("speed", &all, &[(VARIABLE, python.as_os_str())])
}
