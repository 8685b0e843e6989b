//! `cargo xtask datasets fetch`: brings data sets and published weights from their publishers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use super::assemble;
use crate::download::{self, Patience};
use crate::manifest::{self, DataFile, Download, Manifest, stays_below};
use crate::sums::Check;

/// Where downloads go, and where a file may lie already.
pub(crate) struct Places {
    /// Folders in the order of the search.
    pub(crate) search: Vec<PathBuf>,
    pub(crate) patience: Patience,
}

/// One thing to bring.
enum Item<'a> {
    /// A file, or an archive to unpack.
    Download(Download),
    /// Weights to put together.
    Assembly(&'a DataFile),
}

impl Item<'_> {
    fn path(&self) -> &str {
        match self {
            Item::Download(download) => &download.path,
            Item::Assembly(file) => &file.path,
        }
    }

    fn size(&self) -> String {
        match self {
            Item::Download(download) => download.size(),
            Item::Assembly(file) => manifest::size(file.bytes, None),
        }
    }

    fn from(&self) -> &str {
        match self {
            Item::Download(download) => download.urls.first().map_or("nowhere", String::as_str),
            Item::Assembly(file) => {
                file.assemble.as_ref().map_or("nowhere", |assembly| &assembly.base)
            }
        }
    }
}

/// What `names` stand for: whole manifests, with the labels of the weights wanted of them (none: everything).
///
/// # Errors
/// If a name is that of no data set and of no weights, with the names that there are.
pub(crate) fn resolve(
    manifests: Vec<Manifest>,
    names: &[String],
) -> anyhow::Result<Vec<(Manifest, Vec<String>)>> {
    let mut wanted: Vec<(usize, Vec<String>)> = Vec::new();
    for name in names {
        let found = manifests.iter().position(|manifest| manifest.name == *name);
        let (index, label) = match found {
            Some(index) => (index, None),
            None => {
                let with = |manifest: &Manifest| manifest.weights(name).is_some();
                let Some(index) = manifests.iter().position(with) else {
                    let known: Vec<&str> =
                        manifests.iter().map(|manifest| manifest.name.as_str()).collect();
                    let weights: Vec<&str> = (manifests.iter())
                        .filter(|manifest| manifest.name == "pretrained")
                        .flat_map(|manifest| manifest.files.iter().map(DataFile::label))
                        .collect();
                    bail!(
                        "there is no data set and no network '{name}'; data sets: {}; networks: {}",
                        known.join(", "),
                        weights.join(", ")
                    );
                };
                (index, Some(name.clone()))
            }
        };
        match wanted.iter_mut().find(|(known, _)| *known == index) {
            // Everything was asked for already, or is now.
            Some((_, labels)) if labels.is_empty() || label.is_none() => labels.clear(),
            Some((_, labels)) => labels.extend(label),
            None => wanted.push((index, label.into_iter().collect())),
        }
    }
    let mut manifests: Vec<Option<Manifest>> = manifests.into_iter().map(Some).collect();
    let take = |(index, labels): (usize, Vec<String>)| Some((manifests[index].take()?, labels));
    Ok(wanted.into_iter().filter_map(take).collect())
}

/// What there is to download of a manifest; of weights only those in `labels`, if any are named there.
fn items<'a>(manifest: &'a Manifest, labels: &[String]) -> anyhow::Result<Vec<Item<'a>>> {
    let own = |file: &'a DataFile| match (file.download(), &file.assemble) {
        (Some(download), _) => Some(Item::Download(download)),
        (None, Some(_)) => Some(Item::Assembly(file)),
        (None, None) => None,
    };
    if labels.is_empty() {
        let archives = manifest.downloads.iter().cloned().map(Item::Download);
        return Ok(archives.chain(manifest.files.iter().filter_map(own)).collect());
    }
    let mut items = Vec::new();
    for label in labels {
        let file = manifest.weights(label);
        // Converted weights may have an address only as they were published.
        let original = file.and_then(|file| manifest.file(file.original.as_ref()?));
        let item = file.and_then(own).or_else(|| original.and_then(own));
        items.push(item.with_context(|| {
            format!("{label} has no address to download it from. {}", manifest.obtain)
        })?);
    }
    Ok(items)
}

/// Downloads what is not there yet, into the first folder that can be written.
///
/// # Errors
/// If nothing of it has an address, no folder can be written, or a download fails.
pub(crate) fn fetch(manifest: &Manifest, labels: &[String], places: &Places) -> anyhow::Result<()> {
    let items = items(manifest, labels)?;
    ensure!(!items.is_empty(), "{} cannot be downloaded. {}", manifest.name, manifest.obtain);
    let mut folder = None;
    for item in items {
        stays_below(item.path())?;
        if let Some(path) = is_there(&item, manifest, &places.search)? {
            println!("{} is there: {}", item.path(), path.display());
            continue;
        }
        // Not before it is needed: what is there needs no folder that can be written.
        let folder = match &folder {
            Some(folder) => folder,
            None => folder.insert(writable(&places.search, &manifest.folder)?),
        };
        let target = folder.join(item.path());
        let license =
            manifest.file(item.path()).map_or(&*manifest.license, |f| f.license(manifest));
        println!(
            "{}: {} ({}) from {} to {} (licence: {license})",
            manifest.name,
            item.path(),
            item.size(),
            item.from(),
            folder.display()
        );
        match &item {
            Item::Download(download) => {
                download::fetch(download, &target, places.patience)?;
                match download.unpack.as_str() {
                    "" => {}
                    "tar.gz" => unpack(&target, folder)?,
                    other => {
                        bail!("the manifest asks to unpack '{other}', which is not known here")
                    }
                }
            }
            Item::Assembly(file) => {
                let assembly = file.assemble.as_ref().context("the manifest changed")?;
                assemble::fetch(file, assembly, &target, places.patience)?;
            }
        }
    }
    Ok(())
}

/// Where an earlier call has put it, if the file there is right; of an archive, where its members lie.
fn is_there(
    item: &Item<'_>,
    manifest: &Manifest,
    places: &[PathBuf],
) -> anyhow::Result<Option<PathBuf>> {
    if let Item::Download(Download { unpack, .. }) = item
        && !unpack.is_empty()
    {
        let whole = manifest.files.iter().filter(|file| file.part_of.is_none());
        let found: Option<Vec<PathBuf>> =
            whole.map(|file| file.find(&manifest.folder, places)).collect();
        return Ok(found.and_then(|found| Some(found.first()?.parent()?.to_owned())));
    }
    let expected = match item {
        Item::Download(download) => download.expected(),
        Item::Assembly(file) => file.expected(),
    };
    for place in places {
        let path = place.join(&manifest.folder).join(item.path());
        if path.is_file() {
            match expected.check(&path, &path)? {
                Check::Wrong(why) => {
                    println!("{} is wrong and counts for nothing: {why}", path.display())
                }
                _ => return Ok(Some(path)),
            }
        }
    }
    Ok(None)
}

/// The folder of a data set below the first data folder that can be written.
pub(crate) fn writable(places: &[PathBuf], folder: &str) -> anyhow::Result<PathBuf> {
    let mut failures = Vec::new();
    for place in places {
        let folder = place.join(folder);
        let probe = folder.join(".polyad-write-test");
        let tried = fs::create_dir_all(&folder).and_then(|()| fs::write(&probe, ""));
        match tried.and_then(|()| fs::remove_file(&probe)) {
            Ok(()) => {
                for failure in &failures {
                    println!("{failure}; taken instead: {}", folder.display());
                }
                return Ok(folder);
            }
            Err(error) => failures.push(format!("{} cannot be written: {error}", folder.display())),
        }
    }
    bail!(
        "no data folder can be written:\n  {}\n  way out: name one with --data",
        failures.join("\n  ")
    )
}

/// Unpacks beside, then moves each member into place; the archive goes.
pub(super) fn unpack(archive: &Path, folder: &Path) -> anyhow::Result<()> {
    let beside = archive.with_added_extension("tmp");
    if beside.exists() {
        fs::remove_dir_all(&beside)?;
    }
    fs::create_dir(&beside).with_context(|| format!("cannot make {}", beside.display()))?;
    let status = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(&beside).status();
    let status = status.context("cannot start tar, which unpacks archives: install it")?;
    ensure!(status.success(), "{} cannot be unpacked: is the disk full?", archive.display());
    for entry in fs::read_dir(&beside)? {
        let entry = entry?;
        let target = folder.join(entry.file_name());
        if target.is_dir() {
            fs::remove_dir_all(&target)?;
        }
        fs::rename(entry.path(), &target)
            .with_context(|| format!("cannot write {}", target.display()))?;
    }
    fs::remove_dir(&beside)?;
    fs::remove_file(archive).with_context(|| format!("cannot remove {}", archive.display()))
}

/// What can be fetched: names, sizes, sums, where from, and whether it is here.
pub(crate) fn list(manifests: &[Manifest], places: &[PathBuf]) -> anyhow::Result<()> {
    for manifest in manifests.iter().filter(|manifest| manifest.can_be_fetched()) {
        println!("{}: {}; licence: {}", manifest.name, manifest.title, manifest.license);
        for item in items(manifest, &[])? {
            let kind = match &item {
                Item::Download(download) => download.expected().kind(),
                Item::Assembly(file) => file.expected().kind(),
            };
            let label = manifest.file(item.path()).map_or(item.path(), DataFile::label);
            let label = if manifest.name == "pretrained" { label } else { item.path() };
            let here = match &item {
                Item::Download(download) if !download.unpack.is_empty() => {
                    is_there(&item, manifest, places)?
                }
                // Presence alone: sums take time, and `verify` takes it.
                item => places
                    .iter()
                    .map(|place| place.join(&manifest.folder).join(item.path()))
                    .find(|path| path.is_file()),
            };
            let here = here.map_or("not here".to_owned(), |path| format!("in {}", path.display()));
            println!("  {label:<28} {:>15}  {kind}; {}\n{:31}{here}", item.size(), item.from(), "");
        }
    }
    Ok(())
}
