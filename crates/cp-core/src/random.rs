//! Every random draw of the crate: one generator for each seed, purpose and place.

use ndarray::Array2;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// What numbers are drawn for. Draws for different purposes share no numbers, whatever their seeds; people give one seed to
/// everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The factors that a CP solver starts from.
    Start,
    /// The factors that a Tucker solver starts from, which may come before a CP solver with the same seed.
    TuckerStart,
    /// Terms that are added to a model.
    NewTerms,
    /// The equations that [`SampledAls`](crate::SampledAls) looks at.
    Samples,
    /// The entries that an error is estimated from.
    ErrorEstimate,
    /// The order in which rows look for a cluster, and the filters that colours start from.
    Clusters,
}

/// The bits of a stream's number that say which of a purpose's streams it is.
const PLACE_BITS: u32 = 56;

impl Purpose {
    /// The stream of one place (a mode, a term): purposes in the upper byte, so that none can run into another.
    fn stream(self, place: u64) -> u64 {
        debug_assert!(place >> PLACE_BITS == 0, "place {place} of {self:?} runs into another");
        ((self as u64) << PLACE_BITS) | place
    }
}

/// The numbers of a seed for one purpose and place.
pub(crate) fn generator(seed: u64, purpose: Purpose, place: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(purpose.stream(place));
    rng
}

/// Independent standard normal entries, `[Iₙ, rank]` for each mode. Each mode draws from a stream of its own, so that the
/// numbers of one do not depend on the sizes of the others.
pub(crate) fn factors(
    shape: &[usize],
    rank: usize,
    seed: u64,
    purpose: Purpose,
) -> Vec<Array2<f64>> {
    let factor = |(mode, &size): (usize, &usize)| {
        let mut rng = generator(seed, purpose, mode as u64);
        Array2::from_shape_simple_fn((size, rank), || StandardNormal.sample(&mut rng))
    };
    shape.iter().enumerate().map(factor).collect()
}

/// The seed of a further start, 1, 2, …, of a solver whose first start has this seed: far from the seeds that people number
/// their runs with.
pub(crate) fn further_seed(seed: u64, start: usize) -> u64 {
    const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;
    seed.wrapping_add(STRIDE.wrapping_mul(start as u64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::RngCore;

    use super::*;

    const ALL: [Purpose; 6] = [
        Purpose::Start,
        Purpose::TuckerStart,
        Purpose::NewTerms,
        Purpose::Samples,
        Purpose::ErrorEstimate,
        Purpose::Clusters,
    ];

    #[test]
    fn purposes_share_no_numbers() {
        // A purpose that is missing in the list does not compile.
        for purpose in ALL {
            match purpose {
                Purpose::Start
                | Purpose::TuckerStart
                | Purpose::NewTerms
                | Purpose::Samples
                | Purpose::ErrorEstimate
                | Purpose::Clusters => {}
            }
        }
        // Modes, and terms of the power method with their starts.
        let places = [0, 1, 2, 3, 7, 1 << 32, (1 << 32) + 1, (5000 << 32) + 63];
        let mut streams = BTreeSet::new();
        let mut numbers = BTreeSet::new();
        for purpose in ALL {
            for place in places {
                assert!(streams.insert(purpose.stream(place)), "{purpose:?} at {place}");
                let mut rng = generator(7, purpose, place);
                for _ in 0..64 {
                    assert!(numbers.insert(rng.next_u64()), "{purpose:?} at {place}");
                }
            }
        }
    }

    /// Recorded results start from these.
    #[test]
    fn starts_keep_the_streams_of_the_modes() {
        let drawn = factors(&[3, 4], 2, 5, Purpose::Start);
        for (mode, factor) in drawn.iter().enumerate() {
            let mut rng = ChaCha8Rng::seed_from_u64(5);
            rng.set_stream(mode as u64);
            for &x in factor {
                let expected: f64 = StandardNormal.sample(&mut rng);
                assert_eq!(x.to_bits(), expected.to_bits());
            }
        }
    }
}
