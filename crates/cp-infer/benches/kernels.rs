//! Layers by themselves, each as a share of the peak of registers in the same process.
//!
//! ```text
//! taskset -c 1 cargo bench -p cp-infer --bench kernels [-- WORD...]
//! ```

mod common;

use common::{interleaved, peak};
use cp_infer::{Compiled, Options};
use cp_net::arch::{Builder, Window, window};
use cp_net::{Architecture, Draw, Form, InputSpec};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    println!("| layer | µs | GFLOP/s | of the peak |");
    println!("|---|---|---|---|");
    for (name, arch) in layers()? {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            continue;
        }
        let net = arch.initialize(1)?;
        let compiled = Compiled::new(&net, &Options::default().batch(1))?;
        let x = Draw::new(2).array(&arch.input().shape, (-1.0, 1.0));
        let values = x.as_slice().unwrap_or_default();
        let mut y = vec![0.0; arch.output_shape(arch.input_shapes())?.iter().product()];
        let mut run = || {
            let run = compiled.run_into(1, &[values], &mut [&mut y]);
            assert!(run.is_ok(), "{run:?}");
        };
        let macs = arch.cost(arch.input_shapes())?.total.macs as f64;
        let before = peak();
        let [seconds, ..] = interleaved(151, &mut [&mut run])[0];
        let speed = macs / seconds;
        println!(
            "| {name} | {:.1} | {:.1} | {:.0} % |",
            1e6 * seconds,
            2e-9 * speed,
            100.0 * speed / before.max(peak())
        );
    }
    Ok(())
}

/// Four layers one behind the other between a small layer and a mean, so that layouts at the ends hardly count.
fn layers() -> Result<Vec<(String, Architecture)>, Failure> {
    let mut layers = Vec::new();
    for (channels, size) in [(16, 32), (32, 16), (64, 8), (64, 56), (128, 28), (256, 14), (512, 7)]
    {
        let name = format!("{channels}x{size}x{size}");
        let of = |what: &str, window: Window| {
            let mut net = Builder::new("layers", InputSpec::features([channels, size, size]));
            for index in 0..8 {
                net = net.conv(&format!("conv{index}"), channels, window);
            }
            let arch = net.global_avg_pool("pool").build()?;
            Ok::<_, Failure>((format!("{what}/{name}"), arch))
        };
        let pointwise = of("1x1", window(1))?;
        let dense = of("3x3", window(3).pad(1))?;
        let depthwise = of("depthwise", window(3).pad(1).groups(channels))?;
        for rank in [channels / 2, channels, channels * 3 / 2 - 1] {
            let mut arch = dense.1.clone();
            for layer in arch.compressible() {
                arch.factorize(&layer, Form::Cp3, rank)?;
            }
            layers.push((format!("cp3/{name}/R{rank}"), arch));
        }
        layers.extend([pointwise, dense, depthwise]);
    }
    Ok(layers)
}
