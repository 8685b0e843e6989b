//! The managed ONNX Runtime, in `.onnxruntime/`: the library, its licences and a `VERSION`.
//!
//! Nothing is built against it: programs open it when they first need it, so a set-up without it is one in which the rest works.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::install::{Installer, Kit, State, libraries, rename};

/// The version that times are reported with.
pub(crate) const VERSION: &str = "1.32.0";

/// What programs look at first for a library of the user's own, in this order.
pub(crate) const VARIABLES: [&str; 2] = ["POLYAD_ONNXRUNTIME", "ORT_DYLIB_PATH"];

/// Licences that go with the library.
const LICENCES: [&str; 2] = ["LICENSE", "ThirdPartyNotices.txt"];

/// The library without its version, a link to the one with it.
const LIBRARY: &str =
    if cfg!(target_os = "macos") { "lib/libonnxruntime.dylib" } else { "lib/libonnxruntime.so" };

pub(crate) static KIT: Kit = Kit {
    name: "ONNX Runtime",
    version: VERSION,
    folder: ".onnxruntime",
    requirements: include_str!("../onnxruntime.txt"),
    platforms,
    systems: "Linux with glibc on x86-64 and aarch64 and on macOS on aarch64",
    space: 300,
    size: "a download of 28 MB, 36 MB on disk",
    keep,
    sign: "VERSION",
    library: LIBRARY,
    own: "let POLYAD_ONNXRUNTIME name an ONNX Runtime of your own, 1.17 or later (`pip install onnxruntime` brings one)",
};

/// Whose ONNX Runtime it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Ours, in `.onnxruntime/`.
    Managed,
    /// The one that a variable of the user's names.
    Own { variable: &'static str, path: PathBuf },
}

impl Source {
    /// What programs will use, by the same variables in the same order.
    pub(crate) fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let own = VARIABLES.into_iter().find_map(|name| Some((name, variable(name)?)));
        own.map_or(Source::Managed, |(variable, path)| Source::Own { variable, path: path.into() })
    }

    /// [`Source::of`] this process.
    pub(crate) fn here() -> Self {
        Source::of(|name| std::env::var_os(name))
    }
}

/// Makes sure that there is one, where that can be done. Costs nothing where there is one.
pub(crate) fn ensure(root: &Path) -> anyhow::Result<()> {
    if Source::here() != Source::Managed || KIT.state(root) == State::Ready {
        return Ok(());
    }
    Installer::here(&KIT, root.to_owned())?.install(false)
}

/// [`ensure`] for those who can do without: a note if it fails, and nothing where there are no wheels, which `doctor` says.
pub(crate) fn ensure_if_possible(root: &Path) {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    if platforms(os, arch, cfg!(target_env = "gnu")).is_none() {
        return;
    }
    if let Err(error) = ensure(root) {
        eprintln!("note: ONNX Runtime is not set up; all that does not run in it works. {error:#}");
    }
}

/// Lets a program find the managed library wherever cargo has put it; by itself it looks in the folders above its own.
pub(crate) fn point(command: &mut Command, root: &Path) {
    if Source::here() == Source::Managed && KIT.state(root) == State::Ready {
        command.env(VARIABLES[0], KIT.folder(root).join("lib"));
    }
}

fn platforms(os: &str, arch: &str, glibc: bool) -> Option<Vec<String>> {
    match (os, arch) {
        ("linux", "x86_64" | "aarch64") if glibc => Some(vec![format!("manylinux_2_28_{arch}")]),
        ("macos", "aarch64") => Some(vec!["macosx_14_0_arm64".into()]),
        _ => None,
    }
}

/// Makes `new/lib`, the licences and `VERSION` out of an installed wheel.
fn keep(site: &Path, new: &Path) -> anyhow::Result<()> {
    let package = site.join("onnxruntime");
    fs::create_dir_all(new.join("lib"))?;
    for path in libraries(&package.join("capi"))? {
        // Left out: the Python half, and what providers other than the CPU's are opened with.
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("libonnxruntime.") {
            let kept = new.join("lib").join(&name);
            rename(&path, &kept)?;
            #[cfg(unix)] // elsewhere there are no such wheels here
            if !new.join(LIBRARY).exists() {
                std::os::unix::fs::symlink(&name, new.join(LIBRARY))?;
            }
        }
    }
    anyhow::ensure!(
        new.join(LIBRARY).is_file(),
        "there is no libonnxruntime in {}",
        package.join("capi").display()
    );
    for licence in LICENCES {
        rename(&package.join(licence), &new.join(licence))?;
    }
    fs::write(new.join("VERSION"), format!("{VERSION}\n"))?;
    Ok(())
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_library_wins() {
        let source = |set: &[(&str, &str)]| {
            let value = |name: &str| set.iter().find(|(known, _)| *known == name);
            Source::of(|name| value(name).map(|(_, path)| path.into()))
        };
        let own = |variable, path: &str| Source::Own { variable, path: path.into() };
        assert_eq!(source(&[]), Source::Managed);
        assert_eq!(source(&[("ORT_DYLIB_PATH", "/a.so")]), own("ORT_DYLIB_PATH", "/a.so"));
        let both = [("ORT_DYLIB_PATH", "/a.so"), ("POLYAD_ONNXRUNTIME", "/b")];
        assert_eq!(source(&both), own("POLYAD_ONNXRUNTIME", "/b"));
    }

    #[test]
    fn the_pin_is_checked_by_hash() {
        assert_eq!(KIT.pins().collect::<Vec<_>>(), [("onnxruntime", VERSION)]);
        let lines = KIT.requirements.lines();
        let hashes = lines.filter_map(|line| line.trim().strip_prefix("--hash=sha256:"));
        let hashes: Vec<&str> = hashes.map(|hash| hash.trim_end_matches([' ', '\\'])).collect();
        assert_eq!(hashes.len(), 3, "one for each platform");
        let whole =
            |hash: &&str| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(hashes.iter().all(whole));
    }

    #[test]
    fn platforms_with_wheels() {
        let tag = |os, arch, glibc| platforms(os, arch, glibc).map(|tags| tags.join(" "));
        assert_eq!(tag("linux", "x86_64", true).as_deref(), Some("manylinux_2_28_x86_64"));
        assert_eq!(tag("linux", "aarch64", true).as_deref(), Some("manylinux_2_28_aarch64"));
        assert_eq!(tag("macos", "aarch64", false).as_deref(), Some("macosx_14_0_arm64"));
        for (os, arch, glibc) in
            [("linux", "x86_64", false), ("macos", "x86_64", false), ("windows", "x86_64", false)]
        {
            assert_eq!(tag(os, arch, glibc), None);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_library_and_its_licences_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let (site, new) = (root.path().join("site"), root.path().join("new"));
        let capi = site.join("onnxruntime/capi");
        fs::create_dir_all(&capi).unwrap();
        let missing = keep(&site, &new).unwrap_err().to_string();
        assert!(missing.contains("no libonnxruntime"), "{missing}");
        for name in [
            "libonnxruntime.so.1.32.0",
            "libonnxruntime_providers_shared.so",
            "onnxruntime_pybind11_state.cpython-312-x86_64-linux-gnu.so",
            "__init__.py",
        ] {
            fs::write(capi.join(name), name).unwrap();
        }
        for licence in LICENCES {
            fs::write(site.join("onnxruntime").join(licence), "text").unwrap();
        }
        keep(&site, &new).unwrap();
        let names = |folder: &Path| {
            let entries = fs::read_dir(folder).unwrap();
            let mut names: Vec<OsString> =
                entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&new), ["LICENSE", "ThirdPartyNotices.txt", "VERSION", "lib"]);
        assert_eq!(names(&new.join("lib")), ["libonnxruntime.so", "libonnxruntime.so.1.32.0"]);
        assert_eq!(fs::read_to_string(new.join(KIT.library)).unwrap(), "libonnxruntime.so.1.32.0");
        assert_eq!(fs::read_to_string(new.join("VERSION")).unwrap(), "1.32.0\n");
    }
}
