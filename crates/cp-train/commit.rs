//! For build scripts of programs: the commit that they are built from, as `POLYAD_COMMIT`.

use std::process::Command;

/// Sets `POLYAD_COMMIT` to the commit of the checkout, with ` dirty` behind it where the sources differ; nothing outside a checkout.
pub(crate) fn tell() {
    println!("cargo:rerun-if-changed=../cp-train/commit.rs");
    // What is committed, checked out or changed makes another program.
    println!("cargo:rerun-if-changed=..");
    if let Some(log) = git(&["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={log}");
    }
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return };
    let changes = git(&["status", "--porcelain", "--untracked-files=no"]).unwrap_or_default();
    let dirty = if changes.is_empty() { "" } else { " dirty" };
    println!("cargo:rustc-env=POLYAD_COMMIT={commit}{dirty}");
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
