//! The Python packages that the pages in docs/ are tested with, in `.python/`.
//!
//! Only tests need them: where they cannot be installed, these say that they were skipped.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::{pip, workspace};

/// Below the root.
const FOLDER: &str = ".python";

/// Exact versions.
const REQUIREMENTS: &str = include_str!("../../docs/requirements.txt");

/// The copy of [`REQUIREMENTS`] that says what is installed.
const SIGN: &str = "requirements.txt";

/// Makes sure that the packages are there. Costs nothing where they are.
pub(crate) fn ensure(root: &Path) -> anyhow::Result<()> {
    let folder = root.join(FOLDER);
    if is_ready(&folder) {
        return Ok(());
    }
    eprintln!("Fetching the Python packages of docs/requirements.txt into {FOLDER}/ ...");
    let part = root.join(format!("{FOLDER}.part"));
    for old in [&part, &folder] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
    let list = part.join(SIGN);
    fs::write(&list, REQUIREMENTS)?;
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]);
    command.args(["--no-deps", "--only-binary=:all:", "--target"]).arg(part.join("site"));
    command.arg("-r").arg(&list);
    let status = workspace::run(&mut command).context(pip::GET_PYTHON)?;
    ensure!(status.success(), "pip could not install the packages of docs/requirements.txt");
    fs::rename(&part, &folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// [`ensure()`], with a note where it fails.
pub(crate) fn ensure_if_possible(root: &Path) {
    if let Err(error) = ensure(root) {
        eprintln!("note: the Python of docs/ is not tested. {error:#}");
    }
}

fn is_ready(folder: &Path) -> bool {
    fs::read_to_string(folder.join(SIGN)).is_ok_and(|found| found == REQUIREMENTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_has_one_version() {
        let lines = REQUIREMENTS.lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            let (name, version) = line.split_once("==").unwrap_or_default();
            assert!(!name.is_empty() && version.contains('.'), "{line}");
        }
    }

    #[test]
    fn other_packages_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_ready(folder.path()));
        fs::write(folder.path().join(SIGN), "numpy==1.0\n").unwrap();
        assert!(!is_ready(folder.path()));
        fs::write(folder.path().join(SIGN), REQUIREMENTS).unwrap();
        assert!(is_ready(folder.path()));
    }
}
