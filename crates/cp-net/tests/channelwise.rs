//! Channel-wise layers of [`Builder`] over random shapes against their definitions, written as loops; and what they refuse.
#![allow(clippy::unwrap_used, reason = "clippy allows it in tests, but not in their helpers")]

use cp_net::arch::{Builder, window};
use cp_net::{Draw, InputSpec, Network};
use ndarray::{Array2, ArrayD};

const SEEDS: u64 = 60;

/// What random values come to behind the layers that `build` adds, and what `twin` makes of the same: of an image `[C, P]` and the weight of
/// `layer`.
fn check(
    seed: u64,
    shape: &[usize],
    build: impl Fn(Builder) -> Builder,
    twin: impl Fn(&Array2<f64>, &ArrayD<f64>) -> Vec<f64>,
) {
    let arch = build(Builder::new("layers", InputSpec::features(shape))).build().unwrap();
    let mut draw = Draw::new(seed);
    let params = arch.params().map(|(name, spec)| (name, draw.array(&spec.shape, (-1.0, 1.0))));
    let params = params.collect();
    let net = Network::new(arch, params).unwrap();
    let batch = 2;
    let x = draw.array(&[&[batch], shape].concat(), (-1.0, 1.0));
    let y = net.eval(&[x.view()]).unwrap().remove(0);
    let pixels: usize = shape[1..].iter().product();
    let images = x.mapv(f64::from).into_shape_with_order((batch, shape[0], pixels)).unwrap();
    let weight = net.params()["layer.weight"].mapv(f64::from);
    let expected = images.outer_iter().flat_map(|image| twin(&image.to_owned(), &weight));
    let expected: Vec<f64> = expected.collect();
    assert_eq!(y.len(), expected.len(), "{shape:?}, seed {seed}");
    for (index, (got, expected)) in y.iter().zip(&expected).enumerate() {
        let off = (f64::from(*got) - expected).abs();
        assert!(off <= 1e-5 * (1.0 + expected.abs()), "{shape:?}, seed {seed}, {index}: {off}");
    }
}

/// At least `least_axes` spatial axes and at most three behind `channels`.
fn shape(draw: &mut Draw, channels: usize, least_axes: usize) -> Vec<usize> {
    let axes = draw.size(least_axes..=3);
    [vec![channels], draw.sizes(axes, 1..=4)].concat()
}

/// y[k·C/g + j] = Σ_d K[k, d] · x[g·j + d − before].
#[test]
fn group_channelwise() {
    for seed in 0..SEEDS {
        let mut draw = Draw::new(seed);
        let groups = 1 + seed as usize % 4;
        let channels = groups * draw.size(1..=5);
        let kernel = draw.size(1..=channels);
        let shape = shape(&mut draw, channels, 0);
        let before = kernel.saturating_sub(groups) / 2;
        let twin = |x: &Array2<f64>, weight: &ArrayD<f64>| {
            let (steps, pixels) = (channels / groups, x.ncols());
            let mut y = Array2::zeros((channels, pixels));
            for ((k, j, d), p) in ndarray::indices((groups, steps, kernel))
                .into_iter()
                .flat_map(|at| (0..pixels).map(move |p| (at, p)))
            {
                let from = (groups * j + d).checked_sub(before).filter(|from| *from < channels);
                if let Some(from) = from {
                    y[[k * steps + j, p]] += weight[[k, 0, d, 0]] * x[[from, p]];
                }
            }
            y.into_iter().collect()
        };
        check(seed, &shape, |at| at.group_channelwise("layer", groups, kernel), twin);
        if groups == 1 {
            check(seed, &shape, |at| at.channelwise("layer", kernel), twin);
        }
    }
}

/// y[c, q] = Σ_{d, p} K[q, p, d] · x[c + d − before, p].
#[test]
fn channelwise_across_pixels() {
    for seed in 0..SEEDS {
        let mut draw = Draw::new(seed);
        let channels = draw.size(1..=9);
        let kernel = draw.size(1..=channels);
        let shape = shape(&mut draw, channels, 1);
        let twin = |x: &Array2<f64>, weight: &ArrayD<f64>| {
            let pixels = x.ncols();
            let mut y = Array2::zeros((channels, pixels));
            for (c, q, d) in ndarray::indices((channels, pixels, kernel)) {
                let from = (c + d).checked_sub((kernel - 1) / 2).filter(|from| *from < channels);
                if let Some(from) = from {
                    for p in 0..pixels {
                        y[[c, q]] += weight[[q, p, d]] * x[[from, p]];
                    }
                }
            }
            y.into_iter().collect()
        };
        check(seed, &shape, |at| at.channelwise_across_pixels("layer", kernel), twin);
    }
}

/// y[c] = Σ_{d, p} K[d, p] · x[c + d, p], and with a kernel for each class behind the mean.
#[test]
fn classifiers() {
    for seed in 0..SEEDS {
        let mut draw = Draw::new(seed);
        let channels = draw.size(1..=9);
        let classes = draw.size(1..=channels);
        let kernel = channels - classes + 1;
        let shape = shape(&mut draw, channels, 1);
        let shared = |x: &Array2<f64>, weight: &ArrayD<f64>| {
            let score = |class: usize| {
                let terms = ndarray::indices((kernel, x.ncols())).into_iter();
                terms.map(|(d, p)| weight[[0, 0, d, p]] * x[[class + d, p]]).sum()
            };
            (0..classes).map(score).collect()
        };
        check(seed, &shape, |at| at.convolutional_classifier("layer", classes), shared);
        let unshared = |x: &Array2<f64>, weight: &ArrayD<f64>| {
            let score = |class: usize| {
                let mean = |channel: usize| x.row(channel).mean().unwrap();
                (0..kernel).map(|d| weight[[class, 0, d]] * mean(class + d)).sum()
            };
            (0..classes).map(score).collect()
        };
        check(seed, &shape, |at| at.unshared_classifier("layer", classes), unshared);
    }
}

/// The mistake that comes first is the one that is reported, whatever is added behind it.
#[test]
fn mistakes() {
    let check = |build: fn(Builder) -> Builder, expected: &str| {
        let at = Builder::new("layers", InputSpec::features([6, 4, 4]));
        let error = build(at).build().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(
        |at| at.group_channelwise("a", 4, 2),
        "groups is 4, expected a divisor of the 6 channels",
    );
    check(
        |at| at.group_channelwise("a", 0, 2),
        "groups is 0, expected a divisor of the 6 channels",
    );
    check(|at| at.group_channelwise("a", 2, 0), "kernel is 0, expected 1 to 6, the channels");
    check(|at| at.channelwise("a", 7), "kernel is 7, expected 1 to 6, the channels");
    check(|at| at.channelwise_across_pixels("a", 7), "kernel is 7, expected 1 to 6, the channels");
    check(|at| at.convolutional_classifier("a", 0), "classes is 0, expected 1 to 6, the channels");
    check(|at| at.unshared_classifier("a", 7), "classes is 7, expected 1 to 6, the channels");
    let behind: [fn(Builder) -> Builder; 5] = [
        |at| at.group_channelwise("a", 2, 2),
        |at| at.channelwise("a", 2),
        |at| at.channelwise_across_pixels("a", 2),
        |at| at.convolutional_classifier("a", 1),
        |at| at.unshared_classifier("a", 1),
    ];
    for add in behind {
        let at = Builder::new("layers", InputSpec::features([6, 4, 4]));
        let wrong = at.conv("too_large", 3, window(9));
        let error = add(wrong).build().unwrap_err().to_string();
        assert!(error.contains("layer 'too_large'"), "{error}");
    }
}
