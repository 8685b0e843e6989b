//! `cargo xtask check` and `cargo xtask ci`: format, lints, documentation, tests; cheapest first.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context as _;

use crate::{results, setup, test, workspace};

/// Whether `Cargo.lock` may be brought up to date on the way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    MayChange,
    Fixed,
}

pub(crate) fn run(lock: Lock) -> anyhow::Result<ExitCode> {
    let locked: &[&str] = if lock == Lock::Fixed { &["--locked"] } else { &[] };
    if let Some(failed) =
        step("Format", workspace::cargo_at_root().args(["fmt", "--all", "--check"]))?
    {
        eprintln!("`cargo fmt --all` puts it right.");
        return Ok(failed);
    }
    // The ops are declared by a macro, behind which rustfmt does not look.
    let mut ops = Command::new("rustfmt");
    ops.args(["--edition", "2024", "--check"]).args(op_files()?).current_dir(workspace::root());
    if let Some(failed) = step("Format of the ops", &mut ops)? {
        eprintln!("`rustfmt --edition 2024 {OPS}/*.rs` puts it right.");
        return Ok(failed);
    }
    eprintln!("== Recorded results");
    if results::run(&results::ResultsCommand::Check)? != ExitCode::SUCCESS {
        return Ok(ExitCode::FAILURE);
    }
    setup::ensure()?;
    let mut clippy = workspace::cargo_at_root();
    clippy
        .args(["clippy", "--workspace", "--all-targets"])
        .args(locked)
        .args(["--", "-D", "warnings"]);
    if let Some(failed) = step("Lints", &mut clippy)? {
        return Ok(failed);
    }
    let mut doc = workspace::cargo_at_root();
    doc.args(["doc", "--workspace", "--no-deps"]).args(locked).env("RUSTDOCFLAGS", "-D warnings");
    if let Some(failed) = step("Documentation", &mut doc)? {
        return Ok(failed);
    }
    eprintln!("== Tests");
    test::run(&locked.iter().map(Into::into).collect::<Vec<_>>())
}

/// The folder of the ops.
const OPS: &str = "crates/cp-net/src/op";

fn op_files() -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(workspace::root().join(OPS)).with_context(|| OPS.to_string())? {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

/// Runs one step; its exit code if it failed.
fn step(name: &str, command: &mut Command) -> anyhow::Result<Option<ExitCode>> {
    eprintln!("== {name}");
    let status = workspace::run(command)?;
    Ok((!status.success()).then(|| workspace::exit_code(status)))
}
