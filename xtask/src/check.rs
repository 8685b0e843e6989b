//! `cargo xtask check` and `cargo xtask ci`: format, lints, documentation, tests; cheapest first.

use std::process::{Command, ExitCode};

use crate::{setup, test, workspace};

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

/// Runs one step; its exit code if it failed.
fn step(name: &str, command: &mut Command) -> anyhow::Result<Option<ExitCode>> {
    eprintln!("== {name}");
    let status = workspace::run(command)?;
    Ok((!status.success()).then(|| workspace::exit_code(status)))
}
