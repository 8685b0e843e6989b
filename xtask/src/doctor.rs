//! `cargo xtask doctor`: what was found, what is wanted, and the way out.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fmt};

use crate::install::{State, free_space};
use crate::libtorch::{self, Source};
use crate::{manifest, onnxruntime, pip as wheels, workspace};

/// How one thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// Something does not work, but nothing that is needed.
    Note,
    /// Something that is needed is not there.
    Bad,
}

/// One line of the answer.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    found: String,
    way_out: String,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Finding { what, verdict: Verdict::Good, found: found.into(), way_out: String::new() }
    }

    fn note(what: &'static str, found: impl Into<String>, way_out: impl Into<String>) -> Self {
        Finding { what, verdict: Verdict::Note, found: found.into(), way_out: way_out.into() }
    }

    fn bad(what: &'static str, found: impl Into<String>, way_out: impl Into<String>) -> Self {
        Finding { what, verdict: Verdict::Bad, found: found.into(), way_out: way_out.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Good => "ok",
            Verdict::Note => "note",
            Verdict::Bad => "MISSING",
        };
        write!(f, "{verdict:<8} {:<13} {}", self.what, self.found)?;
        if !self.way_out.is_empty() {
            write!(f, "\n{:23}-> {}", "", self.way_out)?;
        }
        Ok(())
    }
}

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let root = workspace::root();
    let source = Source::here(&root);
    let torch = torch(&root, &source);
    // pip has done its work once libtorch is there.
    let pip_needed = source == Source::Managed && torch.verdict != Verdict::Good;
    let mut findings = vec![
        rust(first_line("rustc", ["--version"]).as_deref()),
        compiler(&env::var("CXX").unwrap_or_else(|_| "c++".into())),
        linker(first_line("cc", ["--version"]).as_deref()),
    ];
    findings.extend(glibc(first_line("getconf", ["GNU_LIBC_VERSION"]).as_deref()));
    findings.push(python(first_line("python3", ["--version"]), pip_needed));
    findings.push(pip(first_line("python3", ["-m", "pip", "--version"]), pip_needed));
    if pip_needed {
        findings.extend(free_space(&root).map(disk));
    }
    findings.push(torch);
    findings.push(onnx_runtime(&root, &onnxruntime::Source::here()));
    findings.push(cuda());
    findings.push(curl(first_line("curl", ["--version"]).as_deref()));
    findings.push(data(&root));
    for finding in &findings {
        println!("{finding}");
    }
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    if bad > 0 {
        println!("\n{bad} missing: see the lines with an arrow.");
        return Ok(ExitCode::FAILURE);
    }
    println!("\nEverything needed is here.");
    Ok(ExitCode::SUCCESS)
}

/// The first line that a program prints, if it runs and succeeds.
fn first_line<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| text.lines().next().unwrap_or_default().trim().to_owned())
}

/// The first two numbers of a version within a text.
fn version(text: &str) -> Option<(u32, u32)> {
    let words = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    words.filter_map(|word| word.split_once('.')).find_map(|(major, rest)| {
        let minor = rest.split('.').next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

fn rust(found: Option<&str>) -> Finding {
    let wanted = env!("CARGO_PKG_RUST_VERSION");
    match found {
        Some(line) if version(line) >= version(wanted) => Finding::good("Rust", line),
        Some(line) => {
            Finding::bad("Rust", format!("{line}; wanted: {wanted} or later"), "rustup update")
        }
        None => Finding::bad("Rust", "no rustc", "install Rust from https://rustup.rs"),
    }
}

/// libtorch's headers are C++17, which GCC has in full since version 9.
fn compiler(program: &str) -> Finding {
    let way_out = "install a C++ compiler: `apt install g++` (Debian, Ubuntu), `dnf install gcc-c++` (Fedora), \
                   `pacman -S gcc` (Arch); or name yours in CXX";
    let Some(line) = first_line(program, ["--version"]) else {
        return Finding::bad("C++ compiler", format!("no {program}"), way_out);
    };
    let major = first_line(program, ["-dumpversion"])
        .and_then(|line| line.split('.').next()?.parse::<u32>().ok());
    let gcc = !line.contains("clang");
    if gcc && major.is_some_and(|major| major < 9) {
        return Finding::bad(
            "C++ compiler",
            format!("{line}; wanted: GCC 9 or later, or clang"),
            way_out,
        );
    }
    Finding::good("C++ compiler", line)
}

fn linker(found: Option<&str>) -> Finding {
    match found {
        Some(line) => Finding::good("linker", line),
        None => Finding::bad(
            "linker",
            "no cc",
            "install a C compiler: `apt install gcc` (Debian, Ubuntu)",
        ),
    }
}

/// `None` where this is no glibc system.
fn glibc(found: Option<&str>) -> Option<Finding> {
    let line = found?;
    let new = version(line) >= Some((2, 28));
    Some(if new {
        Finding::good("C library", line)
    } else {
        Finding::bad(
            "C library",
            format!("{line}; libtorch wants glibc 2.28 or later"),
            "use a newer system",
        )
    })
}

fn python(found: Option<String>, needed: bool) -> Finding {
    match found {
        Some(line) => Finding::good("Python", line),
        None if needed => {
            Finding::bad("Python", "no python3, which fetches libtorch", wheels::GET_PYTHON)
        }
        None => Finding::good("Python", "no python3; not needed, libtorch is there"),
    }
}

fn pip(found: Option<String>, needed: bool) -> Finding {
    match found {
        Some(line) => Finding::good("pip", line.split(" from ").next().unwrap_or(&line)),
        None if needed => Finding::bad("pip", "no pip, which fetches libtorch", wheels::GET_PYTHON),
        None => Finding::good("pip", "no pip; not needed, libtorch is there"),
    }
}

/// `free` in MiB; the builds of the workspace take more than libtorch.
fn disk(free: u64) -> Finding {
    let found = format!("{:.1} GiB free", free as f64 / 1024.0);
    if free < 6 * 1024 {
        return Finding::note(
            "disk",
            found,
            "libtorch takes 2 GB while it is set up and a full build 4 GB: make room",
        );
    }
    Finding::good("disk", found)
}

fn torch(root: &Path, source: &Source) -> Finding {
    const WHAT: &str = "libtorch";
    match source {
        Source::Managed => match libtorch::KIT.state(root) {
            State::Ready => Finding::good(WHAT, format!("{} in .libtorch/", libtorch::VERSION)),
            State::Missing => Finding::bad(WHAT, "not set up", "cargo xtask setup"),
            State::Stale(why) => {
                Finding::bad(WHAT, format!(".libtorch/ is of no use: {why}"), "cargo xtask setup")
            }
        },
        Source::Folder { include, lib } => {
            let bypass = env::var_os("LIBTORCH_BYPASS_VERSION_CHECK").is_some();
            if let Err(error) = libtorch::check_folder(include, bypass) {
                return Finding::bad(WHAT, "your own, of no use", error.to_string());
            }
            let library = lib.join("lib/libtorch_cpu.so");
            if cfg!(target_os = "linux") && !library.is_file() {
                return Finding::bad(
                    WHAT,
                    format!("your own, without {}", library.display()),
                    "correct LIBTORCH",
                );
            }
            let version = libtorch::header_version(include).unwrap_or_default();
            Finding::good(WHAT, format!("{version}, your own: {}", include.display()))
        }
        Source::PyTorch => {
            // The interpreter that torch-sys asks.
            let python = if env::var_os("VIRTUAL_ENV").is_some() { "python" } else { "python3" };
            pytorch(first_line(python, ["-c", "import torch; print(torch.__version__)"]))
        }
    }
}

/// Judges the PyTorch of the user's Python, by the version that it gives itself (`2.11.0+cu130`).
fn pytorch(found: Option<String>) -> Finding {
    const WHAT: &str = "libtorch";
    let wanted = libtorch::VERSION;
    let Some(found) = found else {
        let way_out = format!(
            "pip install torch=={wanted}; or unset LIBTORCH_USE_PYTORCH and run `cargo xtask setup`"
        );
        return Finding::bad(
            WHAT,
            "LIBTORCH_USE_PYTORCH is set, but Python cannot import torch",
            way_out,
        );
    };
    if found.split('+').next() == Some(wanted)
        || env::var_os("LIBTORCH_BYPASS_VERSION_CHECK").is_some()
    {
        return Finding::good(WHAT, format!("{found}, of your Python"));
    }
    let way_out = format!(
        "pip install torch=={wanted}; or unset LIBTORCH_USE_PYTORCH and run `cargo xtask setup`"
    );
    Finding::bad(WHAT, format!("{found}, of your Python; wanted: {wanted}"), way_out)
}

/// ONNX Runtime is what networks are timed in on the CPU; everything else works without.
fn onnx_runtime(root: &Path, source: &onnxruntime::Source) -> Finding {
    const WHAT: &str = "ONNX Runtime";
    match source {
        onnxruntime::Source::Managed => match onnxruntime::KIT.state(root) {
            State::Ready => {
                Finding::good(WHAT, format!("{} in .onnxruntime/", onnxruntime::VERSION))
            }
            State::Missing => Finding::note(
                WHAT,
                "not set up; all that does not run in it works",
                format!("cargo xtask setup; or {}", onnxruntime::KIT.own),
            ),
            State::Stale(why) => Finding::note(
                WHAT,
                format!(".onnxruntime/ is of no use: {why}"),
                "cargo xtask setup",
            ),
        },
        onnxruntime::Source::Own { variable, path } if path.exists() => {
            Finding::good(WHAT, format!("your own: {variable}={}", path.display()))
        }
        onnxruntime::Source::Own { variable, path } => Finding::bad(
            WHAT,
            format!("your own, but {variable}={} is not there", path.display()),
            format!("correct or unset {variable}"),
        ),
    }
}

/// A GPU is welcome, never needed.
fn cuda() -> Finding {
    const WHAT: &str = "CUDA";
    let gpu = first_line("nvidia-smi", ["--query-gpu=name", "--format=csv,noheader"])
        .filter(|line| !line.is_empty());
    let Some(gpu) = gpu else { return Finding::good(WHAT, "no GPU; networks run on the CPU") };
    if let Some(named) = env::var_os("POLYAD_LIBTORCH_CUDA").map(PathBuf::from) {
        return if named.is_file() {
            Finding::good(WHAT, format!("{gpu}; {}", named.display()))
        } else {
            Finding::note(
                WHAT,
                format!("{gpu}, but no {}", named.display()),
                "correct or unset POLYAD_LIBTORCH_CUDA",
            )
        };
    }
    // Importing torch takes seconds; its version file and its folder do not.
    let find =
        "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])";
    let folder = first_line("python3", ["-c", find]).map(PathBuf::from);
    let library =
        folder.map(|folder| folder.join("lib/libtorch_cuda.so")).filter(|path| path.is_file());
    let way_out = match library {
        Some(path) => format!("to use it: export POLYAD_LIBTORCH_CUDA={}", path.display()),
        None => format!(
            "to use it: pip install torch=={}, then let POLYAD_LIBTORCH_CUDA name its torch/lib/libtorch_cuda.so",
            libtorch::VERSION
        ),
    };
    Finding::note(WHAT, format!("{gpu}, not in use"), way_out)
}

fn curl(found: Option<&str>) -> Finding {
    match found {
        Some(line) => Finding::good("curl", line.split(" (").next().unwrap_or(line)),
        None => Finding::note(
            "curl",
            "none; it downloads data sets",
            "apt install curl (not needed for the demo)",
        ),
    }
}

/// Real data is welcome, never needed.
fn data(root: &Path) -> Finding {
    const WHAT: &str = "data sets";
    let list = "cargo xtask datasets list";
    if let Some(named) = env::var_os("POLYAD_DATA").map(PathBuf::from)
        && !named.is_dir()
    {
        return Finding::bad(
            WHAT,
            format!("POLYAD_DATA={} is no folder", named.display()),
            "correct or unset POLYAD_DATA",
        );
    }
    let (Ok(places), Ok(manifests)) = (manifest::places(root, None), manifest::all(root)) else {
        return Finding::bad(WHAT, "datasets/*.toml cannot be read", list);
    };
    let here: Vec<String> = manifests
        .into_iter()
        .filter(|manifest| {
            manifest.files.iter().any(|file| file.find(&manifest.folder, &places).is_some())
        })
        .map(|manifest| manifest.name)
        .collect();
    if here.is_empty() {
        return Finding::note(WHAT, "none on disk; the demo draws its own", list);
    }
    Finding::good(WHAT, here.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_within_text() {
        let check = |text, expected| assert_eq!(version(text), expected, "{text}");
        check("rustc 1.95.0 (f2d3ce0bd 2026-03-21)", Some((1, 95)));
        check("1.95", Some((1, 95)));
        check("glibc 2.36", Some((2, 36)));
        check("Python 3.11.7", Some((3, 11)));
        check("none", None);
    }

    #[test]
    fn verdicts() {
        let check = |finding: Finding, verdict, words: &str| {
            assert_eq!(finding.verdict, verdict, "{finding}");
            assert!(finding.to_string().contains(words), "{finding}");
            assert_eq!(finding.way_out.is_empty(), verdict == Verdict::Good, "{finding}");
        };
        check(rust(Some("rustc 1.95.0 (abc)")), Verdict::Good, "1.95.0");
        check(rust(Some("rustc 1.80.1 (abc)")), Verdict::Bad, "rustup update");
        check(rust(None), Verdict::Bad, "rustup.rs");
        check(glibc(Some("glibc 2.36")).unwrap(), Verdict::Good, "2.36");
        check(glibc(Some("glibc 2.17")).unwrap(), Verdict::Bad, "2.28");
        assert_eq!(glibc(None), None);
        check(python(None, true), Verdict::Bad, "apt install python3 python3-pip");
        check(python(None, false), Verdict::Good, "not needed");
        check(
            pip(Some("pip 23.2.1 from /x (python 3.11)".into()), true),
            Verdict::Good,
            "pip 23.2.1",
        );
        check(pip(None, true), Verdict::Bad, "apt install python3 python3-pip");
        check(compiler("no-such-compiler"), Verdict::Bad, "apt install g++");
        check(pytorch(Some("2.11.0+cu130".into())), Verdict::Good, "2.11.0+cu130");
        check(pytorch(Some("2.9.1".into())), Verdict::Bad, "torch==2.11.0");
        check(pytorch(None), Verdict::Bad, "cannot import torch");
        check(disk(1024), Verdict::Note, "1.0 GiB");
        check(disk(100 * 1024), Verdict::Good, "100.0 GiB");
        check(curl(None), Verdict::Note, "apt install curl");
    }

    #[test]
    fn libtorch_is_judged_where_it_is_looked_for() {
        let root = tempfile::tempdir().unwrap();
        let managed = torch(root.path(), &Source::Managed);
        assert_eq!(
            (managed.verdict, managed.way_out.as_str()),
            (Verdict::Bad, "cargo xtask setup")
        );
        let own = Source::Folder { include: root.path().into(), lib: root.path().into() };
        let own = torch(root.path(), &own);
        assert_eq!(own.verdict, Verdict::Bad);
        assert!(own.way_out.contains("holds no libtorch"), "{own}");
    }

    #[test]
    fn onnx_runtime_is_no_need_but_a_variable_must_be_right() {
        let root = tempfile::tempdir().unwrap();
        let managed = onnx_runtime(root.path(), &onnxruntime::Source::Managed);
        assert_eq!(managed.verdict, Verdict::Note);
        assert!(managed.way_out.contains("cargo xtask setup"), "{managed}");
        std::fs::create_dir(onnxruntime::KIT.folder(root.path())).unwrap();
        let stale = onnx_runtime(root.path(), &onnxruntime::Source::Managed);
        assert!(stale.found.contains("of no use"), "{stale}");
        let own = |path: PathBuf| onnxruntime::Source::Own { variable: "ORT_DYLIB_PATH", path };
        let there = onnx_runtime(root.path(), &own(root.path().into()));
        assert_eq!(there.verdict, Verdict::Good, "{there}");
        let not_there = onnx_runtime(root.path(), &own(root.path().join("none")));
        assert_eq!(not_there.verdict, Verdict::Bad, "{not_there}");
        assert!(not_there.way_out.contains("unset ORT_DYLIB_PATH"), "{not_there}");
    }
}
