//! The linear assignment problem, for matching the terms of two models.

use ndarray::Array2;

/// For each row a different column, so that the sum of the entries picked is largest.
///
/// Shortest augmenting paths with potentials (Jonker & Volgenant 1987), O(rows² columns).
///
/// # Shapes
/// `scores`: `[m, n]` with m ≤ n, finite; result: `m` columns.
pub(crate) fn largest_sum(scores: &Array2<f64>) -> Vec<usize> {
    let (rows, columns) = scores.dim();
    debug_assert!(rows <= columns);
    // Column `columns` is a place to start from; `owner[c]` is the row that holds column c.
    let mut owner = vec![None; columns + 1];
    let mut row_price = vec![0.0; rows];
    let mut column_price = vec![0.0; columns + 1];
    for row in 0..rows {
        owner[columns] = Some(row);
        let mut column = columns;
        let mut distance = vec![f64::INFINITY; columns];
        let mut previous = vec![columns; columns];
        let mut done = vec![false; columns + 1];
        while let Some(current) = owner[column] {
            done[column] = true;
            let (mut nearest, mut step) = (columns, f64::INFINITY);
            for c in (0..columns).filter(|&c| !done[c]) {
                let cost = -scores[[current, c]] - row_price[current] - column_price[c];
                if cost < distance[c] {
                    distance[c] = cost;
                    previous[c] = column;
                }
                if distance[c] < step {
                    (nearest, step) = (c, distance[c]);
                }
            }
            for c in 0..=columns {
                if done[c] {
                    if let Some(owner) = owner[c] {
                        row_price[owner] += step;
                    }
                    column_price[c] -= step;
                } else {
                    distance[c] -= step;
                }
            }
            column = nearest;
        }
        while column != columns {
            let before = previous[column];
            owner[column] = owner[before];
            column = before;
        }
    }
    let mut chosen = vec![0; rows];
    for (column, row) in owner[..columns].iter().enumerate() {
        if let &Some(row) = row {
            chosen[row] = column;
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn greedy_choice_is_not_taken() {
        assert_eq!(largest_sum(&array![[0.9, 0.8], [0.85, 0.1]]), [1, 0]);
        assert_eq!(largest_sum(&array![[0.2, 0.9, 0.8]]), [1]);
    }

    #[test]
    fn equals_trying_all_permutations() {
        fn best(scores: &Array2<f64>, row: usize, used: &mut Vec<bool>) -> f64 {
            if row == scores.nrows() {
                return 0.0;
            }
            let mut top = f64::NEG_INFINITY;
            for c in 0..scores.ncols() {
                if !used[c] {
                    used[c] = true;
                    top = top.max(scores[[row, c]] + best(scores, row + 1, used));
                    used[c] = false;
                }
            }
            top
        }
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        for (m, n) in [(1, 1), (3, 3), (5, 5), (6, 6), (3, 6), (5, 7)] {
            for _ in 0..20 {
                let scores = Array2::from_shape_fn((m, n), |_| rng.random::<f64>());
                let chosen = largest_sum(&scores);
                let mut distinct = chosen.clone();
                distinct.sort_unstable();
                distinct.dedup();
                assert_eq!(distinct.len(), m);
                let sum: f64 = chosen.iter().enumerate().map(|(r, &c)| scores[[r, c]]).sum();
                let expected = best(&scores, 0, &mut vec![false; n]);
                assert!((sum - expected).abs() < 1e-12, "{m}x{n}: {sum} against {expected}");
            }
        }
    }
}
