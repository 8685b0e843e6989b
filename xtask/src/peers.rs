//! `cargo xtask bench peers`: cp-core beside other libraries, on the same arrays and starts.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::ensure;

use crate::{venv, workspace};

/// The Python environment, below the root.
const ENVIRONMENT: &str = "target/peers";

/// Sets up the Python packages in `target/peers`, builds cp-core's side, and starts the comparison with `args`.
pub(crate) fn run(args: &[OsString]) -> anyhow::Result<ExitCode> {
    let root = workspace::root();
    let scripts = root.join("benches/peers");
    let environment = root.join(ENVIRONMENT);
    let python = venv::make(&environment)?;
    let listed = scripts.join("requirements.txt");
    venv::install(&python, |pip| pip.arg("-r").arg(&listed))?;
    if args.iter().any(|arg| arg == "--torch") {
        venv::install(&python, |pip| pip.args(["torch==2.11.0", "safetensors==0.8.0"]))?;
    }
    let mut build = workspace::cargo_at_root();
    build.args(["build", "--release", "-p", "cp-core", "--example", "peer"]);
    let status = workspace::run(&mut build)?;
    ensure!(status.success(), "cp-core's example `peer` did not build");
    let mut compare = Command::new(&python);
    compare
        .arg(scripts.join("compare.py"))
        .arg("--binary")
        .arg(workspace::target_dir().join("release/examples/peer"))
        .args(args);
    Ok(workspace::exit_code(workspace::run(&mut compare)?))
}

/// The Python of the environment, where it is there and has PyTorch (`--torch`) and safetensors.
pub(crate) fn python_with_torch() -> Option<PathBuf> {
    const FIND: &str = "import sys; from importlib.util import find_spec; \
        sys.exit(not (find_spec('torch') and find_spec('safetensors')))";
    let python = workspace::root().join(ENVIRONMENT).join(venv::PYTHON);
    let found = Command::new(&python).args(["-c", FIND]).output().ok()?;
    found.status.success().then_some(python)
}
