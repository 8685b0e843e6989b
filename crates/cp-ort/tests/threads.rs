//! The number of threads, in a process of its own, where no other test makes any.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]
#![cfg(target_os = "linux")]

mod common;

use common::{PRODUCT, has_library};
use cp_ort::{Inputs, Session, SessionOptions, Tensor};
use ndarray::Array2;

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn a_session_has_the_threads_that_it_was_given() {
    if !has_library() {
        return;
    }
    let zeros = || Tensor::from(Array2::<f32>::zeros((256, 256)).into_dyn());
    let inputs = Inputs::new([("x", zeros()), ("w", zeros())]).unwrap();
    let before = threads();
    for count in [1, 2, 3, 5] {
        for spinning in [false, true] {
            let options = SessionOptions { threads: count, spinning, ..SessionOptions::default() };
            let mut session = Session::new(PRODUCT, &options).unwrap();
            session.run_prepared(&inputs).unwrap();
            // The caller's is one of them.
            assert_eq!(threads() - before, count - 1, "{count} threads");
            drop(session);
            assert_eq!(threads(), before, "after {count} threads");
        }
    }
}
