//! Published weights of networks: where they lie, whether they are right, and what they were trained on.

use std::path::PathBuf;

use crate::{DataDir, DataError, Manifest, ManifestFile, Source};

/// What the weights in a file with this SHA-256 were trained on, as `DATASET/SPLIT`; `None` where that is not known.
pub fn trained_on(sha256: &str) -> Option<Vec<String>> {
    /// A file of datasets/models/models.toml.
    #[derive(serde::Deserialize)]
    struct Own {
        sha256: String,
        trained_on: Vec<String>,
    }
    #[derive(serde::Deserialize)]
    struct Models {
        file: Vec<Own>,
    }
    let own: Models = toml::from_str(include_str!("../../../datasets/models/models.toml")).ok()?;
    let own = own.file.into_iter().map(|file| (Some(file.sha256), file.trained_on));
    // Of some files only the first digits are known.
    let published = Manifest::builtin("pretrained").ok()?.files.into_iter();
    let published = published.map(|file| (file.sha256.or(file.sha256_prefix), file.trained_on));
    let (_, found) = own
        .chain(published)
        .find(|(sum, _)| sum.as_deref().is_some_and(|sum| sha256.starts_with(sum)))?;
    (!found.is_empty()).then_some(found)
}

/// Finds and checks a file of published weights, by its name (`resnet18`, `resnet20-cifar10`) or that of its file, with or
/// without the ending: its path, and what to write into the record.
///
/// Where a converted file is not at hand but the one that it was converted from is (`original` in the manifest: the same
/// numbers, as PyTorch wrote them), that one is returned: the caller looks at the ending, `.safetensors`, `.pth` or `.th`.
///
/// # Errors
/// If the manifest lists no such file, it is missing, or its checksum differs.
pub fn pretrained(name: &str, data: &DataDir) -> Result<(PathBuf, Source), DataError> {
    pretrained_of(&Manifest::builtin("pretrained")?, name, data)
}

/// As [`pretrained`], of a manifest of one's own.
///
/// # Errors
/// As [`pretrained`].
pub fn pretrained_of(
    manifest: &Manifest,
    name: &str,
    data: &DataDir,
) -> Result<(PathBuf, Source), DataError> {
    let Some(file) = manifest.weights(name) else {
        let known = manifest.files.iter().map(|file| file.label().to_owned()).collect();
        return Err(DataError::UnknownDataset { name: name.to_owned(), known });
    };
    let original = file.original.as_ref().and_then(|path| manifest.file(path));
    match manifest.checked(file, data) {
        Err(missing @ DataError::Missing { .. }) => match original {
            // What is missing is the file that was asked for, whatever else could have served.
            Some(original) => manifest.checked(original, data).map_err(|error| match error {
                DataError::Missing { .. } => missing,
                error => error,
            }),
            None => Err(missing),
        },
        found => found,
    }
}

/// What the manifest says of published weights, by the names that [`pretrained`] takes: architecture, input, preprocessing.
///
/// # Errors
/// If the manifest lists no such file.
pub fn pretrained_file(name: &str) -> Result<ManifestFile, DataError> {
    let manifest = Manifest::builtin("pretrained")?;
    match manifest.weights(name) {
        Some(file) => Ok(file.clone()),
        None => Err(DataError::UnknownDataset {
            name: name.to_owned(),
            known: manifest.files.iter().map(|file| file.label().to_owned()).collect(),
        }),
    }
}
