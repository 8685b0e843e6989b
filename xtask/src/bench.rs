//! `cargo xtask bench`: the benchmarks of the workspace.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::{engines, onnxruntime, peers, setup, workspace};

pub(crate) const EXAMPLES: &str = "\
Examples:
  cargo xtask bench                            all of them (long; close other programs)
  cargo xtask bench -p cp-core -- mttkrp       those of one crate whose id contains a word
  cargo xtask bench peers                      cp-core beside TensorLy, pyttb and NumPy (needs python3 with venv)
  cargo xtask bench engines                    networks in libtorch, ONNX Runtime, cp-infer, OpenVINO, ncnn and tract (likewise)
The arguments are cargo bench's; recorded runs are in benches/ and docs/.";

pub(crate) fn run(args: &[OsString]) -> anyhow::Result<ExitCode> {
    match args.split_first() {
        Some((first, rest)) if first == "peers" => return peers::run(rest),
        Some((first, rest)) if first == "engines" => return engines::run(rest),
        _ => {}
    }
    setup::ensure()?;
    let mut command = workspace::cargo_at_root();
    command.arg("bench");
    if !names_packages(args) {
        command.arg("--workspace");
    }
    onnxruntime::point(&mut command, &workspace::root());
    Ok(workspace::exit_code(workspace::run(command.args(args))?))
}

/// Whether cargo's arguments pick packages themselves.
pub(crate) fn names_packages(args: &[OsString]) -> bool {
    let ours = args.iter().take_while(|arg| *arg != "--").map(|arg| arg.to_string_lossy());
    ours.into_iter().any(|arg| {
        ["--package", "--workspace"].iter().any(|flag| arg.starts_with(flag))
            || (arg.starts_with("-p") && !arg.starts_with("--"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_recognized() {
        let check = |args: &[&str], expected| {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            assert_eq!(names_packages(&args), expected, "{args:?}");
        };
        check(&[], false);
        check(&["--no-fail-fast", "resume"], false);
        check(&["-p", "cp-core"], true);
        check(&["-pcp-core"], true);
        check(&["--package=cp-core"], true);
        check(&["--", "-p"], false);
    }
}
