//! MODEL on the command line: a file that carries its architecture, or foreign weights with `--arch`.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use cp_net::{Architecture, FileKind, NetError, Network, arch};
use cp_torch::Executor;
use cp_torch::tch::Device;

use crate::common::{Common, Usage, positive};
use crate::output;

/// A model file and, for weights that do not say it themselves, its architecture.
#[derive(Args)]
pub(crate) struct Model {
    /// Weights as .safetensors; polyad's own files carry their architecture.
    #[arg(value_name = "MODEL")]
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) arch: ArchOption,
}

/// `--arch` and `--classes`.
#[derive(Args)]
pub(crate) struct ArchOption {
    /// Architecture of weights from elsewhere: a name such as resnet56 or resnet-cifar(depth=44), of which `polyad inspect
    /// --help` has the list, or a file that ends in .json.
    #[arg(long = "arch", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Number of classes that the architecture is to have.
    #[arg(long, value_name = "N", requires = "name", value_parser = positive)]
    pub(crate) classes: Option<usize>,
}

impl ArchOption {
    /// The architecture that the options name, for as many classes.
    pub(crate) fn architecture(&self) -> anyhow::Result<Option<Architecture>> {
        let Some(name) = &self.name else { return Ok(None) };
        let arch = if name.ends_with(".json") {
            Architecture::load(name).context("--arch")?
        } else {
            arch::by_name(name).map_err(|error| Usage(format!("--arch: {error}")))?
        };
        let Some(classes) = self.classes else { return Ok(Some(arch)) };
        Ok(Some(arch.with_classes(classes).context("--classes")?))
    }
}

impl Model {
    /// Reads the file.
    pub(crate) fn load(&self) -> anyhow::Result<Network> {
        load(&self.path, &self.arch)
    }
}

/// Reads the network in `path`; `option` is for files that hold weights alone.
pub(crate) fn load(path: &Path, option: &ArchOption) -> anyhow::Result<Network> {
    let known = option.architecture()?;
    if arch::names().iter().any(|name| path.as_os_str() == *name) && !path.exists() {
        bail!(
            "{0}: no such file; {0} is an architecture: `polyad inspect --arch {0}` shows it, the other commands need \
             weights for it",
            path.display()
        );
    }
    let (net, notes) = match (Network::load(path), known) {
        (Ok(net), Some(known)) if net.architecture().name != known.name => bail!(
            "{}: carries its architecture, '{}', which is not the '{}' of --arch; leave --arch out",
            path.display(),
            net.architecture().name,
            known.name
        ),
        (Ok(net), _) => (net, Vec::new()),
        (Err(NetError::NoArchitecture { .. }), Some(known)) => {
            let loaded = Network::load_as(path, known)?;
            (loaded.network, loaded.notes)
        }
        (Err(NetError::NoArchitecture { .. }), None) => bail!(
            "{}: holds weights but does not say of which architecture; add --arch net.json, or --arch NAME with one of: {}",
            path.display(),
            arch::names().join(", ")
        ),
        (Err(error), _) => return Err(error.into()),
    };
    if let Some(asked) = option.classes {
        let arch = net.architecture();
        let output = arch.output_shape(arch.input_shapes())?;
        if output != [asked] {
            bail!(
                "{}: has weights for {} classes, and --classes asks for {asked}",
                path.display(),
                output.first().copied().unwrap_or(0)
            );
        }
    }
    notes.iter().for_each(|note| output::note(note));
    Ok(net)
}

/// Whether the file is an ONNX model: by its name, or where that says nothing by what stands in it.
pub(crate) fn is_onnx(path: &Path) -> bool {
    let extension = path.extension().map(|kind| kind.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("onnx") => true,
        Some("safetensors") => false,
        _ => {
            let mut front = [0; 4096];
            let read = File::open(path).and_then(|mut file| file.read(&mut front));
            read.is_ok_and(|count| FileKind::of(&front[..count]) == FileKind::Onnx)
        }
    }
}

/// The device that the command line asks for.
pub(crate) fn device(common: &Common) -> anyhow::Result<Device> {
    cp_torch::device(common.device).context("--device")
}

/// Puts `net` on the device that the command line asks for.
pub(crate) fn executor(net: &Network, common: &Common) -> anyhow::Result<Executor> {
    Ok(Executor::new(net, device(common)?)?)
}
