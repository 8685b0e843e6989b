//! One basis of separable filters for all channels: a CP model of the filters side by side.

use crate::golden_files::GoldenFile;
use cp_core::{Als, Init, Solver};

/// A joint fit is between what cutting every basis filter to rank 1 comes to and what filters that need not be separable reach.
#[test]
fn a_joint_fit_beats_filters_cut_one_by_one() {
    let Some(golden) = GoldenFile::load("jaderberg-scheme1-svd") else { return };
    let kernel = golden.array("kernel");
    let shape = kernel.shape().to_vec();
    let filters =
        kernel.into_shape_with_order(vec![shape[0] * shape[1], shape[2], shape[3]]).unwrap();
    let errors = golden.array("relative_errors");
    let (general, separable) = (errors[[0]].min(errors[[1]]), errors[[0]].max(errors[[1]]));
    let als = Als::new(3).max_iters(500).tol(1e-10).init(Init::Random { seed: 1 });
    let found = als.decompose(filters.view()).unwrap();
    assert!(found.rel_error < separable, "{} for {separable}", found.rel_error);
    assert!(found.rel_error > general - 1e-9, "{} for {general}", found.rel_error);
}
