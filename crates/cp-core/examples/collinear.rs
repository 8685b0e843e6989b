//! The collinear regression test of arXiv 2112.10855 as a table: which solver still finds the noise?
//!
//! ```text
//! cargo run --release -p cp-core --example collinear
//! ```
//!
//! Ten tensors of 50×50×50 and rank 5 for each congruence 1 − gap of the columns and each noise; 200 iterations from a
//! start that all solvers share (but for one column of NLS from singular vectors), once drawn at random as in the paper, and once next to the terms, where the swamp that
//! all forms of ALS have to cross is left out and the digits of the solution decide. Printed in Markdown: the relative
//! error of the model returned, from the entries, over the noise, as median (worst). 1 is the best there is.
//!
//! A third table has the paper's other example, sin(x₁ + … + x_d) of rank d, from three random starts, and a fourth the
//! milliseconds per sweep on kernels, best of seven runs that take turns; set `RAYON_NUM_THREADS=1` for it.

#[path = "../tests/common/collinear.rs"]
mod collinear;

use collinear::{GAPS, NOISES, RANK, near, problem, sine};
use cp_core::{Als, AlsQr, CpError, Init, Nls, PowerMethod, Solver};
use ndarray::{ArrayD, IxDyn};

/// Tensors per setting.
const TRIALS: u64 = 10;
/// Iterations per run.
const ITERATIONS: usize = 200;
/// Sweeps of the runs that are timed.
const SWEEPS: usize = 5;
/// First seed of the starts; those of tensors are below 1000.
const SEED: u64 = 20_000;

/// A solver and the name to print.
type Named = (&'static str, Box<dyn Solver<f64>>);

/// The solvers to compare.
fn solvers(rank: usize, iters: usize, init: Init, seed: u64) -> Vec<Named> {
    let als = Als::new(rank).max_iters(iters).tol(0.0).init(init.clone());
    let qr = AlsQr::new(rank).max_iters(iters).tol(0.0).init(init.clone());
    let svd = AlsQr::svd(rank).max_iters(iters).tol(0.0).init(init.clone());
    let nls = Nls::new(rank).max_iters(iters).tol(0.0).warm_up(0);
    vec![
        ("als", Box::new(als.clone())),
        ("als, no ridge", Box::new(als.ridge(0.0))),
        ("als-qr", Box::new(qr)),
        ("als-qr-svd", Box::new(svd)),
        ("nls", Box::new(nls.clone().init(init))),
        ("nls, hosvd start", Box::new(nls.init(Init::Hosvd { seed }))),
        ("power", Box::new(PowerMethod::new(rank).max_iters(iters).tol(0.0).seed(seed))),
    ]
}

fn main() -> Result<(), CpError> {
    println!("Error / noise, random start\n");
    table(&["gap", "noise"]);
    for gap in GAPS {
        for noise in NOISES {
            let runs = (0..TRIALS).map(|trial| {
                let init = Init::Random { seed: SEED + trial };
                run(
                    &problem(gap, noise, trial)?.1,
                    noise,
                    solvers(RANK, ITERATIONS, init, SEED + trial),
                )
            });
            row(&format!("{gap:.0e} | {noise:.0e}"), runs.collect::<Result<_, _>>()?);
        }
    }
    println!("\nError / noise, start next to the terms (off by 1e-4 √gap in each entry)\n");
    table(&["gap", "noise"]);
    for gap in GAPS {
        for noise in NOISES {
            let runs = (0..TRIALS).map(|trial| {
                let (truth, tensor) = problem(gap, noise, trial)?;
                let init = Init::Factors(near(&truth, 1e-4 * gap.sqrt(), SEED + trial));
                run(&tensor, noise, solvers(RANK, ITERATIONS, init, SEED + trial))
            });
            row(&format!("{gap:.0e} | {noise:.0e}"), runs.collect::<Result<_, _>>()?);
        }
    }
    println!("\nError, sine of a sum, random start\n");
    table(&["shape", "rank"]);
    for (order, size) in [(3, 32), (4, 16), (5, 12), (6, 8), (7, 6)] {
        let tensor = sine(order, size);
        let runs = (0..3).map(|trial| {
            let init = Init::Random { seed: SEED + trial };
            run(&tensor, 1.0, solvers(order, ITERATIONS, init, SEED + trial))
        });
        row(&format!("{size}^{order} | {order}"), runs.collect::<Result<_, _>>()?);
    }
    println!("\nMilliseconds per sweep (power: for all terms)\n");
    table(&["shape", "rank"]);
    for (shape, rank) in [
        (&[50, 50, 50][..], 5),
        (&[100, 100, 100], 16),
        (&[192, 64, 5, 5], 16),
        (&[192, 64, 5, 5], 64),
    ] {
        let mut place = 0.0_f64;
        let tensor = ArrayD::from_shape_simple_fn(IxDyn(shape), || {
            place += 1.0;
            (place * place).sin()
        });
        let init = Init::Random { seed: SEED };
        let many = solvers(rank, SWEEPS, init.clone(), SEED);
        let none = solvers(rank, 0, init, SEED);
        let mut best = vec![[f64::INFINITY; 2]; many.len()];
        for _ in 0..7 {
            for (best, pair) in best.iter_mut().zip(many.iter().zip(&none)) {
                for (best, (_, solver)) in best.iter_mut().zip([pair.0, pair.1]) {
                    *best = best.min(solver.decompose(tensor.view())?.seconds);
                }
            }
        }
        let each = best.iter().map(|[many, none]| 1e3 * (many - none) / SWEEPS as f64);
        let cells: Vec<String> = each.map(|ms| format!("{ms:.2}")).collect();
        println!("| {shape:?} | {rank} | {} |", cells.join(" | "));
    }
    Ok(())
}

/// Relative error over `unit` of each solver; ∞ where a normal matrix without a ridge was singular.
fn run(tensor: &ArrayD<f64>, unit: f64, solvers: Vec<Named>) -> Result<Vec<f64>, CpError> {
    let error = |(_, solver): &Named| match solver.decompose(tensor.view()) {
        Ok(found) => Ok(found.rel_error / unit),
        Err(CpError::SingularNormalMatrix { .. }) => Ok(f64::INFINITY),
        Err(error) => Err(error),
    };
    solvers.iter().map(error).collect()
}

/// The head of a table.
fn table(settings: &[&str]) {
    let mut columns = settings.to_vec();
    columns.extend(solvers(1, 1, Init::Random { seed: 0 }, 0).iter().map(|(name, _)| name));
    println!("| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()));
}

/// Median and worst of the runs of each solver. `runs`: one list of errors per trial.
fn row(setting: &str, runs: Vec<Vec<f64>>) {
    print!("| {setting} |");
    for solver in 0..runs.first().map_or(0, Vec::len) {
        let mut errors: Vec<f64> = runs.iter().map(|run| run[solver]).collect();
        errors.sort_by(f64::total_cmp);
        let middle = (errors[(errors.len() - 1) / 2] + errors[errors.len() / 2]) / 2.0;
        print!(" {} ({}) |", figure(middle), figure(errors[errors.len() - 1]));
    }
    println!();
}

/// Three digits, or `singular` for ∞.
fn figure(x: f64) -> String {
    match x {
        _ if x.is_infinite() => "singular".into(),
        _ if (0.01..1000.0).contains(&x) => format!("{x:.3}"),
        _ => format!("{x:.1e}"),
    }
}
