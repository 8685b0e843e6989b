//! The manifests `datasets/*.toml`, as far as fetching and checking need them, and where the files may lie.
//!
//! `cp-data` reads the same manifests for loading; this is the part of them that must not cost a build of `cp-data`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use crate::sums::{Check, Expected, Sums};

/// A data set.
#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) name: String,
    pub(crate) title: String,
    /// Below the data folder.
    pub(crate) folder: String,
    pub(crate) license: String,
    /// How to come by files that have no address.
    #[serde(default)]
    pub(crate) obtain: String,
    #[serde(default, rename = "file")]
    pub(crate) files: Vec<DataFile>,
    #[serde(default, rename = "download")]
    pub(crate) downloads: Vec<Download>,
}

/// A file of a data set; sums and size are those of the unpacked file.
#[derive(Debug, Deserialize)]
pub(crate) struct DataFile {
    pub(crate) path: String,
    /// Of weights.
    name: Option<String>,
    #[serde(default)]
    also: Vec<String>,
    /// Addresses, where it is downloaded as it is.
    #[serde(default)]
    urls: Vec<String>,
    pub(crate) assemble: Option<Assembly>,
    pub(crate) bytes: Option<u64>,
    about_mib: Option<f64>,
    sha256: Option<String>,
    sha256_prefix: Option<String>,
    md5: Option<String>,
    #[serde(default)]
    first_fetch: bool,
    /// The splits that need it; every one where none is named.
    #[serde(default)]
    pub(crate) splits: Vec<String>,
    /// A file that holds all that is in this one.
    pub(crate) part_of: Option<String>,
    /// The file that it was converted from, with the same numbers.
    pub(crate) original: Option<String>,
    license: Option<String>,
    #[serde(default)]
    packed: Vec<Packing>,
}

/// A compressed form of a file.
#[derive(Debug, Deserialize)]
struct Packing {
    path: String,
    sha256: String,
}

/// How weights are put together from one raw file for each array.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Assembly {
    /// Address of the folder of the raw files, ending in `/`.
    pub(crate) base: String,
    pub(crate) metadata: Vec<(String, String)>,
    pub(crate) layers: Vec<Layer>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Layer {
    pub(crate) name: String,
    /// Of the weight: out, in, height, width, or out, in.
    pub(crate) shape: Vec<usize>,
}

/// Something to download.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Download {
    pub(crate) urls: Vec<String>,
    /// Below the folder of the data set.
    pub(crate) path: String,
    pub(crate) bytes: Option<u64>,
    /// As the publisher prints it, where the bytes are not known.
    pub(crate) about_mib: Option<f64>,
    pub(crate) sha256: Option<String>,
    pub(crate) sha256_prefix: Option<String>,
    pub(crate) md5: Option<String>,
    /// The manifest's word that no sum is printed anywhere.
    #[serde(default)]
    pub(crate) first_fetch: bool,
    /// `tar.gz`: its members are wanted; empty: the file itself.
    #[serde(default)]
    pub(crate) unpack: String,
    /// A piece of something that has a sum as a whole: none is kept of it.
    #[serde(skip)]
    pub(crate) piece: bool,
}

/// All manifests, by name.
pub(crate) fn all(root: &Path) -> anyhow::Result<Vec<Manifest>> {
    let folder = root.join("datasets");
    let mut manifests = Vec::new();
    for entry in
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let manifest: Manifest =
                toml::from_str(&text).with_context(|| path.display().to_string())?;
            manifests.push(manifest);
        }
    }
    manifests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(manifests)
}

/// The manifest of this name.
pub(crate) fn named(root: &Path, name: &str) -> anyhow::Result<Manifest> {
    let mut manifests = all(root)?;
    match manifests.iter().position(|manifest| manifest.name == name) {
        Some(found) => Ok(manifests.swap_remove(found)),
        None => {
            let names: Vec<String> = manifests.into_iter().map(|manifest| manifest.name).collect();
            bail!("there is no data set '{name}'; there are {}", names.join(", "))
        }
    }
}

/// Data folders in the order of the search, as in `cp-data`: `--data`, `$POLYAD_DATA`, the workspace's cache, the user's.
/// Those that the user names have to be there.
pub(crate) fn places(root: &Path, flag: Option<&Path>) -> anyhow::Result<Vec<PathBuf>> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = variable("POLYAD_DATA");
    for (named, by) in [(flag, "--data"), (data.as_deref(), "$POLYAD_DATA")] {
        if let Some(folder) = named {
            ensure!(folder.is_dir(), "{by} {}: no such folder", folder.display());
        }
    }
    let user = if cfg!(windows) {
        variable("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        variable("HOME").map(|home| home.join("Library/Caches"))
    } else {
        variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")))
    };
    let caches = [root.join("datasets/cache")];
    let user = user.map(|cache| cache.join("polyad/datasets"));
    Ok(flag.map(PathBuf::from).into_iter().chain(data).chain(caches).chain(user).collect())
}

/// A path must not lead out of the folder of its data set.
pub(crate) fn stays_below(path: &str) -> anyhow::Result<()> {
    let plain =
        Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    ensure!(
        plain && !path.is_empty(),
        "the manifest's path {path:?} leaves the folder of the data set"
    );
    Ok(())
}

impl Manifest {
    /// The weights of this name: that in the manifest, or the path with or without its ending.
    pub(crate) fn weights(&self, name: &str) -> Option<&DataFile> {
        let by_path = |file: &&DataFile| file.path == name || file.stem() == name;
        let by_name = |file: &&DataFile| file.name.as_deref() == Some(name);
        self.files.iter().find(by_path).or_else(|| self.files.iter().find(by_name))
    }

    pub(crate) fn file(&self, path: &str) -> Option<&DataFile> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether anything of it has an address.
    pub(crate) fn can_be_fetched(&self) -> bool {
        !self.downloads.is_empty() || self.files.iter().any(DataFile::can_be_fetched)
    }
}

impl DataFile {
    fn stem(&self) -> &str {
        self.path.rsplit_once('.').map_or(self.path.as_str(), |(stem, _)| stem)
    }

    /// What it goes by: its name, or its path without the ending.
    pub(crate) fn label(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.stem())
    }

    pub(crate) fn can_be_fetched(&self) -> bool {
        !self.urls.is_empty() || self.assemble.is_some()
    }

    pub(crate) fn license<'a>(&'a self, manifest: &'a Manifest) -> &'a str {
        self.license.as_deref().unwrap_or(&manifest.license)
    }

    /// What is known of it.
    pub(crate) fn expected(&self) -> Expected {
        Expected {
            bytes: self.bytes,
            sha256: self.sha256.clone(),
            sha256_prefix: self.sha256_prefix.clone(),
            md5: self.md5.clone(),
        }
    }

    /// How it is downloaded, if it has an address of its own.
    pub(crate) fn download(&self) -> Option<Download> {
        (!self.urls.is_empty()).then(|| Download {
            urls: self.urls.clone(),
            path: self.path.clone(),
            bytes: self.bytes,
            about_mib: self.about_mib,
            sha256: self.sha256.clone(),
            sha256_prefix: self.sha256_prefix.clone(),
            md5: self.md5.clone(),
            first_fetch: self.first_fetch,
            ..Download::default()
        })
    }

    /// Where it lies, in whichever packing; the first place that has it.
    pub(crate) fn find(&self, folder: &str, places: &[PathBuf]) -> Option<PathBuf> {
        let packed = self.packed.iter().map(|packing| &packing.path);
        let names: Vec<&String> =
            std::iter::once(&self.path).chain(&self.also).chain(packed).collect();
        let mut paths = places
            .iter()
            .flat_map(|place| names.iter().map(move |name| place.join(folder).join(name)));
        paths.find(|path| path.is_file())
    }

    /// Compares the file at `path` with what is listed.
    pub(crate) fn check(&self, path: &Path) -> anyhow::Result<Check> {
        if !self.packed.is_empty() {
            let sums = Sums::of(path)?;
            if self.packed.iter().any(|packing| packing.sha256 == sums.sha256) {
                return Ok(Check::Right);
            }
            if path.extension().is_some_and(|extension| extension == "gz" || extension == "zst") {
                return Ok(Check::Repacked);
            }
        }
        self.expected().check(path, path)
    }
}

impl Download {
    /// What is known of it.
    pub(crate) fn expected(&self) -> Expected {
        Expected {
            bytes: self.bytes,
            sha256: self.sha256.clone(),
            sha256_prefix: self.sha256_prefix.clone(),
            md5: self.md5.clone(),
        }
    }

    /// Its size in words.
    pub(crate) fn size(&self) -> String {
        size(self.bytes, self.about_mib)
    }
}

/// A size in words, as exactly as it is known.
pub(crate) fn size(bytes: Option<u64>, about_mib: Option<f64>) -> String {
    match (bytes.map(|bytes| bytes as f64 / f64::from(1 << 20)), about_mib) {
        (Some(mib), _) if mib < 0.95 => format!("{:.0} KiB", (mib * 1024.0).max(1.0).ceil()),
        (Some(mib), _) if mib < 9.95 => format!("{mib:.1} MiB"),
        (Some(mib), _) => format!("{mib:.0} MiB"),
        (None, Some(mib)) => format!("{mib:.0} MiB"),
        (None, None) => "size not stated".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // FIPS 180-4 and RFC 1321, test vectors for "abc".
    const SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const MD5: &str = "900150983cd24fb0d6963f7d28e17f72";

    fn data_file(text: &str) -> DataFile {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_manifests_of_the_workspace_are_read() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let manifests = all(root).unwrap();
        assert!(manifests.iter().any(|manifest| manifest.name == "fashion-mnist"));
        for manifest in &manifests {
            // A copy of one's own has no files that are known.
            let own_copy = manifest.files.is_empty();
            assert!(!own_copy || !manifest.can_be_fetched(), "{}", manifest.name);
            assert!(manifest.can_be_fetched() || !manifest.obtain.is_empty(), "{}", manifest.name);
            let own = manifest.files.iter().filter_map(DataFile::download);
            for download in manifest.downloads.iter().cloned().chain(own) {
                stays_below(&download.path).unwrap();
                let Download { sha256, sha256_prefix, md5, .. } = &download;
                let sums = [sha256, sha256_prefix, md5].into_iter().flatten().count();
                assert!((sums == 0) == download.first_fetch, "{}: which sum?", download.path);
                assert!(matches!(download.unpack.as_str(), "" | "tar.gz"), "{}", download.unpack);
                assert!(!download.urls.is_empty(), "{}", download.path);
            }
            for file in manifest.files.iter().filter(|file| file.assemble.is_some()) {
                assert!(file.sha256.is_some(), "{}", file.path);
            }
        }
        let error = named(root, "emnist").unwrap_err().to_string();
        assert!(error.contains("'emnist'") && error.contains("fashion-mnist"), "{error}");
    }

    #[test]
    fn sums_and_sizes_are_compared() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.bin");
        fs::write(&path, "abc").unwrap();
        let check = |text: &str| data_file(text).check(&path).unwrap();
        assert_eq!(
            check(&format!("path = 'x.bin'\nbytes = 3\nsha256 = '{SHA256}'\nmd5 = '{MD5}'")),
            Check::Right
        );
        assert_eq!(check("path = 'x.bin'\nbytes = 3"), Check::SizeOnly);
        assert_eq!(
            check("path = 'x.bin'\nbytes = 4"),
            Check::Wrong("3 bytes in place of 4".into())
        );
        let wrong = check("path = 'x.bin'\nbytes = 3\nmd5 = '00'");
        assert_eq!(wrong, Check::Wrong(format!("MD5 {MD5} in place of 00")));
    }

    #[test]
    fn a_packed_file_is_known_by_its_own_sum() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set/x.bin.zst");
        fs::create_dir(folder.path().join("set")).unwrap();
        fs::write(&path, "abc").unwrap();
        let file = |sum: &str| {
            data_file(&format!(
                "path = 'x.bin'\nbytes = 9\npacked = [{{ path = 'x.bin.zst', sha256 = '{sum}' }}]"
            ))
        };
        let places = [folder.path().join("none"), folder.path().to_owned()];
        assert_eq!(file(SHA256).find("set", &places), Some(path.clone()));
        assert_eq!(file(SHA256).find("other", &places), None);
        assert_eq!(file(SHA256).check(&path).unwrap(), Check::Right);
        assert_eq!(file("00").check(&path).unwrap(), Check::Repacked);
    }

    #[test]
    fn a_path_cannot_leave_its_folder() {
        for path in ["../x", "/etc/x", "a/../../x", ""] {
            assert!(stays_below(path).is_err(), "{path}");
        }
        stays_below("a/x.bin").unwrap();
    }

    #[test]
    fn sizes_in_words() {
        let words = |bytes| size(Some(bytes), None);
        assert_eq!(
            [words(10), words(5 << 10), words(3 << 20), words(824_887_076)],
            ["1 KiB", "5 KiB", "3.0 MiB", "787 MiB"]
        );
        assert_eq!(size(None, Some(44.661)), "45 MiB");
        assert_eq!(size(None, None), "size not stated");
    }
}
