//! What lies in a folder or an archive: images, folders, and the rest, which is counted.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::DataError;
use crate::printable::printable_bytes;

/// File names that are taken for images. Formats that cannot be decoded are here too, since leaving a class's files
/// out without a word would be worse than an error.
const EXTENSIONS: [&str; 20] = [
    "jpg", "jpeg", "jpe", "jfif", "jif", "png", "bmp", "gif", "webp", "tif", "tiff", "ppm", "pgm",
    "pbm", "pnm", "avif", "heic", "heif", "jxl", "jp2",
];

/// Folders of operating systems and programs, which hold no images of the user's.
const FOREIGN: [&str; 5] =
    ["__MACOSX", "@eaDir", "__pycache__", "$RECYCLE.BIN", "System Volume Information"];

/// The file that may list the classes, one a line.
pub(crate) const CLASS_LIST: &str = "classes.txt";

/// The content of a folder or an archive, by paths below it: printable, with `/` between folders.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Images, sorted for a folder and in their own order for an archive.
    pub(crate) images: Vec<Found>,
    /// Every folder, with images in it or not, and every dead link that could have led to one.
    pub(crate) folders: BTreeSet<String>,
    /// Files that are no images by their names.
    pub(crate) others: Vec<String>,
    /// Files called `classes.txt`, with their content.
    pub(crate) lists: Vec<(String, Vec<u8>)>,
}

/// An image.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) path: String,
    /// Its place in the list of files or members.
    pub(crate) number: usize,
}

/// Whether a path is that of an image by its name.
pub(crate) fn is_image(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

/// Whether a file or folder of this name is none of the user's: hidden, or made by a system for itself.
pub(crate) fn is_foreign(name: &str) -> bool {
    name.starts_with('.') || FOREIGN.contains(&name)
}

/// Everything below `root`, with the real paths of the images by their numbers. Links are followed.
pub(crate) fn walk(root: &Path) -> Result<(Walk, Vec<PathBuf>), DataError> {
    let mut found = Walk::default();
    let mut paths = Vec::new();
    let trail = vec![fs::canonicalize(root).map_err(DataError::io(root))?];
    descend(root, "", &trail, &mut found, &mut paths)?;
    found.images.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    found.others.sort_unstable();
    Ok((found, paths))
}

/// `trail` has the real paths of the folders above, so that a link back to one of them is seen: its images are there
/// already.
fn descend(
    folder: &Path,
    below: &str,
    trail: &[PathBuf],
    found: &mut Walk,
    paths: &mut Vec<PathBuf>,
) -> Result<(), DataError> {
    for entry in fs::read_dir(folder).map_err(DataError::io(folder))? {
        let entry = entry.map_err(DataError::io(folder))?;
        let (name, full) = (printable_bytes(entry.file_name().as_encoded_bytes()), entry.path());
        if is_foreign(&name) {
            continue;
        }
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        let link = entry.file_type().map_err(DataError::io(&full))?.is_symlink();
        let kind = match fs::metadata(&full) {
            Ok(kind) => kind,
            // Without its list, labels would be others.
            Err(_) if link && (is_image(&name) || name == CLASS_LIST) => {
                let target = fs::read_link(&full).map_err(DataError::io(&full))?;
                return Err(DataError::DeadLink { path: full, entry: None, target });
            }
            // What has no ending may have been a folder: a class, perhaps, which must not vanish without a word.
            Err(_) if link && !name.contains('.') => {
                found.folders.insert(path);
                continue;
            }
            Err(_) if link => {
                found.others.push(path);
                continue;
            }
            Err(error) => return Err(DataError::io(&full)(error)),
        };
        if kind.is_dir() {
            let real = fs::canonicalize(&full).map_err(DataError::io(&full))?;
            if trail.contains(&real) {
                continue;
            }
            found.folders.insert(path.clone());
            let trail = [trail, &[real]].concat();
            descend(&full, &path, &trail, found, paths)?;
        } else if kind.is_file() && is_image(&path) {
            found.images.push(Found { path, number: paths.len() });
            paths.push(full);
        } else if kind.is_file() {
            if name == CLASS_LIST {
                found.lists.push((path, fs::read(&full).map_err(DataError::io(&full))?));
            } else {
                found.others.push(path);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder of empty files; the walk looks at names alone.
    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        dir
    }

    #[track_caller]
    fn check(dir: &Path, images: &[&str], others: &[&str]) {
        let (found, paths) = walk(dir).unwrap();
        let paths_of: Vec<&str> = found.images.iter().map(|image| image.path.as_str()).collect();
        assert_eq!(paths_of, images);
        assert_eq!(found.others, others);
        assert!(found.images.iter().all(|image| paths[image.number].is_file()));
    }

    #[test]
    fn endings_in_any_case_and_at_any_depth() {
        let dir =
            tree(&["a/1.PNG", "a/2.JpEg", "a/b/c/d/e/3.jfif", "a/notes.txt", "a/4", "a/Thumbs.db"]);
        check(
            dir.path(),
            &["a/1.PNG", "a/2.JpEg", "a/b/c/d/e/3.jfif"],
            &["a/4", "a/Thumbs.db", "a/notes.txt"],
        );
    }

    #[test]
    fn hidden_files_and_those_of_systems() {
        let dir = tree(&[
            "a/1.png",
            "a/._1.png",
            "a/.hidden/2.png",
            "__MACOSX/a/1.png",
            "a/@eaDir/1.png",
        ]);
        check(dir.path(), &["a/1.png"], &[]);
    }

    #[test]
    fn dead_links_that_are_no_images() {
        let dir = tree(&["a/1.png"]);
        for name in ["a/.#1.png", "a/notes.txt", "a/.cache", "b"] {
            symlink("/nowhere/at/all", dir.path().join(name)).unwrap();
        }
        check(dir.path(), &["a/1.png"], &["a/notes.txt"]);
        assert!(walk(dir.path()).unwrap().0.folders.contains("b"));
        symlink("/nowhere/at/all.png", dir.path().join("a/z.png")).unwrap();
        let error = walk(dir.path()).unwrap_err().to_string();
        assert!(error.contains("a/z.png") && error.contains("/nowhere/at/all.png"), "{error}");
        fs::remove_file(dir.path().join("a/z.png")).unwrap();
        symlink("old/classes.txt", dir.path().join("classes.txt")).unwrap();
        let error = walk(dir.path()).unwrap_err().to_string();
        assert!(error.contains("classes.txt") && error.contains("leads nowhere"), "{error}");
    }

    #[test]
    fn links_to_files_and_folders_and_back_up() {
        let (dir, elsewhere) = (tree(&["a/1.png"]), tree(&["x/2.png"]));
        symlink(dir.path().join("a/1.png"), dir.path().join("a/3.png")).unwrap();
        symlink(elsewhere.path().join("x"), dir.path().join("b")).unwrap();
        symlink(dir.path(), dir.path().join("a/up")).unwrap();
        symlink("self", dir.path().join("a/self")).unwrap();
        check(dir.path(), &["a/1.png", "a/3.png", "b/2.png"], &[]);
    }

    #[test]
    fn names_that_are_no_utf8_and_names_that_steer() {
        let dir = tree(&["a/1.png"]);
        for name in [&b"caf\xe9.png"[..], b"\xff\xfe.JPG", b"x\x1b[2J\n.png"] {
            fs::write(dir.path().join("a").join(OsStr::from_bytes(name)), b"").unwrap();
        }
        check(
            dir.path(),
            &["a/1.png", "a/\\xFF\\xFE.JPG", "a/caf\\xE9.png", "a/x\\u{1b}[2J\\n.png"],
            &[],
        );
    }
}
