//! Which libtorch a build uses, and in what state it is.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// The one version that the pinned tch speaks to.
pub(crate) const VERSION: &str = "2.11.0";

/// The wheels of the managed libtorch, as pip reads them: exact versions and checksums.
pub(crate) const REQUIREMENTS: &str = include_str!("../libtorch.txt");

/// The folder of the managed libtorch below the root, as `.cargo/config.toml` names it.
const FOLDER: &str = ".libtorch";

/// What [`stamp`] is kept under, in the managed folder.
pub(crate) const STAMP: &str = "stamp";

/// A header without which nothing builds; it stands for the folder of headers.
const HEADER: &str = "include/torch/csrc/api/include/torch/torch.h";

/// Whose libtorch it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Ours, in `.libtorch/`.
    Managed,
    /// The user's `LIBTORCH` (or `LIBTORCH_INCLUDE` and `LIBTORCH_LIB`).
    Folder { include: PathBuf, lib: PathBuf },
    /// The PyTorch of the user's Python: `LIBTORCH_USE_PYTORCH`.
    PyTorch,
}

impl Source {
    /// What torch-sys will use, by the same variables in the same order.
    ///
    /// Cargo sets `LIBTORCH` to the managed folder for us and for the build scripts unless the user has set it.
    pub(crate) fn of(root: &Path, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        if variable("LIBTORCH_USE_PYTORCH").is_some() {
            return Source::PyTorch;
        }
        let managed = folder(root);
        let base = variable("LIBTORCH").map_or_else(|| managed.clone(), PathBuf::from);
        let include = variable("LIBTORCH_INCLUDE").map_or_else(|| base.clone(), PathBuf::from);
        let lib = variable("LIBTORCH_LIB").map_or(base, PathBuf::from);
        if include == managed && lib == managed {
            Source::Managed
        } else {
            Source::Folder { include, lib }
        }
    }

    /// [`Source::of`] this process.
    pub(crate) fn here(root: &Path) -> Self {
        Source::of(root, |name| std::env::var_os(name))
    }
}

/// The managed folder.
pub(crate) fn folder(root: &Path) -> PathBuf {
    root.join(FOLDER)
}

/// The state of the managed folder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    Missing,
    /// Left by another version of this set-up, or no longer as it was installed; the text says what differs.
    Stale(String),
}

/// Looks at the managed folder; reads no library, so it costs nothing.
pub(crate) fn state(root: &Path) -> State {
    let folder = folder(root);
    if fs::symlink_metadata(&folder).is_err() {
        return State::Missing;
    }
    let Ok(stamp) = fs::read_to_string(folder.join(STAMP)) else {
        return State::Stale("it was not finished, or not made by `cargo xtask setup`".into());
    };
    let mut lines = stamp.lines();
    if lines.next() != Some(&head()) {
        return State::Stale(format!("it is not {}", head()));
    }
    if !folder.join(HEADER).is_file() {
        return State::Stale(format!("{HEADER} is missing"));
    }
    for line in lines {
        let (size, name) = line.split_once(' ').unwrap_or(("", line));
        match fs::metadata(folder.join(name)) {
            Ok(metadata) if metadata.len().to_string() == size => {}
            Ok(metadata) => {
                return State::Stale(format!(
                    "{name} has {} bytes in place of {size}",
                    metadata.len()
                ));
            }
            Err(_) => return State::Stale(format!("{name} is missing")),
        }
    }
    State::Ready
}

/// What makes an installation recognizable as whole: the pins, then size and name of every file in `lib/`.
pub(crate) fn stamp(folder: &Path) -> anyhow::Result<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder.join("lib"))? {
        let path = entry?.path();
        if let Some(name) = path.file_name() {
            files.push(format!("{} lib/{}\n", fs::metadata(&path)?.len(), name.display()));
        }
    }
    files.sort();
    Ok(format!("{}\n{}", head(), files.concat()))
}

/// The first line of the stamp; another pin or another layout makes another line.
fn head() -> String {
    let pins: Vec<String> = pins().map(|(name, version)| format!("{name} {version}")).collect();
    format!("layout 1, {}", pins.join(", "))
}

/// Names and versions of the wheels.
pub(crate) fn pins() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = REQUIREMENTS.lines().filter(|line| !line.starts_with([' ', '#']));
    lines.filter_map(|line| line.trim_end_matches(['\\', ' ']).split_once("=="))
}

/// The version of the headers below `folder`, from the file that holds it since PyTorch 2.9 or the one before.
pub(crate) fn header_version(folder: &Path) -> Option<String> {
    let places =
        ["include/torch/headeronly/version.h", "include/torch/csrc/api/include/torch/version.h"];
    places.iter().find_map(|place| parse_version(&fs::read_to_string(folder.join(place)).ok()?))
}

/// `2.11.0` out of the three `#define TORCH_VERSION_…` lines.
fn parse_version(header: &str) -> Option<String> {
    let number = |name: &str| {
        let start = format!("#define TORCH_VERSION_{name} ");
        header.lines().find_map(|line| line.strip_prefix(&start)?.trim().parse::<u32>().ok())
    };
    Some(format!("{}.{}.{}", number("MAJOR")?, number("MINOR")?, number("PATCH")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(variables: &[(&str, &str)]) -> Source {
        let variables: Vec<(String, OsString)> =
            variables.iter().map(|(name, value)| ((*name).into(), value.into())).collect();
        let value = |name: &str| {
            variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        Source::of(Path::new("/ws"), value)
    }

    #[test]
    fn the_users_own_libtorch_wins() {
        let own =
            |include: &str, lib: &str| Source::Folder { include: include.into(), lib: lib.into() };
        assert_eq!(source(&[]), Source::Managed);
        assert_eq!(source(&[("LIBTORCH", "/ws/.libtorch")]), Source::Managed);
        assert_eq!(source(&[("LIBTORCH", "/opt/libtorch")]), own("/opt/libtorch", "/opt/libtorch"));
        assert_eq!(
            source(&[("LIBTORCH", "/ws/.libtorch"), ("LIBTORCH_LIB", "/x")]),
            own("/ws/.libtorch", "/x")
        );
        assert_eq!(
            source(&[("LIBTORCH", "/opt/libtorch"), ("LIBTORCH_USE_PYTORCH", "1")]),
            Source::PyTorch
        );
    }

    #[test]
    fn the_pins_agree_with_the_version_and_are_checked_by_hash() {
        let pins: Vec<_> = pins().collect();
        assert_eq!(pins[0], ("torch", VERSION));
        assert_eq!(pins.len(), 3);
        let hashes =
            REQUIREMENTS.lines().filter_map(|line| line.trim().strip_prefix("--hash=sha256:"));
        let hashes: Vec<&str> = hashes.map(|hash| hash.trim_end_matches([' ', '\\'])).collect();
        assert_eq!(hashes.len(), 2 * pins.len(), "one for each architecture");
        assert!(
            hashes
                .iter()
                .all(|hash| hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
        );
    }

    #[test]
    fn tch_is_the_version_that_speaks_to_this_libtorch() {
        // The README of tch 0.24.0 asks for PyTorch 2.11.0, and torch-sys refuses any other.
        let workspace = include_str!("../../Cargo.toml");
        assert!(
            workspace.contains("tch = \"=0.24.0\""),
            "change the pins of libtorch and of tch together"
        );
        assert_eq!(VERSION, "2.11.0");
    }

    #[test]
    fn versions_in_headers() {
        let header = "#pragma once\n/// Major\n#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 11\n\
                      #define TORCH_VERSION_PATCH 0\n#define TORCH_VERSION \\\n  \"2.11.0\"\n";
        assert_eq!(parse_version(header), Some("2.11.0".into()));
        assert_eq!(parse_version("#define TORCH_VERSION_MAJOR 2\n"), None);
    }

    #[test]
    fn a_changed_library_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(state(root.path()), State::Missing);
        let folder = folder(root.path());
        fs::create_dir_all(folder.join(HEADER).parent().unwrap()).unwrap();
        fs::write(folder.join(HEADER), "").unwrap();
        fs::create_dir(folder.join("lib")).unwrap();
        fs::write(folder.join("lib/libc10.so"), "1234").unwrap();
        assert!(matches!(state(root.path()), State::Stale(why) if why.contains("not finished")));

        fs::write(folder.join(STAMP), stamp(&folder).unwrap()).unwrap();
        assert_eq!(state(root.path()), State::Ready);
        fs::write(folder.join("lib/libc10.so"), "123").unwrap();
        assert_eq!(
            state(root.path()),
            State::Stale("lib/libc10.so has 3 bytes in place of 4".into())
        );
        fs::remove_file(folder.join("lib/libc10.so")).unwrap();
        assert_eq!(state(root.path()), State::Stale("lib/libc10.so is missing".into()));
        fs::write(folder.join(STAMP), "layout 0, torch 2.10.0\n").unwrap();
        assert!(matches!(state(root.path()), State::Stale(why) if why.contains("torch 2.11.0")));
    }
}
