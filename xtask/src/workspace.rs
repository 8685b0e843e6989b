//! The workspace: where it is, and how cargo is started in it.

use std::env;
use std::path::{self, Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::Context as _;

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable for what it runs; a binary that was started by hand falls back to where it was built.
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest.parent().map_or_else(|| manifest.clone(), PathBuf::from)
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root().join(target)
}

/// The cargo that started us, in the user's folder, without what it told us about this package.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

/// Variables that name files or folders of the user's.
const PATH_VARIABLES: [&str; 3] = ["POLYAD_DATA", "POLYAD_PYTHON", "POLYAD_ONNXRUNTIME"];

/// [`cargo`] in the root of the workspace. Tests and benchmarks run in the folders of their crates, so that what the user's
/// variables name is told to them by its whole path.
pub(crate) fn cargo_at_root() -> Command {
    let mut command = cargo();
    command.current_dir(root());
    for name in PATH_VARIABLES {
        if let Some(whole) = env::var_os(name).map(PathBuf::from).as_deref().and_then(whole_path) {
            command.env(name, whole);
        }
    }
    command
}

/// The whole path of one that is relative to the user's folder; a name alone (`python3`) that no file there has is a program's.
fn whole_path(named: &Path) -> Option<PathBuf> {
    let is_path = named.components().count() > 1 || named.exists();
    (is_path && named.is_relative()).then(|| path::absolute(named).ok()).flatten()
}

/// Runs to the end, with our input and output.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<ExitStatus> {
    command.status().with_context(|| format!("cannot start {}", command.get_program().display()))
}

/// The exit code of a child as our own.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    // A child that was killed has no code.
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_are_those_of_the_users_folder() {
        let here = env::current_dir().unwrap();
        assert_eq!(whole_path(Path::new("src")), Some(here.join("src")));
        assert_eq!(whole_path(Path::new("../no/folder")), Some(here.join("../no/folder")));
        assert_eq!(whole_path(&here), None);
        assert_eq!(whole_path(Path::new("python3")), None);
    }
}
