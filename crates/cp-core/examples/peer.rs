//! ALS on arrays from files, driven by lines on stdin: the Polyad side of `benches/peers/compare.py`, which alternates it with
//! other libraries on the same arrays and starting factors.
//!
//! ```text
//! cargo run --release -p cp-core --example peer -- f32 FOLDER...
//! ```
//!
//! A `FOLDER` holds `tensor.npy` and `factor_0.npy` …, in f64. Each line on stdin is a command, each answer a line of JSON:
//! `als N` runs N sweeps on the first tensor, `als+ N` the same with extrapolation, `gemm N` times N matrix products of the
//! size of one of the two that a sweep consists of, `stack N` runs N sweeps on each of the tensors together, and
//! `memory 0` tells the peak of the process.

use std::fs::File;
use std::io::BufRead as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use cp_core::{Als, CpTensor, Init, Job, Real, Solver, decompose_all};
use faer::{Accum, Mat, Par};
use ndarray::{Array2, ArrayD};
use ndarray_npy::ReadNpyExt as _;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((dtype, folders)) = arguments.split_first().filter(|(_, rest)| !rest.is_empty())
    else {
        return Err("usage: peer f32|f64 FOLDER...".into());
    };
    match dtype.as_str() {
        "f32" => serve(&read(folders, |x| x as f32)?),
        "f64" => serve(&read(folders, |x| x)?),
        other => Err(format!("{other}: expected f32 or f64").into()),
    }
}

/// Tensor and start of each folder.
fn read<T: Real>(folders: &[String], convert: fn(f64) -> T) -> Result<Vec<(ArrayD<T>, CpTensor)>> {
    let mut cases = Vec::new();
    for folder in folders {
        let folder = Path::new(folder);
        let tensor = ArrayD::<f64>::read_npy(File::open(folder.join("tensor.npy"))?)?;
        let mut factors = Vec::new();
        for mode in 0..tensor.ndim() {
            let file = File::open(folder.join(format!("factor_{mode}.npy")))?;
            factors.push(Array2::<f64>::read_npy(file)?);
        }
        cases.push((tensor.mapv(convert), CpTensor::from_factors(factors)?));
    }
    Ok(cases)
}

fn serve<T: Real>(cases: &[(ArrayD<T>, CpTensor)]) -> Result<()> {
    let (tensor, start) = &cases[0];
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (command, count) = line.split_once(' ').ok_or("expected a command and a number")?;
        let count: usize = count.trim().parse()?;
        match command {
            "als" => als(tensor, start, count, false)?,
            "als+" => als(tensor, start, count, true)?,
            "gemm" => gemm(tensor, start.rank(), count),
            "stack" => stack(cases, count)?,
            "memory" => memory()?,
            other => {
                return Err(format!("{other}: expected als, als+, gemm, stack or memory").into());
            }
        }
    }
    Ok(())
}

fn solver(start: &CpTensor, sweeps: usize) -> Als {
    Als::new(start.rank()).max_iters(sweeps).tol(0.0).init(Init::Factors(start.clone()))
}

/// Prints the seconds of each sweep, the error after each, and the final one from the entries.
#[expect(clippy::disallowed_methods, reason = "a benchmark; cp-train's clock is for networks")]
fn als<T: Real>(
    tensor: &ArrayD<T>,
    start: &CpTensor,
    sweeps: usize,
    extrapolate: bool,
) -> Result<()> {
    let solver = solver(start, sweeps).extrapolate(extrapolate);
    let mut seconds = Vec::new();
    let mut last = Instant::now();
    let found = solver.decompose_with(tensor.view(), &mut |_| {
        let now = Instant::now();
        seconds.push((now - last).as_secs_f64());
        last = now;
        ControlFlow::Continue(())
    })?;
    let (error, trace) = (found.rel_error, found.trace);
    println!("{{\"seconds\": {seconds:?}, \"rel_error\": {error:?}, \"trace\": {trace:?}}}");
    Ok(())
}

/// Prints the seconds of all tensors together and their errors.
#[expect(clippy::disallowed_methods, reason = "as above")]
fn stack<T: Real>(cases: &[(ArrayD<T>, CpTensor)], sweeps: usize) -> Result<()> {
    let solvers: Vec<Als> = cases.iter().map(|(_, start)| solver(start, sweeps)).collect();
    let jobs: Vec<Job<'_, T>> = cases
        .iter()
        .zip(&solvers)
        .map(|((tensor, start), solver)| {
            let work = (tensor.len() * start.rank()) as f64;
            Job { tensor: tensor.view(), solver, work }
        })
        .collect();
    let begin = Instant::now();
    let found = decompose_all(&jobs);
    let seconds = begin.elapsed().as_secs_f64();
    let found = found.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
    let errors: Vec<f64> = found.iter().map(|found| found.rel_error).collect();
    println!("{{\"seconds\": {seconds:?}, \"rel_error\": {errors:?}}}");
    Ok(())
}

/// Prints the seconds of each of `count` products `[I₀, ∏ others] · [∏ others, R]`.
#[expect(clippy::disallowed_methods, reason = "as above")]
fn gemm<T: Real>(tensor: &ArrayD<T>, rank: usize, count: usize) {
    let (rows, inner) = (tensor.shape()[0], tensor.shape()[1..].iter().product());
    let entry = |i: usize, j: usize| T::narrow(((i * 7 + j * 13) % 17) as f64 - 8.0);
    let left: Mat<T> = Mat::from_fn(rows, inner, entry);
    let right: Mat<T> = Mat::from_fn(inner, rank, entry);
    let mut to = Mat::<T>::zeros(rows, rank);
    let threads = rayon::current_num_threads();
    let par = if threads == 1 { Par::Seq } else { Par::rayon(threads) };
    let mut seconds = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        faer::linalg::matmul::matmul(
            to.as_mut(),
            Accum::Replace,
            left.as_ref(),
            right.as_ref(),
            T::one(),
            par,
        );
        seconds.push(start.elapsed().as_secs_f64());
    }
    println!("{{\"seconds\": {seconds:?}}}");
}

/// Prints the peak resident memory of this process in bytes, where the system tells it (Linux).
fn memory() -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    println!("{{\"peak\": {}}}", kib * 1024);
    Ok(())
}
