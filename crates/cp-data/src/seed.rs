//! Generators that depend on what they are for, not on who draws first.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What a generator is for, so that two uses of one seed do not draw the same numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Use {
    Shuffle = 1,
    Augment = 2,
    Split = 3,
    Tiles = 4,
    CharactersTrain = 16,
    CharactersValidation = 17,
    CharactersTest = 18,
    MovingTrain = 19,
    MovingValidation = 20,
    MovingTest = 21,
}

/// The generator for one example (or one epoch) of one use: the four numbers are its 256-bit key, so that any two
/// combinations give unrelated streams, and an example's numbers do not depend on which thread reaches it first.
pub(crate) fn generator(seed: u64, purpose: Use, epoch: u64, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (chunk, part) in key.chunks_exact_mut(8).zip([seed, purpose as u64, epoch, index]) {
        chunk.copy_from_slice(&part.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}
