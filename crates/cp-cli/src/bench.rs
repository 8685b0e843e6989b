//! `polyad bench`: latency of two models, measured in turn.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use cp_torch::Layout;
use cp_torch::tch::Device;
use cp_train::timing::{self, Timing, TimingOptions};
use cp_train::{Purpose, check_memory};
use serde::Serialize;

use crate::common::{Common, InputShape, positive, repeats};
use crate::model::{self, ArchOption};
use crate::output::{self, Report};

const EXAMPLES: &str = "\
Examples:
  polyad bench resnet56.safetensors half.safetensors --arch resnet56
  polyad bench dense.safetensors cp.safetensors --batch 32 --threads 1 --repeats 51
  polyad bench dense.safetensors cp.safetensors --input 3x160x160
  polyad bench dense.safetensors cp.safetensors --device cuda --json

Both models run in turn on the same random images (dense, compressed, dense, …), so that a drift of the machine's speed \
touches both alike: trust the ratio more than the milliseconds, and mind that it depends on the batch and the threads.

JSON: dense_ms and compressed_ms (medians, milliseconds per batch), ratio (dense / compressed: above 1 is a speed-up), \
repeats, threads, batch; further input, device, layout, and the quartiles dense_quartiles_ms and compressed_quartiles_ms.";

/// Time a dense and a compressed model against each other.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The dense model, as .safetensors.
    #[arg(value_name = "DENSE")]
    dense: PathBuf,
    /// The compressed model, as .safetensors.
    #[arg(value_name = "COMPRESSED")]
    compressed: PathBuf,
    #[command(flatten)]
    arch: ArchOption,
    /// Images per forward pass.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    batch: usize,
    /// Channels, height and width of an image [default: those that the dense model was built for].
    #[arg(long, value_name = "CxHxW")]
    input: Option<InputShape>,
    /// Timed runs of each model; the median counts.
    #[arg(long, value_name = "N", default_value_t = TimingOptions::default().repeats, value_parser = repeats)]
    repeats: usize,
}

#[derive(Serialize)]
struct BenchReport {
    dense_ms: f64,
    compressed_ms: f64,
    ratio: f64,
    repeats: usize,
    threads: usize,
    batch: usize,
    input: Vec<usize>,
    device: &'static str,
    layout: &'static str,
    dense_quartiles_ms: [f64; 2],
    compressed_quartiles_ms: [f64; 2],
}

impl Report for BenchReport {
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
        writeln!(
            to,
            "batch {} of {}, {} thread{}, {}, {}, median of {} interleaved runs",
            self.batch,
            output::shape(&self.input),
            self.threads,
            if self.threads == 1 { "" } else { "s" },
            self.device,
            self.layout,
            self.repeats
        )
    }
}

pub(crate) fn run(args: &Args, common: &Common) -> anyhow::Result<()> {
    let dense = model::load(&args.dense, &args.arch)?;
    let compressed = model::load(&args.compressed, &args.arch)?;
    let input =
        args.input.as_ref().map_or_else(|| dense.input().shape.clone(), |input| input.0.clone());
    for (net, path) in [(&dense, &args.dense), (&compressed, &args.compressed)] {
        let named = || path.display().to_string();
        if net.architecture().inputs.len() > 1 {
            let inputs: Vec<&str> =
                net.architecture().inputs.iter().map(|input| input.name.as_str()).collect();
            bail!(
                "{}: has {} inputs ({}); bench runs networks of one",
                named(),
                inputs.len(),
                inputs.join(", ")
            );
        }
        if net.input().shape.len() != input.len() {
            bail!(
                "{}: takes inputs of shape {}, and {} is asked for; leave --input out, or give both models alike",
                named(),
                output::shape(&net.input().shape),
                output::shape(&input)
            );
        }
        net.shapes(&input).with_context(named)?;
    }
    // Both get an input of their own.
    let (device, batch) = (model::device(common)?, args.batch);
    for net in [&dense, &compressed] {
        let (arch, purpose) = (net.architecture(), Purpose::Forward);
        check_memory(arch, &input, batch, purpose, device, "--batch or --input")?;
    }
    let threads = timing::set_threads(common.threads.unwrap_or(0));
    let models = [
        model::executor(&dense.folded()?, common)?,
        model::executor(&compressed.folded()?, common)?,
    ];
    let options = TimingOptions {
        repeats: args.repeats,
        max_seconds: f64::INFINITY,
        ..TimingOptions::default()
    };
    let timings = timing::latency(&[&models[0], &models[1]], &input, args.batch, &options)?;
    if let Some(told) = timing::too_noisy(&timings) {
        eprintln!("note: {told}");
    }
    let milliseconds =
        |timing: &Timing| (1e3 * timing.median, [1e3 * timing.lower, 1e3 * timing.upper]);
    let [(dense_ms, dense_quartiles_ms), (compressed_ms, compressed_quartiles_ms)] =
        [milliseconds(&timings[0]), milliseconds(&timings[1])];
    let report = BenchReport {
        dense_ms,
        compressed_ms,
        ratio: dense_ms / compressed_ms,
        repeats: args.repeats,
        threads,
        batch: args.batch,
        input,
        device: if device == Device::Cpu { "cpu" } else { "cuda" },
        layout: match models[0].layout() {
            Layout::Nchw => "nchw",
            _ => "channels-last",
        },
        dense_quartiles_ms,
        compressed_quartiles_ms,
    };
    output::print(&report, common.json)
}
