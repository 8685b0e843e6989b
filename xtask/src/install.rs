//! A folder of the workspace that is made out of wheels: `.libtorch/` and `.onnxruntime/`.
//!
//! pip fetches wheels of exact versions and checksums; what is needed of them is kept, the rest is thrown away. All of it happens in a
//! folder beside, which is renamed when the library has been loaded once, so an interrupted set-up leaves nothing that looks whole, and
//! the next one starts over with what pip has in its cache.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::pip::{self, Wheels};

/// Loads the library by its path; run by Python, which is there anyway.
const LOAD: &str = "import ctypes, sys; ctypes.CDLL(sys.argv[1])";

/// What [`Kit::stamp`] is kept under, in the folder.
const STAMP: &str = "stamp";

/// What is installed, and how.
pub(crate) struct Kit {
    /// What it is called in messages.
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// The folder below the root.
    pub(crate) folder: &'static str,
    /// The wheels, as pip reads them.
    pub(crate) requirements: &'static str,
    /// The tags in the names of its wheels, on a system where there are any: by system, processor and whether the C library is glibc.
    pub(crate) platforms: fn(&str, &str, bool) -> Option<Vec<String>>,
    /// Those systems, for messages.
    pub(crate) systems: &'static str,
    /// Disk space that the installation takes while it runs, in MiB.
    pub(crate) space: u64,
    /// Download and what stays of it, for messages.
    pub(crate) size: &'static str,
    /// Moves what is needed out of the installed wheels (first folder) into the new folder (second).
    pub(crate) keep: fn(&Path, &Path) -> anyhow::Result<()>,
    /// A file without which the folder is of no use; it stands for its folder.
    pub(crate) sign: &'static str,
    /// The library to load for a trial.
    pub(crate) library: &'static str,
    /// How to go without.
    pub(crate) own: &'static str,
}

/// The state of a folder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    Missing,
    /// Left by another version of this set-up, or no longer as it was installed; the text says what differs.
    Stale(String),
}

impl Kit {
    /// The folder.
    pub(crate) fn folder(&self, root: &Path) -> PathBuf {
        root.join(self.folder)
    }

    /// Looks at the folder; reads no library, so it costs nothing.
    pub(crate) fn state(&self, root: &Path) -> State {
        let folder = self.folder(root);
        if fs::symlink_metadata(&folder).is_err() {
            return State::Missing;
        }
        let Ok(stamp) = fs::read_to_string(folder.join(STAMP)) else {
            return State::Stale("it was not finished, or not made by `cargo xtask setup`".into());
        };
        let mut lines = stamp.lines();
        if lines.next() != Some(&self.head()) {
            return State::Stale(format!("it is not {}", self.head()));
        }
        if !folder.join(self.sign).is_file() {
            return State::Stale(format!("{} is missing", self.sign));
        }
        for line in lines {
            let (size, name) = line.split_once(' ').unwrap_or(("", line));
            match fs::metadata(folder.join(name)) {
                Ok(metadata) if metadata.len().to_string() == size => {}
                Ok(metadata) => {
                    return State::Stale(format!(
                        "{name} has {} bytes in place of {size}",
                        metadata.len()
                    ));
                }
                Err(_) => return State::Stale(format!("{name} is missing")),
            }
        }
        State::Ready
    }

    /// What makes an installation recognizable as whole: the pins, then size and name of every file in `lib/`.
    fn stamp(&self, folder: &Path) -> anyhow::Result<String> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder.join("lib"))? {
            let path = entry?.path();
            if let Some(name) = path.file_name() {
                files.push(format!("{} lib/{}\n", fs::metadata(&path)?.len(), name.display()));
            }
        }
        files.sort();
        Ok(format!("{}\n{}", self.head(), files.concat()))
    }

    /// The first line of the stamp; another pin or another layout makes another line.
    fn head(&self) -> String {
        let pins: Vec<String> =
            self.pins().map(|(name, version)| format!("{name} {version}")).collect();
        format!("layout 1, {}", pins.join(", "))
    }

    /// Names and versions of the wheels.
    pub(crate) fn pins(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        let lines = self.requirements.lines().filter(|line| !line.starts_with([' ', '#']));
        lines.filter_map(|line| line.trim_end_matches(['\\', ' ']).split_once("=="))
    }
}

/// An installation into a workspace by a Python.
pub(crate) struct Installer {
    kit: &'static Kit,
    root: PathBuf,
    python: OsString,
    platforms: Vec<String>,
}

impl Installer {
    pub(crate) fn here(kit: &'static Kit, root: PathBuf) -> anyhow::Result<Self> {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        let platforms = platforms(kit, os, arch, cfg!(target_env = "gnu"))?;
        Ok(Installer { kit, root, python: "python3".into(), platforms })
    }

    /// Installs unless, meanwhile, another process has.
    pub(crate) fn install(&self, force: bool) -> anyhow::Result<()> {
        let kit = self.kit;
        let target = kit.folder(&self.root);
        let lock_path = target.with_added_extension("lock");
        let lock = File::create(&lock_path)
            .with_context(|| format!("cannot write into {}; {}", self.root.display(), kit.own))?;
        lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;
        match kit.state(&self.root) {
            State::Ready if !force => return Ok(()),
            State::Ready | State::Missing => {}
            State::Stale(why) => eprintln!("{}/ is set up anew: {why}.", kit.folder),
        }
        pip::look_for(&self.python, self.wheels())?;
        let part = target.with_added_extension("part");
        remove(&part)?;
        let installed = self.install_by_way_of(&part, &target);
        // Also after a failure: it may be a gigabyte that nobody will use.
        let removed = remove(&part);
        installed.and(removed)
    }

    fn wheels(&self) -> Wheels<'_> {
        let Kit { name, requirements, own, .. } = self.kit;
        Wheels { name, requirements, platforms: &self.platforms, own }
    }

    fn install_by_way_of(&self, part: &Path, target: &Path) -> anyhow::Result<()> {
        let kit = self.kit;
        fs::create_dir_all(part.join("tmp"))
            .with_context(|| format!("cannot write {}", part.display()))?;
        if let Some(free) = free_space(part)
            && free < kit.space
        {
            bail!(
                "{} needs {} MiB of disk space while it is installed ({}), but {free} MiB are free",
                kit.name,
                kit.space,
                kit.size
            );
        }

        eprintln!("Installing {} {} ({}) ...", kit.name, kit.version, kit.size);
        pip::install(&self.python, self.wheels(), part)?;
        let new = part.join("new");
        (kit.keep)(&part.join("site"), &new).context("the wheels are not as expected")?;
        self.load(&new.join(kit.library))?;
        fs::write(new.join(STAMP), kit.stamp(&new)?)?;

        if fs::symlink_metadata(target).is_ok() {
            fs::rename(target, part.join("old"))
                .with_context(|| format!("cannot move the old {}/ away", kit.folder))?;
        }
        fs::rename(&new, target)
            .with_context(|| format!("cannot move the new {} into place", kit.name))
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
            "{} was installed but does not load here ({}); it needs {} and a 64-bit Python. {}",
            self.kit.name,
            errors.lines().last().unwrap_or("no reason given"),
            if cfg!(target_os = "macos") { "macOS 14 or later" } else { "glibc 2.28 or later" },
            self.kit.own
        )
    }
}

/// The tags in the names of a kit's wheels, where there are wheels.
fn platforms(kit: &Kit, os: &str, arch: &str, glibc: bool) -> anyhow::Result<Vec<String>> {
    let Some(tags) = (kit.platforms)(os, arch, glibc) else {
        bail!(
            "{} is set up by itself on {}, not on {os} ({arch}{}). Here {}",
            kit.name,
            kit.systems,
            if os == "linux" && !glibc { ", no glibc" } else { "" },
            kit.own
        )
    };
    Ok(tags)
}

/// The shared libraries in a folder.
pub(crate) fn libraries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
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
pub(crate) fn find(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
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

pub(crate) fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
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
    use crate::{libtorch, onnxruntime};

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
        let platforms = platforms(&libtorch::KIT, "linux", "x86_64", true).unwrap();
        Installer { kit: &libtorch::KIT, root: root.to_owned(), python: python.into(), platforms }
    }

    #[test]
    fn the_headers_and_the_libraries_of_the_cpu_are_kept() {
        let root = tempfile::tempdir().unwrap();
        installer(root.path(), "").install(false).unwrap();
        assert_eq!(libtorch::KIT.state(root.path()), State::Ready);
        let folder = libtorch::KIT.folder(root.path());
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
        let library = libtorch::KIT.folder(root.path()).join("lib/libtorch_cpu.so");
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
        assert_eq!(libtorch::KIT.state(root.path()), State::Missing);

        installer(root.path(), "").install(false).unwrap();
        installer(root.path(), "exit 1").install(true).unwrap_err();
        assert_eq!(libtorch::KIT.state(root.path()), State::Ready);
        // What a killed one left behind is in nobody's way.
        let part = libtorch::KIT.folder(root.path()).with_added_extension("part");
        fs::create_dir_all(part.join("site/torch/include")).unwrap();
        installer(root.path(), "").install(true).unwrap();
        assert!(!part.exists());
        assert_eq!(libtorch::KIT.state(root.path()), State::Ready);
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
        assert_eq!(libtorch::KIT.state(root.path()), State::Missing);
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
    fn platforms_without_wheels_are_told_the_way_out() {
        let tags = |arch| platforms(&libtorch::KIT, "linux", arch, true).unwrap();
        assert_eq!(tags("aarch64")[0], "manylinux_2_28_aarch64");
        assert_eq!(tags("x86_64").len(), 3);
        for (os, cpu, glibc) in
            [("macos", "aarch64", false), ("windows", "x86_64", false), ("linux", "riscv64", true)]
        {
            let error = platforms(&libtorch::KIT, os, cpu, glibc).unwrap_err().to_string();
            assert!(error.contains(os) && error.contains("LIBTORCH"), "{error}");
        }
        let musl = |kit| platforms(kit, "linux", "x86_64", false).unwrap_err().to_string();
        assert!(musl(&libtorch::KIT).contains("no glibc"));
        assert!(musl(&onnxruntime::KIT).contains("POLYAD_ONNXRUNTIME"));
    }

    #[test]
    fn a_changed_library_is_noticed() {
        const KIT: &Kit = &libtorch::KIT;
        let root = tempfile::tempdir().unwrap();
        assert_eq!(KIT.state(root.path()), State::Missing);
        let folder = KIT.folder(root.path());
        fs::create_dir_all(folder.join(KIT.sign).parent().unwrap()).unwrap();
        fs::write(folder.join(KIT.sign), "").unwrap();
        fs::create_dir(folder.join("lib")).unwrap();
        fs::write(folder.join("lib/libc10.so"), "1234").unwrap();
        assert!(
            matches!(KIT.state(root.path()), State::Stale(why) if why.contains("not finished"))
        );

        fs::write(folder.join(STAMP), KIT.stamp(&folder).unwrap()).unwrap();
        assert_eq!(KIT.state(root.path()), State::Ready);
        fs::write(folder.join("lib/libc10.so"), "123").unwrap();
        assert_eq!(
            KIT.state(root.path()),
            State::Stale("lib/libc10.so has 3 bytes in place of 4".into())
        );
        fs::remove_file(folder.join("lib/libc10.so")).unwrap();
        assert_eq!(KIT.state(root.path()), State::Stale("lib/libc10.so is missing".into()));
        fs::write(folder.join(STAMP), "layout 0, torch 2.10.0\n").unwrap();
        assert!(
            matches!(KIT.state(root.path()), State::Stale(why) if why.contains("torch 2.11.0"))
        );
    }
}
