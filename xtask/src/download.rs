//! Downloads: resumed where they stopped, checked, and moved into place in one step.
//!
//! curl does the talking: it knows proxies, certificates and retries, and a TLS library of our own would double the time
//! that this program takes to build (20 to 45 seconds of processor time, measured with ureq and rustls).

use std::fs;
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::manifest::{Check, Download};

/// Exit codes of curl, from its manual.
mod exit {
    /// Proxy or server not found, or no connection to it.
    pub(super) const UNREACHABLE: [i32; 4] = [5, 6, 7, 28];
    /// The server answered with an error, 400 or above.
    pub(super) const HTTP_ERROR: i32 = 22;
    /// Writing the file failed.
    pub(super) const WRITE: i32 = 23;
    /// The server cannot go on in the middle.
    pub(super) const NO_RANGES: i32 = 33;
    /// The rest could not be asked for.
    pub(super) const BAD_RESUME: i32 = 36;
}

/// Downloads to `target`, which is there with the right content or not at all.
///
/// What was downloaded before an interruption lies in `target` + `.part`, and the next call goes on from there.
pub(crate) fn fetch(download: &Download, target: &Path) -> anyhow::Result<()> {
    let part = target.with_added_extension("part");
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut failures = Vec::new();
    for url in &download.urls {
        match fetch_from(url, download, &part) {
            Ok(()) => {
                return fs::rename(&part, target)
                    .with_context(|| format!("cannot move {} into place", part.display()));
            }
            Err(error) => failures.push(format!("{url}: {error:#}")),
        }
    }
    bail!("{} cannot be downloaded:\n  {}", download.path, failures.join("\n  "))
}

/// Brings `part` to the listed content, from one address.
fn fetch_from(url: &str, download: &Download, part: &Path) -> anyhow::Result<()> {
    let resumed = size(part) > 0;
    if download.bytes.is_none_or(|bytes| size(part) < bytes) {
        curl(url, part)?;
    }
    let mut check = download.check(part)?;
    // The first half may have been of another file; a download in one go has no such excuse.
    if matches!(check, Check::Wrong(_)) && resumed {
        fs::remove_file(part)?;
        curl(url, part)?;
        check = download.check(part)?;
    }
    if let Check::Wrong(why) = check {
        // A connection that broke leaves too little, which the next call completes; anything else is of no use.
        if download.bytes.is_none_or(|bytes| size(part) >= bytes) {
            fs::remove_file(part)?;
        }
        bail!("not the file that the manifest lists: {why}");
    }
    Ok(())
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Runs curl, from the end of `part` if there is one, else from the start.
fn curl(url: &str, part: &Path) -> anyhow::Result<()> {
    let code = run_curl(url, part)?;
    let nothing_to_resume =
        [exit::NO_RANGES, exit::BAD_RESUME].contains(&code) || code == exit::HTTP_ERROR;
    if size(part) > 0 && nothing_to_resume {
        fs::remove_file(part).with_context(|| format!("cannot remove {}", part.display()))?;
        return told(run_curl(url, part)?, part);
    }
    told(code, part)
}

fn run_curl(url: &str, part: &Path) -> anyhow::Result<i32> {
    let mut command = Command::new("curl");
    command.args([
        "--location",
        "--fail",
        "--retry",
        "3",
        "--connect-timeout",
        "20",
        "--proto",
        "=http,https",
    ]);
    // A connection on which nothing moves for a minute is dead.
    command.args(["--speed-limit", "1", "--speed-time", "60", "--continue-at", "-"]);
    if std::io::stderr().is_terminal() {
        command.arg("--progress-bar");
    } else {
        command.args(["--silent", "--show-error"]);
    }
    let status = command.arg("--output").arg(part).arg("--").arg(url).status();
    let status = status
        .context("cannot start curl, which downloads data sets: install it (`apt install curl`)")?;
    status.code().context("curl was stopped; the next try goes on where this one ended")
}

fn told(code: i32, part: &Path) -> anyhow::Result<()> {
    ensure!(
        code != exit::WRITE,
        "{} cannot be written: is the disk full, or the folder read-only?",
        part.display()
    );
    ensure!(code != exit::HTTP_ERROR, "the server has no such file");
    ensure!(
        !exit::UNREACHABLE.contains(&code),
        "the server cannot be reached; is there a network?"
    );
    ensure!(code == 0, "curl ended with code {code}; a new try goes on where this one ended");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};
    use std::thread;

    use super::*;

    /// What the server does with a request that names a start.
    #[derive(Clone, Copy)]
    enum Ranges {
        Honored,
        Ignored,
    }

    /// A server of one file on this machine. It cuts the first answer off after `cut` bytes, and writes down where each
    /// request wanted to start.
    fn serve(
        content: &'static [u8],
        ranges: Ranges,
        cut: Option<usize>,
    ) -> (String, Arc<Mutex<Vec<usize>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let starts = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&starts);
        thread::spawn(move || {
            let mut cut = cut;
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut start = 0;
                for line in BufReader::new(&stream).lines() {
                    let line = line.unwrap().to_lowercase();
                    if let Some(range) = line.strip_prefix("range: bytes=") {
                        start = range.trim_end_matches('-').parse().unwrap();
                    }
                    if line.is_empty() {
                        break;
                    }
                }
                seen.lock().unwrap().push(start);
                let header = match (ranges, start) {
                    (Ranges::Honored, 1..) if start >= content.len() => {
                        write!(stream, "HTTP/1.1 416 Range Not Satisfiable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                            .unwrap();
                        continue;
                    }
                    (Ranges::Honored, 1..) => {
                        format!(
                            "206 Partial Content\r\nContent-Range: bytes {start}-{}/{}",
                            content.len() - 1,
                            content.len()
                        )
                    }
                    _ => {
                        start = 0;
                        "200 OK".to_owned()
                    }
                };
                let body = &content[start..];
                let length = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {header}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
                )
                .unwrap();
                let end = cut.take().unwrap_or(length);
                stream.write_all(&body[..end]).unwrap();
            }
        });
        (url, starts)
    }

    const CONTENT: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    // From coreutils' sha256sum of CONTENT.
    const SHA256: &str = "74e7e5bb9d22d6db26bf76946d40fff3ea9f0346b884fd0694920fccfad15e33";

    fn listed(urls: &[&str]) -> Download {
        let urls: Vec<String> = urls.iter().map(|url| format!("'{url}'")).collect();
        toml::from_str(&format!(
            "urls = [{}]\npath = 'x'\nbytes = 36\nsha256 = '{SHA256}'",
            urls.join(", ")
        ))
        .unwrap()
    }

    /// Whether there is a curl; says so where a test has to do without.
    fn curl_is_here() -> bool {
        let here = Command::new("curl").arg("--version").output().is_ok();
        if !here {
            println!("skipped: there is no curl");
        }
        here
    }

    #[test]
    fn a_broken_download_goes_on_where_it_stopped() {
        if !curl_is_here() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("set/x");
        let (url, starts) = serve(CONTENT, Ranges::Honored, None);
        fs::create_dir(folder.path().join("set")).unwrap();
        fs::write(target.with_added_extension("part"), &CONTENT[..10]).unwrap();
        fetch(&listed(&[&url]), &target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), CONTENT);
        assert_eq!(*starts.lock().unwrap(), [10]);
        assert!(!target.with_added_extension("part").exists());
    }

    #[test]
    fn what_arrived_before_the_connection_broke_is_kept() {
        if !curl_is_here() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        let (url, starts) = serve(CONTENT, Ranges::Honored, Some(12));
        fetch(&listed(&[&url]), &target).unwrap_err();
        assert!(!target.exists());
        assert_eq!(fs::read(target.with_added_extension("part")).unwrap(), &CONTENT[..12]);
        fetch(&listed(&[&url]), &target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), CONTENT);
        assert_eq!(*starts.lock().unwrap(), [0, 12]);
    }

    #[test]
    fn a_server_without_ranges_is_asked_for_the_whole() {
        if !curl_is_here() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        let (url, _) = serve(CONTENT, Ranges::Ignored, None);
        fs::write(target.with_added_extension("part"), &CONTENT[..10]).unwrap();
        fetch(&listed(&[&url]), &target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), CONTENT);
    }

    #[test]
    fn a_wrong_beginning_is_thrown_away() {
        if !curl_is_here() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        let (url, starts) = serve(CONTENT, Ranges::Honored, None);
        fs::write(target.with_added_extension("part"), "of another file").unwrap();
        fetch(&listed(&[&url]), &target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), CONTENT);
        assert_eq!(*starts.lock().unwrap(), [15, 0]);
    }

    #[test]
    fn a_wrong_file_is_refused_with_both_sums() {
        if !curl_is_here() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        let (url, _) = serve(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", Ranges::Honored, None);
        let error = fetch(&listed(&[&url]), &target).unwrap_err().to_string();
        assert!(
            error.contains(&url) && error.contains("SHA-256") && error.contains(SHA256),
            "{error}"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
    }

    #[test]
    fn the_next_address_is_tried() {
        if !curl_is_here() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        let (wrong, _) = serve(b"no such file here", Ranges::Honored, None);
        let (right, _) = serve(CONTENT, Ranges::Honored, None);
        fetch(&listed(&[&wrong, &right]), &target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), CONTENT);
    }
}
