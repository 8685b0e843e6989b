//! `polyad bench`: latency of two models, measured in turn.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use cp_net::Network;
use cp_train::engine::{Inputs, Subject, ready_on};
use cp_train::timing::{self, TimingOptions};
use cp_train::{Device, Engine, EngineName, Purpose, check_memory};
use serde::Serialize;

use crate::common::{self, Common, InputShape, Usage, positive, repeats, shapes_by_name};
use crate::inputs;
use crate::model::{self, ArchOption};
use crate::output::{self, Report};

const EXAMPLES: &str = "\
Examples:
  polyad bench resnet56.safetensors half.safetensors --arch resnet56
  polyad bench dense.safetensors cp.safetensors --batch 32 --threads 1 --repeats 51
  polyad bench dense.safetensors cp.safetensors --input 3x160x160
  polyad bench model.onnx compressed.onnx --batch 1,8 --threads 1
  polyad bench detector.onnx smaller.onnx --input images=3x416x416
  polyad bench model.onnx compressed.onnx --inputs pictures/ --preprocess unit --batch 4
  polyad bench dense.safetensors cp.safetensors --device cuda --json

Both models run in turn on the same random numbers (dense, compressed, dense, …), so that a drift of the machine's speed \
touches both alike: trust the ratio more than the milliseconds, and mind that it depends on the engine, the batch and the \
threads. ONNX models run as they lie in their files, networks of polyad with batch norms folded.

JSON: dense_ms and compressed_ms (medians, milliseconds per batch), ratio (dense / compressed: above 1 is a speed-up), \
repeats, threads, batch; further engine, input, device, and the quartiles dense_quartiles_ms and compressed_quartiles_ms. For \
several batches, a list of these.";

/// Time a dense and a compressed model against each other.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The dense model, as .safetensors or .onnx.
    #[arg(value_name = "DENSE")]
    dense: PathBuf,
    /// The compressed model, as .safetensors or .onnx.
    #[arg(value_name = "COMPRESSED")]
    compressed: PathBuf,
    #[command(flatten)]
    arch: ArchOption,
    /// Examples per forward pass; several in turn.
    #[arg(long, value_name = "N,…", default_value = "1", value_parser = positive, value_delimiter = ',')]
    batch: Vec<usize>,
    /// Sizes of one example, such as 3x224x224, of the input NAME where there are several [default: those that the dense model was
    /// built for].
    #[arg(long, value_name = "[NAME=]DIMS")]
    input: Vec<InputShape>,
    /// Examples for ONNX models, where their values matter to the time: an .npz or .npy file, a folder of these, or of pictures (--preprocess);
    /// the first --batch of them are taken.
    #[arg(long, value_name = "PATH", conflicts_with = "input")]
    inputs: Option<PathBuf>,
    /// Timed runs of each model; the median counts.
    #[arg(long, value_name = "N", default_value_t = TimingOptions::default().repeats, value_parser = repeats)]
    repeats: usize,
}

#[derive(Serialize)]
struct Row {
    dense_ms: f64,
    compressed_ms: f64,
    ratio: f64,
    repeats: usize,
    threads: usize,
    batch: usize,
    engine: EngineName,
    input: BTreeMap<String, Vec<usize>>,
    device: &'static str,
    dense_quartiles_ms: [f64; 2],
    compressed_quartiles_ms: [f64; 2],
}

/// One row for each batch size: as JSON one object, or a list of several.
#[derive(Serialize)]
#[serde(untagged)]
enum BenchReport {
    One(Box<Row>),
    Several(Vec<Row>),
}

impl Report for BenchReport {
    fn text(&self, to: &mut dyn Write) -> io::Result<()> {
        match self {
            BenchReport::One(row) => row.text(to),
            BenchReport::Several(rows) => rows.iter().enumerate().try_for_each(|(index, row)| {
                if index > 0 {
                    writeln!(to)?;
                }
                row.text(to)
            }),
        }
    }
}

impl Row {
    fn text(&self, to: &mut dyn Write) -> io::Result<()> {
        let line = |to: &mut dyn Write, name: &str, median: f64, [lower, upper]: [f64; 2]| {
            writeln!(
                to,
                "{name}  {median:9.3} ms   (middle half of the runs: {lower:.3} to {upper:.3} ms)"
            )
        };
        line(to, "dense     ", self.dense_ms, self.dense_quartiles_ms)?;
        line(to, "compressed", self.compressed_ms, self.compressed_quartiles_ms)?;
        let verdict =
            if self.ratio >= 1.0 { "faster" } else { "slower: compression does not pay here" };
        writeln!(to, "ratio       {:9.2} ×   {verdict}", self.ratio)?;
        let with_axes = self.input.values().filter(|sizes| !sizes.is_empty());
        let inputs: Vec<String> = with_axes.map(|sizes| output::shape(sizes)).collect();
        writeln!(
            to,
            "batch {} of {}, {}, {} thread{}, {}, median of {} interleaved runs",
            self.batch,
            inputs.join(" and "),
            self.engine,
            self.threads,
            if self.threads == 1 { "" } else { "s" },
            self.device,
            self.repeats
        )
    }
}

/// A model to be timed.
enum Given {
    Network(Box<Network>),
    Onnx(PathBuf),
}

impl Given {
    fn subject(&self) -> Subject<'_> {
        match self {
            Given::Network(network) => Subject::Network(network),
            Given::Onnx(path) => Subject::Model(path),
        }
    }
}

pub(crate) fn run(args: &Args, common: &Common) -> anyhow::Result<()> {
    let given = shapes_by_name(&args.input)?;
    if let Some(at) = (1..args.batch.len()).find(|&at| args.batch[..at].contains(&args.batch[at])) {
        return Err(Usage(format!("--batch: {} is given twice", args.batch[at])).into());
    }
    let paths = [&args.dense, &args.compressed];
    let mut models = Vec::new();
    for path in paths {
        models.push(if model::is_onnx(path) {
            model::open_onnx(path)?;
            Given::Onnx(path.clone())
        } else {
            Given::Network(Box::new(model::load(path, &args.arch)?))
        });
    }
    let device = common.device.device()?;
    let engine = common.engine.engine(device, models.iter().map(Given::subject))?;
    let threads = timing::set_threads(common.threads.unwrap_or(0));
    let shapes = match &args.inputs {
        Some(from) => {
            if let Some(other) = paths.iter().find(|path| !model::is_onnx(path)) {
                return Err(Usage(format!(
                    "--inputs {} is for ONNX models; `polyad convert {} model.onnx` makes one",
                    from.display(),
                    other.display()
                ))
                .into());
            }
            if engine != Engine::OnnxRuntime {
                let told = "--inputs is for ONNX models in ONNX Runtime: leave --engine out";
                return Err(Usage(told.into()).into());
            }
            let mut shapes = BTreeMap::new();
            inputs::open(from, paths[0], &mut shapes, args.arch.preprocess.as_ref(), 1)?;
            shapes
        }
        None => input_shapes(&models, &paths, &given)?,
    };
    for &batch in &args.batch {
        for model in &models {
            let Given::Network(network) = model else { continue };
            let (arch, purpose) = (network.architecture(), Purpose::Forward);
            let sizes: Vec<Vec<usize>> =
                arch.inputs.iter().filter_map(|input| shapes.get(&input.name).cloned()).collect();
            check_memory(arch, &sizes, batch, purpose, device, "--batch or --input")?;
        }
    }
    let options = TimingOptions {
        repeats: args.repeats,
        max_seconds: f64::INFINITY,
        ..TimingOptions::default()
    };
    let mut rows = Vec::new();
    for &batch in &args.batch {
        let inputs = Inputs { shapes: shapes.clone(), batch };
        let mut ready = Vec::new();
        for (model, path) in models.iter().zip(paths) {
            let named = || path.display().to_string();
            ready.push(match &args.inputs {
                None => engine.ready(model.subject(), &inputs).with_context(named)?,
                Some(from) => {
                    let mut given = BTreeMap::new();
                    let preprocess = args.arch.preprocess.as_ref();
                    let examples = inputs::open(from, path, &mut given, preprocess, batch)?;
                    if examples.size_of(0) != batch {
                        bail!(
                            "--batch {batch}: a run of {} on --inputs {} holds {} examples",
                            path.display(),
                            from.display(),
                            examples.size_of(0)
                        );
                    }
                    ready_on(path, examples.run(0)?).with_context(named)?
                }
            });
        }
        let timings = timing::in_turn(&mut ready, &options)?;
        if let Some(told) = timing::too_noisy(&timings) {
            output::note(&told);
        }
        let [dense, compressed] = [timings[0], timings[1]];
        rows.push(Row {
            dense_ms: 1e3 * dense.median,
            compressed_ms: 1e3 * compressed.median,
            ratio: dense.median / compressed.median,
            repeats: args.repeats,
            threads,
            batch,
            engine: engine.name(),
            input: shapes.clone(),
            device: if device == Device::Cpu { "cpu" } else { "cuda" },
            dense_quartiles_ms: [1e3 * dense.lower, 1e3 * dense.upper],
            compressed_quartiles_ms: [1e3 * compressed.lower, 1e3 * compressed.upper],
        });
    }
    let report = match rows.len() {
        1 => BenchReport::One(Box::new(rows.remove(0))),
        _ => BenchReport::Several(rows),
    };
    output::print(&report, common.json)
}

/// The shapes that both models run on: those given, else those of the dense model. Both are found to take them.
fn input_shapes(
    models: &[Given],
    paths: &[&PathBuf; 2],
    given: &BTreeMap<String, Vec<usize>>,
) -> anyhow::Result<BTreeMap<String, Vec<usize>>> {
    let mut shapes = BTreeMap::new();
    for (model, path) in models.iter().zip(paths) {
        let named = || path.display().to_string();
        // What the first has told, the second is asked with; the only input may have another name there.
        let told: BTreeMap<String, Vec<usize>> = match shapes.len() {
            1 => shapes
                .values()
                .map(|sizes: &Vec<usize>| (cp_net::INPUT.into(), sizes.clone()))
                .collect(),
            _ => shapes.clone(),
        };
        let asked = if shapes.is_empty() { given } else { &told };
        let found = match model {
            Given::Network(network) => network_shapes(network, asked).with_context(named)?,
            Given::Onnx(path) => Engine::model_shapes(path, asked).with_context(named)?,
        };
        if shapes.is_empty() {
            shapes = found;
        } else if found.values().ne(shapes.values()) {
            let told = |shapes: &BTreeMap<String, Vec<usize>>| {
                let one = |(name, sizes): (&String, &Vec<usize>)| {
                    format!("{name}={}", output::shape(sizes))
                };
                shapes.iter().map(one).collect::<Vec<_>>().join(", ")
            };
            bail!(
                "{}: takes inputs of shape {}, and {} is asked for; leave --input out, or give both models alike",
                path.display(),
                told(&found),
                told(&shapes)
            );
        }
    }
    Ok(shapes)
}

/// The shapes of the inputs of a network by name, which it is found to take.
fn network_shapes(
    network: &Network,
    asked: &BTreeMap<String, Vec<usize>>,
) -> anyhow::Result<BTreeMap<String, Vec<usize>>> {
    let shapes = common::input_shapes(network.architecture(), asked)?;
    for ((_, sizes), input) in shapes.iter().zip(&network.architecture().inputs) {
        if sizes.len() != input.shape.len() {
            bail!(
                "takes inputs of shape {}, and {} is asked for; leave --input out, or give both models alike",
                output::shape(&input.shape),
                output::shape(sizes)
            );
        }
    }
    let ordered: Vec<Vec<usize>> = shapes.iter().map(|(_, sizes)| sizes.clone()).collect();
    network.shapes(&ordered)?;
    Ok(shapes.into_iter().collect())
}
