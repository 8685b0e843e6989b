//! Everything that has ever broken a solver, for every solver that has no such test of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::common;
use crate::degenerate::never_breaks;
use cp_core::{Als, Auto, Epc, Init, Nls, Precompressed, Real, Restarts, Solver};

#[test]
fn als() {
    never_breaks(|rank| Als::new(rank).max_iters(20));
    never_breaks(|rank| Als::new(rank).max_iters(20).init(Init::Hosvd { seed: 3 }));
}

#[test]
fn extrapolated_als() {
    never_breaks(|rank| Als::new(rank).max_iters(20).extrapolate(true));
}

#[test]
fn nls() {
    never_breaks(|rank| Nls::new(rank).max_iters(20));
    never_breaks(|rank| Nls::new(rank).max_iters(20).penalty(1e-4).warm_up(0));
}

#[test]
fn auto() {
    never_breaks(|rank| Auto::new(rank).max_iters(20).starts(2));
}

#[test]
fn epc() {
    never_breaks(|rank| Epc::new(rank).als_sweeps(20).max_iters(20));
}

#[test]
fn precompressed() {
    never_breaks(|rank| Precompressed::new(Als::new(rank).max_iters(20)));
}

/// A model solves its tensor again, whatever the method: the trait is object-safe and takes references.
#[test]
fn one_list_holds_them_all() {
    fn all<T: Real>(rank: usize) -> Vec<Box<dyn Solver<T>>> {
        vec![
            Box::new(Als::new(rank)),
            Box::new(Auto::new(rank)),
            Box::new(Restarts::<T>::new(2, move |seed| {
                Box::new(Nls::new(rank).init(Init::Random { seed: 900 + seed }))
            })),
        ]
    }
    let (_, tensor) = common::planted(&[9, 8, 7], 2, 0.0, 61);
    for solver in all::<f64>(2) {
        let found = solver.decompose(tensor.view()).unwrap();
        assert!(found.rel_error < 1e-4, "{}: {}", solver.name(), found.rel_error);
        assert!(found.seconds > 0.0 && found.sensitivity > 0.0, "{}", solver.name());
    }
}
