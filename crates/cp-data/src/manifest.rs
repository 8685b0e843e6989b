//! Manifests: what a data set's files are called, where they come from, and how they are known to be right.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::checksum::{md5, md5_file, sha256, sha256_file};
use crate::{DataDir, DataError, Source, kept, unpack};

/// A data set as `datasets/NAME.toml` describes it. `datasets/README.md` explains the fields to those who write one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Folders of the classes in an archive, in the order of `classes`.
    #[serde(default)]
    pub folders: Vec<String>,
    /// Where the publisher has no splits: the images whose file number is a multiple of this are the test set.
    #[serde(default)]
    pub test_every: Option<usize>,
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ManifestFile {
    /// Where it lies below the folder, unpacked.
    pub path: String,
    /// Other places below the folder where it may lie, unpacked.
    #[serde(default)]
    pub also: Vec<String>,
    /// Short name, of weights; by default the path without its ending.
    #[serde(default)]
    pub name: Option<String>,
    /// Addresses of the same bytes, where the file is downloaded as it is.
    #[serde(default)]
    pub urls: Vec<String>,
    /// How to put it together from other files, which are downloaded.
    #[serde(default)]
    pub assemble: Option<Assembly>,
    /// Unpacked size, where known.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Size in MiB as the publisher prints it, where `bytes` is not known.
    #[serde(default)]
    pub about_mib: Option<f64>,
    /// SHA-256 of the unpacked file; absent where none is known.
    #[serde(default)]
    pub sha256: Option<String>,
    /// The first digits of the SHA-256, where the publisher prints no more.
    #[serde(default)]
    pub sha256_prefix: Option<String>,
    /// No sum is printed anywhere: that of the first fetch is kept and checked from then on.
    #[serde(default)]
    pub first_fetch: bool,
    /// MD5 of the unpacked file, where the publisher gives no better sum.
    #[serde(default)]
    pub md5: Option<String>,
    /// Examples in it.
    #[serde(default)]
    pub examples: Option<usize>,
    /// The splits that need it; every one where none is named.
    #[serde(default)]
    pub splits: Vec<String>,
    /// A file that holds all that is in this one, and serves in its place.
    #[serde(default)]
    pub part_of: Option<String>,
    /// Of converted weights: the path of the file that they were converted from, with the same numbers.
    #[serde(default)]
    pub original: Option<String>,
    /// Of weights: the built-in architecture that they are for, where there is one.
    #[serde(default)]
    pub arch: Option<String>,
    /// Of weights: channels, height and width of the input.
    #[serde(default)]
    pub input: Option<[usize; 3]>,
    /// Of weights: how images are prepared: `imagenet`, `unit` or `caffe`.
    #[serde(default)]
    pub preprocess: Option<String>,
    /// Licence or terms, where they are not those of the whole.
    #[serde(default)]
    pub license: Option<String>,
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

/// How a safetensors file of published weights is put together from one raw file for each array, `BASENAME_filter.bin` and
/// `BASENAME_bias.bin`, little-endian float32.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Assembly {
    /// Address of the folder of the raw files.
    pub base: String,
    /// Pairs for the header's `__metadata__`, in its order.
    pub metadata: Vec<(String, String)>,
    /// The layers, in the order of the file.
    pub layers: Vec<LayerShape>,
}

/// A layer with a weight and a bias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LayerShape {
    /// Its name, which is also that of its raw files.
    pub name: String,
    /// Shape of the weight: out, in, height, width, or out, in. The raw file has the axes in the order out, height, width, in.
    pub shape: Vec<usize>,
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
    /// The first digits of the SHA-256, where the publisher prints no more.
    #[serde(default)]
    pub sha256_prefix: Option<String>,
    /// MD5, where the publisher gives no better sum.
    #[serde(default)]
    pub md5: Option<String>,
    /// No sum is printed anywhere: that of the first fetch is kept and checked from then on.
    #[serde(default)]
    pub first_fetch: bool,
    /// `"tar.gz"`: its members go below the folder; empty: the file itself is wanted.
    #[serde(default)]
    pub unpack: String,
}

const TEXTS: [(&str, &str); 11] = [
    ("mnist", include_str!("../../../datasets/mnist.toml")),
    ("fashion-mnist", include_str!("../../../datasets/fashion-mnist.toml")),
    ("cifar10", include_str!("../../../datasets/cifar10.toml")),
    ("cifar100", include_str!("../../../datasets/cifar100.toml")),
    ("cats-vs-dogs", include_str!("../../../datasets/cats-vs-dogs.toml")),
    ("cats-vs-dogs-full", include_str!("../../../datasets/cats-vs-dogs-full.toml")),
    ("imagenette", include_str!("../../../datasets/imagenette.toml")),
    ("imagenet", include_str!("../../../datasets/imagenet.toml")),
    ("imagenet-sample", include_str!("../../../datasets/imagenet-sample.toml")),
    ("magnetic-tile-defects", include_str!("../../../datasets/magnetic-tile-defects.toml")),
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

    /// The weights of this name: that in the manifest, or the path with or without its ending.
    pub fn weights(&self, name: &str) -> Option<&ManifestFile> {
        let stem = |path: &str| path.rsplit_once('.').map(|(stem, _)| stem.to_owned());
        let by_path = |file: &&ManifestFile| {
            file.path == name || stem(&file.path).is_some_and(|stem| stem == name)
        };
        // A converted file goes before the one of the same name that it was converted from.
        let by_name = |file: &&ManifestFile| file.name.as_deref() == Some(name);
        self.files.iter().find(by_path).or_else(|| self.files.iter().find(by_name))
    }

    /// The file of a data set that is a single one.
    pub(crate) fn only_file(&self) -> Result<&ManifestFile, DataError> {
        match &self.files[..] {
            [file] => Ok(file),
            _ => Err(DataError::ManifestField {
                name: self.name.clone(),
                what: "has to list exactly one file",
            }),
        }
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
        let way_out = match self.fetch_name(file) {
            None => self.obtain.clone(),
            Some(name) => format!(
                "run `cargo xtask datasets fetch {name}`, or point --data or $POLYAD_DATA to a folder that holds {}/",
                self.folder
            ),
        };
        DataError::Missing {
            dataset: self.name.clone(),
            file: file.to_owned(),
            searched: data.searched(&self.folder),
            way_out,
        }
    }

    /// What to tell `cargo xtask datasets fetch` to get `file` (all its names): the data set, or single weights.
    fn fetch_name(&self, file: &str) -> Option<String> {
        let listed = self.files.iter().find(|listed| listed.names() == file || listed.path == file);
        let original = listed.and_then(|file| self.file(file.original.as_ref()?));
        let fetched =
            listed.into_iter().chain(original).find(|file| file.can_be_fetched()).map(|file| {
                if self.name == "pretrained" { file.label().to_owned() } else { self.name.clone() }
            });
        fetched.or_else(|| (!self.downloads.is_empty()).then(|| self.name.clone()))
    }

    /// Finds a file that is read in pieces, and checks it: its path, and what to write into the record.
    ///
    /// # Errors
    /// If it is missing, or its size or sum is not the listed one, or not that of its first fetch.
    pub(crate) fn checked(
        &self,
        file: &ManifestFile,
        data: &DataDir,
    ) -> Result<(PathBuf, Source), DataError> {
        let path = self.find(file, data)?;
        let got = std::fs::metadata(&path).map_err(DataError::io(&path))?.len();
        if let Some(expected) = file.bytes {
            if got < expected {
                return Err(DataError::Truncated { path, expected, got });
            }
            if got > expected {
                return Err(DataError::TrailingBytes { path, expected });
            }
        }
        let sum = sha256_file(&path)?;
        let wrong = |expected: String, got_sum: String| DataError::Checksum {
            dataset: self.name.clone(),
            path: path.clone(),
            expected,
            got: got_sum,
            bytes: got,
        };
        if let Some(expected) = file.sha256.as_ref().filter(|expected| **expected != sum) {
            return Err(wrong(format!("sha256:{expected}"), format!("sha256:{sum}")));
        }
        if let Some(start) = file.sha256_prefix.as_ref().filter(|start| !sum.starts_with(*start)) {
            return Err(wrong(format!("sha256:{start}…"), format!("sha256:{sum}")));
        }
        if let (None, Some(expected)) = (&file.sha256, &file.md5) {
            let found = md5_file(&path)?;
            if found != *expected {
                return Err(wrong(format!("md5:{expected}"), format!("md5:{found}")));
            }
        }
        if file.sha256.is_none()
            && let Some((kept, place)) = kept::sum(&path)?
            && kept != sum
        {
            let expected = format!("sha256:{kept} (at its first fetch: {})", place.display());
            return Err(wrong(expected, format!("sha256:{sum}")));
        }
        let source = Source { file: data.relative(&path), sha256: sum };
        Ok((path, source))
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
        if let Some(expected) = file.bytes.filter(|&expected| got < expected) {
            return Err(DataError::Truncated { path: path.to_owned(), expected, got });
        }
        if let Some(expected) = file.bytes.filter(|&expected| got > expected) {
            return Err(DataError::TrailingBytes { path: path.to_owned(), expected });
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
    /// What it goes by: its name, or its path without the ending.
    pub fn label(&self) -> &str {
        let stem = || self.path.rsplit_once('.').map_or(self.path.as_str(), |(stem, _)| stem);
        self.name.as_deref().unwrap_or_else(stem)
    }

    /// Whether it has an address of its own, or is put together from files that have.
    pub fn can_be_fetched(&self) -> bool {
        !self.urls.is_empty() || self.assemble.is_some()
    }

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
                !manifest.downloads.is_empty()
                    || !manifest.obtain.is_empty()
                    || manifest.files.iter().all(ManifestFile::can_be_fetched),
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
        assert!(matches!(Manifest::builtin("emnist"), Err(DataError::UnknownDataset { .. })));
    }

    #[test]
    fn weights_go_by_several_names() {
        let manifest = Manifest::builtin("pretrained").unwrap();
        let path = |name| manifest.weights(name).map(|file| file.path.as_str());
        assert_eq!(path("resnet18"), Some("resnet18-f37072fd.pth"));
        assert_eq!(path("resnet18-f37072fd"), Some("resnet18-f37072fd.pth"));
        assert_eq!(path("resnet18-f37072fd.pth"), Some("resnet18-f37072fd.pth"));
        assert_eq!(path("resnet20-cifar10"), Some("resnet20-cifar10.safetensors"));
        assert_eq!(path("resnet20-12fca82f"), Some("resnet20-12fca82f.th"));
        assert_eq!(path("squeezenet1_1"), Some("squeezenet1_1-b8a52dc0.pth"));
        assert_eq!(path("squeezenet1_1-caffe"), Some("squeezenet1_1-imagenet-caffe.safetensors"));
        assert_eq!(path("resnet19"), None);
        for file in &manifest.files {
            let original = file.original.as_ref().map(|path| manifest.file(path));
            assert!(original.is_none_or(|found| found.is_some()), "{}", file.path);
            let digits = file.sha256_prefix.as_ref();
            assert!(digits.is_none_or(|digits| file.path.contains(&**digits)), "{}", file.path);
        }
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        let error = Manifest::parse("x", "name = 'x'\nlicence = 'y'").unwrap_err();
        assert!(error.to_string().contains("licence"), "{error}");
    }
}
