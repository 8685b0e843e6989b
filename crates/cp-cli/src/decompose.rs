//! `polyad decompose`: the CP or Tucker decomposition of an array in a file.

mod method;
mod tucker;

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use cp_core::rank::{cp_rank_by_evbmf, rank_for_error};
use cp_core::{CpError, Decomposition, Init, InputStatistics, Progress, Real};
use cp_train::timing::Stopwatch;
use cp_train::{memory, progress};
use ndarray::{ArrayD, Ix2};
use ndarray_npy::WritableElement;
use serde::Serialize;

use self::method::{Algorithm, RankChoice};
use crate::common::{Common, Usage, non_negative, positive, tries};
use crate::npy::{self, Floats};
use crate::output::{self, OutFile, Report};

const EXAMPLES: &str = "\
Examples:
  polyad decompose kernel.npy --rank 64 --out factors.npz
  polyad decompose kernel.npy --rank 64 --method auto --json
  polyad decompose kernel.npy --rank 64 --extrapolate --init hosvd --max-iters 1000 --tol 1e-10
  polyad decompose kernel.npy --rank error=0.1 --method nls --restarts 5 --seed 1
  polyad decompose kernel.npy --rank 64 --method epc --delta 0.25 --out tame.npz
  polyad decompose kernel.npy --rank 80 --init-factors factors.npz --out better.npz
  polyad decompose kernel.npy --method tucker2 --ranks 32,16 --out tucker.npz

FACTORS.npz holds λ as `weights` [R] and the factors as `factor_0` … `factor_{N-1}`, each [I, R]; for the Tucker methods `core` and \
the factors of the modes that are compressed.

JSON: method, shape, rank, iterations, relative_error, fit, stop, seconds, seconds_per_iteration, degeneracy (largest |cos| of the \
angle between two terms), component_energy, sensitivity; for Tucker ranks and parameters in the place of rank and the last three. \
With --restarts the seconds are those of all starts together, the rest is that of the best one.";

/// Decompose an array into a sum of R rank-one terms, or into a core and factors (Tucker).
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Array of order 2 or more, float32 or float64, in C or Fortran order.
    #[arg(value_name = "IN.npy")]
    input: PathBuf,
    /// Number of rank-one terms; `evbmf` for an estimate from the first two unfoldings, `error=E` for the smallest rank found
    /// that reaches the relative error E.
    #[arg(long, value_name = "R", allow_hyphen_values = true)]
    rank: Option<RankChoice>,
    /// Tucker ranks, separated by commas: one for each mode, or two for tucker2.
    #[arg(long, value_name = "R0,R1,…", value_delimiter = ',', value_parser = positive)]
    ranks: Option<Vec<usize>>,
    /// Algorithm.
    #[arg(long, value_enum, default_value = "als")]
    method: Algorithm,
    /// Start.
    #[arg(long, value_enum, default_value_t = InitName::Random)]
    init: InitName,
    /// Start from these factors; terms are added at random or the smallest dropped where their rank is another.
    #[arg(long, value_name = "F.npz", conflicts_with_all = ["init", "restarts", "precompress"])]
    init_factors: Option<PathBuf>,
    /// Most iterations (sweeps over all modes, steps of nls, power iterations for a term, sweeps before the correction of epc) of
    /// a start.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive)]
    max_iters: usize,
    /// Stop when an iteration changes the fit by less than this; 0 runs exactly --max-iters iterations.
    #[arg(long, value_name = "T", default_value = "1e-8", value_parser = non_negative)]
    tol: f64,
    /// als: start each sweep ahead of the last one's end, for the error of 50 sweeps after about 20.
    #[arg(long)]
    extrapolate: bool,
    /// als, epc, sampled-als, als-sigma: regularization of the least-squares problems, relative to the mean diagonal entry of
    /// the normal matrix [default: 1e-12 in f64, 1e-7 in f32].
    #[arg(long, value_name = "RIDGE", value_parser = non_negative)]
    ridge: Option<f64>,
    /// epc: relative error that may be reached while the terms shrink [default: 1 % above that of ALS, at most 0.001].
    #[arg(long, value_name = "D", value_parser = non_negative)]
    delta: Option<f64>,
    /// nls: weight of the norm penalty; 1e-5 to 1e-4 keep the terms of convolution kernels from cancelling each other.
    #[arg(long, value_name = "P", value_parser = non_negative)]
    penalty: Option<f64>,
    /// sampled-als: entries of the unfolding that each least-squares problem sees.
    #[arg(long, value_name = "N", value_parser = positive)]
    samples: Option<usize>,
    /// als-sigma: second moments Σ = E(xxᵀ) of the unfolded inputs, a matrix of as many rows as the array has entries for one
    /// index of mode 0.
    #[arg(long, value_name = "S.npy")]
    statistics: Option<PathBuf>,
    /// Compress modes of low rank losslessly before, and expand the factors after.
    #[arg(long)]
    precompress: bool,
    /// Precision to compute in [default: that of the file].
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Random starts, with the seeds S, S+1, …; the best result counts.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = tries)]
    restarts: usize,
    /// File for the factors.
    #[arg(long, value_name = "FACTORS.npz")]
    out: Option<PathBuf>,
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
struct CpReport {
    method: String,
    shape: Vec<usize>,
    rank: usize,
    iterations: usize,
    relative_error: f64,
    fit: f64,
    stop: &'static str,
    seconds: f64,
    seconds_per_iteration: f64,
    degeneracy: f64,
    component_energy: f64,
    sensitivity: f64,
}

impl Report for CpReport {
    fn text(&self, to: &mut dyn Write) -> io::Result<()> {
        writeln!(to, "array           {}", output::shape(&self.shape))?;
        writeln!(to, "method          {}, rank {}", self.method, self.rank)?;
        writeln!(to, "iterations      {} (stopped: {})", self.iterations, self.stop)?;
        writeln!(to, "relative error  {:.6}", self.relative_error)?;
        writeln!(to, "fit             {:.6}", self.fit)?;
        writeln!(to, "degeneracy      {:.4}", self.degeneracy)?;
        writeln!(
            to,
            "energy          {:.3} (above 10 the terms cancel each other)",
            self.component_energy
        )?;
        writeln!(
            to,
            "seconds         {:.3} ({:.2e} for an iteration)",
            self.seconds, self.seconds_per_iteration
        )
    }
}

pub(crate) fn run(args: &Args, common: &Common) -> anyhow::Result<()> {
    method::check(args)?;
    if args.restarts > 1 && (args.init != InitName::Random || args.method.is_tucker()) {
        return Err(Usage(
            "--restarts draws several random starts; leave out --init hosvd and the Tucker methods, which have one".into(),
        )
        .into());
    }
    // Before the work, not after it.
    let out = args.out.as_deref().map(|out| {
        let others = [("--statistics", &args.statistics), ("--init-factors", &args.init_factors)];
        let others =
            others.into_iter().filter_map(|(option, path)| Some((option, path.as_deref()?)));
        let read = std::iter::once(("the input", args.input.as_path())).chain(others);
        output::refuse_same_file(read, out)?;
        OutFile::new(out)
    });
    let out = out.transpose()?;
    match (npy::read(&args.input)?, args.dtype) {
        (Floats::F32(array), None | Some(Dtype::F32)) => decompose(&array, args, common, out),
        (Floats::F64(array), None | Some(Dtype::F64)) => decompose(&array, args, common, out),
        (Floats::F32(array), Some(Dtype::F64)) => {
            decompose(&array.mapv(f64::from), args, common, out)
        }
        (Floats::F64(array), Some(Dtype::F32)) => {
            let narrow = npy::narrowed(&array).with_context(|| args.input.display().to_string())?;
            decompose(&narrow, args, common, out)
        }
    }
}

/// Decomposes `array`, writes the parts and prints the report.
fn decompose<T: Real + WritableElement>(
    array: &ArrayD<T>,
    args: &Args,
    common: &Common,
    out: Option<OutFile>,
) -> anyhow::Result<()> {
    if args.method.is_tucker() {
        return output::print(&tucker::run(array, args, out)?, common.json);
    }
    let watch = Stopwatch::start();
    let (best, iterations) = cp(array, args, common)?;
    let seconds = watch.seconds();
    if let Some(out) = out {
        out.write(|file| npy::write_factors(&best.cp, file))?;
    }
    let report = CpReport {
        method: args.method.name().to_owned(),
        shape: array.shape().to_vec(),
        rank: best.cp.rank(),
        iterations: best.iterations(),
        relative_error: best.rel_error,
        fit: best.fit(),
        stop: best.stop.name(),
        seconds,
        seconds_per_iteration: seconds / iterations.max(1) as f64,
        degeneracy: best.degeneracy,
        component_energy: best.component_energy,
        sensitivity: best.sensitivity,
    };
    output::print(&report, common.json)
}

/// The best CP model, and the iterations of all starts together.
fn cp<T: Real>(
    array: &ArrayD<T>,
    args: &Args,
    common: &Common,
) -> anyhow::Result<(Decomposition<T>, usize)> {
    let statistics = args.statistics.as_deref().map(read_statistics).transpose()?.map(Arc::new);
    let given = args.init_factors.as_deref().map(npy::read_factors).transpose()?;
    let named = || args.input.display().to_string();
    let bar = progress::bar(args.max_iters.saturating_mul(args.restarts) as u64, "decompose");
    let mut iterations = 0;
    if let Some(RankChoice::Terms(rank)) = args.rank {
        check_rank::<T>(rank, array.shape())?;
    }
    let mut at_rank = |rank: usize| -> Result<Decomposition<T>, CpError> {
        let mut best: Option<Decomposition<T>> = None;
        for start in 0..args.restarts {
            let seed = common.seed.wrapping_add(start as u64);
            let init = match (&given, args.init) {
                (Some(cp), _) if cp.rank() == rank => Init::Factors(cp.clone()),
                (Some(cp), _) => Init::Resized { from: cp.clone(), seed },
                (None, InitName::Hosvd) => Init::Hosvd { seed },
                (None, InitName::Random) => Init::Random { seed },
            };
            let solver = method::solver::<T>(args, rank, init, statistics.as_ref())
                .ok_or(CpError::NoSolver)?;
            let found = solver.decompose_with(array.view(), &mut |progress: &Progress| {
                let before = start.saturating_mul(args.max_iters);
                bar.set_position(before.saturating_add(progress.iteration) as u64);
                bar.set_message(format!("rank {rank}, relative error {:.6}", progress.rel_error));
                ControlFlow::Continue(())
            })?;
            iterations += found.iterations();
            if best.as_ref().is_none_or(|best| found.rel_error < best.rel_error) {
                best = Some(found);
            }
        }
        best.ok_or(CpError::NoSolver)
    };
    let best = match args.rank {
        Some(RankChoice::Error(target)) => {
            // Any tensor is a sum of this many terms: one for each vector along its largest mode.
            let largest = array.shape().iter().copied().max().unwrap_or(1).max(1);
            let search = rank_for_error(target, (array.len() / largest).max(1), &mut at_rank);
            let search = search.with_context(named)?;
            if !search.reached {
                let (rank, error) = (search.rank(), search.best.rel_error);
                bail!(
                    "{}: no rank reached relative error {target}; the nearest is {error:.6} at rank {rank}: allow more \
                     --max-iters or --restarts, or ask for less",
                    named()
                );
            }
            search.best
        }
        Some(RankChoice::Terms(rank)) => at_rank(rank).with_context(named)?,
        _ => {
            let rank = cp_rank_by_evbmf(array.view()).with_context(named)?;
            at_rank(rank).with_context(named)?
        }
    };
    bar.finish_and_clear();
    Ok((best, iterations))
}

/// That memory holds factors of this rank, as many as solvers keep at a time: the factors, the last ones, and the right-hand sides of
/// the mode at hand.
fn check_rank<T>(rank: usize, shape: &[usize]) -> anyhow::Result<()> {
    let rows: u128 = shape.iter().map(|size| *size as u128).sum();
    let numbers = (2 * rows).saturating_mul(rank as u128);
    let grams = (rank as u128).saturating_mul(rank as u128);
    let needed = numbers.saturating_add(grams).saturating_mul(size_of::<T>() as u128);
    let free = memory::available().unwrap_or(u64::MAX >> 1);
    if needed > u128::from(free) {
        bail!(
            "--rank {rank}: factors of an array {} of this rank need about {} of memory, and {} are free; ask for a smaller one",
            output::shape(shape),
            memory::bytes_in_words(needed),
            memory::bytes_in_words(u128::from(free))
        );
    }
    Ok(())
}

/// Second moments from a file.
fn read_statistics(path: &std::path::Path) -> anyhow::Result<InputStatistics> {
    let moments = match npy::read(path)? {
        Floats::F32(array) => array.mapv(f64::from),
        Floats::F64(array) => array,
    };
    let order = moments.ndim();
    let moments = moments
        .into_dimensionality::<Ix2>()
        .ok()
        .with_context(|| format!("{}: has order {order}, expected a matrix", path.display()))?;
    InputStatistics::from_moments(moments.view()).with_context(|| path.display().to_string())
}
