//! The Jacobian and the objective against slow twins: dense products and finite differences.

use ndarray::{Array2, ArrayD};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::jacobian::grams;
use super::*;

fn draw(len: usize, seed: u64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| StandardNormal.sample(&mut rng)).collect()
}

/// X̂ at θ.
fn model(shape: &[usize], layout: &Layout, theta: &[f64]) -> ArrayD<f64> {
    let factor = |(block, &size): (&std::ops::Range<usize>, &usize)| {
        Array2::from_shape_vec((size, layout.rank), theta[block.clone()].to_vec()).unwrap()
    };
    let factors = layout.blocks.iter().zip(shape).map(factor).collect();
    CpTensor::from_factors(factors).unwrap().reconstruct()
}

/// The slow twin of [`Jacobian`]: one column of J per unknown, exact because X̂ is linear in each.
fn slow_jacobian(shape: &[usize], layout: &Layout, theta: &[f64]) -> Vec<ArrayD<f64>> {
    let column = |i: usize| {
        let mut moved = theta.to_vec();
        moved[i] += 1.0;
        model(shape, layout, &moved) - model(shape, layout, theta)
    };
    (0..layout.len()).map(column).collect()
}

fn check_jacobian(shape: &[usize], rank: usize) {
    let layout = Layout::new(shape, rank);
    let (theta, v) = (draw(layout.len(), 1), draw(layout.len(), 2));
    let columns = slow_jacobian(shape, &layout, &theta);
    let mut jv = ArrayD::zeros(shape);
    columns.iter().zip(&v).for_each(|(column, v)| jv = &jv + column * *v);
    let mu = 0.7;
    let mut fast = vec![0.0; layout.len()];
    let mut jacobian = Jacobian::new(&layout, &theta, &grams(&layout, &theta));
    jacobian.apply(&v, mu, &mut fast);
    for ((fast, column), v) in fast.iter().zip(&columns).zip(&v) {
        let slow = (column * &jv).sum() + mu * v;
        assert!((fast - slow).abs() < 1e-9 * (1.0 + slow.abs()), "{shape:?}: {fast} {slow}");
    }
    // Along v the model is X̂ + h J v + h² q(v) + …
    let along = |h: f64| {
        let moved: Vec<f64> = theta.iter().zip(&v).map(|(x, v)| x + h * v).collect();
        model(shape, &layout, &moved)
    };
    let h = 1e-3;
    let bend = (along(h) + along(-h) - 2.0 * along(0.0)) / (2.0 * h * h);
    jacobian.bend(&v, &grams(&layout, &theta), &mut fast);
    for (fast, column) in fast.iter().zip(&columns) {
        let slow = (column * &bend).sum();
        assert!((fast - slow).abs() < 1e-4 * (1.0 + slow.abs()), "{shape:?}: {fast} {slow}");
    }
    let largest = columns.iter().map(|c| (c * c).sum()).fold(0.0, f64::max);
    assert!((jacobian.largest_diagonal() - largest).abs() < 1e-9 * largest);
    // The preconditioner undoes the diagonal blocks: those of a vector with one block alone.
    let preconditioner = jacobian.preconditioner(mu).unwrap();
    for block in &layout.blocks {
        let mut alone = vec![0.0; layout.len()];
        alone[block.clone()].copy_from_slice(&v[block.clone()]);
        jacobian.apply(&alone, mu, &mut fast);
        let mut back = vec![0.0; layout.len()];
        preconditioner.apply(&fast, &mut back);
        let pairs = back[block.clone()].iter().zip(&v[block.clone()]);
        pairs.for_each(|(x, y)| assert!((x - y).abs() < 1e-8, "{shape:?}: {x} {y}"));
    }
}

#[test]
fn jacobian_products_equal_the_dense_ones() {
    check_jacobian(&[4, 3], 2);
    check_jacobian(&[4, 3, 5], 3);
    check_jacobian(&[3, 1, 4, 2], 5);
    check_jacobian(&[2, 3, 2, 3, 2], 2);
}

/// Both ways to the objective and its gradient against central differences.
fn check_gradient(shape: &[usize], rank: usize, penalty: f64) {
    let layout = Layout::new(shape, rank);
    let theta = draw(layout.len(), 3);
    let tensor = model(shape, &layout, &draw(layout.len(), 4));
    let view = tensor.view();
    let problem = Problem::new(&view, rank).unwrap();
    for exact in [false, true] {
        let mut objective = Objective::new(&problem, &layout, penalty);
        objective.exact = exact;
        let mut at = |theta: Vec<f64>| objective.at(theta, f64::INFINITY).unwrap();
        let point = at(theta.clone());
        for i in 0..layout.len() {
            let mut shifted = |h: f64| {
                let mut theta = theta.clone();
                theta[i] += h;
                at(theta).objective
            };
            let slope = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
            let gradient = point.gradient[i] + penalty * theta[i];
            let scale = 1.0 + point.objective;
            assert!((slope - gradient).abs() < 1e-6 * scale, "{shape:?} {i}: {slope} {gradient}");
        }
        assert_eq!(objective.exact, exact);
    }
}

#[test]
fn gradients_equal_finite_differences() {
    check_gradient(&[4, 3], 2, 0.0);
    check_gradient(&[4, 3, 5], 2, 0.3);
    check_gradient(&[3, 1, 4, 2], 3, 0.0);
    check_gradient(&[2, 3, 2, 3, 2], 2, 0.1);
}

#[test]
fn balancing_changes_neither_model_nor_slope() {
    let shape = [4, 3, 5];
    let layout = Layout::new(&shape, 2);
    let tensor = model(&shape, &layout, &draw(layout.len(), 5));
    let view = tensor.view();
    let problem = Problem::new(&view, 2).unwrap();
    let mut objective = Objective::new(&problem, &layout, 0.1);
    let mut theta = draw(layout.len(), 6);
    theta[layout.blocks[1].clone()].iter_mut().for_each(|x| *x *= 30.0);
    let mut point = objective.at(theta, f64::INFINITY).unwrap();
    let before = point.objective;
    objective.balance(&mut point);
    assert!(point.objective < before, "the penalty is smallest for balanced factors");
    let again = objective.at(point.theta.clone(), f64::INFINITY).unwrap();
    let close = |a: f64, b: f64| (a - b).abs() < 1e-9 * (1.0 + b.abs());
    assert!(close(point.square, again.square) && close(point.objective, again.objective));
    assert!(point.gradient.iter().zip(&again.gradient).all(|(a, b)| close(*a, *b)));
    let grams = point.grams.iter().flatten().zip(again.grams.iter().flatten());
    assert!(grams.into_iter().all(|(a, b)| close(*a, *b)));
}
