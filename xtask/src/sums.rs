//! Sizes and sums of files: what a manifest lists, what a file has, and what was kept at the first fetch.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use md5::Md5;
use sha2::{Digest as _, Sha256};

/// What is known of a file beforehand; nothing of it is ever made up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    pub(crate) bytes: Option<u64>,
    pub(crate) sha256: Option<String>,
    /// The first digits, where the publisher prints no more.
    pub(crate) sha256_prefix: Option<String>,
    pub(crate) md5: Option<String>,
}

/// What a look at a file gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// A listed sum, or the start of one.
    Right,
    /// A sum is listed for what is in it, but it is packed in a way that is not; checked when it is read.
    Repacked,
    /// The manifest lists nothing but the size, which is right.
    SizeOnly,
    /// No sum is listed; it is the file of the first fetch.
    AsFirstFetched,
    /// What is wrong with it.
    Wrong(String),
}

/// Size and sums of a file.
pub(crate) struct Sums {
    bytes: u64,
    pub(crate) sha256: String,
    md5: String,
}

impl Sums {
    pub(crate) fn of(path: &Path) -> anyhow::Result<Self> {
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

impl Expected {
    /// The kind of the best sum that is known, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Expected { sha256: Some(_), .. } => "SHA-256",
            Expected { sha256_prefix: Some(_), .. } => "first digits of the SHA-256",
            Expected { md5: Some(_), .. } => "MD5",
            Expected { bytes: Some(_), .. } => "size, and the SHA-256 of the first fetch",
            _ => "the SHA-256 of the first fetch",
        }
    }

    /// Whether the sum at the first fetch tells more than what is listed.
    pub(crate) fn wants_kept(&self) -> bool {
        self.sha256.is_none()
    }

    pub(crate) fn compare(&self, got: &Sums) -> Check {
        if let Some(bytes) = self.bytes.filter(|&bytes| bytes != got.bytes) {
            return Check::Wrong(format!("{} bytes in place of {bytes}", got.bytes));
        }
        for (kind, listed, found) in
            [("SHA-256", &self.sha256, &got.sha256), ("MD5", &self.md5, &got.md5)]
        {
            if let Some(listed) = listed.as_ref().filter(|listed| *listed != found) {
                return Check::Wrong(format!("{kind} {found} in place of {listed}"));
            }
        }
        if let Some(start) = self.sha256_prefix.as_ref().filter(|s| !got.sha256.starts_with(*s)) {
            return Check::Wrong(format!("SHA-256 {} in place of {start}...", got.sha256));
        }
        let any = self.sha256.is_some() || self.sha256_prefix.is_some() || self.md5.is_some();
        if any { Check::Right } else { Check::SizeOnly }
    }

    /// Compares the file at `path` with this, and with the sum kept for `target`, where it lies or will lie.
    pub(crate) fn check(&self, path: &Path, target: &Path) -> anyhow::Result<Check> {
        let sums = Sums::of(path)?;
        let check = self.compare(&sums);
        let kept = if self.wants_kept() { kept(target)? } else { None };
        Ok(match kept {
            Some(_) if matches!(check, Check::Wrong(_)) => check,
            Some(kept) if kept != sums.sha256 => Check::Wrong(format!(
                "SHA-256 {} in place of {kept}, that of its first fetch; if the publisher has changed the file, delete {}",
                sums.sha256,
                kept_place(target).display()
            )),
            Some(_) if check == Check::SizeOnly => Check::AsFirstFetched,
            _ => check,
        })
    }
}

/// Where the sum of the first fetch of `file` is kept.
fn kept_place(file: &Path) -> PathBuf {
    file.with_added_extension("sha256")
}

/// The sum of the first fetch of `file`, in the form of `sha256sum`, which `cp-data` reads too.
fn kept(file: &Path) -> anyhow::Result<Option<String>> {
    let place = kept_place(file);
    if !place.is_file() {
        return Ok(None);
    }
    let text =
        fs::read_to_string(&place).with_context(|| format!("cannot read {}", place.display()))?;
    let sum = text.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    if sum.len() != 64 || !sum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        bail!("{} holds no SHA-256 (64 hexadecimal digits): delete it", place.display());
    }
    Ok(Some(sum))
}

/// Keeps the sum of a file just fetched, at `path`, for `target`, unless one is kept already. The place, if it was written.
pub(crate) fn keep(path: &Path, target: &Path) -> anyhow::Result<Option<PathBuf>> {
    if kept(target)?.is_some() {
        return Ok(None);
    }
    let sum = Sums::of(path)?.sha256;
    let place = kept_place(target);
    let part = place.with_added_extension("part");
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let write = || {
        let mut file = File::create(&part)?;
        file.write_all(format!("{sum}  {name}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, &place)
    };
    write().with_context(|| format!("cannot write {}", place.display()))?;
    Ok(Some(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    // FIPS 180-4 and RFC 1321, test vectors for "abc".
    const SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const MD5: &str = "900150983cd24fb0d6963f7d28e17f72";

    #[test]
    fn the_start_of_a_sum_and_a_kept_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x-ba7816bf.pth");
        fs::write(&path, "abc").unwrap();
        let start =
            |text: &str| Expected { sha256_prefix: Some(text.into()), ..Expected::default() };
        assert_eq!(start("ba7816bf").check(&path, &path).unwrap(), Check::Right);
        let wrong = start("ba7816be").check(&path, &path).unwrap();
        assert_eq!(wrong, Check::Wrong(format!("SHA-256 {SHA256} in place of ba7816be...")));
        let md5 = Expected { md5: Some(MD5.into()), bytes: Some(3), ..Expected::default() };
        assert_eq!(md5.check(&path, &path).unwrap(), Check::Right);

        let unknown = Expected::default();
        assert_eq!(unknown.check(&path, &path).unwrap(), Check::SizeOnly);
        let place = keep(&path, &path).unwrap().unwrap();
        assert_eq!(fs::read_to_string(&place).unwrap(), format!("{SHA256}  x-ba7816bf.pth\n"));
        assert_eq!(keep(&path, &path).unwrap(), None, "once");
        assert_eq!(unknown.check(&path, &path).unwrap(), Check::AsFirstFetched);
        fs::write(&path, "abd").unwrap();
        let Check::Wrong(why) = unknown.check(&path, &path).unwrap() else { panic!("changed") };
        assert!(why.contains(SHA256) && why.contains("first fetch"), "{why}");
        fs::write(&place, "").unwrap();
        assert!(unknown.check(&path, &path).unwrap_err().to_string().contains("delete it"));
    }
}
