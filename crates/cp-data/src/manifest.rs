//! Manifests: what a data set's files are called, where they come from, and how they are known to be right.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::checksum::{md5, sha256};
use crate::{DataDir, DataError, Source, unpack};

/// A data set as `datasets/NAME.toml` describes it. `datasets/README.md` explains the fields to those who write one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Manifest {
    /// Name on the command line.
    pub name: String,
    /// Name in prose.
    pub title: String,
    /// Folder below the data folder.
    pub folder: String,
    /// Who made it.
    pub publisher: String,
    /// Where to read about it.
    pub homepage: String,
    /// The licence or terms, as the publisher states them.
    pub license: String,
    /// What to cite.
    #[serde(default)]
    pub citation: String,
    /// Whether the files are the publisher's own, and if not, how they differ.
    pub exact: String,
    /// How to come by the files where no download is listed.
    #[serde(default)]
    pub obtain: String,
    /// Class names by label; empty where a file lists them.
    #[serde(default)]
    pub classes: Vec<String>,
    /// Random changes to training images that keep their class.
    #[serde(default)]
    pub augmentation: ImageChanges,
    /// The files.
    #[serde(default, rename = "file")]
    pub files: Vec<ManifestFile>,
    /// What `cargo xtask datasets fetch` downloads.
    #[serde(default, rename = "download")]
    pub downloads: Vec<Download>,
}

/// Random changes to training images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageChanges {
    /// Half of the images mirrored left to right.
    pub flip: bool,
    /// Pixels of zeros on every side, from which the image is cropped back at a random place.
    pub crop_padding: usize,
}

/// One file of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ManifestFile {
    /// Where it lies below the folder, unpacked.
    pub path: String,
    /// Other places below the folder where it may lie, unpacked.
    #[serde(default)]
    pub also: Vec<String>,
    /// Unpacked size.
    pub bytes: u64,
    /// SHA-256 of the unpacked file; absent where none is known.
    #[serde(default)]
    pub sha256: Option<String>,
    /// MD5 of the unpacked file, where the publisher gives no better sum.
    #[serde(default)]
    pub md5: Option<String>,
    /// Examples in it.
    #[serde(default)]
    pub examples: Option<usize>,
    /// Of weights: what they were trained on, as `DATASET/SPLIT`, where it is known.
    #[serde(default)]
    pub trained_on: Vec<String>,
    /// Where it comes from and what to know about it.
    #[serde(default)]
    pub note: String,
    /// The compressed forms in which it may lie there instead. Another packing of the same content is good, too.
    #[serde(default)]
    pub packed: Vec<Packing>,
}

/// A compressed form of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Packing {
    /// Where it lies below the folder; ends in `.gz` or `.zst`.
    pub path: String,
    /// Packed size.
    pub bytes: u64,
    /// SHA-256 of the packed file.
    pub sha256: String,
}

/// One thing to download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Download {
    /// Addresses of the same bytes, the publisher's first.
    pub urls: Vec<String>,
    /// Path below the folder under which to keep it (or to unpack it from).
    pub path: String,
    /// Size, where known.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// SHA-256, where known.
    #[serde(default)]
    pub sha256: Option<String>,
    /// MD5, where the publisher gives no better sum.
    #[serde(default)]
    pub md5: Option<String>,
    /// `"tar.gz"`: its members go below the folder; empty: the file itself is wanted.
    #[serde(default)]
    pub unpack: String,
}

const TEXTS: [(&str, &str); 6] = [
    ("fashion-mnist", include_str!("../../../datasets/fashion-mnist.toml")),
    ("cifar10", include_str!("../../../datasets/cifar10.toml")),
    ("cifar100", include_str!("../../../datasets/cifar100.toml")),
    ("cats-vs-dogs", include_str!("../../../datasets/cats-vs-dogs.toml")),
    ("imagenet-sample", include_str!("../../../datasets/imagenet-sample.toml")),
    ("pretrained", include_str!("../../../datasets/pretrained.toml")),
];

/// A file of a data set, read, checked and unpacked.
pub(crate) struct Loaded {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
    pub(crate) source: Source,
}

impl Manifest {
    /// Names of the manifests that come with this crate: the data sets in files, and `pretrained`.
    pub fn names() -> impl Iterator<Item = &'static str> {
        TEXTS.iter().map(|(name, _)| *name)
    }

    /// The manifest of this name.
    ///
    /// # Errors
    /// If there is none.
    pub fn builtin(name: &str) -> Result<Self, DataError> {
        match TEXTS.iter().find(|(known, _)| *known == name) {
            Some((name, text)) => Manifest::parse(name, text),
            None => Err(DataError::UnknownDataset {
                name: name.to_owned(),
                known: Manifest::names().map(str::to_owned).collect(),
            }),
        }
    }

    /// Reads a manifest; `name` is for the error message.
    ///
    /// # Errors
    /// If the text is no TOML, or a field is missing, unknown or of the wrong type.
    pub fn parse(name: &str, text: &str) -> Result<Self, DataError> {
        toml::from_str(text).map_err(|source| DataError::Manifest {
            name: name.to_owned(),
            source: Box::new(source),
        })
    }

    /// The file with this (unpacked) path.
    pub fn file(&self, path: &str) -> Option<&ManifestFile> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Where `file` lies, in whichever packing.
    ///
    /// # Errors
    /// If it is in none of the places: [`DataError::Missing`].
    pub fn find(&self, file: &ManifestFile, data: &DataDir) -> Result<PathBuf, DataError> {
        let found = data.find(&file.candidates(&self.folder))?;
        found.ok_or_else(|| self.missing(&file.names(), data))
    }

    pub(crate) fn missing(&self, file: &str, data: &DataDir) -> DataError {
        let way_out = if self.downloads.is_empty() {
            self.obtain.clone()
        } else {
            format!(
                "run `cargo xtask datasets fetch {}`, or point --data or $POLYAD_DATA to a folder that holds {}/",
                self.name, self.folder
            )
        };
        DataError::Missing {
            dataset: self.name.clone(),
            file: file.to_owned(),
            searched: data.searched(&self.folder),
            way_out,
        }
    }

    /// Finds, reads, unpacks and checks a file.
    ///
    /// A packed file whose own sum is the listed one is right; otherwise (someone packed it anew) the content decides.
    pub(crate) fn load(&self, file: &ManifestFile, data: &DataDir) -> Result<Loaded, DataError> {
        let path = self.find(file, data)?;
        let raw = std::fs::read(&path).map_err(DataError::io(&path))?;
        let sum = sha256(&raw);
        let known = file.packed.iter().any(|packing| packing.sha256 == sum)
            || file.sha256.as_ref() == Some(&sum);
        let bytes = unpack::unpack(&path, raw)?;
        if !known {
            self.check(file, &path, &bytes)?;
        }
        let source = Source { file: data.relative(&path), sha256: sum };
        Ok(Loaded { path, bytes, source })
    }

    fn check(
        &self,
        file: &ManifestFile,
        path: &std::path::Path,
        bytes: &[u8],
    ) -> Result<(), DataError> {
        let got = bytes.len() as u64;
        if got < file.bytes {
            return Err(DataError::Truncated { path: path.to_owned(), expected: file.bytes, got });
        }
        if got > file.bytes {
            return Err(DataError::TrailingBytes { path: path.to_owned(), expected: file.bytes });
        }
        let sums =
            [("sha256", &file.sha256, sha256 as fn(&[u8]) -> String), ("md5", &file.md5, md5)];
        for (kind, expected, sum) in sums {
            if let Some(expected) = expected
                && sum(bytes) != *expected
            {
                return Err(DataError::Checksum {
                    dataset: self.name.clone(),
                    path: path.to_owned(),
                    expected: format!("{kind}:{expected}"),
                    got: format!("{kind}:{}", sum(bytes)),
                    bytes: got,
                });
            }
        }
        Ok(())
    }
}

impl ManifestFile {
    /// Paths below the data folder, best first.
    fn candidates(&self, folder: &str) -> Vec<PathBuf> {
        let packed = self.packed.iter().map(|packing| &packing.path);
        let all = std::iter::once(&self.path).chain(&self.also).chain(packed);
        all.map(|path| PathBuf::from(folder).join(path)).collect()
    }

    /// All its names, for an error message.
    fn names(&self) -> String {
        let packed = self.packed.iter().map(|packing| packing.path.as_str());
        let all = std::iter::once(self.path.as_str())
            .chain(self.also.iter().map(String::as_str))
            .chain(packed);
        all.collect::<Vec<_>>().join(" or ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_manifests_are_sound() {
        for name in Manifest::names() {
            let manifest = Manifest::builtin(name).unwrap();
            assert_eq!(manifest.name, name);
            assert!(!manifest.license.is_empty() && !manifest.publisher.is_empty(), "{name}");
            assert!(
                !manifest.downloads.is_empty() || !manifest.obtain.is_empty(),
                "{name}: no way to get it"
            );
            let mut sums: Vec<&String> =
                manifest.files.iter().filter_map(|file| file.sha256.as_ref()).collect();
            sums.extend(
                manifest.files.iter().flat_map(|file| &file.packed).map(|packing| &packing.sha256),
            );
            sums.extend(manifest.downloads.iter().filter_map(|download| download.sha256.as_ref()));
            for sum in sums {
                assert!(
                    sum.len() == 64 && sum.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
                    "{name}: {sum}"
                );
            }
            let mut sums: Vec<&String> =
                manifest.files.iter().filter_map(|file| file.md5.as_ref()).collect();
            sums.extend(manifest.downloads.iter().filter_map(|download| download.md5.as_ref()));
            for sum in sums {
                assert!(
                    sum.len() == 32 && sum.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
                    "{name}: {sum}"
                );
            }
            assert!(
                manifest
                    .downloads
                    .iter()
                    .all(|download| matches!(download.unpack.as_str(), "" | "tar.gz"))
            );
        }
        assert!(matches!(Manifest::builtin("mnist"), Err(DataError::UnknownDataset { .. })));
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        let error = Manifest::parse("x", "name = 'x'\nlicence = 'y'").unwrap_err();
        assert!(error.to_string().contains("licence"), "{error}");
    }
}
