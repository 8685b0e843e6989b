//! What came in the place of a file: a sign-in page with status 200 is no data set.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;

/// Bytes of a file that are looked at.
const START: u64 = 2048;

/// Why the file at `part` cannot be the one that the manifest calls `name`, by its first bytes.
pub(crate) fn refusal(part: &Path, name: &str) -> anyhow::Result<Option<String>> {
    let cannot = || format!("cannot read {}", part.display());
    let mut start = Vec::new();
    let file = File::open(part).with_context(cannot)?;
    file.take(START).read_to_end(&mut start).with_context(cannot)?;
    if start.is_empty() {
        return Ok(Some("the server sent an empty file".to_owned()));
    }
    let ending = Path::new(name).extension().and_then(|ending| ending.to_str()).unwrap_or("");
    let zip = start.starts_with(b"PK\x03\x04");
    let (right, kind) = match ending {
        "gz" | "tgz" => (start.starts_with(&[0x1f, 0x8b]), "a gzip file"),
        "zip" => (zip, "a zip archive"),
        // Since version 1.6 a zip archive, before that a pickle of protocol 2.
        "pth" | "pt" | "th" => (zip || start.starts_with(&[0x80, 2]), "a PyTorch file"),
        "zst" => (start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]), "a zstd file"),
        _ => (true, ""),
    };
    let text = String::from_utf8_lossy(&start).trim_start().to_lowercase();
    let came =
        if ["<!doctype html", "<html", "<head", "<body"].iter().any(|tag| text.starts_with(tag)) {
            match text.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>")) {
                Some((title, _)) => {
                    let title: String =
                        title.trim().chars().filter(|c| !c.is_control()).take(80).collect();
                    format!("a web page ({title:?})")
                }
                None => "a web page".to_owned(),
            }
        } else if text.starts_with("<?xml") {
            "an XML text".to_owned()
        } else if right {
            return Ok(None);
        } else if text.starts_with("version https://git-lfs") {
            "a Git LFS pointer".to_owned()
        } else if text.starts_with('{') {
            "a JSON text".to_owned()
        } else {
            "something else".to_owned()
        };
    let kind = if kind.is_empty() { "the file" } else { kind };
    Ok(Some(format!("the server sent {came} in the place of {kind}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, bytes: &[u8], expected: Option<&str>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.part");
        std::fs::write(&path, bytes).unwrap();
        let found = refusal(&path, name).unwrap();
        match expected {
            None => assert_eq!(found, None),
            Some(words) => {
                let found = found.unwrap();
                assert!(found.contains(words), "{found}");
            }
        }
    }

    #[test]
    fn pages_and_texts_are_no_data() {
        let page = b"\n<!DOCTYPE html><html><title>Sign in\x1b</title>";
        check("x.bin", page, Some("a web page (\"sign in\") in the place of the file"));
        check("x.zip", b"<html>", Some("a web page in the place of a zip archive"));
        check("x.gz", b"<?xml version='1.0'?><Error>", Some("an XML text"));
        check("x.pth", b"{\"error\": 1}", Some("a JSON text in the place of a PyTorch file"));
        check("x.th", b"version https://git-lfs.github.com/spec/v1", Some("Git LFS"));
        check("x.tgz", b"PK\x03\x04", Some("something else in the place of a gzip file"));
        check("x.bin", b"", Some("empty"));
    }

    #[test]
    fn files_of_the_right_kind() {
        check("x.pth", b"PK\x03\x04rest", None);
        check("x.th", b"\x80\x02\x8a\nl\xfc", None);
        check("x.tgz", b"\x1f\x8b\x08", None);
        check("x_filter.bin", b"\0\0\x80\x3f", None);
        check("x", b"{", None);
    }
}
