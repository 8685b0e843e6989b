//! MODEL on the command line: a file that carries its architecture, or foreign weights with `--arch`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use cp_net::{Architecture, FileKind, NetError, Network, arch};
use cp_onnx::{ImportOptions, Model};
use cp_pytorch::StateDictOptions;
use cp_train::TrainError;

use crate::common::{Usage, input_shapes, positive};
use crate::output;
use crate::preprocess::Preprocess;

/// A model file and, for weights that do not say it themselves, its architecture.
#[derive(Args)]
pub(crate) struct ModelArgs {
    /// A model: .onnx, .pt2, .safetensors of polyad; or weights as .safetensors or .pth.
    #[arg(value_name = "MODEL")]
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) arch: ArchOption,
}

/// `--arch` and `--classes`.
#[derive(Args)]
pub(crate) struct ArchOption {
    /// Architecture of weights from elsewhere: a name such as resnet56 (`polyad inspect --help` has the list), or a .json file.
    #[arg(long = "arch", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Number of classes that the architecture is to have.
    #[arg(long, value_name = "N", requires = "name", value_parser = positive)]
    pub(crate) classes: Option<usize>,
    /// The entry of a PyTorch checkpoint that holds the weights, such as model or ema.state_dict, where there are several.
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) key: Option<String>,
    /// How pictures become the input of a model that does not say it itself: imagenet, unit (0 to 1), caffe, or a TOML file.
    #[arg(long, value_name = "HOW", hide_short_help = true)]
    pub(crate) preprocess: Option<Preprocess>,
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

impl ModelArgs {
    /// Reads the file.
    pub(crate) fn load(&self) -> anyhow::Result<Network> {
        load(&self.path, &self.arch)
    }
}

/// Reads the network in `path`; `option` is for files that hold weights alone.
pub(crate) fn load(path: &Path, option: &ArchOption) -> anyhow::Result<Network> {
    load_at(path, option, &BTreeMap::new())
}

/// [`load`] with the shapes of inputs that an ONNX model leaves open.
pub(crate) fn load_at(
    path: &Path,
    option: &ArchOption,
    shapes: &BTreeMap<String, Vec<usize>>,
) -> anyhow::Result<Network> {
    let kind = kind(path);
    if kind == FileKind::Device {
        bail!(
            "{}: is a pipe or a device, not a file; write what comes out of it into a file",
            path.display()
        );
    }
    let looks = || format!("{}: it looks like {}", path.display(), kind.name());
    let network = match kind {
        FileKind::Onnx => {
            option.refuse_arch(path, kind)?;
            let model = open_onnx(path).with_context(looks)?;
            onnx(&model, shapes)?
        }
        FileKind::ExportedProgram => {
            option.refuse_arch(path, kind)?;
            cp_pytorch::exported_program(path).with_context(looks)?
        }
        FileKind::PyTorchZip | FileKind::Pickle => {
            let Some(arch) = option.architecture()? else {
                bail!(
                    "{}: is {} and does not say of which architecture; add --arch net.json, or --arch NAME with one of: {}",
                    path.display(),
                    kind.name(),
                    arch::names().join(", ")
                );
            };
            let weights =
                cp_pytorch::state_dict(path, &StateDictOptions { key: option.key.clone() })
                    .with_context(looks)?;
            let loaded = weights.into_network(arch).with_context(|| path.display().to_string())?;
            option.check_classes(path, &loaded.network)?;
            loaded.notes.iter().for_each(|note| output::note(note));
            loaded.network
        }
        _ => own(path, option)?,
    };
    match &option.preprocess {
        Some(preprocess) => preprocess.apply(network).with_context(|| path.display().to_string()),
        None => Ok(network),
    }
}

/// An ONNX model as a network: the one that it was written from, or what its graph says.
pub(crate) fn onnx(
    model: &Model,
    shapes: &BTreeMap<String, Vec<usize>>,
) -> anyhow::Result<Network> {
    if let Some(network) = cp_onnx::exported_network(model)? {
        return match &input_shapes(network.architecture(), shapes)?[..] {
            [(_, sizes)] if !shapes.is_empty() => {
                Ok(network.with_input_shape(sizes).context("--input")?)
            }
            all if all
                .iter()
                .zip(network.architecture().input_shapes())
                .any(|((_, asked), known)| *asked != known) =>
            {
                bail!(
                    "--input: a network of several inputs keeps the shapes that it was written with"
                )
            }
            _ => Ok(network),
        };
    }
    let known: Vec<String> = model.inputs().into_iter().map(|input| input.name).collect();
    let only = |name: &str| name == cp_net::INPUT && known.len() == 1;
    if let Some(name) = shapes.keys().find(|name| !known.contains(name) && !only(name)) {
        return Err(TrainError::UnknownInput { name: name.clone(), known }.into());
    }
    Ok(model.import(&ImportOptions::new().inputs(model, shapes))?.network)
}

/// An ONNX model whose weights are numbers.
pub(crate) fn open_onnx(path: &Path) -> anyhow::Result<Model> {
    let model = Model::open(path)?;
    model.check_numbers()?;
    Ok(model)
}

/// What the file is, by its contents.
fn kind(path: &Path) -> FileKind {
    const PART: u64 = 1 << 16;
    // A pipe is not opened: its other end may never come, and what is read of it is gone.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return FileKind::Device;
    }
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let mut bytes = Vec::new();
        file.by_ref().take(PART).read_to_end(&mut bytes)?;
        // The directory of an archive, which says what kind it is of, comes last.
        let length = file.metadata()?.len();
        if bytes.starts_with(b"PK") && length > PART {
            file.seek(SeekFrom::Start(PART.max(length.saturating_sub(PART))))?;
            file.take(PART).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    };
    read().map_or(FileKind::Unknown, |bytes| FileKind::of(&bytes))
}

impl ArchOption {
    /// That the weights are for as many classes as were asked for.
    fn check_classes(&self, path: &Path, net: &Network) -> anyhow::Result<()> {
        let Some(asked) = self.classes else { return Ok(()) };
        let arch = net.architecture();
        let output = arch.output_shape(arch.input_shapes())?;
        if output != [asked] {
            bail!(
                "{}: has weights for {} classes, and --classes asks for {asked}",
                path.display(),
                output.first().copied().unwrap_or(0)
            );
        }
        Ok(())
    }

    fn refuse_arch(&self, path: &Path, kind: FileKind) -> anyhow::Result<()> {
        match &self.name {
            None => Ok(()),
            Some(_) => bail!(
                "{}: is {}, which has its architecture; leave --arch out",
                path.display(),
                kind.name()
            ),
        }
    }
}

/// A file of ours, or weights as safetensors.
fn own(path: &Path, option: &ArchOption) -> anyhow::Result<Network> {
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
    option.check_classes(path, &net)?;
    notes.iter().for_each(|note| output::note(note));
    Ok(net)
}

/// Whether the file is an ONNX model: by its name, or where that says nothing by what stands in it.
pub(crate) fn is_onnx(path: &Path) -> bool {
    let extension = path.extension().map(|kind| kind.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("onnx") => true,
        Some("safetensors") => false,
        _ => kind(path) == FileKind::Onnx,
    }
}
