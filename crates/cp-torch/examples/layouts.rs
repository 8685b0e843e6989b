//! Milliseconds per call in NCHW and in channels-last, for networks dense and factorized: the measurements behind
//! `Layout::Auto`. The table is in the documentation of `Layout::resolve`.
//!
//! ```sh
//! cargo run -p cp-torch --example layouts -- [threads] [network…]
//! ```
//!
//! Every convolution with a spatial extent is factorized at a quarter of its break-even rank; weights are random, since time
//! does not depend on them. The two layouts take turns, call by call; the table has the fastest call of each, which a busy
//! machine disturbs least.
#![allow(clippy::print_stdout, reason = "the table is what the program is for")]

use std::time::{Duration, Instant};

use cp_net::{Architecture, Form, Op, arch};
use cp_torch::tch::{self, Device, Kind, Tensor};
use cp_torch::{Executor, Layout, Mode};

/// Each pair of layouts is measured for this long, but at least for `MIN_CALLS` calls.
const BUDGET: Duration = Duration::from_secs(2);
const MIN_CALLS: usize = 7;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    cp_torch::keep_freed_memory();
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().map_or(Ok(4), |argument| argument.parse())?;
    tch::set_num_threads(threads);
    tch::manual_seed(1);
    let mut names: Vec<String> = arguments.collect();
    if names.is_empty() {
        names = ["resnet20", "charnet", "alexnet", "squeezenet1_1", "googlenet"]
            .map(str::to_owned)
            .to_vec();
    }
    println!("{threads} threads, ms per call (channels-last, NCHW, NCHW / channels-last)");
    println!(
        "{:<14} {:<6} {:>5}  {:^26}  {:^26}",
        "network", "form", "batch", "evaluation", "training step"
    );
    for name in names {
        for form in [None, Some(Form::Cp3), Some(Form::Cp4)] {
            let arch = factorized(&name, form)?;
            let net = arch.initialize(1)?;
            let layouts = [Layout::ChannelsLast, Layout::Nchw];
            let [last, nchw] =
                layouts.map(|layout| Executor::with_layout(&net, Device::Cpu, layout));
            let models = [last?, nchw?];
            for batch in [1, 32] {
                let shape: Vec<i64> = std::iter::once(batch)
                    .chain(arch.input().shape.iter().map(|&n| n as i64))
                    .collect();
                let x = Tensor::randn(shape, (Kind::Float, Device::Cpu));
                let evaluation = interleaved(&models, |model| {
                    let _guard = tch::no_grad_guard();
                    model.forward(&x, Mode::Eval).map(drop)
                })?;
                let training = interleaved(&models, |model| {
                    model.forward(&x, Mode::Train)?.square().mean(Kind::Float).f_backward()?;
                    Ok(())
                })?;
                let column =
                    |[last, nchw]: [f64; 2]| format!("{last:9.2} {nchw:9.2} {:6.2}", nchw / last);
                let form = form.map_or("dense".to_owned(), |form| form.to_string());
                println!(
                    "{name:<14} {form:<6} {batch:>5}  {}  {}",
                    column(evaluation),
                    column(training)
                );
            }
        }
    }
    Ok(())
}

/// The architecture with every convolution of a spatial extent at a quarter of its break-even rank.
fn factorized(name: &str, form: Option<Form>) -> Result<Architecture, cp_net::NetError> {
    let mut arch = arch::by_name(name)?;
    let Some(form) = form else { return Ok(arch) };
    for node in arch.nodes.clone() {
        let Op::Conv(conv) = &node.op else { continue };
        if conv.is_pointwise() {
            continue;
        }
        let mut shape = conv.group_shape();
        if form == Form::Cp3 {
            shape.splice(2.., [conv.kernel.iter().product()]);
        }
        let break_even = shape.iter().product::<usize>() / shape.iter().sum::<usize>();
        arch.factorize(&node.name, form, (break_even / 4).max(1))?;
    }
    Ok(arch)
}

/// Milliseconds of the fastest call of `run` for each model, the models taking turns.
#[allow(
    clippy::disallowed_methods,
    reason = "cp-train's timing is built on this crate; the device is the CPU"
)]
fn interleaved(
    models: &[Executor; 2],
    run: impl Fn(&Executor) -> Result<(), cp_torch::TorchError>,
) -> Result<[f64; 2], cp_torch::TorchError> {
    let mut times = [Vec::new(), Vec::new()];
    let begin = Instant::now();
    for call in 0.. {
        for (model, times) in models.iter().zip(&mut times) {
            let start = Instant::now();
            run(model)?;
            // The first two calls warm up.
            if call >= 2 {
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        if times[0].len() >= MIN_CALLS && begin.elapsed() > BUDGET {
            break;
        }
    }
    Ok(times.map(|times| times.into_iter().fold(f64::INFINITY, f64::min)))
}
