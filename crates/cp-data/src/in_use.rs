//! What is in use, so that `train` and `validation` share their pixels and files are read and checked once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::checksum::sha256;
use crate::{DataDir, DataError, Dataset, ImageFolder, ImageTar, ImageZip, Images, Manifest};

/// By [`key`].
type InUse<T> = Mutex<BTreeMap<String, Weak<T>>>;

static SETS: InUse<dyn Dataset> = Mutex::new(BTreeMap::new());
static TARS: InUse<ImageTar> = Mutex::new(BTreeMap::new());
static ZIPS: InUse<ImageZip> = Mutex::new(BTreeMap::new());
static FOLDERS: InUse<ImageFolder> = Mutex::new(BTreeMap::new());

/// A name for `part` of the data set of a manifest, as found in these places.
pub(crate) fn key(manifest: &Manifest, part: &str, data: &DataDir) -> String {
    let described = sha256(format!("{manifest:?}").as_bytes());
    format!("{}/{part} by {described} in {:?}", manifest.name, data.places())
}

fn get<T: ?Sized>(
    in_use: &InUse<T>,
    key: String,
    make: impl FnOnce() -> Result<Arc<T>, DataError>,
) -> Result<Arc<T>, DataError> {
    let mut in_use = in_use.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = in_use.get(&key).and_then(Weak::upgrade) {
        return Ok(found);
    }
    let made = make()?;
    in_use.insert(key, Arc::downgrade(&made));
    Ok(made)
}

pub(crate) fn shared(
    key: String,
    make: impl FnOnce() -> Result<Images, DataError>,
) -> Result<Arc<dyn Dataset>, DataError> {
    get(&SETS, key, || Ok(Arc::new(make()?)))
}

pub(crate) fn shared_tar(
    key: String,
    make: impl FnOnce() -> Result<ImageTar, DataError>,
) -> Result<Arc<ImageTar>, DataError> {
    get(&TARS, key, || Ok(Arc::new(make()?)))
}

pub(crate) fn shared_zip(
    key: String,
    make: impl FnOnce() -> Result<ImageZip, DataError>,
) -> Result<Arc<ImageZip>, DataError> {
    get(&ZIPS, key, || Ok(Arc::new(make()?)))
}

pub(crate) fn shared_folder(
    key: String,
    make: impl FnOnce() -> Result<ImageFolder, DataError>,
) -> Result<Arc<ImageFolder>, DataError> {
    get(&FOLDERS, key, || Ok(Arc::new(make()?)))
}
