//! `polyad decompose`: the CP decomposition of an array in a file.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::ValueEnum;
use cp_core::{Als, Decomposition, Init, Real, Solver};
use cp_train::progress;
use cp_train::timing::Stopwatch;
use ndarray::ArrayD;
use ndarray_npy::WritableElement;
use serde::Serialize;

use crate::common::{Common, Usage, non_negative, positive};
use crate::npy::{self, Floats};
use crate::output::{self, OutFile, Report};

const EXAMPLES: &str = "\
Examples:
  polyad decompose kernel.npy --rank 64 --out factors.npz
  polyad decompose kernel.npy --rank 64 --init hosvd --max-iters 1000 --tol 1e-10 --json
  polyad decompose kernel.npy --rank 16 --restarts 5 --seed 1
  polyad decompose kernel.npy --rank 64 --init-factors factors.npz --tol 0 --out better.npz

FACTORS.npz holds λ as `weights` [R] and the factors as `factor_0` … `factor_{N-1}`, each [I, R].

JSON: method, shape, rank, iterations, relative_error, fit, stop, seconds, seconds_per_iteration, degeneracy (largest |cos| of the \
angle between two terms). With --restarts the seconds are those of all starts together, the rest is that of the best one.";

/// Decompose an array into a sum of R rank-one terms.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Array of order 2 or more, float32 or float64, in C or Fortran order.
    #[arg(value_name = "IN.npy")]
    input: PathBuf,
    /// Number of rank-one terms R.
    #[arg(long, value_name = "R", value_parser = positive)]
    rank: usize,
    /// Algorithm.
    #[arg(long, value_enum, default_value_t = Method::Als)]
    method: Method,
    /// Start.
    #[arg(long, value_enum, default_value_t = InitName::Random)]
    init: InitName,
    /// Start from these factors, of the same rank.
    #[arg(long, value_name = "F.npz", conflicts_with_all = ["init", "restarts"])]
    init_factors: Option<PathBuf>,
    /// Most iterations (sweeps over all modes) of a start.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive)]
    max_iters: usize,
    /// Stop when an iteration changes the fit by less than this; 0 runs exactly --max-iters iterations.
    #[arg(long, value_name = "T", default_value = "1e-8", value_parser = non_negative)]
    tol: f64,
    /// Regularization of the least-squares problems, relative to the mean diagonal entry of the normal matrix
    /// [default: 1e-12 in f64, 1e-9 in f32].
    #[arg(long, value_name = "RIDGE", value_parser = non_negative)]
    ridge: Option<f64>,
    /// Precision to compute in [default: that of the file].
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Random starts, with the seeds S, S+1, …; the best result counts.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = positive)]
    restarts: usize,
    /// File for the factors.
    #[arg(long, value_name = "FACTORS.npz")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Method {
    /// Alternating least squares by the normal equations.
    Als,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum InitName {
    /// Normally distributed numbers, drawn from the seed.
    Random,
    /// Leading singular vectors of the unfoldings, and random numbers where a mode is smaller than the rank.
    Hosvd,
}

#[derive(Clone, Copy, ValueEnum)]
enum Dtype {
    /// Single precision.
    F32,
    /// Double precision.
    F64,
}

#[derive(Serialize)]
struct DecomposeReport {
    method: &'static str,
    shape: Vec<usize>,
    rank: usize,
    iterations: usize,
    relative_error: f64,
    fit: f64,
    stop: &'static str,
    seconds: f64,
    seconds_per_iteration: f64,
    degeneracy: f64,
}

impl Report for DecomposeReport {
    fn text(&self, to: &mut dyn Write) -> io::Result<()> {
        writeln!(to, "array           {}", output::shape(&self.shape))?;
        writeln!(to, "method          {}, rank {}", self.method, self.rank)?;
        writeln!(to, "iterations      {} (stopped: {})", self.iterations, self.stop)?;
        writeln!(to, "relative error  {:.6}", self.relative_error)?;
        writeln!(to, "fit             {:.6}", self.fit)?;
        writeln!(to, "degeneracy      {:.4}", self.degeneracy)?;
        writeln!(
            to,
            "seconds         {:.3} ({:.2e} for an iteration)",
            self.seconds, self.seconds_per_iteration
        )
    }
}

pub(crate) fn run(args: &Args, common: &Common) -> anyhow::Result<()> {
    if args.restarts > 1 && args.init != InitName::Random {
        return Err(Usage(
            "--restarts draws several random starts; leave out --init hosvd, which has one".into(),
        )
        .into());
    }
    // Before the work, not after it.
    let out = args.out.as_deref().map(|out| {
        output::refuse_same_file(&args.input, out)?;
        OutFile::new(out)
    });
    let out = out.transpose()?;
    let report = match (npy::read(&args.input)?, args.dtype) {
        (Floats::F32(array), None | Some(Dtype::F32)) => solve(array, args, common, out),
        (Floats::F64(array), None | Some(Dtype::F64)) => solve(array, args, common, out),
        (Floats::F32(array), Some(Dtype::F64)) => solve(array.mapv(f64::from), args, common, out),
        (Floats::F64(array), Some(Dtype::F32)) => {
            solve(array.mapv(|x| x as f32), args, common, out)
        }
    }?;
    output::print(&report, common.json)
}

/// Decomposes `array` and writes the factors.
fn solve<T: Real + WritableElement>(
    array: ArrayD<T>,
    args: &Args,
    common: &Common,
    out: Option<OutFile>,
) -> anyhow::Result<DecomposeReport> {
    let inits = match (&args.init_factors, args.init) {
        (Some(path), _) => vec![Init::Factors(npy::read_factors(path)?)],
        (None, InitName::Hosvd) => vec![Init::Hosvd { seed: common.seed }],
        (None, InitName::Random) => (0..args.restarts as u64)
            .map(|k| Init::Random { seed: common.seed.wrapping_add(k) })
            .collect(),
    };
    let bar = progress::bar((args.max_iters * inits.len()) as u64, "decompose");
    let watch = Stopwatch::start();
    let mut iterations = 0;
    let mut method = "";
    let mut best: Option<Decomposition<T>> = None;
    for (start, init) in inits.into_iter().enumerate() {
        let solver = solver::<T>(args, init);
        method = solver.name();
        let found = solver
            .decompose_with(array.view(), &mut |progress| {
                bar.set_position((start * args.max_iters + progress.iteration) as u64);
                bar.set_message(format!("relative error {:.6}", progress.rel_error));
                ControlFlow::Continue(())
            })
            .with_context(|| args.input.display().to_string())?;
        iterations += found.iterations();
        if best.as_ref().is_none_or(|best| found.rel_error < best.rel_error) {
            best = Some(found);
        }
    }
    let seconds = watch.seconds();
    bar.finish_and_clear();
    let best = best.context("no start was made")?;
    if let Some(out) = out {
        out.write(|file| npy::write_factors(&best.cp, file))?;
    }
    Ok(DecomposeReport {
        method,
        shape: array.shape().to_vec(),
        rank: args.rank,
        iterations: best.iterations(),
        relative_error: best.rel_error,
        fit: best.fit(),
        stop: best.stop.name(),
        seconds,
        seconds_per_iteration: seconds / iterations.max(1) as f64,
        degeneracy: best.degeneracy,
    })
}

/// The solver that the options describe.
fn solver<T: Real>(args: &Args, init: Init) -> Box<dyn Solver<T>> {
    match args.method {
        Method::Als => {
            let als = Als::new(args.rank).max_iters(args.max_iters).tol(args.tol).init(init);
            Box::new(match args.ridge {
                Some(ridge) => als.ridge(ridge),
                None => als,
            })
        }
    }
}
