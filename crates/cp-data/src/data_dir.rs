//! Where data is looked for.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::DataError;

/// The environment variable that names a data folder.
pub const DATA_VARIABLE: &str = "POLYAD_DATA";

/// Who named a data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The user, on the command line.
    Flag,
    /// `$POLYAD_DATA`.
    Variable,
    /// `datasets/cache` of the workspace or the user's cache folder; where downloads go.
    Cache,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Flag => "--data",
            Origin::Variable => "$POLYAD_DATA",
            Origin::Cache => "cache",
        })
    }
}

/// The folders in which data sets are looked for, first to last: `--data`, `$POLYAD_DATA`, the cache.
///
/// Each holds one folder for each data set: `fashion-mnist/`, `cifar-10/`, `cats-vs-dogs/`, `imagenet-sample/`,
/// `pretrained/`; a copy of ImageNet may lie in the place itself. A file is taken from the first folder that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir {
    places: Vec<(Origin, PathBuf)>,
}

impl DataDir {
    /// The places to search, given the value of `--data`.
    pub fn locate(flag: Option<PathBuf>) -> Self {
        let variable =
            env::var_os(DATA_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        let places = [(Origin::Flag, flag), (Origin::Variable, variable)]
            .into_iter()
            .filter_map(|(origin, path)| Some((origin, path?)))
            .chain(caches().into_iter().map(|path| (Origin::Cache, path)))
            .collect();
        DataDir { places }
    }

    /// One folder and no other.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        DataDir { places: vec![(Origin::Flag, path.into())] }
    }

    /// The folders, in the order of the search; those of the cache need not exist.
    pub fn places(&self) -> &[(Origin, PathBuf)] {
        &self.places
    }

    /// The first of `candidates` (relative paths, best first) in the first folder that has any.
    ///
    /// # Errors
    /// If a folder that the user named does not exist.
    pub fn find(&self, candidates: &[PathBuf]) -> Result<Option<PathBuf>, DataError> {
        for (origin, place) in &self.places {
            if *origin != Origin::Cache && !place.is_dir() {
                return Err(DataError::NotAFolder {
                    origin: origin.to_string(),
                    path: place.clone(),
                });
            }
            if let Some(found) =
                candidates.iter().map(|candidate| place.join(candidate)).find(|path| path.exists())
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// A found path as it is written into records: relative to its data folder.
    pub(crate) fn relative(&self, path: &Path) -> String {
        let relative = self.places.iter().find_map(|(_, place)| path.strip_prefix(place).ok());
        relative.unwrap_or(path).to_string_lossy().replace('\\', "/")
    }

    /// What was searched, for error messages.
    pub(crate) fn searched(&self, folder: &str) -> Vec<String> {
        let mut lines: Vec<String> = self
            .places
            .iter()
            .map(|(origin, place)| format!("{} ({origin})", place.join(folder).display()))
            .collect();
        if !self.places.iter().any(|(origin, _)| *origin == Origin::Variable) {
            lines.push(format!("${DATA_VARIABLE} is not set"));
        }
        lines
    }
}

/// The workspace's cache, if the program runs inside one, then the user's.
fn caches() -> Vec<PathBuf> {
    let workspace = env::current_dir().ok().and_then(|here| {
        let root =
            here.ancestors().find(|folder| folder.join("datasets/fashion-mnist.toml").is_file())?;
        Some(root.join("datasets/cache"))
    });
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = if cfg!(windows) {
        variable("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        variable("HOME").map(|home| home.join("Library/Caches"))
    } else {
        variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")))
    };
    workspace.into_iter().chain(user.map(|cache| cache.join("polyad/datasets"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_that_has_the_file_wins() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(b.path().join("x.bin"), b"").unwrap();
        std::fs::write(b.path().join("x.bin.zst"), b"").unwrap();
        let places =
            vec![(Origin::Flag, a.path().to_owned()), (Origin::Variable, b.path().to_owned())];
        let data = DataDir { places };
        let candidates = ["x.bin", "x.bin.zst"].map(PathBuf::from);
        assert_eq!(data.find(&candidates).unwrap().unwrap(), b.path().join("x.bin"));
        std::fs::write(a.path().join("x.bin.zst"), b"").unwrap();
        let found = data.find(&candidates).unwrap().unwrap();
        assert_eq!(found, a.path().join("x.bin.zst"));
        assert_eq!(data.relative(&found), "x.bin.zst");
        assert_eq!(data.find(&["y".into()]).unwrap(), None);
    }

    #[test]
    fn a_folder_named_by_the_user_must_exist() {
        let error = DataDir::at("/no/such/folder").find(&["x".into()]).unwrap_err();
        assert_eq!(error.to_string(), "/no/such/folder: no such folder (given by --data)");
    }

    #[test]
    fn the_flag_comes_first_and_the_cache_last() {
        let data = DataDir::locate(Some("/given".into()));
        assert_eq!(data.places()[0], (Origin::Flag, "/given".into()));
        let origins: Vec<_> = data.places().iter().map(|(origin, _)| *origin).collect();
        assert!(origins.ends_with(&[Origin::Cache]), "{origins:?}");
    }
}
