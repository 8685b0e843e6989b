//! Downloads: resumed where they stopped, checked, and moved into place in one step.
//!
//! curl does the talking: it knows proxies, certificates and redirects, and a TLS library of our own would double the time
//! that this program takes to build (20 to 45 seconds of processor time, measured with ureq and rustls).

mod content;

use std::fs::{self, File, TryLockError};
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::manifest::Download;
use crate::sums::{self, Check};

/// Exit codes of curl, from its manual.
mod exit {
    /// Proxy or server not found, or no connection to it.
    pub(super) const UNREACHABLE: [i32; 3] = [5, 6, 7];
    /// Cut off, too slow, or no answer: a new try may go on.
    pub(super) const BROKEN: [i32; 7] = [16, 18, 28, 35, 52, 55, 56];
    /// The server answered with an error, 400 or above.
    pub(super) const HTTP_ERROR: i32 = 22;
    /// Writing the file failed.
    pub(super) const WRITE: i32 = 23;
    /// The server cannot go on in the middle.
    pub(super) const NO_RANGES: i32 = 33;
    /// The rest could not be asked for.
    pub(super) const BAD_RESUME: i32 = 36;
    /// The address leads from one to another without end.
    pub(super) const REDIRECTS: i32 = 47;
    /// The certificate is not one that is trusted.
    pub(super) const CERTIFICATE: [i32; 3] = [51, 60, 77];
    /// Larger than the largest size allowed.
    pub(super) const TOO_LARGE: i32 = 63;
}

/// A file whose size the manifest does not know may be this large.
const MOST_BYTES: u64 = 16 << 30;

/// How often and how soon a broken download is tried again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Tries in a row that bring nothing, after which it is given up.
    pub(crate) tries: u32,
    /// Before the second try; three times as long before each further one.
    pub(crate) pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { tries: 4, pause: Duration::from_secs(1) }
    }
}

/// Why a download failed, and whether another address may help.
enum Failure {
    /// This address is of no use.
    Address(String),
    /// The folder is: nothing else will help.
    Here(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::Here(error)
    }
}

/// Downloads to `target`, which is there with the right content or not at all.
///
/// What was downloaded before an interruption lies in `target` + `.part`, and the next call goes on from there. Where the
/// manifest lists no whole SHA-256, that of the file is kept beside it at the first fetch.
///
/// # Errors
/// If no address has the file, what came is not the file, or it cannot be written; each names address, file and way out.
pub(crate) fn fetch(download: &Download, target: &Path, patience: Patience) -> anyhow::Result<()> {
    let known = download.expected();
    let sums = [&known.sha256, &known.sha256_prefix, &known.md5];
    ensure!(
        sums.iter().any(|sum| sum.is_some()) || download.first_fetch || download.piece,
        "the manifest lists no sum of {}, and does not say `first_fetch`",
        download.path
    );
    let part = target.with_added_extension("part");
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let place = target.with_added_extension("lock");
    let lock = File::create(&place).with_context(|| format!("cannot write {}", place.display()))?;
    if let Err(TryLockError::WouldBlock) = lock.try_lock() {
        eprintln!("{}: another program downloads it; waiting ...", target.display());
        lock.lock().with_context(|| format!("cannot lock {}", place.display()))?;
    }
    let done = fetch_locked(download, target, &part, patience);
    // Only tidiness: a lock that is left over locks nothing.
    let _ = fs::remove_file(&place);
    done
}

fn fetch_locked(
    download: &Download,
    target: &Path,
    part: &Path,
    patience: Patience,
) -> anyhow::Result<()> {
    let mut failures = Vec::new();
    for url in &download.urls {
        match fetch_from(url, download, target, part, patience) {
            Ok(()) => {
                if !download.piece && download.expected().wants_kept() {
                    let kept = sums::keep(part, target)?;
                    if let Some(place) = kept {
                        println!(
                            "{}: the publisher prints no whole SHA-256; that of this first fetch is kept in {} and checked from \
                             now on",
                            download.path,
                            place.display()
                        );
                    }
                }
                return fs::rename(part, target)
                    .with_context(|| format!("cannot move {} into place", part.display()));
            }
            Err(Failure::Address(why)) => failures.push(format!("{url}: {why}")),
            Err(Failure::Here(error)) => return Err(error.context(format!("from {url}"))),
        }
    }
    bail!(
        "{} cannot be downloaded:\n  {}\n  way out: try again later (a new call goes on where this one ended), or get the file \
         by other means and put it at {}",
        download.path,
        failures.join("\n  "),
        target.display()
    )
}

/// Brings `part` to the listed content, from one address.
fn fetch_from(
    url: &str,
    download: &Download,
    target: &Path,
    part: &Path,
    patience: Patience,
) -> Result<(), Failure> {
    let expected = download.expected();
    let resumed = size(part) > 0;
    // All of it may be there already: a program that was stopped before the last step.
    let mut check = match download.bytes {
        Some(bytes) if size(part) >= bytes && resumed => expected.check(part, target)?,
        None if resumed && expected.compare(&sums::Sums::of(part)?) == Check::Right => {
            expected.check(part, target)?
        }
        _ => {
            whole(url, download, part, patience)?;
            refuse_page(url, download, part)?;
            expected.check(part, target)?
        }
    };
    // The first half may have been of another file; a download in one go has no such excuse.
    if matches!(check, Check::Wrong(_)) && resumed {
        remove(part)?;
        whole(url, download, part, patience)?;
        refuse_page(url, download, part)?;
        check = expected.check(part, target)?;
    }
    match check {
        Check::Wrong(why) => {
            remove(part)?;
            Err(Failure::Address(format!("not the file that the manifest lists: {why}")))
        }
        _ => Ok(()),
    }
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn remove(part: &Path) -> anyhow::Result<()> {
    if !part.exists() {
        return Ok(());
    }
    fs::remove_file(part).with_context(|| format!("cannot remove {}", part.display()))
}

/// A web page or a text in the place of a file is thrown away at once, whatever its address said.
fn refuse_page(url: &str, download: &Download, part: &Path) -> Result<(), Failure> {
    match content::refusal(part, &download.path)? {
        None => Ok(()),
        Some(why) => {
            remove(part)?;
            Err(Failure::Address(format!("{why}; open {url} in a browser to see what it wants")))
        }
    }
}

/// Brings the rest of the file, in as many tries as it takes while each brings something.
fn whole(url: &str, download: &Download, part: &Path, patience: Patience) -> Result<(), Failure> {
    let (mut failed, mut pause) = (0, patience.pause);
    let mut afresh = false;
    loop {
        let before = size(part);
        let Answer { code, status, words } = curl(url, download.bytes, part)?;
        let again = match (code, status) {
            (0, _) => return Ok(()),
            // The server does not go on in the middle, or has nothing behind it: from the start, once.
            (exit::NO_RANGES | exit::BAD_RESUME, _) | (exit::HTTP_ERROR, 416)
                if before > 0 && !afresh =>
            {
                afresh = true;
                remove(part)?;
                continue;
            }
            (exit::HTTP_ERROR, 408 | 425 | 429 | 500..) => {
                format!("the server is busy or broken (HTTP {status})")
            }
            (exit::HTTP_ERROR, 401 | 403) => {
                return Err(Failure::Address(format!("the server refuses it (HTTP {status})")));
            }
            (exit::HTTP_ERROR, _) => {
                let why = format!("the server has no such file (HTTP {status})");
                return Err(Failure::Address(why));
            }
            (exit::WRITE, _) => {
                return Err(Failure::Here(anyhow::anyhow!(
                    "{} cannot be written: is the disk full, or the folder read-only? {} needed; make room, or name another folder \
                     with --data or $POLYAD_DATA; a new call goes on where this one ended",
                    part.display(),
                    download.size()
                )));
            }
            (exit::TOO_LARGE, _) => {
                let most = download.bytes.unwrap_or(MOST_BYTES);
                return Err(Failure::Address(format!(
                    "the file there is larger than {most} bytes"
                )));
            }
            (exit::REDIRECTS, _) => {
                return Err(Failure::Address(
                    "leads from one address to another without end".into(),
                ));
            }
            (code, _) if exit::UNREACHABLE.contains(&code) => {
                let why = format!("the server cannot be reached; is there a network? ({words})");
                return Err(Failure::Address(why));
            }
            (code, _) if exit::CERTIFICATE.contains(&code) => {
                return Err(Failure::Address(format!("its certificate is not trusted ({words})")));
            }
            (code, _) if exit::BROKEN.contains(&code) => {
                format!("the connection broke off ({words})")
            }
            (code, _) => {
                return Err(Failure::Address(format!("curl ended with code {code} ({words})")));
            }
        };
        failed = if size(part) > before { 1 } else { failed + 1 };
        if failed >= patience.tries {
            let came = size(part);
            return Err(Failure::Address(format!("{again}; {came} bytes are kept")));
        }
        if failed == 1 {
            pause = patience.pause;
        }
        eprintln!("{url}: {again}; trying again ...");
        thread::sleep(pause);
        pause = pause.saturating_mul(3);
    }
}

/// What curl said.
struct Answer {
    code: i32,
    /// HTTP status of the last answer; 0 where there was none.
    status: u32,
    /// Its words for what went wrong.
    words: String,
}

/// Runs curl once, from the end of `part` if there is one, else from the start.
fn curl(url: &str, bytes: Option<u64>, part: &Path) -> anyhow::Result<Answer> {
    let mut command = Command::new("curl");
    // A secure address is not left for an open one.
    let redirects = if url.starts_with("https:") { "=https" } else { "=http,https" };
    command.args(["--location", "--max-redirs", "10", "--fail", "--connect-timeout", "20"]);
    command.args(["--proto", "=http,https", "--proto-redir", redirects]);
    // A connection on which nothing moves for a minute is dead.
    command.args(["--speed-limit", "1", "--speed-time", "60", "--continue-at", "-"]);
    command.args(["--max-filesize", &bytes.unwrap_or(MOST_BYTES).to_string()]);
    command.args(["--write-out", "%{http_code}"]);
    let bar = std::io::stderr().is_terminal();
    command.args(if bar { &["--progress-bar"][..] } else { &["--silent", "--show-error"] });
    command.arg("--output").arg(part).arg("--").arg(url);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(if bar { Stdio::inherit() } else { Stdio::piped() });
    let output = command
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .context("cannot start curl, which downloads data sets: install it (`apt install curl`)")?;
    let code = output
        .status
        .code()
        .context("curl was stopped; the next try goes on where this one ended")?;
    let status: u32 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0);
    // The page that tells of an error may itself be larger than a small file.
    let code = if code == exit::TOO_LARGE && status >= 400 { exit::HTTP_ERROR } else { code };
    let words = String::from_utf8_lossy(&output.stderr);
    let words = words.lines().last().unwrap_or_default().trim();
    let words = if words.is_empty() { format!("curl {code}") } else { words.to_owned() };
    Ok(Answer { code, status, words })
}

#[cfg(test)]
mod tests;
