//! `polyad inspect`: what a network consists of, what it costs, and below which ranks factors pay.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cp_net::{Architecture, Form, LayerCost, Network, Rank, arch};
use cp_train::engine::value_shapes;
use serde::Serialize;

use crate::common::{Common, InputShape, input_shapes, shapes_by_name};
use crate::model::{self, ArchOption};
use crate::output::{self, Column, Report, Table, count};

fn examples() -> String {
    format!(
        "\
Examples:
  polyad inspect --arch alexnet
  polyad inspect resnet56.safetensors --arch resnet56
  polyad inspect half.safetensors --json
  polyad inspect --arch resnet18 --input 3x160x160
  polyad inspect model.onnx --input 3x224x224
  polyad inspect net.safetensors --sparsity 0.01,0.1

Architectures: {}.

A layer in factors of a rank below its break-even rank has fewer parameters than the dense layer. Multiply-adds are \
counted for one image, convolutions, linear layers and matrix products only.

JSON: architecture, input (of the only one), inputs (by name), parameters, macs, activation_bytes, layers: a list of name, op, kernel, output, parameters, \
macs, breakeven (rank by form, in parameters), breakeven_macs, for factorized layers form, rank and relative_error, and with --sparsity: \
sparsity (a list of threshold and share).",
        arch::names().join(", ")
    )
}

/// Show the layers of a model: shapes, parameters, multiply-adds, break-even ranks.
#[derive(clap::Args)]
#[command(after_help = examples())]
pub(crate) struct Args {
    /// A model: .safetensors of polyad, .onnx, .pt2; or weights as .safetensors or .pth, with --arch.
    #[arg(value_name = "MODEL", required_unless_present = "name")]
    model: Option<PathBuf>,
    #[command(flatten)]
    arch: ArchOption,
    /// Sizes of one example, such as 3x224x224 (channels, height, width) [default: those that the model was built for].
    #[arg(long, value_name = "[NAME=]DIMS")]
    input: Vec<InputShape>,
    /// Show the shares of every layer's weights that are not above these thresholds, which are shares of its largest weight.
    #[arg(long, value_name = "T,…", value_delimiter = ',', value_parser = threshold, requires = "model")]
    sparsity: Vec<f64>,
}

fn threshold(text: &str) -> Result<f64, String> {
    let wanted =
        || "a threshold is a share of the largest weight, from 0 to 1, such as 0.01".to_owned();
    let value: f64 = text.trim().parse().map_err(|_| wanted())?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(wanted()) }
}

#[derive(Serialize)]
struct InspectReport {
    architecture: String,
    /// Of the only input.
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Vec<usize>>,
    inputs: BTreeMap<String, Vec<usize>>,
    parameters: usize,
    macs: usize,
    activation_bytes: usize,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
struct Layer {
    name: String,
    op: &'static str,
    /// Shape of the dense weight.
    kernel: Option<Vec<usize>>,
    output: Vec<usize>,
    parameters: usize,
    macs: usize,
    /// Largest rank of each form with fewer parameters than the dense layer.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    breakeven: BTreeMap<Form, usize>,
    /// The same in multiply-adds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    breakeven_macs: BTreeMap<Form, usize>,
    #[serde(flatten)]
    factors: Option<Factors>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sparsity: Vec<Share>,
}

/// The share of a layer's weights that are not above a threshold, itself a share of the largest.
#[derive(Serialize)]
struct Share {
    threshold: f64,
    share: f64,
}

/// How a layer was factorized.
#[derive(Serialize)]
struct Factors {
    form: Form,
    rank: Rank,
    relative_error: f64,
}

impl Report for InspectReport {
    fn text(&self, to: &mut dyn Write) -> io::Result<()> {
        let name = output::printable(&self.architecture);
        match (&self.input, self.inputs.len()) {
            (Some(input), _) => writeln!(to, "{name}, input {}\n", output::shape(input))?,
            (None, count) if count > 4 => writeln!(to, "{name}, {count} inputs\n")?,
            (None, _) => {
                let one = |(name, sizes): (&String, &Vec<usize>)| {
                    format!("'{}' {}", output::printable(name), output::shape(sizes))
                };
                let all: Vec<String> = self.inputs.iter().map(one).collect();
                writeln!(to, "{name}, inputs {}\n", all.join(", "))?;
            }
        }
        let mut table = Table::new([
            Column::Left("layer"),
            Column::Left("op"),
            Column::Right("kernel"),
            Column::Right("output"),
            Column::Right("parameters"),
            Column::Right("multiply-adds"),
            Column::Left("factors"),
        ]);
        for layer in &self.layers {
            let factors = match &layer.factors {
                Some(Factors { form, rank, relative_error }) => {
                    format!("{form}, rank {rank}, relative error {relative_error:.3}")
                }
                None => layer
                    .breakeven
                    .iter()
                    .map(|(form, rank)| format!("{form} up to rank {rank}"))
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            table.row([
                layer.name.clone(),
                layer.op.to_owned(),
                layer.kernel.as_deref().map(output::shape).unwrap_or_default(),
                output::shape(&layer.output),
                count(layer.parameters),
                count(layer.macs),
                factors,
            ]);
        }
        table.write(to)?;
        writeln!(
            to,
            "\ntotal: {} parameters, {} multiply-adds, {} bytes of activations",
            count(self.parameters),
            count(self.macs),
            count(self.activation_bytes)
        )?;
        if self.layers.iter().all(|layer| layer.sparsity.is_empty()) {
            return Ok(());
        }
        let mut table = Table::new([
            Column::Left("layer"),
            Column::Right("threshold / largest weight"),
            Column::Right("weights not above"),
        ]);
        for layer in &self.layers {
            for Share { threshold, share } in &layer.sparsity {
                let share = format!("{:.2} %", 100.0 * share);
                table.row([layer.name.clone(), threshold.to_string(), share]);
            }
        }
        writeln!(to)?;
        table.write(to)
    }
}

pub(crate) fn run(args: &Args, common: &Common) -> anyhow::Result<()> {
    let given = shapes_by_name(&args.input)?;
    let mut shares = BTreeMap::new();
    let (arch, input) = match (&args.model, args.arch.architecture()?) {
        (Some(path), _) if model::is_onnx(path) => {
            // Read at the sizes that are given.
            let network = onnx(path, &args.arch, &given)?;
            shares = sparsity(&network, &args.sparsity)?;
            let arch = network.into_parts().0;
            let input = arch.input_shapes();
            (arch, input)
        }
        (Some(path), _) => {
            let network = model::load(path, &args.arch)?;
            shares = sparsity(&network, &args.sparsity)?;
            at(network.into_parts().0, &given)?
        }
        (None, Some(arch)) => at(arch, &given)?,
        (None, None) => anyhow::bail!("name a MODEL or an architecture with --arch"),
    };
    let cost = arch.cost(&input).context("--input")?;
    let layers = cost
        .layers
        .iter()
        .map(|layer| {
            let sparsity = shares.remove(&layer.name).unwrap_or_default();
            Ok(Layer { sparsity, ..describe(&arch, layer, &input)? })
        })
        .collect::<anyhow::Result<_>>()?;
    let report = InspectReport {
        architecture: arch.name.clone(),
        input: match &input[..] {
            [only] => Some(only.clone()),
            _ => None,
        },
        inputs: arch.inputs.iter().map(|input| input.name.clone()).zip(input.clone()).collect(),
        parameters: cost.total.params,
        macs: cost.total.macs,
        activation_bytes: cost.total.activation_bytes,
        layers,
    };
    output::print(&report, common.json)
}

/// The shares of every dense layer with weights; factorized ones have no kernel of their own.
fn sparsity(network: &Network, thresholds: &[f64]) -> anyhow::Result<BTreeMap<String, Vec<Share>>> {
    let mut all = BTreeMap::new();
    if thresholds.is_empty() {
        return Ok(all);
    }
    for layer in network.architecture().compressible() {
        let shares = network.sparsity(&layer, thresholds).context("--sparsity")?;
        let pairs = thresholds.iter().zip(shares);
        let own = pairs.map(|(&threshold, share)| Share { threshold, share }).collect();
        all.insert(layer, own);
    }
    if all.is_empty() {
        output::note("--sparsity: no layer has a kernel of its own to count in");
    }
    Ok(all)
}

/// An ONNX model as a whole, or where it has ops that no network has, its layers, each for itself.
fn onnx(
    path: &Path,
    option: &ArchOption,
    given: &BTreeMap<String, Vec<usize>>,
) -> anyhow::Result<Network> {
    let whole = model::load_at(path, option, given);
    let Err(error) = whole else { return whole };
    if let Some(preprocess) = &option.preprocess {
        // A file that is wrong is no reason to show less.
        preprocess.check()?;
    }
    let model = model::open_onnx(path)?;
    // What is quantized or damaged has no layers either.
    let values = model.layer_inputs()?;
    let Ok(shapes) = value_shapes(&model, &values, given, &BTreeMap::new()) else {
        return Err(error);
    };
    output::note(&format!("the layers alone are shown: {error:#}"));
    let view = model.layer_view(Some(&shapes))?;
    for (layer, why) in view.fixed.iter().chain(&view.left_out) {
        output::note(&format!("'{layer}' is left alone: {why}"));
    }
    Ok(view.network)
}

/// An architecture and the shapes of its inputs: those given by name, else those that it was built for.
fn at(
    arch: Architecture,
    given: &BTreeMap<String, Vec<usize>>,
) -> anyhow::Result<(Architecture, Vec<Vec<usize>>)> {
    let shapes = input_shapes(&arch, given)?.into_iter().map(|(_, sizes)| sizes).collect();
    Ok((arch, shapes))
}

fn describe(arch: &Architecture, layer: &LayerCost, input: &[Vec<usize>]) -> anyhow::Result<Layer> {
    let record = arch.factorized.get(&layer.name);
    let dense = match record {
        Some(record) => &record.dense,
        None => &arch.node(&layer.name)?.op,
    };
    let mut breakeven = BTreeMap::new();
    let mut breakeven_macs = BTreeMap::new();
    if record.is_none() {
        for form in [Form::Cp3, Form::Cp4, Form::LowRank]
            .into_iter()
            .filter(|form| form.suited_to(dense) == Some(*form))
        {
            let even = arch.breakeven(&layer.name, form, input.to_vec())?;
            breakeven.insert(form, below(even.params));
            breakeven_macs.insert(form, below(even.macs));
        }
    }
    Ok(Layer {
        name: layer.name.clone(),
        op: layer.op,
        kernel: dense
            .has_kernel()
            .then(|| dense.params().into_iter().find(|spec| spec.slot == "weight"))
            .flatten()
            .map(|spec| spec.shape),
        output: layer.output.clone(),
        parameters: layer.cost.params,
        macs: layer.cost.macs,
        breakeven,
        breakeven_macs,
        factors: record.map(|record| Factors {
            form: record.form,
            rank: record.rank,
            relative_error: record.rel_error,
        }),
        sparsity: Vec::new(),
    })
}

/// The largest rank that is below `breakeven`.
fn below(breakeven: f64) -> usize {
    // Not negative: a quotient of two counts.
    (breakeven.ceil() as usize).saturating_sub(1)
}
