//! MODEL on the command line: a file that carries its architecture, or foreign weights with `--arch`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use cp_net::{Architecture, NetError, Network, arch};
use cp_torch::{DeviceRequest, Executor};

use crate::common::{Common, DeviceName, Usage};

/// A model file and, for weights that do not say it themselves, its architecture.
#[derive(Args)]
pub(crate) struct Model {
    /// Weights as .safetensors; polyad's own files carry their architecture.
    #[arg(value_name = "MODEL")]
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) arch: ArchOption,
}

/// `--arch`.
#[derive(Args)]
pub(crate) struct ArchOption {
    /// Architecture of weights from elsewhere, such as resnet56; `polyad inspect --help` has the list.
    #[arg(long = "arch", value_name = "NAME")]
    pub(crate) name: Option<String>,
}

impl Model {
    /// Reads the file.
    pub(crate) fn load(&self) -> anyhow::Result<Network> {
        load(&self.path, self.arch.name.as_deref())
    }
}

/// Reads the network in `path`; `arch` is for files that hold weights alone.
pub(crate) fn load(path: &Path, arch: Option<&str>) -> anyhow::Result<Network> {
    let known = arch.map(architecture).transpose()?;
    if arch::names().iter().any(|name| path.as_os_str() == *name) && !path.exists() {
        bail!(
            "{0}: no such file; {0} is an architecture: `polyad inspect --arch {0}` shows it, the other commands need \
             weights for it",
            path.display()
        );
    }
    match (Network::load(path), known) {
        (Ok(net), Some(known)) if net.architecture().name != known.name => bail!(
            "{}: carries its architecture, '{}', which is not the '{}' of --arch; leave --arch out",
            path.display(),
            net.architecture().name,
            known.name
        ),
        (Ok(net), _) => Ok(net),
        (Err(NetError::NoArchitecture { .. }), Some(known)) => Ok(Network::load_as(path, known)?),
        (Err(NetError::NoArchitecture { .. }), None) => bail!(
            "{}: holds weights but does not say of which architecture; add --arch NAME with one of: {}",
            path.display(),
            arch::names().join(", ")
        ),
        (Err(error), _) => Err(error.into()),
    }
}

/// The built-in architecture `name`.
pub(crate) fn architecture(name: &str) -> anyhow::Result<Architecture> {
    arch::by_name(name).map_err(|error| Usage(format!("--arch: {error}")).into())
}

/// Puts `net` on the device that the command line asks for, with as many threads.
pub(crate) fn executor(net: &Network, common: &Common) -> anyhow::Result<Executor> {
    let request = match common.device {
        DeviceName::Cpu => DeviceRequest::Cpu,
        DeviceName::Cuda => DeviceRequest::Cuda,
    };
    let device = cp_torch::device(request).context("--device")?;
    Ok(Executor::new(net, device)?)
}
