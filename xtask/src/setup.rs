//! `cargo xtask setup`: libtorch and ONNX Runtime from the Python package index, into `.libtorch/` and `.onnxruntime/`, and the packages that
//! the pages in docs/ are tested with.
//!
//! libtorch is what the workspace builds against; ONNX Runtime is opened by programs that find it. So the other subcommands stop
//! where libtorch is missing and cannot be fetched, and go on with a note where ONNX Runtime is.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use crate::install::{Installer, State};
use crate::libtorch::{self, Source};
use crate::{docs_python, onnxruntime, workspace};

#[derive(Args)]
pub(crate) struct SetupArgs {
    /// Install again even if everything is in place
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &SetupArgs) -> anyhow::Result<ExitCode> {
    let root = workspace::root();
    let torch = set_up_libtorch(&root, args.force);
    // The one does not wait for the other: what needs libtorch can do without ONNX Runtime, and the other way round.
    let onnxruntime = set_up_onnxruntime(&root, args.force);
    if let (Err(_), Err(error)) = (&torch, &onnxruntime) {
        eprintln!("error: {error:#}");
    }
    torch.and(onnxruntime)?;
    docs_python::ensure_if_possible(&root);
    Ok(ExitCode::SUCCESS)
}

fn set_up_libtorch(root: &Path, force: bool) -> anyhow::Result<()> {
    if force && Source::here(root) == Source::Managed {
        Installer::here(&libtorch::KIT, root.to_owned())?.install(true)?;
    } else {
        ensure_libtorch(root)?;
    }
    match Source::here(root) {
        Source::Managed => println!("libtorch {} is ready in .libtorch/.", libtorch::VERSION),
        Source::Folder { include, .. } => {
            println!("Your own libtorch is used ({}): nothing to install.", include.display());
        }
        Source::PyTorch => println!(
            "The PyTorch of your Python is used (LIBTORCH_USE_PYTORCH): nothing to install."
        ),
    }
    Ok(())
}

fn set_up_onnxruntime(root: &Path, force: bool) -> anyhow::Result<()> {
    match onnxruntime::Source::here() {
        onnxruntime::Source::Managed => {
            if force {
                Installer::here(&onnxruntime::KIT, root.to_owned())?.install(true)?;
            } else {
                onnxruntime::ensure(root)?;
            }
            println!("ONNX Runtime {} is ready in .onnxruntime/.", onnxruntime::VERSION);
        }
        onnxruntime::Source::Own { variable, path } => println!(
            "Your own ONNX Runtime is used ({variable}={}): nothing to install.",
            path.display()
        ),
    }
    Ok(())
}

/// Makes sure that there is a libtorch to build against, and an ONNX Runtime to open if that can be. Costs nothing where there are.
pub(crate) fn ensure() -> anyhow::Result<()> {
    let root = workspace::root();
    ensure_libtorch(&root)?;
    onnxruntime::ensure_if_possible(&root);
    Ok(())
}

fn ensure_libtorch(root: &Path) -> anyhow::Result<()> {
    match Source::here(root) {
        Source::Managed if libtorch::KIT.state(root) == State::Ready => Ok(()),
        Source::Managed => Installer::here(&libtorch::KIT, root.to_owned())?.install(false),
        // torch-sys asks Python for the version itself.
        Source::PyTorch => Ok(()),
        Source::Folder { include, .. } => {
            let bypass = std::env::var_os("LIBTORCH_BYPASS_VERSION_CHECK").is_some();
            libtorch::check_folder(&include, bypass)
        }
    }
}
