//! Networks in this engine and in ONNX Runtime, one thread each, in turn.
//!
//! ```text
//! taskset -c 1 cargo bench -p cp-infer --bench engines [-- NETWORK... BATCH...]
//! ```
//!
//! For each network, dense and in CP-3 at about 2, 3 and 5 times fewer multiply-adds, with ranks in multiples of 16 and odd ones; random weights.
//! Columns: multiply-adds against dense; milliseconds, the median and the quartiles, in both engines; how much faster this one is; and the
//! speed-up over the dense network as a share of what the multiply-adds promise, against the better direct convolution of both engines and
//! against the best dense network of all, which may use Winograd's transform. The dense network runs in turn with each of the others, since
//! machines drift. Seconds are those that the thread has run; ratios are those of the lower quartiles, since other work on a machine, which takes
//! caches with it, only adds.

mod common;

use common::{factorized, interleaved, peak, vgg16_cifar};
use cp_infer::{Compiled, Options};
use cp_net::{Architecture, Draw, arch};
use cp_onnx::{ExportOptions, export};
use cp_ort::{Inputs, Model, Session, SessionOptions, Tensor};

type Failure = Box<dyn std::error::Error>;

/// Name, input size and rounds of timing.
const NETWORKS: [(&str, [usize; 3], usize); 8] = [
    ("resnet20", [3, 32, 32], 201),
    ("resnet56", [3, 32, 32], 101),
    ("resnet18", [3, 224, 224], 31),
    ("vgg16-cifar", [3, 32, 32], 31),
    ("alexnet", [3, 224, 224], 31),
    ("alexnet-features", [3, 224, 224], 31),
    ("googlenet", [3, 224, 224], 31),
    ("charnet", [1, 24, 24], 101),
];

fn main() -> Result<(), Failure> {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let batches: Vec<usize> = wanted.iter().filter_map(|word| word.parse().ok()).collect();
    let words: Vec<&str> =
        wanted.iter().map(String::as_str).filter(|word| word.parse::<usize>().is_err()).collect();
    println!("peak of one core: {:.1} GFLOP/s; level {}", 2e-9 * peak(), cp_infer::Level::best());
    match cp_ort::library() {
        Ok(library) => println!("ONNX Runtime {}", library.version()),
        Err(error) => println!("{error}"),
    }
    println!(
        "| network | form | batch | MACs | this, ms | ONNX Runtime, ms | faster | of the ratio, direct | any dense |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (name, shape, rounds) in NETWORKS {
        if !words.is_empty() && !words.contains(&name) {
            continue;
        }
        let dense = match name {
            "vgg16-cifar" => vgg16_cifar(),
            "alexnet-features" => alexnet_features()?,
            name => arch::by_name(name)?.with_input_shape(shape)?,
        };
        let mut forms =
            vec![("dense, direct".to_string(), dense.clone()), ("dense".into(), dense.clone())];
        for ratio in [2.0, 3.0, 5.0] {
            for multiple in [true, false] {
                let ranks = if multiple { "16s" } else { "odd" };
                forms.push((format!("{ratio}x {ranks}"), factorized(&dense, ratio, multiple)));
            }
        }
        for batch in [1, 8] {
            if !batches.is_empty() && !batches.contains(&batch) {
                continue;
            }
            // How much faster the better engine is than this one at the dense network, by direct convolutions and by any.
            let mut better = [1.0_f64; 2];
            for (form, arch) in &forms {
                let direct = form == "dense, direct";
                let [this, other, by_direct, by_any] =
                    time(arch, !direct, &dense, batch, rounds.div_ceil(batch.div_ceil(3)))?;
                if direct {
                    better = [by_direct[0], by_any[0]].map(|dense| (dense / other[0]).max(1.0));
                }
                let all = |arch: &Architecture| {
                    Ok::<_, Failure>(arch.cost(&shape[..])?.total.macs as f64)
                };
                let macs = all(&dense)? / all(arch)?;
                let share =
                    |dense: [f64; 3], better: f64| 100.0 * dense[0] / better / this[0] / macs;
                println!(
                    "| {name} | {form} | {batch} | {macs:.2} | {} | {} | {:.2} | {:.0} % | {:.0} % |",
                    text(this),
                    text(other),
                    other[0] / this[0],
                    share(by_direct, better[0]),
                    share(by_any, better[1])
                );
            }
        }
    }
    Ok(())
}

/// AlexNet's convolutions and poolings: what is left reads its weights from memory, in any engine.
fn alexnet_features() -> Result<Architecture, Failure> {
    let mut arch = arch::by_name("alexnet")?;
    let last = arch.position("features.12")?;
    arch.nodes.truncate(last + 1);
    arch.outputs = vec!["features.12".into()];
    arch.classes.clear();
    Ok(arch)
}

fn text([low, median, high]: [f64; 3]) -> String {
    format!("{:.3} ({:.3}–{:.3})", 1e3 * median, 1e3 * low, 1e3 * high)
}

/// Quartiles of `arch` in this engine and in the other (NaN where there is no ONNX Runtime), and of `dense` in this one by direct convolutions
/// and by any.
fn time(
    arch: &Architecture,
    winograd: bool,
    dense: &Architecture,
    batch: usize,
    rounds: usize,
) -> Result<[[f64; 3]; 4], Failure> {
    let net = arch.initialize(1)?;
    let dense = dense.initialize(1)?;
    let options = Options::default().batch(batch);
    let compiled = [
        Compiled::new(&net, &options.clone().winograd(winograd))?,
        Compiled::new(&dense, &options.clone().winograd(false))?,
        Compiled::new(&dense, &options)?,
    ];
    let shape = [&[batch], &arch.input().shape[..]].concat();
    let x = Draw::new(2).array(&shape, (-1.0, 1.0));
    let values = x.as_slice().unwrap_or_default();
    let outputs: usize = arch.output_shape(arch.input_shapes())?.iter().product();
    let mut runs = compiled.each_ref().map(|compiled| {
        let mut y = vec![0.0; batch * outputs];
        move || {
            let run = compiled.run_into(batch, &[values], &mut [&mut y]);
            assert!(run.is_ok(), "{run:?}");
        }
    });
    let [this, by_direct, by_any] = &mut runs;
    if cp_ort::library().is_err() {
        let times = interleaved(rounds, &mut [this, by_direct, by_any]);
        return Ok([times[0], [f64::NAN; 3], times[1], times[2]]);
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.onnx");
    export(&net, &ExportOptions { fold: true, ..ExportOptions::default() })?.save(&path)?;
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let mut session = Session::new(Model::File(&path), &options)?;
    let inputs = Inputs::new([(arch.input().name.as_str(), Tensor::from(x.clone()))])?;
    let mut other = || {
        let run = session.run_prepared(&inputs);
        assert!(run.is_ok(), "{run:?}");
    };
    let times = interleaved(rounds, &mut [this, &mut other, by_direct, by_any]);
    Ok([times[0], times[1], times[2], times[3]])
}
