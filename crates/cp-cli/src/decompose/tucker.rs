//! The Tucker methods of `polyad decompose`.

use std::io::{self, Write};
use std::ops::ControlFlow;

use anyhow::Context as _;
use cp_core::{Hooi, Hosvd, Progress, Real, Tucker2, TuckerDecomposition, TuckerSolver};
use cp_train::progress;
use ndarray::ArrayD;
use ndarray_npy::WritableElement;
use serde::Serialize;

use super::{Algorithm, Args};
use crate::common::Usage;
use crate::npy;
use crate::output::{self, OutFile, Report};

#[derive(Serialize)]
pub(super) struct TuckerReport {
    method: String,
    shape: Vec<usize>,
    ranks: Vec<usize>,
    parameters: usize,
    iterations: usize,
    relative_error: f64,
    fit: f64,
    stop: &'static str,
    seconds: f64,
    seconds_per_iteration: f64,
}

impl Report for TuckerReport {
    fn text(&self, to: &mut dyn Write) -> io::Result<()> {
        writeln!(to, "array           {}", output::shape(&self.shape))?;
        writeln!(to, "method          {}, ranks {}", self.method, output::shape(&self.ranks))?;
        writeln!(to, "parameters      {}", self.parameters)?;
        writeln!(to, "iterations      {} (stopped: {})", self.iterations, self.stop)?;
        writeln!(to, "relative error  {:.6}", self.relative_error)?;
        writeln!(to, "fit             {:.6}", self.fit)?;
        writeln!(to, "seconds         {:.3}", self.seconds)
    }
}

/// Decomposes `array` and writes core and factors.
pub(super) fn run<T: Real + WritableElement>(
    array: &ArrayD<T>,
    args: &Args,
    out: Option<OutFile>,
) -> anyhow::Result<TuckerReport> {
    let ranks = args.ranks.clone().unwrap_or_default();
    let solver: Box<dyn TuckerSolver<T>> = match (args.method, ranks.as_slice()) {
        (Algorithm::Tucker2, &[first, second]) => {
            Box::new(Tucker2::new([first, second]).max_iters(args.max_iters).tol(args.tol))
        }
        (Algorithm::Tucker2, _) => {
            return Err(
                Usage("--method tucker2 takes two --ranks, for modes 0 and 1".into()).into()
            );
        }
        (Algorithm::Hosvd, _) => Box::new(Hosvd::new(ranks)),
        _ => Box::new(Hooi::new(ranks).max_iters(args.max_iters).tol(args.tol)),
    };
    let bar = progress::bar(args.max_iters as u64, "decompose");
    let found: TuckerDecomposition<T> = solver
        .decompose_with(array.view(), &mut |progress: &Progress| {
            bar.set_position(progress.iteration as u64);
            bar.set_message(format!("relative error {:.6}", progress.rel_error));
            ControlFlow::Continue(())
        })
        .with_context(|| args.input.display().to_string())?;
    bar.finish_and_clear();
    if let Some(out) = out {
        out.write(|file| npy::write_tucker(&found.tucker, file))?;
    }
    let iterations = found.iterations();
    Ok(TuckerReport {
        method: args.method.name().to_owned(),
        shape: array.shape().to_vec(),
        ranks: found.tucker.ranks(),
        parameters: found.tucker.parameters(),
        iterations,
        relative_error: found.rel_error,
        fit: found.fit(),
        stop: found.stop.name(),
        seconds: found.seconds,
        seconds_per_iteration: found.seconds / iterations.max(1) as f64,
    })
}
