//! Rows in clusters of equal size: [`equal_clusters`].

use ndarray::{Array2, ArrayView2};
use rand::seq::SliceRandom;

use crate::error::CpError;
use crate::linalg::gram;
use crate::random::{Purpose, generator};
use crate::real::Real;

/// What the rows of a cluster have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// They lie near their mean, as in k-means.
    Mean,
    /// They lie near one line through 0, whatever their signs and lengths: subspace clustering, of dimension 1.
    Line,
}

/// Starts, of which the one that ends best is kept: at least, and at most where rows are few.
const STARTS: [u64; 2] = [16, 256];
/// Pairs of rows that all starts look at together, about, in a round.
const PAIRS: u64 = 1 << 20;
/// Most rounds of representatives and exchanges; some ten are needed.
const ROUNDS: usize = 100;
/// Most steps of the power iteration for a line, and the change at which it ends: what is left of it changes no exchange.
const STEPS: usize = 100;
const SETTLED: f64 = 1e-10;
/// Gain of an exchange, relative to all squares, below which it is taken for rounding.
const GAIN: f64 = 1e-12;

/// `count` clusters of equal size, in which the squared distances of the rows from the representatives of their clusters (means or
/// lines) are small: for each row the number of its cluster, from 0 in the order of the clusters' first rows.
///
/// From each of several starts, in which rows collect those most like them, rounds of two steps: representatives for the clusters, and
/// exchanges of two rows of different clusters that lower the sum of the squares. No step raises it, and sizes never change. All is done on
/// the products of the rows, XXᵀ.
///
/// # Shapes
/// `rows`: X, `[n, m]`; result: `[n]`.
///
/// # Errors
/// No rows or columns, entries that are not finite, a count of 0 or one that does not divide n.
///
/// ```
/// use cp_core::{Likeness, equal_clusters};
/// use ndarray::array;
///
/// let x = array![[1.0, 0.1], [0.0, 1.0], [-2.0, 0.0], [0.1, -3.0]];
/// assert_eq!(equal_clusters(x.view(), 2, Likeness::Line, 1)?, [0, 1, 0, 1]);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Source: Denton, Zaremba, Bruna, LeCun & Fergus (2014), §3.3, for clusters of equal size; Bradley & Mangasarian (2000), "k-plane
/// clustering", for lines.
pub fn equal_clusters<T: Real>(
    rows: ArrayView2<'_, T>,
    count: usize,
    likeness: Likeness,
    seed: u64,
) -> Result<Vec<usize>, CpError> {
    let products = products(rows)?;
    let size = products.nrows();
    if count == 0 || !size.is_multiple_of(count) {
        return Err(CpError::UnequalClusters { what: "rows", clusters: count, rows: size });
    }
    let mut best: Option<(f64, Vec<usize>)> = None;
    let most = PAIRS / (size as u64).pow(2);
    // Where there is nothing to choose, one start shows it.
    let starts = if count == 1 || count == size { 1 } else { most.clamp(STARTS[0], STARTS[1]) };
    for start in 0..starts {
        let mut labels = collected(&products, count, likeness, &order(&products, seed, start));
        let kept = improve(&products, &mut labels, count, likeness);
        if best.as_ref().is_none_or(|(most, _)| kept > *most) {
            best = Some((kept, labels));
        }
    }
    Ok(best.map(|(_, labels)| renumbered(&labels, count)).unwrap_or_default())
}

/// Sum of the squared distances of the rows from the representatives of their clusters; `labels` may be of any sizes.
///
/// # Shapes
/// `rows`: `[n, m]`; `labels`: `[n]`.
///
/// # Errors
/// No rows or columns, entries that are not finite, labels for another number of rows.
pub fn cluster_energy<T: Real>(
    rows: ArrayView2<'_, T>,
    labels: &[usize],
    likeness: Likeness,
) -> Result<f64, CpError> {
    let products = products(rows)?;
    let count = labels.iter().max().map_or(0, |most| most + 1);
    if labels.len() != products.nrows() {
        let (what, rows) = ("rows", products.nrows());
        return Err(CpError::UnequalClusters { what, clusters: labels.len(), rows });
    }
    let kept = kept(&scores(&products, labels, count, likeness), labels);
    Ok((products.diag().sum() - kept).max(0.0))
}

/// XXᵀ, `[n, n]`.
fn products<T: Real>(rows: ArrayView2<'_, T>) -> Result<Array2<f64>, CpError> {
    if let Some(mode) = rows.shape().iter().position(|&size| size == 0) {
        return Err(CpError::EmptyMode { mode, shape: rows.shape().to_vec() });
    }
    if let Some(((row, column), value)) = rows.indexed_iter().find(|(_, x)| !x.is_finite()) {
        let (index, value) = (vec![row, column], value.widen());
        return Err(CpError::NotFinite { what: "matrix", index, value });
    }
    Ok(gram(rows.t()))
}

/// The rows in the order in which they may collect others: the longest first, or at random.
fn order(products: &Array2<f64>, seed: u64, start: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..products.nrows()).collect();
    if start == 0 {
        order.sort_by(|&a, &b| products[[b, b]].total_cmp(&products[[a, a]]));
    } else {
        order.shuffle(&mut generator(seed, Purpose::Clusters, start));
    }
    order
}

/// Each row that is in no cluster yet opens one with those that are most like it.
fn collected(
    products: &Array2<f64>,
    count: usize,
    likeness: Likeness,
    order: &[usize],
) -> Vec<usize> {
    let size = order.len() / count;
    let mut labels = vec![count; order.len()];
    for cluster in 0..count {
        let mut free: Vec<usize> =
            order.iter().copied().filter(|&row| labels[row] == count).collect();
        let Some(&first) = free.first() else { break };
        let like = |row: usize| match likeness {
            Likeness::Mean => 2.0 * products[[first, row]] - products[[row, row]],
            Likeness::Line => {
                let length = products[[row, row]];
                if length > 0.0 { products[[first, row]].powi(2) / length } else { 0.0 }
            }
        };
        free[1..].sort_by(|&a, &b| like(b).total_cmp(&like(a)));
        free.iter().take(size).for_each(|&row| labels[row] = cluster);
    }
    labels
}

/// Rounds of representatives and exchanges until none gains; what the representatives keep of all squares.
fn improve(products: &Array2<f64>, labels: &mut [usize], count: usize, likeness: Likeness) -> f64 {
    let total = products.diag().sum();
    for _ in 0..ROUNDS {
        let scores = scores(products, labels, count, likeness);
        if !exchange(&scores, labels, GAIN * total) {
            return kept(&scores, labels);
        }
    }
    kept(&scores(products, labels, count, likeness), labels)
}

/// Exchanges rows of different clusters while that raises the sum of their scores by more than `least`; whether any was.
fn exchange(scores: &Array2<f64>, labels: &mut [usize], least: f64) -> bool {
    let (mut any, mut again) = (false, true);
    while again {
        again = false;
        for a in 0..labels.len() {
            for b in a + 1..labels.len() {
                let (of_a, of_b) = (labels[a], labels[b]);
                let gain =
                    scores[[a, of_b]] + scores[[b, of_a]] - scores[[a, of_a]] - scores[[b, of_b]];
                if of_a != of_b && gain > least {
                    labels.swap(a, b);
                    (any, again) = (true, true);
                }
            }
        }
    }
    any
}

/// What each cluster's representative keeps of each row's squares: ‖x‖² less the squared distance.
///
/// # Shapes
/// `[n, count]`.
fn scores(
    products: &Array2<f64>,
    labels: &[usize],
    count: usize,
    likeness: Likeness,
) -> Array2<f64> {
    let mut scores = Array2::zeros((labels.len(), count));
    for cluster in 0..count {
        let members: Vec<usize> = (0..labels.len()).filter(|&row| labels[row] == cluster).collect();
        // The representative is Σ weight · row over the members.
        let weights = match likeness {
            Likeness::Mean => vec![1.0 / members.len().max(1) as f64; members.len()],
            Likeness::Line => leading(products, &members),
        };
        let with = |row: usize| -> f64 {
            members.iter().zip(&weights).map(|(&member, w)| w * products[[row, member]]).sum()
        };
        let all: Vec<f64> = (0..labels.len()).map(with).collect();
        let square: f64 = members.iter().zip(&weights).map(|(&member, w)| w * all[member]).sum();
        for (row, product) in all.into_iter().enumerate() {
            scores[[row, cluster]] = match likeness {
                Likeness::Mean => 2.0 * product - square,
                Likeness::Line if square > 0.0 => product * product / square,
                Likeness::Line => 0.0,
            };
        }
    }
    scores
}

/// The weights of the members in the direction that keeps most of their squares: the leading eigenvector of their products.
fn leading(products: &Array2<f64>, members: &[usize]) -> Vec<f64> {
    let longest = members.iter().max_by(|&&a, &&b| products[[a, a]].total_cmp(&products[[b, b]]));
    let Some(&longest) = longest else { return Vec::new() };
    let mut weights: Vec<f64> = members.iter().map(|&row| products[[row, longest]]).collect();
    for _ in 0..STEPS {
        let norm = weights.iter().map(|w| w * w).sum::<f64>().sqrt();
        if norm == 0.0 {
            break;
        }
        weights.iter_mut().for_each(|w| *w /= norm);
        let step = |&row: &usize| -> f64 {
            members.iter().zip(&weights).map(|(&member, w)| w * products[[row, member]]).sum()
        };
        let next: Vec<f64> = members.iter().map(step).collect();
        let length = next.iter().map(|w| w * w).sum::<f64>().sqrt();
        let moved = next.iter().zip(&weights).map(|(a, b)| (a - length * b).abs());
        let settled = moved.fold(0.0_f64, f64::max) <= SETTLED * length;
        weights = next;
        if settled {
            break;
        }
    }
    weights
}

fn kept(scores: &Array2<f64>, labels: &[usize]) -> f64 {
    labels.iter().enumerate().map(|(row, &label)| scores[[row, label]]).sum()
}

/// The clusters numbered in the order of their first rows.
fn renumbered(labels: &[usize], count: usize) -> Vec<usize> {
    let mut numbers = vec![None; count];
    let mut next = 0;
    let number = |&label: &usize| {
        *numbers[label].get_or_insert_with(|| {
            next += 1;
            next - 1
        })
    };
    labels.iter().map(number).collect()
}
