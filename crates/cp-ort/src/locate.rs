//! Which library is meant.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::OrtError;

/// The variable that names the library or its folder.
pub const VARIABLE: &str = "POLYAD_ONNXRUNTIME";

/// The variable that other programs in Rust name the library by.
pub const DYLIB_VARIABLE: &str = "ORT_DYLIB_PATH";

/// What the library is called without a version.
pub(crate) const FILE: &str = if cfg!(windows) {
    "onnxruntime.dll"
} else if cfg!(target_os = "macos") {
    "libonnxruntime.dylib"
} else {
    "libonnxruntime.so"
};

/// What the system's loader is asked for, in this order.
pub(crate) const LOADER_FILES: &[&str] =
    if cfg!(any(windows, target_os = "macos")) { &[FILE] } else { &[FILE, "libonnxruntime.so.1"] };

/// Where `cargo xtask setup` puts the library, below the workspace.
const MANAGED: &str = ".onnxruntime/lib";

/// The library to open.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    File(PathBuf),
    /// Any of [`LOADER_FILES`] that the system's loader finds.
    Loader,
}

/// The first of: what the variables name, beside the program, in its workspace, the loader's own search.
pub(crate) fn locate(
    variable: impl Fn(&str) -> Option<OsString>,
    program: Option<&Path>,
) -> Result<Place, OrtError> {
    for name in [VARIABLE, DYLIB_VARIABLE] {
        if let Some(value) = variable(name) {
            let path = PathBuf::from(value);
            let found = if path.is_file() {
                Some(path.clone())
            } else {
                // `lib` as installed, `capi` in the Python package.
                ["", "lib", "capi"].iter().find_map(|below| in_folder(&path.join(below)))
            };
            // Absolute, because the name alone would send the loader on a search of its own.
            let found = found.and_then(|path| std::path::absolute(path).ok());
            return found.map(Place::File).ok_or(OrtError::Variable { variable: name, path });
        }
    }
    let folder = program.and_then(Path::parent);
    if let Some(folder) = folder {
        let beside = [Some(folder.to_owned()), folder.parent().map(|above| above.join("lib"))];
        let managed = folder.ancestors().map(|above| above.join(MANAGED));
        let mut places = beside.into_iter().flatten().chain(managed);
        if let Some(found) = places.find_map(|place| in_folder(&place)) {
            return Ok(Place::File(found));
        }
    }
    Ok(Place::Loader)
}

/// The library in a folder: without a version in its name, or else of the highest.
fn in_folder(folder: &Path) -> Option<PathBuf> {
    let plain = folder.join(FILE);
    if plain.is_file() {
        return Some(plain);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).ok()? {
        let path = entry.ok()?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(version) = version_in(&name)
            && path.is_file()
        {
            found.push((version, path));
        }
    }
    found.sort();
    found.pop().map(|(_, path)| path)
}

/// `[1, 32, 0]` of `libonnxruntime.so.1.32.0` or `libonnxruntime.1.32.0.dylib`; `None` of any other file.
fn version_in(name: &str) -> Option<Vec<u32>> {
    let rest = name.strip_prefix("libonnxruntime.")?;
    let version = rest.strip_prefix("so.").or_else(|| rest.strip_suffix(".dylib"))?;
    version.split('.').map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<OsString> {
        None
    }

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn versions_in_names() {
        assert_eq!(version_in("libonnxruntime.so.1.32.0"), Some(vec![1, 32, 0]));
        assert_eq!(version_in("libonnxruntime.1.9.0.dylib"), Some(vec![1, 9, 0]));
        assert_eq!(version_in("libonnxruntime_providers_shared.so"), None);
        assert_eq!(version_in("libonnxruntime.so"), None);
        assert_eq!(version_in("libonnxruntime.so.1.x"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_first_place_wins() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let program = root.join("target/debug/polyad");
        let find = |name: &str| locate(none, Some(&root.join(name)));
        assert_eq!(find("target/debug/polyad").unwrap(), Place::Loader);
        assert_eq!(locate(none, None).unwrap(), Place::Loader);

        let managed = root.join(".onnxruntime/lib/libonnxruntime.so.1.32.0");
        touch(&managed);
        assert_eq!(find("target/debug/polyad").unwrap(), Place::File(managed.clone()));
        assert_eq!(find("target/debug/deps/files-1").unwrap(), Place::File(managed));
        let lib = root.join("target/lib/libonnxruntime.so.1");
        touch(&lib);
        assert_eq!(find("target/debug/polyad").unwrap(), Place::File(lib));
        let beside = root.join("target/debug/libonnxruntime.so");
        touch(&beside);
        assert_eq!(find("target/debug/polyad").unwrap(), Place::File(beside));

        // The variables, in their order.
        let own = root.join("own/capi/libonnxruntime.so.1.9.0");
        touch(&own);
        touch(&root.join("own/capi/libonnxruntime.so.1.10.0"));
        touch(&root.join("own/capi/libonnxruntime_providers_shared.so"));
        let named = |ours: Option<&str>, theirs: Option<&str>| {
            let value = |name: &str| {
                let value = if name == VARIABLE { ours } else { theirs };
                value.map(|value| root.join(value).into_os_string())
            };
            locate(value, Some(&program))
        };
        let newest = Place::File(root.join("own/capi/libonnxruntime.so.1.10.0"));
        assert_eq!(named(Some("own"), None).unwrap(), newest);
        assert_eq!(named(None, Some("own/capi")).unwrap(), newest);
        let file = "own/capi/libonnxruntime.so.1.9.0";
        assert_eq!(named(Some(file), Some("nowhere")).unwrap(), Place::File(own));
    }

    #[test]
    fn a_variable_that_names_nothing_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        for (name, value) in [(VARIABLE, root.path().join("none")), (DYLIB_VARIABLE, "".into())] {
            let variable = |asked: &str| (asked == name).then(|| value.clone().into_os_string());
            let error = locate(variable, None).unwrap_err();
            assert!(matches!(error, OrtError::Variable { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains(name) && text.contains("unset"), "{text}");
        }
    }
}
