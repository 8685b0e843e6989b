//! Ranks of convolutions whose weights are factors, from the share of the dense kernel's parameters that they may have.
//!
//! Reference: the rule of TensorLy's `validate_cp_rank` and `validate_tucker_rank`, which Kossaifi et al. (arXiv 1906.06196) choose ranks by;
//! biases and λ do not count.

use super::conv::Conv;
use super::cp_conv::CpConv;
use super::tt_conv::TtConv;
use super::tucker_conv::TuckerConv;

impl CpConv {
    /// The rank at which the factors have about `share` of the numbers of the kernel of `dense`: share · ∏ shape / Σ shape, rounded, at least 1.
    pub fn rank_of_share(dense: &Conv, share: f64) -> usize {
        let shape = shape(dense);
        let sum: usize = shape.iter().sum();
        whole(share * numbers(&shape) / sum as f64)
    }
}

impl TuckerConv {
    /// The ranks at which core and factors have about `share` of the numbers of the kernel of `dense`, all in one proportion c to the sizes of
    /// the kernel: c^N ∏ shape + c Σ shape² = share · ∏ shape. Each is rounded, at least 1 and at most its size.
    ///
    /// With `full_axes` the spatial axes keep their sizes, as in a bottleneck: c² ∏ shape + c Σ shape² = share · ∏ shape, where their factors
    /// count in proportion like the others.
    pub fn ranks_of_share(dense: &Conv, share: f64, full_axes: bool) -> Vec<usize> {
        let shape = shape(dense);
        let all = numbers(&shape);
        let scaled = if full_axes { 2 } else { shape.len() };
        let squares: f64 = shape.iter().map(|&size| (size as f64).powi(2)).sum();
        let count = |c: f64| all * c.powi(scaled as i32) + squares * c;
        let c = root(count, share * all);
        let rank = |(axis, &size): (usize, &usize)| match axis {
            axis if axis < scaled => whole(size as f64 * c).min(size),
            _ => size,
        };
        shape.iter().enumerate().map(rank).collect()
    }
}

impl TtConv {
    /// One rank between all cores at which they have about `share` of the numbers of the kernel of `dense`: r (S + T) + r² Σ kernel =
    /// share · ∏ shape. It is rounded, at least 1, and between two cores at most what a train can use there.
    pub fn ranks_of_share(dense: &Conv, share: f64) -> Vec<usize> {
        let shape = shape(dense);
        let ends = (shape[0] + shape[1]) as f64;
        let taps: f64 = shape[2..].iter().map(|&taps| taps as f64).sum();
        let all = numbers(&shape);
        // Factors of a rank r have at least r numbers, so that r / ∏ shape is at most the share.
        let r = all * root(|part| ends * part * all + taps * (part * all).powi(2), share * all);
        let mut sizes = vec![dense.in_channels];
        sizes.extend(&dense.kernel);
        sizes.push(dense.out_channels);
        (1..sizes.len())
            .map(|cut| {
                let [front, back] = [&sizes[..cut], &sizes[cut..]].map(numbers);
                whole(r).min(front.min(back) as usize)
            })
            .collect()
    }
}

/// `[T, S, k₀, …]`, whatever the groups.
fn shape(dense: &Conv) -> Vec<usize> {
    [&[dense.out_channels, dense.in_channels][..], &dense.kernel].concat()
}

fn numbers(sizes: &[usize]) -> f64 {
    sizes.iter().map(|&size| size as f64).product()
}

fn whole(rank: f64) -> usize {
    (rank.round() as usize).max(1)
}

/// Where the rising `count` reaches `wanted`, between 0 and 1, by halving; 0 or 1 where it does not.
fn root(count: impl Fn(f64) -> f64, wanted: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..64 {
        let middle = (low + high) / 2.0;
        if count(middle) < wanted { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(op: &impl super::super::spec::OpSpec) -> usize {
        op.params().iter().map(|spec| spec.shape.iter().product::<usize>()).sum()
    }

    /// The count at the rank is nearest to the share, as far as one step of the rank reaches.
    #[test]
    fn the_counts_are_about_the_share() {
        let dense = Conv { bias: false, ..Conv::new(48, 64, [3, 3]) };
        let all = 64.0 * 48.0 * 9.0;
        // Near the whole kernel the ranks at the ends of a train are as large as they can be.
        for share in [0.05, 0.2, 0.5, 0.8] {
            let cp = count(&CpConv::of(&dense, CpConv::rank_of_share(&dense, share))) as f64;
            assert!((cp - share * all).abs() <= (64.0 + 48.0 + 6.0) / 2.0, "{share}: {cp}");
            let train = count(&TtConv::of(&dense, TtConv::ranks_of_share(&dense, share))) as f64;
            assert!((train / all - share).abs() < 0.05, "{share}: {train}");
            let ranks = TuckerConv::ranks_of_share(&dense, share, true);
            let tucker = count(&TuckerConv::of(&dense, ranks)) as f64;
            assert!((tucker / all - share).abs() < 0.05, "{share}: {tucker}");
        }
    }

    /// Nothing is asked for that the ops refuse.
    #[test]
    fn the_ranks_are_those_of_ops() {
        use super::super::spec::OpSpec as _;
        for dense in [Conv::new(1, 2, [3]), Conv::new(3, 200, [5, 1]), Conv::new(4, 4, [1, 1, 1])] {
            for share in [0.0, 1e-9, 0.3, 1.0, 50.0] {
                CpConv::of(&dense, CpConv::rank_of_share(&dense, share)).check().unwrap();
                TtConv::of(&dense, TtConv::ranks_of_share(&dense, share)).check().unwrap();
                for full in [false, true] {
                    let ranks = TuckerConv::ranks_of_share(&dense, share, full);
                    TuckerConv::of(&dense, ranks).check().unwrap();
                }
            }
        }
    }
}
