//! `cargo xtask setup`: libtorch from the Python package index, into `.libtorch/`.
//!
//! pip fetches three wheels of exact versions and checksums; the headers and the libraries of the CPU are kept, the rest
//! (the Python files and the CUDA half, more than half a gigabyte) is thrown away. All of it happens in a folder beside,
//! which is renamed when the library has been loaded once, so an interrupted set-up leaves nothing that looks whole, and
//! the next one starts over with what pip has in its cache.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use crate::libtorch::{self, Source, State};
use crate::workspace;

#[derive(Args)]
pub(crate) struct SetupArgs {
    /// Install again even if everything is in place
    #[arg(long)]
    force: bool,
}

/// Disk space that the installation takes while it runs, in MiB; a quarter of it stays.
const SPACE: u64 = 2000;

/// Loads the library by its path; run by Python, which is there anyway.
const LOAD: &str = "import ctypes, sys; ctypes.CDLL(sys.argv[1])";

/// How to get Python and pip.
pub(crate) const GET_PYTHON: &str = "install Python 3 with pip: `apt install python3 python3-pip` (Debian, Ubuntu), \
    `dnf install python3 python3-pip` (Fedora), `pacman -S python python-pip` (Arch)";

/// How to go without the managed libtorch.
const OWN: &str = "point LIBTORCH at a libtorch 2.11.0 of your own, or set LIBTORCH_USE_PYTORCH=1 where Python has torch 2.11.0";

pub(crate) fn run(args: &SetupArgs) -> anyhow::Result<ExitCode> {
    let root = workspace::root();
    if args.force && Source::here(&root) == Source::Managed {
        Installer::here(root)?.install(true)?;
    } else {
        ensure()?;
    }
    match Source::here(&workspace::root()) {
        Source::Managed => println!("libtorch {} is ready in .libtorch/.", libtorch::VERSION),
        Source::Folder { include, .. } => {
            println!("Your own libtorch is used ({}): nothing to install.", include.display());
        }
        Source::PyTorch => println!(
            "The PyTorch of your Python is used (LIBTORCH_USE_PYTORCH): nothing to install."
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes sure that there is a libtorch to build against. Costs nothing where there is one.
pub(crate) fn ensure() -> anyhow::Result<()> {
    let root = workspace::root();
    match Source::here(&root) {
        Source::Managed if libtorch::state(&root) == State::Ready => Ok(()),
        Source::Managed => Installer::here(root)?.install(false),
        // torch-sys asks Python for the version itself.
        Source::PyTorch => Ok(()),
        Source::Folder { include, .. } => {
            let bypass = std::env::var_os("LIBTORCH_BYPASS_VERSION_CHECK").is_some();
            check_folder(&include, bypass)
        }
    }
}

/// Whether a folder of the user's is a libtorch that we can build against.
pub(crate) fn check_folder(folder: &Path, bypass: bool) -> anyhow::Result<()> {
    let Some(version) = libtorch::header_version(folder) else {
        bail!(
            "LIBTORCH={} holds no libtorch (include/torch/…/version.h); correct it, or unset it and run `cargo xtask setup`",
            folder.display()
        );
    };
    ensure!(
        version == libtorch::VERSION || bypass,
        "LIBTORCH={} is libtorch {version}, but {} is needed; unset it to use the managed one, or set \
         LIBTORCH_BYPASS_VERSION_CHECK=1 to try all the same",
        folder.display(),
        libtorch::VERSION
    );
    Ok(())
}

/// An installation into a workspace by a Python.
struct Installer {
    root: PathBuf,
    python: OsString,
    /// As in the names of wheels: `x86_64` or `aarch64`.
    arch: &'static str,
}

impl Installer {
    fn here(root: PathBuf) -> anyhow::Result<Self> {
        let arch = arch(std::env::consts::OS, std::env::consts::ARCH, cfg!(target_env = "gnu"))?;
        Ok(Installer { root, python: "python3".into(), arch })
    }

    /// Installs unless, meanwhile, another process has.
    fn install(&self, force: bool) -> anyhow::Result<()> {
        let target = libtorch::folder(&self.root);
        let lock_path = target.with_added_extension("lock");
        let lock = File::create(&lock_path)
            .with_context(|| format!("cannot write into {}; {OWN}", self.root.display()))?;
        lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;
        match libtorch::state(&self.root) {
            State::Ready if !force => return Ok(()),
            State::Ready | State::Missing => {}
            State::Stale(why) => eprintln!(".libtorch/ is set up anew: {why}."),
        }
        self.look_for_pip()?;
        let part = target.with_added_extension("part");
        remove(&part)?;
        let installed = self.install_by_way_of(&part, &target);
        // Also after a failure: it may be a gigabyte that nobody will use.
        let removed = remove(&part);
        installed.and(removed)
    }

    fn install_by_way_of(&self, part: &Path, target: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(part.join("tmp"))
            .with_context(|| format!("cannot write {}", part.display()))?;
        if let Some(free) = free_space(part)
            && free < SPACE
        {
            bail!(
                "libtorch needs {SPACE} MiB of disk space while it is installed (500 MiB of it stay), but {free} MiB are free"
            );
        }

        eprintln!(
            "Installing libtorch {} (a download of 530 MB, 500 MB on disk) ...",
            libtorch::VERSION
        );
        self.run_pip(part)?;
        let new = part.join("libtorch");
        keep_what_is_needed(&part.join("site"), &new).context("the wheels are not as expected")?;
        self.load(&new.join("lib/libtorch_cpu.so"))?;
        // torch-sys compares this file with the version that it wants.
        fs::write(new.join("build-version"), libtorch::VERSION)?;
        fs::write(new.join(libtorch::STAMP), libtorch::stamp(&new)?)?;

        if fs::symlink_metadata(target).is_ok() {
            fs::rename(target, part.join("old")).context("cannot move the old .libtorch/ away")?;
        }
        fs::rename(&new, target).context("cannot move the new libtorch into place")
    }

    fn look_for_pip(&self) -> anyhow::Result<()> {
        let found = Command::new(&self.python).args(["-m", "pip", "--version"]).output();
        let Ok(output) = found else {
            bail!("there is no python3, which fetches libtorch: {GET_PYTHON}; or {OWN}")
        };
        ensure!(
            output.status.success(),
            "python3 has no pip, which fetches libtorch: {GET_PYTHON}; or {OWN}"
        );
        Ok(())
    }

    /// Lets pip put the wheels into `part/site`. Its standard error is shown and kept, for a word on what went wrong.
    fn run_pip(&self, part: &Path) -> anyhow::Result<()> {
        let requirements = part.join("libtorch.txt");
        fs::write(&requirements, libtorch::REQUIREMENTS)?;
        let mut pip = Command::new(&self.python);
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
        for tag in ["manylinux_2_28", "manylinux_2_25", "manylinux2014"] {
            pip.arg("--platform").arg(format!("{tag}_{}", self.arch));
        }
        pip.arg("--require-hashes")
            .arg("--target")
            .arg(part.join("site"))
            .arg("-r")
            .arg(requirements);
        // pip unpacks in the folder for temporary files, which may be a small file system in memory.
        pip.env("TMPDIR", part.join("tmp")).env("PIP_ROOT_USER_ACTION", "ignore");
        let mut child = pip
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start python3")?;
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
        bail!(
            "pip could not install libtorch: {way_out}. Then run `cargo xtask setup` again; or {OWN}"
        )
    }

    /// The proof that the installation is whole and fits this machine.
    fn load(&self, library: &Path) -> anyhow::Result<()> {
        let output = Command::new(&self.python)
            .arg("-c")
            .arg(LOAD)
            .arg(library)
            .output()
            .context("cannot start python3")?;
        if output.status.success() {
            return Ok(());
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!(
            "libtorch was installed but does not load here ({}); it needs glibc 2.28 or later and a 64-bit Python. {OWN}",
            errors.lines().last().unwrap_or("no reason given")
        )
    }
}

/// The architecture in the names of the wheels, where there are wheels.
fn arch(os: &str, arch: &str, glibc: bool) -> anyhow::Result<&'static str> {
    match (os, arch) {
        ("linux", "x86_64") if glibc => Ok("x86_64"),
        ("linux", "aarch64") if glibc => Ok("aarch64"),
        _ => bail!(
            "libtorch is set up by itself on Linux with glibc on x86-64 and aarch64, not on {os} ({arch}{}). Here {OWN}",
            if os == "linux" && !glibc { ", no glibc" } else { "" }
        ),
    }
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

/// Makes `new/include` and `new/lib` out of an installed wheel.
fn keep_what_is_needed(site: &Path, new: &Path) -> anyhow::Result<()> {
    let lib = new.join("lib");
    fs::create_dir_all(&lib)?;
    rename(&site.join("torch/include"), &new.join("include"))?;
    for path in libraries(&site.join("torch/lib"))? {
        // Left out: the CUDA half, which a full PyTorch of the user's brings where there is a GPU (torch-sys links what
        // it finds, and programs would not start without a driver), and the Python half.
        let unwanted = [
            "libtorch_cuda",
            "libc10_cuda",
            "libcaffe2_nvrtc",
            "libtorch_nvshmem",
            "libtorch_python",
            "libtorch.so",
        ];
        let name = path.file_name().unwrap_or_default();
        if !unwanted.iter().any(|start| name.to_string_lossy().starts_with(start)) {
            rename(&path, &lib.join(name))?;
        }
    }
    // `libtorch.so` is an empty library that only ties the halves together; linking against it must give the CPU's.
    #[cfg(unix)] // elsewhere there are no such wheels, and `arch` has said so
    std::os::unix::fs::symlink("libtorch_cpu.so", lib.join("libtorch.so"))?;
    for wanted in ["libcudart.so.13", "libcupti.so.13"] {
        rename(&find(&site.join("nvidia"), wanted)?, &lib.join(wanted))?;
    }
    // Where a wheel brings libraries of the system along (aarch64: OpenBLAS and its kind), they are here.
    for path in libraries(&site.join("torch.libs")).unwrap_or_default() {
        rename(&path, &lib.join(path.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// The shared libraries in a folder.
fn libraries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_file() && (name.ends_with(".so") || name.contains(".so.")) {
            found.push(path);
        }
    }
    Ok(found)
}

/// The file of this name somewhere below `folder`.
fn find(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
        {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name() == Some(OsStr::new(name)) {
                return Ok(path);
            }
        }
    }
    bail!("there is no {name} below {}", folder.display())
}

fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::rename(from, to)
        .with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
}

/// Removes a folder, or a link in its place, if it is there.
fn remove(path: &Path) -> anyhow::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    result.with_context(|| format!("cannot remove {}", path.display()))
}

/// Free space on the disk of `folder`, in MiB, where `df` tells.
pub(crate) fn free_space(folder: &Path) -> Option<u64> {
    let output = Command::new("df").arg("-Pk").arg(folder).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // Filesystem, 1024-blocks, Used, Available, Capacity, Mounted on.
    let kibibytes: u64 = text.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    Some(kibibytes / 1024)
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A Python whose pip "installs" a wheel of empty files, or what `instead` does. It loads every library.
    fn installer(root: &Path, instead: &str) -> Installer {
        let python = root.join("python3");
        let script = format!(
            r#"#!/bin/sh
if [ "$1" = -c ] || [ "$4" = --version ] || [ "$3" = --version ]; then exit 0; fi
{instead}
while [ "$1" != --target ]; do shift; done
mkdir -p "$2/torch/include/torch/csrc/api/include/torch" "$2/torch/lib" "$2/nvidia/cu13/lib" "$2/torch/bin"
touch "$2/torch/include/torch/csrc/api/include/torch/torch.h" "$2/torch/bin/protoc"
for name in libtorch.so libtorch_cpu.so libtorch_cuda.so libc10.so libtorch_python.so libgomp.so.1; do
  echo library > "$2/torch/lib/$name"
done
for name in libcudart.so.13 libcupti.so.13 libnvperf_host.so; do echo library > "$2/nvidia/cu13/lib/$name"; done
"#
        );
        // Copied by another process: a descriptor open for writing here could be inherited by a program that another test
        // is just starting, and the kernel refuses to run a file that is open for writing.
        let text = root.join("python3.sh");
        fs::write(&text, script).unwrap();
        assert!(Command::new("cp").args([&text, &python]).status().unwrap().success());
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
        Installer { root: root.to_owned(), python: python.into(), arch: "x86_64" }
    }

    #[test]
    fn the_headers_and_the_libraries_of_the_cpu_are_kept() {
        let root = tempfile::tempdir().unwrap();
        installer(root.path(), "").install(false).unwrap();
        assert_eq!(libtorch::state(root.path()), State::Ready);
        let folder = libtorch::folder(root.path());
        let mut names: Vec<_> = fs::read_dir(folder.join("lib"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "libc10.so",
                "libcudart.so.13",
                "libcupti.so.13",
                "libgomp.so.1",
                "libtorch.so",
                "libtorch_cpu.so"
            ]
        );
        assert_eq!(
            fs::read_link(folder.join("lib/libtorch.so")).unwrap(),
            Path::new("libtorch_cpu.so")
        );
        assert_eq!(fs::read_to_string(folder.join("build-version")).unwrap(), libtorch::VERSION);
        assert!(!folder.with_added_extension("part").exists());
    }

    #[test]
    fn a_damaged_installation_is_repaired_and_a_whole_one_left_alone() {
        let root = tempfile::tempdir().unwrap();
        installer(root.path(), "").install(false).unwrap();
        let library = libtorch::folder(root.path()).join("lib/libtorch_cpu.so");
        fs::write(&library, "cut").unwrap();
        installer(root.path(), "").install(false).unwrap();
        assert_eq!(fs::read_to_string(&library).unwrap(), "library\n");
        installer(root.path(), "exit 1").install(false).unwrap();
    }

    #[test]
    fn a_failed_installation_keeps_the_old_one_and_says_why() {
        let root = tempfile::tempdir().unwrap();
        let failing =
            installer(root.path(), "echo 'ERROR: [Errno 28] No space left on device' >&2; exit 1");
        let error = failing.install(false).unwrap_err().to_string();
        assert!(
            error.contains("the disk is full") && error.contains("cargo xtask setup"),
            "{error}"
        );
        assert_eq!(libtorch::state(root.path()), State::Missing);

        installer(root.path(), "").install(false).unwrap();
        installer(root.path(), "exit 1").install(true).unwrap_err();
        assert_eq!(libtorch::state(root.path()), State::Ready);
        // What a killed one left behind is in nobody's way.
        let part = libtorch::folder(root.path()).with_added_extension("part");
        fs::create_dir_all(part.join("site/torch/include")).unwrap();
        installer(root.path(), "").install(true).unwrap();
        assert!(!part.exists());
        assert_eq!(libtorch::state(root.path()), State::Ready);
    }

    #[test]
    fn wheels_of_another_shape_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let shape = installer(
            root.path(),
            r#"while [ "$1" != --target ]; do shift; done; mkdir -p "$2/torch"; exit 0"#,
        );
        let error = format!("{:#}", shape.install(false).unwrap_err());
        assert!(error.contains("not as expected") && error.contains("torch/include"), "{error}");
        assert_eq!(libtorch::state(root.path()), State::Missing);
    }

    #[test]
    fn what_to_install_is_said() {
        let root = tempfile::tempdir().unwrap();
        let without_python =
            Installer { python: root.path().join("python3").into(), ..installer(root.path(), "") };
        fs::remove_file(root.path().join("python3")).unwrap();
        let error = without_python.install(false).unwrap_err().to_string();
        assert!(
            error.contains("no python3") && error.contains("apt install python3 python3-pip"),
            "{error}"
        );

        let without_pip = installer(root.path(), "");
        fs::write(root.path().join("python3"), "#!/bin/sh\nexit 1\n").unwrap();
        let error = without_pip.install(false).unwrap_err().to_string();
        assert!(
            error.contains("no pip") && error.contains("apt install python3 python3-pip"),
            "{error}"
        );
    }

    #[test]
    fn platforms_without_wheels_are_sent_to_libtorch() {
        assert_eq!(arch("linux", "x86_64", true).unwrap(), "x86_64");
        assert_eq!(arch("linux", "aarch64", true).unwrap(), "aarch64");
        for (os, cpu, glibc) in
            [("macos", "aarch64", false), ("windows", "x86_64", false), ("linux", "riscv64", true)]
        {
            let error = arch(os, cpu, glibc).unwrap_err().to_string();
            assert!(error.contains(os) && error.contains("LIBTORCH"), "{error}");
        }
        assert!(arch("linux", "x86_64", false).unwrap_err().to_string().contains("no glibc"));
    }

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

    #[test]
    fn a_folder_of_the_users_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let error = check_folder(folder.path(), false).unwrap_err().to_string();
        assert!(error.contains("holds no libtorch"), "{error}");
        let header = folder.path().join("include/torch/headeronly/version.h");
        fs::create_dir_all(header.parent().unwrap()).unwrap();
        let define = |minor| {
            let text = format!(
                "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR {minor}\n#define TORCH_VERSION_PATCH 0\n"
            );
            fs::write(&header, text).unwrap();
        };
        define(8);
        let error = check_folder(folder.path(), false).unwrap_err().to_string();
        assert!(error.contains("2.8.0") && error.contains("2.11.0"), "{error}");
        check_folder(folder.path(), true).unwrap();
        define(11);
        check_folder(folder.path(), false).unwrap();
    }
}
