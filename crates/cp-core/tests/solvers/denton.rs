//! Denton's forms: clusters, greedy terms, decompositions of blocks, colours; the programs of others, and what each must do by definition.

use crate::common::gaussian;
use crate::golden_files::{GoldenFile, check};
use cp_core::{
    Biclusters, CpError, Likeness, Monochromatic, PowerMethod, RightFactor, Solver, block_svd,
    cluster_energy, equal_clusters, monochromatic, norm, unfold,
};
use ndarray::{Array2, Array3, ArrayD, Axis, Ix3};

/// As `[T, S, K]`.
fn flat(kernel: &ArrayD<f64>) -> Array3<f64> {
    let shape = kernel.shape();
    let shape = (shape[0], shape[1], shape[2..].iter().product());
    kernel.clone().into_shape_with_order(shape).unwrap()
}

fn distance(a: &Array3<f64>, b: &Array3<f64>) -> f64 {
    norm((a - b).into_dyn().view()) / norm(b.clone().into_dyn().view())
}

/// The kernel of `clusters` with each block by `of`, which is told output and input cluster.
fn by_block(
    kernel: &Array3<f64>,
    clusters: &Biclusters,
    mut of: impl FnMut(Array3<f64>, [usize; 2]) -> Array3<f64>,
) -> Array3<f64> {
    let mut made = Array3::zeros(kernel.dim());
    for output in 0..clusters.outputs().len() {
        for input in 0..clusters.inputs().len() {
            let block = of(clusters.block(kernel.view(), output, input), [output, input]);
            clusters.put(&mut made, output, input, block.view());
        }
    }
    made
}

fn greedy(block: &Array3<f64>, rank: usize) -> Array3<f64> {
    let found = PowerMethod::greedy(rank).decompose(block.view().into_dyn()).unwrap();
    found.cp.reconstruct().into_dimensionality::<Ix3>().unwrap()
}

#[test]
fn greedy_terms_of_a_whole_kernel() {
    let Some(golden) = GoldenFile::load("denton-bicluster") else { return };
    let found = PowerMethod::greedy(2).decompose(golden.array("kernel").view()).unwrap();
    let trace = ArrayD::from_shape_vec(vec![2], found.trace.clone()).unwrap();
    check(&trace, &golden.array("greedy4.relative_errors"), "errors");
    check(&found.cp.reconstruct(), &golden.array("greedy4.kernel"), "kernel");
    for (mode, factor) in found.cp.factors.iter().enumerate() {
        // λ is in the factor of the output channels there.
        let factor = if mode == 0 { factor * &found.cp.weights } else { factor.clone() };
        let name = format!("greedy4.factor{mode}");
        check(&factor.into_dyn(), &golden.array(&name), &name);
    }
}

#[test]
fn greedy_terms_of_every_block() {
    let Some(golden) = GoldenFile::load("denton-bicluster") else { return };
    let kernel = flat(&golden.array("kernel"));
    let clusters =
        Biclusters::new(&golden.labels("output_cluster"), &golden.labels("input_cluster"));
    let made = by_block(&kernel, &clusters.unwrap(), |block, [output, input]| {
        let found = PowerMethod::greedy(2).decompose(block.view().into_dyn()).unwrap();
        let of = |name: &str| {
            let all = golden.array(name).index_axis_move(Axis(0), output);
            all.index_axis_move(Axis(0), input)
        };
        let scaled = &found.cp.factors[0] * &found.cp.weights;
        check(&scaled.into_dyn(), &of("greedy.factor_T"), "factor_T");
        check(&found.cp.factors[1].clone().into_dyn(), &of("greedy.factor_S"), "factor_S");
        check(&found.cp.factors[2].clone().into_dyn(), &of("greedy.factor_xy"), "factor_xy");
        let errors = ArrayD::from_shape_vec(vec![2], found.trace.clone()).unwrap();
        check(&errors, &of("greedy.block_errors"), "errors of a block");
        found.cp.reconstruct().into_dimensionality().unwrap()
    });
    check(&made.clone().into_dyn(), &flat(&golden.array("greedy.kernel")).into_dyn(), "kernel");
    let expected = golden.number("greedy.relative_error");
    assert!((distance(&made, &kernel) - expected).abs() < 1e-6);
}

#[test]
fn two_decompositions_of_every_block() {
    let Some(golden) = GoldenFile::load("denton-bicluster") else { return };
    let kernel = flat(&golden.array("kernel"));
    let clusters =
        Biclusters::new(&golden.labels("output_cluster"), &golden.labels("input_cluster"));
    let clusters = clusters.unwrap();
    let with = |right| {
        by_block(&kernel, &clusters, |block, _| {
            block_svd(block.view(), [2, 2], right).unwrap().reconstruct()
        })
    };
    let made = with(RightFactor::Orthonormal);
    check(&made.clone().into_dyn(), &flat(&golden.array("svd.kernel")).into_dyn(), "kernel");
    let expected = golden.number("svd.relative_error");
    assert!((distance(&made, &kernel) - expected).abs() < 1e-6);
    // What weighs as much as in the block loses less.
    assert!(distance(&with(RightFactor::Scaled), &kernel) < 0.95 * expected);
}

/// Sum of squares of a way to cut a kernel's rows that is as good as the best there is.
#[test]
fn clusters_are_as_good_as_the_recorded_ones() {
    let Some(golden) = GoldenFile::load("denton-bicluster") else { return };
    let kernel = flat(&golden.array("kernel"));
    let recorded = golden.array("cluster_energy_output_input");
    for (mode, count, name) in [(0, 3, "output_cluster"), (1, 2, "input_cluster")] {
        let rows = unfold(kernel.view().into_dyn(), mode);
        let known = golden.labels(name);
        let theirs = cluster_energy(rows.view(), &known, Likeness::Mean).unwrap();
        assert!((theirs - recorded[[mode]]).abs() < 1e-5, "{theirs} for {recorded}");
        for seed in 0..5 {
            let ours = equal_clusters(rows.view(), count, Likeness::Mean, seed).unwrap();
            let energy = cluster_energy(rows.view(), &ours, Likeness::Mean).unwrap();
            assert!(energy < theirs * (1.0 + 1e-9), "{name}, seed {seed}: {energy} for {theirs}");
        }
    }
    // The error that counts, of the same number of terms.
    for seed in 0..5 {
        let clusters = Biclusters::find(kernel.view(), [3, 2], seed).unwrap();
        let made = by_block(&kernel, &clusters, |block, _| greedy(&block, 2));
        let (ours, theirs) = (distance(&made, &kernel), golden.number("greedy.relative_error"));
        assert!(ours < 0.9 * theirs, "seed {seed}: {ours} for {theirs}");
    }
}

/// Rows that are multiples of few lines are found again, in order and size.
#[test]
fn planted_clusters_are_found() {
    for (count, size) in [(2, 3), (4, 2), (3, 5), (1, 4), (6, 1)] {
        let lines = gaussian(&[count, 30], 40).into_dimensionality::<ndarray::Ix2>().unwrap();
        let truth: Vec<usize> = (0..count * size).map(|row| row % count).collect();
        let scale = |row: usize| if row.is_multiple_of(2) { 1.0 + row as f64 } else { -0.5 };
        let rows = Array2::from_shape_fn((count * size, 30), |(row, column)| {
            scale(row) * lines[[truth[row], column]]
        });
        let found = equal_clusters(rows.view(), count, Likeness::Line, 3).unwrap();
        assert_eq!(found, truth, "{count} of {size}");
        let energy = cluster_energy(rows.view(), &found, Likeness::Line).unwrap();
        assert!(energy < 1e-9 * rows.iter().map(|x| x * x).sum::<f64>(), "{energy}");
    }
}

/// Never worse than what one exchange away is.
#[test]
fn no_exchange_helps() {
    for likeness in [Likeness::Mean, Likeness::Line] {
        let rows = gaussian(&[8, 5], 41).into_dimensionality::<ndarray::Ix2>().unwrap();
        let found = equal_clusters(rows.view(), 2, likeness, 3).unwrap();
        let energy = |labels: &[usize]| cluster_energy(rows.view(), labels, likeness).unwrap();
        let least = energy(&found);
        for a in 0..8 {
            for b in 0..8 {
                let mut other = found.clone();
                other.swap(a, b);
                assert!(energy(&other) > least - 1e-9, "{likeness:?}: {a} for {b}");
            }
        }
    }
}

#[test]
fn full_ranks_of_a_block_are_exact() {
    for shape in [[4, 3, 6], [9, 2, 3], [2, 7, 2]] {
        let block = gaussian(&shape, 42).into_dimensionality::<Ix3>().unwrap();
        let out = shape[0].min(shape[1] * shape[2]);
        let input = shape[1].min(out * shape[2]);
        for right in [RightFactor::Scaled, RightFactor::Orthonormal] {
            let found = block_svd(block.view(), [out, input], right).unwrap();
            assert!(distance(&found.reconstruct(), &block) < 1e-12, "{shape:?} {right:?}");
            assert!(block_svd(block.view(), [out, input + 1], right).is_err());
            assert!(block_svd(block.view(), [out + 1, input], right).is_err());
            assert!(block_svd(block.view(), [0, 1], right).is_err());
        }
    }
}

#[test]
fn colours_of_a_known_assignment() {
    let Some(golden) = GoldenFile::load("denton-monochromatic") else { return };
    let kernel = flat(&golden.array("kernel"));
    let known = Monochromatic::assigned(kernel.view(), 3, &golden.labels("assignment")).unwrap();
    let made = known.reconstruct().into_dimensionality().unwrap();
    let expected = golden.number("relative_error_best_colour_same_assignment");
    assert!((distance(&made, &kernel) - expected).abs() < 1e-6, "{}", distance(&made, &kernel));
    // By ourselves; the recorded one took signs of singular vectors for what they are not.
    for seed in 0..5 {
        let found = monochromatic(kernel.view(), 3, seed).unwrap();
        let made = found.reconstruct().into_dimensionality().unwrap();
        let error = distance(&made, &kernel);
        assert!(error <= golden.number("relative_error"), "seed {seed}: {error}");
        assert!(error < expected + 1e-6, "seed {seed}: {error}");
    }
    // A colour for each filter is the best that one colour each can be.
    let all = monochromatic(kernel.view(), 12, 0).unwrap().reconstruct();
    let error = distance(&all.into_dimensionality().unwrap(), &kernel);
    assert!((error - golden.number("relative_error_rank1")).abs() < 1e-6, "{error}");
}

/// Filters of few colours, in every sign, are found again.
#[test]
fn planted_colours_are_found() {
    let colours = gaussian(&[3, 5], 43).into_dimensionality::<ndarray::Ix2>().unwrap();
    let spatial = gaussian(&[14, 9], 44).into_dimensionality::<ndarray::Ix2>().unwrap();
    let kernel =
        Array3::from_shape_fn((14, 5, 9), |(t, s, k)| colours[[t * t % 3, s]] * spatial[[t, k]]);
    let found = monochromatic(kernel.view(), 3, 1).unwrap();
    let made = found.reconstruct().into_dimensionality().unwrap();
    assert!(distance(&made, &kernel) < 1e-10, "{}", distance(&made, &kernel));
    assert!(monochromatic(kernel.view(), 2, 1).is_ok());
}

#[test]
fn what_does_not_fit_is_refused() {
    let kernel = gaussian(&[6, 4, 3], 45).into_dimensionality::<Ix3>().unwrap();
    let message = |error: CpError| error.to_string();
    let unequal = Biclusters::find(kernel.view(), [4, 2], 1).unwrap_err();
    assert!(message(unequal).starts_with("4 clusters of 6 output channels"));
    let unequal = Biclusters::find(kernel.view(), [2, 3], 1).unwrap_err();
    assert!(message(unequal).starts_with("3 clusters of 4 input channels"));
    assert!(Biclusters::find(kernel.view(), [2, 0], 1).is_err());
    assert!(Biclusters::new(&[0, 0, 1], &[0]).is_err());
    assert!(Biclusters::new(&[0, 0, 0, 1], &[0]).is_err());
    assert!(Biclusters::new(&[0, 2, 2, 0], &[0]).is_err());
    let many = monochromatic(kernel.view(), 7, 1).unwrap_err();
    assert!(message(many).starts_with("7 colours were given for 6 filters"));
    assert_eq!(monochromatic(kernel.view(), 0, 1), Err(CpError::RankZero));
    assert!(Monochromatic::assigned(kernel.view(), 2, &[0, 1, 2, 0, 0, 0]).is_err());
    assert!(Monochromatic::assigned(kernel.view(), 2, &[0, 1]).is_err());
    let mut wrong = kernel.clone();
    wrong[[5, 1, 2]] = f64::NAN;
    assert!(monochromatic(wrong.view(), 2, 1).is_err());
    assert!(Biclusters::find(wrong.view(), [2, 2], 1).is_err());
    // Zeros are no obstacle.
    let zeros = Array3::<f64>::zeros((6, 4, 3));
    assert!(monochromatic(zeros.view(), 3, 1).unwrap().reconstruct().iter().all(|x| *x == 0.0));
    assert!(Biclusters::find(zeros.view(), [3, 2], 1).is_ok());
    assert_eq!(greedy(&zeros, 2), zeros);
    // Nor is a mean of zero, from which no sweep would start.
    let odd = Array3::from_shape_fn((2, 2, 2), |(i, j, k)| {
        [1.0, -1.0][i] * [1.0, -1.0][j] * [1.0, -1.0][k]
    });
    assert!(distance(&greedy(&odd, 1), &odd) < 1e-12);
}
