//! The manifests `datasets/*.toml`, as far as fetching and checking need them, and where the files may lie.
//!
//! `cp-data` reads the same manifests for loading; this is the part of them that must not cost a build of `cp-data`.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use md5::Md5;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

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
    #[serde(default)]
    also: Vec<String>,
    bytes: u64,
    sha256: Option<String>,
    md5: Option<String>,
    #[serde(default)]
    packed: Vec<Packing>,
}

/// A compressed form of a file.
#[derive(Debug, Deserialize)]
struct Packing {
    path: String,
    sha256: String,
}

/// Something to download.
#[derive(Debug, Deserialize)]
pub(crate) struct Download {
    pub(crate) urls: Vec<String>,
    /// Below the folder of the data set.
    pub(crate) path: String,
    pub(crate) bytes: Option<u64>,
    #[serde(default)]
    sha256: Option<String>,
    #[serde(default)]
    md5: Option<String>,
    /// `tar.gz`: its members are wanted; empty: the file itself.
    #[serde(default)]
    pub(crate) unpack: String,
}

/// What a look at a file gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// A listed sum.
    Right,
    /// A sum is listed for what is in it, but it is packed in a way that is not; checked when it is read.
    Repacked,
    /// The manifest lists nothing but the size, which is right.
    SizeOnly,
    /// What is wrong with it.
    Wrong(String),
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

/// The folder that downloads go to.
pub(crate) fn cache(root: &Path) -> PathBuf {
    root.join("datasets/cache")
}

/// Data folders in the order of the search: `--data`, `$POLYAD_DATA`, the cache.
pub(crate) fn places(root: &Path, flag: Option<&Path>) -> Vec<PathBuf> {
    let variable =
        std::env::var_os("POLYAD_DATA").filter(|value| !value.is_empty()).map(PathBuf::from);
    flag.map(PathBuf::from).into_iter().chain(variable).chain([cache(root)]).collect()
}

impl DataFile {
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
        let sums = Sums::of(path)?;
        if self.packed.iter().any(|packing| packing.sha256 == sums.sha256) {
            return Ok(Check::Right);
        }
        if path.extension().is_some_and(|extension| extension == "gz" || extension == "zst") {
            return Ok(Check::Repacked);
        }
        Ok(compare(&sums, Some(self.bytes), self.sha256.as_deref(), self.md5.as_deref()))
    }
}

impl Download {
    /// Compares a downloaded file with what is listed.
    pub(crate) fn check(&self, path: &Path) -> anyhow::Result<Check> {
        Ok(compare(&Sums::of(path)?, self.bytes, self.sha256.as_deref(), self.md5.as_deref()))
    }

    /// A manifest must not be able to write anywhere else.
    pub(crate) fn stays_below(&self) -> anyhow::Result<()> {
        let path = Path::new(&self.path);
        let plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        ensure!(
            plain && !self.path.is_empty(),
            "the manifest's path {:?} leaves the folder of the data set",
            self.path
        );
        Ok(())
    }
}

/// Size and sums of a file.
struct Sums {
    bytes: u64,
    sha256: String,
    md5: String,
}

impl Sums {
    fn of(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot read {}", path.display());
        let mut file = File::open(path).with_context(cannot)?;
        let (mut sha256, mut md5, mut bytes) = (Sha256::new(), Md5::new(), 0);
        let mut buffer = vec![0; 1 << 18];
        loop {
            let read = file.read(&mut buffer).with_context(cannot)?;
            if read == 0 {
                break;
            }
            sha256.update(&buffer[..read]);
            md5.update(&buffer[..read]);
            bytes += read as u64;
        }
        Ok(Sums { bytes, sha256: hex(&sha256.finalize()), md5: hex(&md5.finalize()) })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn compare(got: &Sums, bytes: Option<u64>, sha256: Option<&str>, md5: Option<&str>) -> Check {
    if let Some(bytes) = bytes
        && bytes != got.bytes
    {
        return Check::Wrong(format!("{} bytes in place of {bytes}", got.bytes));
    }
    for (kind, listed, found) in [("SHA-256", sha256, &got.sha256), ("MD5", md5, &got.md5)] {
        if let Some(listed) = listed
            && listed != found
        {
            return Check::Wrong(format!("{kind} {found} in place of {listed}"));
        }
    }
    if sha256.is_none() && md5.is_none() { Check::SizeOnly } else { Check::Right }
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
            assert!(!manifest.files.is_empty(), "{}", manifest.name);
            assert!(
                !manifest.downloads.is_empty() || !manifest.obtain.is_empty(),
                "{}",
                manifest.name
            );
            for download in &manifest.downloads {
                download.stays_below().unwrap();
                assert!(download.sha256.is_some() || download.md5.is_some(), "{}", download.path);
                assert!(matches!(download.unpack.as_str(), "" | "tar.gz"), "{}", download.unpack);
            }
        }
        let error = named(root, "mnist").unwrap_err().to_string();
        assert!(error.contains("'mnist'") && error.contains("fashion-mnist"), "{error}");
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
    fn a_download_cannot_leave_its_folder() {
        for path in ["../x", "/etc/x", "a/../../x", ""] {
            let download: Download =
                toml::from_str(&format!("urls = []\npath = '{path}'")).unwrap();
            assert!(download.stays_below().is_err(), "{path}");
        }
    }
}
