//! Files that appear whole, and folders that vanish.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::{NamedTempFile, TempDir};

/// The temporary files of this process that are being written, and its temporary folders.
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn unfinished() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    // A set of names is sound, whoever panicked.
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file that appears under its name only when it is complete: until then, it is a hidden one beside that place, which goes
/// where the value is dropped, and with [`remove_unfinished`].
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    folder: PathBuf,
    /// Taken away only at the end.
    part: Option<NamedTempFile>,
}

impl AtomicFile {
    /// Makes the hidden file: where nothing can be written, that is found out before the work.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut builder = tempfile::Builder::new();
        // Temporary files are private to their owner; this one will be as readable as the user's umask says.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        // Locked: whoever ends the process sees the file and its name in the set, or neither.
        let mut unfinished = unfinished();
        let part = builder.prefix(".polyad-").tempfile_in(&folder)?;
        unfinished.insert(part.path().to_owned());
        Ok(Self { path, folder, part: Some(part) })
    }

    /// Where the file will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets `write` fill the file, waits for the disk, and renames it: a reader, and whoever comes back after a crash, sees the old
    /// file or the new one.
    ///
    /// # Errors
    /// Those of `write`, and what the file system reports; the old file, if any, is then untouched.
    pub fn write<E: From<io::Error>>(
        mut self,
        write: impl FnOnce(&mut File) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(part) = &mut self.part else { return Ok(()) };
        write(part.as_file_mut())?;
        part.as_file().sync_all()?;
        self.put_in_place()?;
        Ok(())
    }

    fn put_in_place(&mut self) -> io::Result<()> {
        {
            let mut unfinished = unfinished();
            let Some(part) = self.part.take() else { return Ok(()) };
            unfinished.remove(part.path());
            part.persist(&self.path).map_err(|error| error.error)?;
        }
        // The rename itself is on the disk only when the folder is.
        #[cfg(unix)]
        File::open(&self.folder)?.sync_all()?;
        Ok(())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(part) = self.part.take() {
            let mut unfinished = unfinished();
            unfinished.remove(part.path());
            drop(part);
        }
    }
}

/// A folder for intermediate results, in the system's place for such, that goes with all that is in it where the value is dropped, and
/// with [`remove_unfinished`].
#[derive(Debug)]
pub struct TemporaryFolder(Option<TempDir>);

impl TemporaryFolder {
    /// Makes the folder.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn create() -> io::Result<Self> {
        let mut unfinished = unfinished();
        let folder = tempfile::Builder::new().prefix(".polyad-").tempdir()?;
        unfinished.insert(folder.path().to_owned());
        Ok(Self(Some(folder)))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.as_ref().map_or(Path::new(""), TempDir::path)
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Some(folder) = self.0.take() {
            unfinished().remove(folder.path());
        }
    }
}

/// Writes `bytes` as an [`AtomicFile`].
///
/// # Errors
/// What the file system reports; the old file, if any, is then untouched.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    AtomicFile::create(path)?.write(|file| file.write_all(bytes))
}

/// Removes every file of this process that is not complete and every [`TemporaryFolder`], calls `exit`, and lets nobody begin another one in between: for programs
/// that are told to stop, whose values are not dropped. What is complete stays.
pub fn remove_unfinished(exit: impl FnOnce()) {
    let unfinished = unfinished();
    for path in &*unfinished {
        // One that is gone already is no reason to leave the others.
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
    exit();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn others_may_read_what_the_umask_lets_them() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let [whole, plain] = ["whole", "plain"].map(|name| folder.path().join(name));
        write_atomic(&whole, b"1").unwrap();
        fs::write(&plain, b"1").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&whole), mode(&plain));
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_dropped_or_fails_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        fs::write(&path, "old").unwrap();
        drop(AtomicFile::create(&path).unwrap());
        let file = AtomicFile::create(&path).unwrap();
        assert_eq!(names(folder.path()).len(), 2);
        file.write(|_| Err(io::Error::other("no"))).unwrap_err();
        assert_eq!(names(folder.path()), ["out"]);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let inside = path.join("nothing");
        AtomicFile::create(&inside).unwrap_err();
    }

    /// One test for both: the set is the whole process's, and other tests write at the same time.
    #[test]
    fn unfinished_files_are_known_until_they_are_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        let file = AtomicFile::create(&one).unwrap();
        let part = file.part.as_ref().unwrap().path().to_owned();
        assert!(unfinished().contains(&part));
        file.write(|file| file.write_all(b"1")).unwrap();
        assert!(!unfinished().contains(&part));
        let other = AtomicFile::create(&two).unwrap();
        let part = other.part.as_ref().unwrap().path().to_owned();
        drop(other);
        assert!(!unfinished().contains(&part));
        assert_eq!(names(folder.path()), ["one"]);
        let work = TemporaryFolder::create().unwrap();
        let path = work.path().to_owned();
        write_atomic(&path.join("stage"), b"1").unwrap();
        assert!(unfinished().contains(&path));
        drop(work);
        assert!(!unfinished().contains(&path) && !path.exists());
    }
}
