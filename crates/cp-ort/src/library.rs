//! The library, opened once for the whole process.

use std::error::Error as _;
use std::ffi::{CStr, OsStr};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::logging::LogLevel;

use crate::OrtError;
use crate::locate::{LOADER_FILES, Place, locate};
use crate::message::one_line;

/// ONNX Runtime as it was opened.
#[derive(Debug)]
pub struct Library {
    path: PathBuf,
    version: String,
    /// Kept for as long as the process lives: an environment may be made once, and sessions need it.
    environment: Environment,
}

impl Library {
    /// The file; only its name where the system's loader found it and does not say where.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version, such as `1.32.0`.
    pub fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }
}

/// ONNX Runtime, opened at the first call.
///
/// The first of these is taken, and no other is tried where it does not load:
/// 1. the file that `$POLYAD_ONNXRUNTIME` names, or the library in the folder that it names, in `lib/` or in `capi/` of it;
/// 2. the same with `$ORT_DYLIB_PATH`;
/// 3. beside the program, or in `../lib` seen from there;
/// 4. in `.onnxruntime/lib` of a folder above the program, where `cargo xtask setup` puts it;
/// 5. what the system's loader finds.
///
/// # Errors
/// Where none is found, a variable that is set names none, the library does not load, or it is older than 1.17. Later calls give
/// the same answer.
pub fn library() -> Result<&'static Library, OrtError> {
    static OPENED: OnceLock<Result<Library, OrtError>> = OnceLock::new();
    OPENED.get_or_init(open).as_ref().map_err(OrtError::clone)
}

fn open() -> Result<Library, OrtError> {
    let program = std::env::current_exe().ok();
    let program = program.map(|path| path.canonicalize().unwrap_or(path));
    let (path, version) = match locate(|name| std::env::var_os(name), program.as_deref())? {
        Place::File(path) => {
            let version = probe(path.as_os_str()).map_err(|problem| problem.at(&path))?;
            (path, version)
        }
        Place::Loader => from_loader()?,
    };
    let load = |reason: String| OrtError::Load { path: path.clone(), reason: one_line(&reason) };
    let environment = ort::init_from(&path).map_err(|error| load(error.to_string()))?;
    let environment = environment
        .with_name("polyad")
        .with_telemetry(false)
        .build()
        .map_err(|error| load(error.to_string()))?;
    // Whatever matters comes back as an error; the log would write it to the terminal a second time.
    environment.set_log_level(LogLevel::Fatal);
    let path = if path.is_absolute() { path } else { mapped(&path).unwrap_or(path) };
    Ok(Library { path, version, environment })
}

fn from_loader() -> Result<(PathBuf, String), OrtError> {
    let mut reasons = Vec::new();
    for &file in LOADER_FILES {
        match probe(OsStr::new(file)) {
            Ok(version) => return Ok((file.into(), version)),
            Err(Problem::Load(reason)) => reasons.push(reason),
            // Found, but of no use: going on would be a search for another one.
            Err(problem) => return Err(problem.at(Path::new(file))),
        }
    }
    Err(OrtError::NotFound { reason: reasons.join("; ") })
}

/// What is wrong with a library.
enum Problem {
    Load(String),
    Version(String),
}

impl Problem {
    fn at(self, path: &Path) -> OrtError {
        let path = path.to_owned();
        match self {
            Problem::Load(reason) => OrtError::Load { path, reason },
            Problem::Version(version) => {
                OrtError::Version { path, version, least: ort::MINOR_VERSION }
            }
        }
    }
}

/// Opens the library for good and asks for its version, before `ort` does, which panics at a library that it cannot use.
#[allow(
    unsafe_code,
    reason = "opening a shared library runs its initializers, and no safe call can vouch for the types of its functions"
)]
fn probe(file: &OsStr) -> Result<String, Problem> {
    let load = |error: libloading::Error| {
        // The reason proper is the source.
        let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        Problem::Load(one_line(&reason))
    };
    // SAFETY: the initializers of ONNX Runtime set up tables of its own and touch nothing of the process. The library is never
    // closed, so nothing that it registered can dangle.
    let library = unsafe { libloading::Library::new(file) }.map_err(load)?;
    let library: &'static libloading::Library = Box::leak(Box::new(library));
    type GetApiBase = unsafe extern "C" fn() -> *const ort::sys::OrtApiBase;
    // SAFETY: every version of ONNX Runtime exports this function with this type, and no other library a function of this name.
    let get_base = unsafe { library.get::<GetApiBase>(b"OrtGetApiBase\0") }.map_err(load)?;
    // SAFETY: the function takes nothing and returns null or a pointer to a constant of the library.
    let base = unsafe { get_base().as_ref() };
    let Some(base) = base else { return Err(Problem::Version("without an interface".into())) };
    // SAFETY: this function, the second of the constant since the first version, returns a constant string that ends with a zero.
    let version = unsafe { CStr::from_ptr((base.GetVersionString)()) };
    let version = version.to_string_lossy().into_owned();
    if !is_usable(&version, ort::MINOR_VERSION) {
        return Err(Problem::Version(version));
    }
    // SAFETY: this function takes a number and returns null or a pointer to a constant of the library.
    let api = unsafe { (base.GetApi)(ort::MINOR_VERSION) };
    if api.is_null() {
        return Err(Problem::Version(version));
    }
    Ok(version)
}

/// Whether a version is `1.least` or a later one.
fn is_usable(version: &str, least: u32) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    numbers.next() == Some(Some(1)) && numbers.next().flatten().is_some_and(|minor| minor >= least)
}

/// Where a library of this name lies that the loader has found, where the system tells.
fn mapped(file: &Path) -> Option<PathBuf> {
    let name = file.file_name()?.to_string_lossy().into_owned();
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    // Behind links, the name may go on with a version.
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let mut paths = paths.filter(|path| {
        path.file_name().is_some_and(|found| found.to_string_lossy().starts_with(&name))
    });
    paths.next().map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (version, usable) in [
            ("1.17.0", true),
            ("1.32.0", true),
            ("1.17", true),
            ("1.16.3", false),
            ("1", false),
            ("2.20.0", false),
            ("", false),
            ("one", false),
        ] {
            assert_eq!(is_usable(version, 17), usable, "{version}");
        }
    }

    #[test]
    fn files_that_are_no_libraries_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libonnxruntime.so");
        std::fs::write(&path, "no library").unwrap();
        let Err(problem) = probe(path.as_os_str()) else { panic!("it loaded") };
        let error = problem.at(&path);
        assert!(matches!(error, OrtError::Load { .. }), "{error}");
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn another_library_is_an_error() {
        let Err(Problem::Load(reason)) = probe(OsStr::new("libm.so.6")) else {
            panic!("it is one")
        };
        assert!(reason.contains("OrtGetApiBase"), "{reason}");
    }
}
