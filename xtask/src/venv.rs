//! Python environments below target/, for benchmarks beside other people's programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::{pip, workspace};

/// The interpreter, below the environment.
pub(crate) const PYTHON: &str = "bin/python";

/// The interpreter of the environment, which is made where it is not there.
pub(crate) fn make(environment: &Path) -> anyhow::Result<PathBuf> {
    let python = environment.join(PYTHON);
    if !python.exists() {
        eprintln!("Making a Python environment in {} ...", environment.display());
        let mut venv = Command::new("python3");
        let status = workspace::run(venv.args(["-m", "venv"]).arg(environment))?;
        ensure!(status.success(), "python3 -m venv failed; {}", pip::GET_PYTHON);
    }
    Ok(python)
}

/// Lets pip install `packages`.
pub(crate) fn install(
    python: &Path,
    packages: impl FnOnce(&mut Command) -> &mut Command,
) -> anyhow::Result<()> {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    let status = workspace::run(packages(&mut command)).with_context(|| {
        format!("the Python environment of {} is broken: delete it and try again", python.display())
    })?;
    ensure!(status.success(), "pip could not install the packages (see above)");
    Ok(())
}
