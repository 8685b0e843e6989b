//! Which libtorch a build uses, and what the managed one is made of.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};

use crate::install::{Kit, find, libraries, rename};

/// The one version that the pinned tch speaks to.
pub(crate) const VERSION: &str = "2.11.0";

/// How to go without the managed libtorch.
const OWN: &str = "point LIBTORCH at a libtorch 2.11.0 of your own, or set LIBTORCH_USE_PYTORCH=1 where Python has torch 2.11.0";

/// The managed libtorch: headers and libraries of the CPU, without the Python files and the CUDA half.
pub(crate) static KIT: Kit = Kit {
    name: "libtorch",
    version: VERSION,
    // As `.cargo/config.toml` names it.
    folder: ".libtorch",
    requirements: include_str!("../libtorch.txt"),
    platforms,
    systems: "Linux with glibc on x86-64 and aarch64",
    space: 2000,
    size: "a download of 530 MB, 500 MB on disk",
    keep,
    sign: "include/torch/csrc/api/include/torch/torch.h",
    library: "lib/libtorch_cpu.so",
    own: OWN,
};

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
        let managed = KIT.folder(root);
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

/// Whether a folder of the user's is a libtorch that we can build against.
pub(crate) fn check_folder(folder: &Path, bypass: bool) -> anyhow::Result<()> {
    let Some(version) = header_version(folder) else {
        bail!(
            "LIBTORCH={} holds no libtorch (include/torch/…/version.h); correct it, or unset it and run `cargo xtask setup`",
            folder.display()
        );
    };
    ensure!(
        version == VERSION || bypass,
        "LIBTORCH={} is libtorch {version}, but {} is needed; unset it to use the managed one, or set \
         LIBTORCH_BYPASS_VERSION_CHECK=1 to try all the same",
        folder.display(),
        VERSION
    );
    Ok(())
}

fn platforms(os: &str, arch: &str, glibc: bool) -> Option<Vec<String>> {
    let tags = ["manylinux_2_28", "manylinux_2_25", "manylinux2014"];
    let here = os == "linux" && glibc && ["x86_64", "aarch64"].contains(&arch);
    here.then(|| tags.map(|tag| format!("{tag}_{arch}")).to_vec())
}

/// Makes `new/include` and `new/lib` out of an installed wheel.
fn keep(site: &Path, new: &Path) -> anyhow::Result<()> {
    let lib = new.join("lib");
    fs::create_dir_all(&lib)?;
    rename(&site.join("torch/include"), &new.join("include"))?;
    for path in libraries(&site.join("torch/lib"))? {
        // Left out: the CUDA half, which a full PyTorch of the user's brings where there is a GPU (torch-sys links what
        // it finds, and programs would not start without a driver), and the Python half.
        let unwanted = [
            "libtorch_cuda",
            "libc10_cuda",
            "libcaffe2_nvrtc",
            "libtorch_nvshmem",
            "libtorch_python",
            "libtorch.so",
        ];
        let name = path.file_name().unwrap_or_default();
        if !unwanted.iter().any(|start| name.to_string_lossy().starts_with(start)) {
            rename(&path, &lib.join(name))?;
        }
    }
    // `libtorch.so` is an empty library that only ties the halves together; linking against it must give the CPU's.
    #[cfg(unix)] // elsewhere there are no such wheels, and `platforms` has said so
    std::os::unix::fs::symlink("libtorch_cpu.so", lib.join("libtorch.so"))?;
    for wanted in ["libcudart.so.13", "libcupti.so.13"] {
        rename(&find(&site.join("nvidia"), wanted)?, &lib.join(wanted))?;
    }
    // Where a wheel brings libraries of the system along (aarch64: OpenBLAS and its kind), they are here.
    for path in libraries(&site.join("torch.libs")).unwrap_or_default() {
        rename(&path, &lib.join(path.file_name().unwrap_or_default()))?;
    }
    // torch-sys compares this file with the version that it wants.
    fs::write(new.join("build-version"), VERSION)?;
    Ok(())
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
        let pins: Vec<_> = KIT.pins().collect();
        assert_eq!(pins[0], ("torch", VERSION));
        assert_eq!(pins.len(), 3);
        let hashes =
            KIT.requirements.lines().filter_map(|line| line.trim().strip_prefix("--hash=sha256:"));
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
    fn a_folder_of_the_users_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let error = check_folder(folder.path(), false).unwrap_err().to_string();
        assert!(error.contains("holds no libtorch"), "{error}");
        let header = folder.path().join("include/torch/headeronly/version.h");
        fs::create_dir_all(header.parent().unwrap()).unwrap();
        let define = |minor| {
            let text = format!(
                "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR {minor}\n#define TORCH_VERSION_PATCH 0\n"
            );
            fs::write(&header, text).unwrap();
        };
        define(8);
        let error = check_folder(folder.path(), false).unwrap_err().to_string();
        assert!(error.contains("2.8.0") && error.contains("2.11.0"), "{error}");
        check_folder(folder.path(), true).unwrap();
        define(11);
        check_folder(folder.path(), false).unwrap();
    }
}
