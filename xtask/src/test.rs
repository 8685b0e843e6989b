//! `cargo xtask test`: the tests of the workspace, and what they had to skip.
//!
//! A test that needs real data, or a Python with PyTorch, and finds none does not fail: it prints a line `skipped: why` and
//! returns. The summary at the end lists these lines, so that a green run cannot hide what it did not look at.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, ensure};

use crate::{bench, docs_python, onnxruntime, peers, setup, workspace};

/// Names a folder of data sets to tests.
const DATA_VARIABLE: &str = "POLYAD_DATA";
/// Names a Python with PyTorch and safetensors to tests.
const PYTHON_VARIABLE: &str = "POLYAD_PYTHON";

pub(crate) const EXAMPLES: &str = "\
Examples:
  cargo xtask test                             everything
  cargo xtask test -p cp-core                  one crate
  cargo xtask test resume                      tests whose name contains a word
  POLYAD_DATA=~/data cargo xtask test          also those that need the real data sets
  POLYAD_PYTHON=python3 cargo xtask test       also those that need PyTorch; target/peers is found by itself
The arguments are cargo test's.";

pub(crate) fn run(args: &[OsString]) -> anyhow::Result<ExitCode> {
    if let Some(named) = std::env::var_os(DATA_VARIABLE).filter(|named| !named.is_empty()) {
        let named = PathBuf::from(named);
        ensure!(named.is_dir(), "${DATA_VARIABLE} {}: no such folder", named.display());
    }
    setup::ensure()?;
    docs_python::ensure_if_possible(&workspace::root());
    let mut report = Report::default();
    // The program without libtorch first: what lies in target/ at the end is then the whole one.
    let plain = if args.is_empty() { run_one(plain(), &mut report)? } else { ExitCode::SUCCESS };
    let mut command = workspace::cargo_at_root();
    command.args(["test", "--no-fail-fast"]);
    if !bench::names_packages(args) {
        command.arg("--workspace");
    }
    command.args(args);
    if !args.iter().any(|arg| arg == "--") {
        command.arg("--");
    }
    if std::env::var_os(PYTHON_VARIABLE).is_none()
        && let Some(python) = peers::python_with_torch()
    {
        command.env(PYTHON_VARIABLE, python);
    }
    let all = run_one(command, &mut report)?;
    print!("{}", report.summary());
    let failed = [plain, all].into_iter().find(|code| *code != ExitCode::SUCCESS);
    if failed.is_some() {
        println!("The tests did not pass: see above.");
    }
    Ok(failed.unwrap_or(ExitCode::SUCCESS))
}

/// The tests of `polyad` as it is without its feature `torch`. Built with the crates beside it, so that cargo chooses the same features of
/// all that they depend on, and little is built twice.
fn plain() -> Command {
    let mut command = workspace::cargo_at_root();
    command.args(["test", "--workspace", "--exclude", "cp-experiments", "--exclude", "cp-torch"]);
    command.args(["--no-default-features", "--test", "plain", "--"]);
    command
}

/// Runs tests, whose output is shown and counted.
fn run_one(mut command: Command, report: &mut Report) -> anyhow::Result<ExitCode> {
    onnxruntime::point(&mut command, &workspace::root());
    // Shows what tests that passed have printed: figures that were measured, and why something was skipped.
    command.arg("--show-output").stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start cargo")?;
    if let Some(output) = child.stdout.take() {
        let mut ours = io::stdout().lock();
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("cannot read the output of the tests")?;
            report.add(&String::from_utf8_lossy(&line));
            ours.write_all(&line)?;
            ours.write_all(b"\n")?;
        }
    }
    Ok(workspace::exit_code(child.wait()?))
}

/// What the output of all test programs comes to.
#[derive(Debug, Default)]
struct Report {
    passed: usize,
    failed: usize,
    ignored: usize,
    /// Tests that skipped their work, and why.
    skipped: Vec<String>,
    /// The test whose output is being read.
    current: String,
}

impl Report {
    fn add(&mut self, line: &str) {
        if let Some(name) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            name.clone_into(&mut self.current);
        } else if let Some(why) = line.strip_prefix("skipped: ") {
            self.skipped.push(format!("{}: {why}", self.current));
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.add_counts(counts);
        }
    }

    /// `ok. 3 passed; 0 failed; 1 ignored; …`
    fn add_counts(&mut self, counts: &str) {
        let Some((_, counts)) = counts.split_once(". ") else { return };
        for count in counts.split(';') {
            let mut words = count.split_whitespace();
            let Some(number) = words.next().and_then(|word| word.parse::<usize>().ok()) else {
                continue;
            };
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                Some("ignored") => self.ignored += number,
                _ => {}
            }
        }
    }

    /// What is printed at the end; a test that skipped its work does not count as passed.
    fn summary(mut self) -> String {
        self.skipped.sort_unstable();
        self.skipped.dedup();
        let mut text = String::from("\n");
        if !self.skipped.is_empty() {
            text.push_str("Skipped:\n");
            for line in &self.skipped {
                text.push_str(&format!("  {line}\n"));
            }
            let (python, data): (Vec<_>, Vec<_>) =
                self.skipped.iter().partition(|line| line.contains(PYTHON_VARIABLE));
            if !data.is_empty() {
                text.push_str("POLYAD_DATA names a folder of data sets to tests; `cargo xtask datasets list` shows them.\n");
            }
            if !python.is_empty() {
                text.push_str("POLYAD_PYTHON names a Python to tests that has torch and safetensors (`pip install torch safetensors`).\n");
            }
            text.push('\n');
        }
        let skipped = self.skipped.len();
        let passed = self.passed.saturating_sub(skipped);
        text + &format!(
            "{passed} passed, {} failed, {} skipped\n",
            self.failed,
            skipped + self.ignored
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(output: &str) -> String {
        let mut report = Report::default();
        output.lines().for_each(|line| report.add(line));
        report.summary()
    }

    #[test]
    fn closing_lines_add_up() {
        let output = "\
running 3 tests
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s
test tests::result ... ok
test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.00s";
        assert_eq!(summary(output), "\n7 passed, 2 failed, 1 skipped\n");
    }

    #[test]
    fn skipped_tests_are_named_and_not_counted_as_passed() {
        let output = "\
successes:

---- resnet56 stdout ----
skipped: no CIFAR-10

---- accuracy stdout ----
91.5 %

---- resnet20 stdout ----
skipped: no CIFAR-10

---- loader stdout ----
skipped: POLYAD_PYTHON not set


successes:
    resnet20
test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s";
        let text = summary(output);
        assert!(
            text.contains("  resnet20: no CIFAR-10\n  resnet56: no CIFAR-10\nPOLYAD_DATA names"),
            "{text}"
        );
        assert!(text.contains("Skipped:\n  loader: POLYAD_PYTHON not set\n"), "{text}");
        assert!(text.contains("\nPOLYAD_PYTHON names a Python"), "{text}");
        assert!(text.ends_with("\n4 passed, 0 failed, 3 skipped\n"), "{text}");
    }
}
