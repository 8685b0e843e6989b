//! Wheels by way of pip, and what its messages mean.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

/// How to get Python and pip.
pub(crate) const GET_PYTHON: &str = "install Python 3 with pip: `apt install python3 python3-pip` (Debian, Ubuntu), \
    `dnf install python3 python3-pip` (Fedora), `pacman -S python python-pip` (Arch)";

/// Wheels of exact versions and checksums.
#[derive(Clone, Copy)]
pub(crate) struct Wheels<'a> {
    /// What they bring, for messages.
    pub(crate) name: &'a str,
    /// As pip reads them.
    pub(crate) requirements: &'a str,
    /// The tags of the platform that pip may choose among.
    pub(crate) platforms: &'a [String],
    /// How to go without them.
    pub(crate) own: &'a str,
}

/// Whether a Python has pip.
pub(crate) fn look_for(python: &OsStr, wheels: Wheels<'_>) -> anyhow::Result<()> {
    let Wheels { name, own, .. } = wheels;
    let found = Command::new(python).args(["-m", "pip", "--version"]).output();
    let Ok(output) = found else {
        bail!("there is no python3, which fetches {name}: {GET_PYTHON}; or {own}")
    };
    ensure!(
        output.status.success(),
        "python3 has no pip, which fetches {name}: {GET_PYTHON}; or {own}"
    );
    Ok(())
}

/// Lets pip put the wheels into `part/site`. Its standard error is shown and kept, for a word on what went wrong.
pub(crate) fn install(python: &OsStr, wheels: Wheels<'_>, part: &Path) -> anyhow::Result<()> {
    let requirements = part.join("requirements.txt");
    fs::write(&requirements, wheels.requirements)?;
    let mut pip = Command::new(python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
        "--no-compile",
    ]);
    // The libraries are the same for every Python, so one set of wheels serves all, also for a Python without wheels.
    pip.args(["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]);
    for platform in wheels.platforms {
        pip.arg("--platform").arg(platform);
    }
    pip.arg("--require-hashes").arg("--target").arg(part.join("site")).arg("-r").arg(requirements);
    // pip unpacks in the folder for temporary files, which may be a small file system in memory.
    pip.env("TMPDIR", part.join("tmp")).env("PIP_ROOT_USER_ACTION", "ignore");
    let mut child =
        pip.stderr(Stdio::piped()).stdin(Stdio::null()).spawn().context("cannot start python3")?;
    let mut messages = String::new();
    if let Some(errors) = child.stderr.take() {
        for line in BufReader::new(errors).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            eprintln!("{line}");
            messages.push_str(&line);
            messages.push('\n');
        }
    }
    if child.wait()?.success() {
        return Ok(());
    }
    let way_out = diagnose(&messages).unwrap_or("see what pip says above");
    let Wheels { name, own, .. } = wheels;
    bail!("pip could not install {name}: {way_out}. Then run `cargo xtask setup` again; or {own}")
}

/// What pip's messages mean for the user.
fn diagnose(messages: &str) -> Option<&'static str> {
    let causes: [(&[&str], &str); 7] = [
        (
            &["No space left on device", "Errno 28", "Disk quota exceeded"],
            "the disk is full: make room for 2 GB",
        ),
        (
            &["DO NOT MATCH THE HASHES"],
            "a download is damaged, or the package index has other files under these versions: run `python3 -m pip cache purge`",
        ),
        (
            &["no such option", "unrecognized arguments"],
            "this pip is too old: run `python3 -m pip install --upgrade pip`",
        ),
        (
            &["CERTIFICATE_VERIFY_FAILED", "SSLError"],
            "the certificate of the package index is not trusted here: set PIP_CERT to the one of your network",
        ),
        (
            &[
                // What is left of it with retries switched off.
                "(from versions: none)",
                "NewConnectionError",
                "Max retries exceeded",
                "Temporary failure in name resolution",
                "Network is unreachable",
                "ConnectTimeout",
                "ReadTimeoutError",
                "ProxyError",
                "Connection refused",
            ],
            "the package index cannot be reached: check the network, HTTPS_PROXY and pip's configuration",
        ),
        (
            &["Permission denied", "Read-only file system"],
            "the folder of the workspace cannot be written to",
        ),
        (
            &["No matching distribution", "Could not find a version"],
            "the package index does not have these wheels: name another in PIP_INDEX_URL",
        ),
    ];
    causes
        .iter()
        .find(|(signs, _)| signs.iter().any(|sign| messages.contains(sign)))
        .map(|(_, way_out)| *way_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_pip_are_understood() {
        let check = |message: &str, expected: &str| {
            let found = diagnose(message).unwrap_or_default();
            assert!(found.contains(expected), "{message}: {found}");
        };
        check(
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "disk is full",
        );
        // Offline, pip ends with the last line, but the first says why.
        check(
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)'\n\
             ERROR: No matching distribution found for torch==2.11.0",
            "cannot be reached",
        );
        check(
            "ERROR: No matching distribution found for torch==2.11.0",
            "does not have these wheels",
        );
        check(
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
            "damaged",
        );
        check("no such option: --platform", "too old");
        assert_eq!(diagnose("something else"), None);
    }
}
