//! `polyad convert`: a model from one format into another, with the proof that it computes the same.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use cp_net::Network;
use cp_onnx::{ExportOptions, OPSETS, export};
use cp_train::engine::{Change, Subject, changes};
use cp_train::timing;
use serde::Serialize;

use crate::common::{Common, InputShape, Usage, shapes_by_name};
use crate::model::{self, ArchOption};
use crate::output::{self, OutFile, Report};

const EXAMPLES: &str = "\
Examples:
  polyad convert half.safetensors half.onnx
  polyad convert resnet18.pth resnet18.onnx --arch resnet18 --opset 13
  polyad convert model.onnx model.safetensors --input 3x224x224
  polyad convert exported.pt2 exported.onnx --fold

From .safetensors, .onnx, .pth, .pt (state dicts, with --arch) and .pt2 into .safetensors or .onnx, by the extension of OUT. Both \
models run on the same drawn numbers in ONNX Runtime, and the largest difference of their outputs is printed.

JSON: input, output, opset (of an ONNX model), changes: a list of output, relative, largest.";

/// Write a model in another format.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The model to read.
    #[arg(value_name = "IN")]
    from: PathBuf,
    /// The file to write: .safetensors or .onnx.
    #[arg(value_name = "OUT")]
    to: PathBuf,
    #[command(flatten)]
    arch: ArchOption,
    /// Sizes of one example of an ONNX model, such as 3x224x224, where the model leaves them open.
    #[arg(long, value_name = "[NAME=]DIMS")]
    input: Vec<InputShape>,
    /// Opset of an ONNX model [default: 17].
    #[arg(long, value_name = "N")]
    opset: Option<i64>,
    /// Weights of an ONNX model in half precision.
    #[arg(long)]
    fp16: bool,
    /// Fold batch norms and constants, as for running forward: what was folded cannot be trained or compressed as well.
    #[arg(long)]
    fold: bool,
}

#[derive(Serialize)]
struct Converted {
    input: PathBuf,
    output: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    opset: Option<i64>,
    changes: Vec<Change>,
}

impl Report for Converted {
    fn text(&self, to: &mut dyn Write) -> io::Result<()> {
        writeln!(to, "wrote {}", self.output.display())?;
        for Change { output, largest, .. } in &self.changes {
            writeln!(
                to,
                "output '{output}': largest difference {largest:.1e} of the largest value"
            )?;
        }
        Ok(())
    }
}

pub(crate) fn run(args: &Args, common: &Common) -> anyhow::Result<()> {
    let to_onnx = model::is_onnx(&args.to);
    let extension = args.to.extension().map(|kind| kind.to_string_lossy().to_ascii_lowercase());
    if !to_onnx && extension.as_deref() != Some("safetensors") {
        return Err(Usage(format!(
            "{}: the extension of OUT says the format: .safetensors or .onnx",
            args.to.display()
        ))
        .into());
    }
    if !to_onnx && (args.opset.is_some() || args.fp16) {
        return Err(Usage("--opset and --fp16 are for OUT as .onnx".into()).into());
    }
    if let Some(opset) = args.opset.filter(|opset| !OPSETS.contains(opset)) {
        return Err(Usage(format!(
            "--opset {opset} is not written; choose one from {} to {}",
            OPSETS.start(),
            OPSETS.end()
        ))
        .into());
    }
    if args.arch.preprocess.is_some() && to_onnx {
        output::note(
            "--preprocess is kept in the metadata of the model, where polyad reads it; other programs do not",
        );
    }
    output::refuse_same_file([("the input", args.from.as_path())], &args.to)?;
    drop(OutFile::new(&args.to)?);
    timing::set_threads(common.threads.unwrap_or(0));
    let shapes = shapes_by_name(&args.input)?;
    let network = model::load_at(&args.from, &args.arch, &shapes)?;
    let defaults = ExportOptions::default();
    let options = ExportOptions {
        opset: args.opset.unwrap_or(defaults.opset),
        half: args.fp16,
        fold: args.fold,
        ..defaults
    };
    if to_onnx {
        export(&network, &options)?.save(&args.to)?;
    } else if args.fold {
        network.folded()?.save(&args.to)?;
    } else {
        network.save(&args.to)?;
    }
    let changes = compared(args, &network)?;
    let opset = to_onnx.then_some(options.opset);
    let (input, output) = (args.from.clone(), args.to.clone());
    output::print(&Converted { input, output, opset, changes }, common.json)
}

/// How far the outputs of what was written are from those of what was read, models as they lie in their files.
fn compared(args: &Args, network: &Network) -> anyhow::Result<Vec<Change>> {
    if let Err(error) = cp_ort::library() {
        output::note(&format!("the models were not compared: {error}"));
        return Ok(Vec::new());
    }
    let written = if model::is_onnx(&args.to) { None } else { Some(Network::load(&args.to)?) };
    let before = match model::is_onnx(&args.from) {
        true => Subject::Model(&args.from),
        false => Subject::Network(network),
    };
    let after = written.as_ref().map_or(Subject::Model(&args.to), Subject::Network);
    let inputs = &network.architecture().inputs;
    let shapes = inputs.iter().map(|input| (input.name.clone(), input.shape.clone())).collect();
    changes(before, after, &shapes)
        .with_context(|| format!("{} was written, and could not be compared", args.to.display()))
}
