//! `cargo xtask datasets`: list, download and check the data sets that `datasets/*.toml` describe.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;

use crate::manifest::{self, Check, Download, Manifest};
use crate::{download, workspace};

#[derive(Subcommand)]
pub(crate) enum DatasetsCommand {
    /// Name the data sets, and say which are on disk
    List {
        /// A folder of data sets, looked into before $POLYAD_DATA and the cache
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// Download a data set into datasets/cache; an interrupted download goes on where it stopped
    #[command(after_help = "Example:\n  cargo xtask datasets fetch fashion-mnist")]
    Fetch {
        /// As `list` names it
        name: String,
    },
    /// Check the files on disk against the listed sums; without a name, those of every data set
    #[command(after_help = "Example:\n  cargo xtask datasets verify cifar10 --data ~/data")]
    Verify {
        /// As `list` names it
        name: Option<String>,
        /// A folder of data sets, looked into before $POLYAD_DATA and the cache
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
}

pub(crate) fn run(command: &DatasetsCommand) -> anyhow::Result<ExitCode> {
    let root = workspace::root();
    let places = |data: &Option<PathBuf>| {
        if let Some(data) = data {
            ensure!(data.is_dir(), "--data {}: no such folder", data.display());
        }
        Ok(manifest::places(&root, data.as_deref()))
    };
    match command {
        DatasetsCommand::List { data } => list(&manifest::all(&root)?, &places(data)?),
        DatasetsCommand::Fetch { name } => {
            fetch(&manifest::named(&root, name)?, &manifest::cache(&root))?
        }
        DatasetsCommand::Verify { name, data } => {
            let manifests = match name {
                Some(name) => vec![manifest::named(&root, name)?],
                None => manifest::all(&root)?,
            };
            return verify(&manifests, &places(data)?, name.is_some());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(manifests: &[Manifest], places: &[PathBuf]) {
    for manifest in manifests {
        let here = manifest
            .files
            .iter()
            .filter(|file| file.find(&manifest.folder, places).is_some())
            .count();
        let all = manifest.files.len();
        let state = match here {
            0 if manifest.downloads.is_empty() => "not here".to_owned(),
            0 => {
                let bytes: u64 =
                    manifest.downloads.iter().filter_map(|download| download.bytes).sum();
                format!("not here; to download: {} MB", bytes.div_ceil(1_000_000))
            }
            _ => format!("{here} of {all} files here"),
        };
        println!(
            "{:<16} {} - {state}\n{:16} licence: {}",
            manifest.name, manifest.title, "", manifest.license
        );
    }
    println!("{:<16} drawn when it is used: nothing to download", "characters");
}

/// Downloads what is not there yet.
fn fetch(manifest: &Manifest, cache: &Path) -> anyhow::Result<()> {
    ensure!(
        !manifest.downloads.is_empty(),
        "{} cannot be downloaded. {}",
        manifest.name,
        manifest.obtain
    );
    println!("{}: licence: {}", manifest.title, manifest.license);
    let folder = cache.join(&manifest.folder);
    for download in &manifest.downloads {
        download.stays_below()?;
        let target = folder.join(&download.path);
        if is_there(download, &target)? {
            println!("{} is there.", download.path);
            continue;
        }
        println!("{} ...", download.path);
        download::fetch(download, &target)?;
        if download.unpack == "tar.gz" {
            unpack(&target, &folder)?;
        } else if !download.unpack.is_empty() {
            bail!("the manifest asks to unpack '{}', which is not known here", download.unpack);
        }
    }
    println!("{} is in {}.", manifest.name, folder.display());
    Ok(())
}

/// Whether an earlier call has done it: the right file, or for an archive the mark that it was unpacked.
fn is_there(download: &Download, target: &Path) -> anyhow::Result<bool> {
    if !download.unpack.is_empty() {
        return Ok(mark(target).is_file());
    }
    Ok(target.is_file() && !matches!(download.check(target)?, Check::Wrong(_)))
}

/// Says that an archive was unpacked to the end and removed.
fn mark(archive: &Path) -> PathBuf {
    archive.with_added_extension("unpacked")
}

/// Unpacks beside, then moves each member into place; the archive goes, a mark stays.
fn unpack(archive: &Path, folder: &Path) -> anyhow::Result<()> {
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
    fs::write(mark(archive), "")?;
    fs::remove_file(archive).with_context(|| format!("cannot remove {}", archive.display()))
}

/// Checks what is there. A file that is wrong fails, and so does one that is missing from a data set asked for by name,
/// unless none of its names is on the list of what can be had.
fn verify(manifests: &[Manifest], places: &[PathBuf], named: bool) -> anyhow::Result<ExitCode> {
    let (mut wrong, mut present) = (0, 0);
    for manifest in manifests {
        let mut missing = Vec::new();
        for file in &manifest.files {
            let Some(path) = file.find(&manifest.folder, places) else {
                missing.push(file.path.as_str());
                continue;
            };
            present += 1;
            let verdict = match file.check(&path)? {
                Check::Right => "ok".to_owned(),
                Check::Repacked => {
                    "another packing than the listed ones; its content is checked when it is read"
                        .to_owned()
                }
                Check::SizeOnly => "the size is right; no sum is known".to_owned(),
                Check::Wrong(why) => {
                    wrong += 1;
                    format!("WRONG: {why}")
                }
            };
            println!("{}: {verdict}", path.display());
        }
        if !missing.is_empty() {
            println!("{}: not here: {}", manifest.name, missing.join(", "));
        }
    }
    if wrong > 0 {
        eprintln!("{wrong} wrong: delete them, and fetch or copy them again.");
        return Ok(ExitCode::FAILURE);
    }
    if named && present == 0 {
        bail!("no file of {} is on disk; run `cargo xtask datasets list`", manifests[0].name);
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Of "abc"; FIPS 180-4.
    const SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn manifest(rest: &str) -> Manifest {
        toml::from_str(&format!("name = 'x'\ntitle = 'X'\nfolder = 'x'\nlicense = 'none'\n{rest}"))
            .unwrap()
    }

    fn file_x() -> Manifest {
        manifest(&format!("[[file]]\npath = 'x.bin'\nbytes = 3\nsha256 = '{SHA256}'"))
    }

    #[test]
    fn a_wrong_file_fails_the_check() {
        let data = tempfile::tempdir().unwrap();
        let places = [data.path().to_owned()];
        let path = data.path().join("x/x.bin");
        fs::create_dir(data.path().join("x")).unwrap();
        fs::write(&path, "abc").unwrap();
        let check = |named| verify(&[file_x()], &places, named).unwrap();
        assert_eq!(format!("{:?}", check(false)), format!("{:?}", ExitCode::SUCCESS));
        fs::write(&path, "abd").unwrap();
        assert_eq!(format!("{:?}", check(false)), format!("{:?}", ExitCode::FAILURE));
    }

    #[test]
    fn nothing_to_check_is_an_error_only_when_asked_by_name() {
        verify(&[file_x()], &[], false).unwrap();
        assert!(verify(&[file_x()], &[], true).unwrap_err().to_string().contains("no file of x"));
    }

    #[test]
    fn a_set_without_address_says_how_to_get_it() {
        let set = manifest("obtain = 'Ask the publisher.'");
        let error = fetch(&set, Path::new("unused")).unwrap_err().to_string();
        assert!(error.contains("Ask the publisher."), "{error}");
    }

    #[test]
    fn an_archive_is_unpacked_once() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("x");
        fs::create_dir_all(folder.join("members")).unwrap();
        fs::write(folder.join("members/left-over"), "").unwrap();
        let source = cache.path().join("source/members");
        fs::create_dir_all(&source).unwrap();
        fs::write(source.join("a.bin"), "abc").unwrap();
        let archive = folder.join("a.tar.gz");
        let mut tar = Command::new("tar");
        tar.arg("-czf").arg(&archive).arg("-C").arg(cache.path().join("source")).arg("members");
        assert!(tar.status().unwrap().success());

        unpack(&archive, &folder).unwrap();
        assert_eq!(fs::read_to_string(folder.join("members/a.bin")).unwrap(), "abc");
        assert!(!folder.join("members/left-over").exists());
        let mut left: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["a.tar.gz.unpacked", "members"]);
        let download: Download =
            toml::from_str("urls = []\npath = 'a.tar.gz'\nunpack = 'tar.gz'").unwrap();
        assert!(is_there(&download, &archive).unwrap());
    }
}
