//! Which pictures of marked defects show the same tile, and splits that keep them on one side.
//!
//! The file names of the magnetic-tile defects say which files are copies of another, mirrored or turned, and nothing of the tile. The
//! marks do: many are nearly the same as up to five others, in the same place, as those of photographs of one tile in other light are.

use std::collections::{BTreeMap, HashMap};

use ndarray::{Array3, ArrayView2, Axis};
use rand::seq::SliceRandom;
use rayon::prelude::*;

use crate::seed::{Use, generator};
use crate::{DataError, Dataset};

/// A pixel above this is part of the mark.
const MARKED: u8 = 127;

/// For every picture of `set` the number of its tile, from 0 in the order of the first pictures.
///
/// Pictures of one class are of one tile where
///
/// - they are equal, perhaps mirrored or turned by quarters, or
/// - their marks lie in the same place, |A ∩ B| ≥ ½ |A ∪ B|; of marks that together cover more than a tenth of the picture, which may do so
///   by chance, |A ∩ B| ≥ ⅘ |A ∪ B|,
///
/// directly or by way of others. A picture of one color marks nothing and says nothing of its tile: it is one of its own, however many are equal to it.
///
/// # Errors
/// If a picture cannot be read.
pub fn tiles(set: &dyn Dataset) -> Result<Vec<usize>, DataError> {
    let marks: Vec<Mark> = (0..set.len())
        .into_par_iter()
        .map(|index| Ok(Mark::of(&set.image(index)?, set.label(index))))
        .collect::<Result<_, DataError>>()?;
    let mut of: Vec<usize> = (0..marks.len()).collect();
    let mut copies = HashMap::new();
    for (index, mark) in marks.iter().enumerate().filter(|(_, mark)| !mark.blank) {
        let first = *copies.entry((mark.class, &mark.upright)).or_insert(index);
        join(&mut of, first, index);
        for (other, before) in marks[..index].iter().enumerate() {
            if mark.same_place(before) {
                join(&mut of, other, index);
            }
        }
    }
    let mut numbers = HashMap::new();
    Ok((0..marks.len())
        .map(|index| {
            let (root, next) = (root(&of, index), numbers.len());
            *numbers.entry(root).or_insert(next)
        })
        .collect())
}

/// What is compared of a picture.
struct Mark {
    class: usize,
    /// All pixels of one value.
    blank: bool,
    /// The picture, the same however it is mirrored and turned: height, width and pixels.
    upright: (usize, usize, Vec<u8>),
    /// A bit for every pixel, set where it is marked.
    bits: Vec<u64>,
    size: usize,
}

impl Mark {
    fn of(image: &Array3<u8>, class: usize) -> Self {
        // Of colors the first stands for all: marks are grey.
        let plane = image.index_axis(Axis(0), 0);
        let size = plane.len();
        let mut bits = vec![0; size.div_ceil(64)];
        for (at, _) in plane.iter().enumerate().filter(|(_, pixel)| **pixel > MARKED) {
            bits[at / 64] |= 1 << (at % 64);
        }
        let blank = plane.iter().all(|pixel| Some(pixel) == plane.first());
        Mark { class, blank, upright: upright(plane), bits, size }
    }

    /// Whether both mark the same place of a picture of the same size, not mirrored and not turned.
    fn same_place(&self, other: &Mark) -> bool {
        if self.class != other.class || self.size != other.size || other.blank {
            return false;
        }
        let count = |of: fn(u64, u64) -> u64| -> usize {
            let words = self.bits.iter().zip(&other.bits);
            words.map(|(&a, &b)| of(a, b).count_ones() as usize).sum()
        };
        let (both, either) = (count(|a, b| a & b), count(|a, b| a | b));
        if either == 0 {
            return false;
        }
        if 10 * either > self.size { 5 * both >= 4 * either } else { 2 * both >= either }
    }
}

/// The first in order of a picture's eight positions.
fn upright(plane: ArrayView2<'_, u8>) -> (usize, usize, Vec<u8>) {
    let mut positions = Vec::with_capacity(8);
    for plane in [plane, plane.reversed_axes()] {
        for vertical in [1, -1] {
            for horizontal in [1, -1] {
                let mut turned = plane;
                if vertical < 0 {
                    turned.invert_axis(Axis(0));
                }
                if horizontal < 0 {
                    turned.invert_axis(Axis(1));
                }
                let (height, width) = turned.dim();
                positions.push((height, width, turned.iter().copied().collect()));
            }
        }
    }
    positions.into_iter().min().unwrap_or_default()
}

fn root(of: &[usize], mut index: usize) -> usize {
    while of[index] != index {
        index = of[index];
    }
    index
}

fn join(of: &mut [usize], one: usize, other: usize) {
    let (one, other) = (root(of, one), root(of, other));
    of[one.max(other)] = one.min(other);
}

/// The indices of a training, a validation and a test split, each in order, with all pictures of a tile in one of them.
///
/// Of a class with n pictures at most ⌈`share`·n⌉ are for validation and as many for the test: its tiles come in an order drawn from `seed`,
/// and each goes to the test where there is room for it, else to validation, else to training.
pub(crate) fn split_tiles(
    set: &dyn Dataset,
    tiles: &[usize],
    share: f64,
    seed: u64,
) -> [Vec<usize>; 3] {
    let mut by_class = vec![BTreeMap::<usize, Vec<usize>>::new(); set.classes().len()];
    for (index, &tile) in tiles.iter().enumerate() {
        by_class[set.label(index)].entry(tile).or_default().push(index);
    }
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    for (class, tiles) in by_class.into_iter().enumerate() {
        let mut tiles: Vec<Vec<usize>> = tiles.into_values().collect();
        let count: usize = tiles.iter().map(Vec::len).sum();
        tiles.shuffle(&mut generator(seed, Use::Tiles, 0, class as u64));
        let room = (share * count as f64).ceil() as usize;
        let mut room = [usize::MAX, room, room];
        for tile in tiles {
            let part = if tile.len() <= room[2] {
                2
            } else if tile.len() <= room[1] {
                1
            } else {
                0
            };
            room[part] -= tile.len();
            parts[part].extend(tile);
        }
    }
    parts.iter_mut().for_each(|part| part.sort_unstable());
    parts
}

/// The indices of a training and a test split drawn picture by picture from `seed`, whatever tile they show: copies of one tile are on both sides.
pub(crate) fn split_leaking(count: usize, share: f64, seed: u64) -> [Vec<usize>; 2] {
    let mut all: Vec<usize> = (0..count).collect();
    all.shuffle(&mut generator(seed, Use::Tiles, 1, 0));
    let mut test = all.split_off(count - ((share * count as f64).round() as usize).min(count));
    all.sort_unstable();
    test.sort_unstable();
    [all, test]
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Array4, s};

    use super::*;
    use crate::Images;

    /// A picture of 20 × 20 with a rectangle marked in it.
    fn mark(top: usize, left: usize, height: usize, width: usize) -> Array2<u8> {
        let mut picture = Array2::zeros((20, 20));
        picture.slice_mut(s![top..top + height, left..left + width]).fill(255);
        picture
    }

    fn found(pictures: &[Array2<u8>], labels: &[usize]) -> Vec<usize> {
        let mut pixels = Array4::zeros((pictures.len(), 1, 20, 20));
        for (mut place, picture) in pixels.outer_iter_mut().zip(pictures) {
            place.index_axis_mut(Axis(0), 0).assign(picture);
        }
        let classes = vec!["a".to_owned(), "b".to_owned()];
        tiles(&Images::new("marks", classes, pixels, labels.to_vec()).unwrap()).unwrap()
    }

    #[test]
    fn mirrored_and_turned_copies_are_of_one_tile() {
        // Of no symmetry: a bar with a dot beside one end.
        let mut one = mark(2, 3, 2, 7);
        one[[5, 3]] = 90;
        let mirrored = one.slice(s![.., ..;-1]).to_owned();
        let turned = one.t().slice(s![..;-1, ..]).to_owned();
        let both = turned.slice(s![.., ..;-1]).to_owned();
        let mut other = one.clone();
        other[[5, 3]] = 0;
        let other = other.slice(s![..;-1, ..;-1]).to_owned();
        assert_eq!(found(&[one, mirrored, turned, both, other], &[0; 5]), [0, 0, 0, 0, 1]);
    }

    #[test]
    fn marks_in_the_same_place_are_of_one_tile() {
        let one = mark(4, 4, 3, 6);
        // 12 of 24 pixels are common; of the next, 9 of 27.
        let (half, less) = (mark(4, 6, 3, 6), mark(4, 7, 3, 6));
        assert_eq!(found(&[one.clone(), half.clone()], &[0, 0]), [0, 0]);
        assert_eq!(found(&[one.clone(), less.clone()], &[0, 0]), [0, 1]);
        // By way of another one; and never across classes.
        assert_eq!(found(&[one.clone(), less.clone(), half.clone()], &[0, 0, 0]), [0, 0, 0]);
        assert_eq!(found(&[one.clone(), one, half], &[0, 1, 1]), [0, 1, 1]);
    }

    #[test]
    fn large_marks_have_to_agree_better() {
        let one = mark(0, 0, 10, 10);
        // 80 of 120, and 90 of 110 pixels in common.
        assert_eq!(found(&[one.clone(), mark(0, 2, 10, 10)], &[0, 0]), [0, 1]);
        assert_eq!(found(&[one, mark(0, 1, 10, 10)], &[0, 0]), [0, 0]);
    }

    #[test]
    fn blank_pictures_are_each_a_tile() {
        let blank = Array2::zeros((20, 20));
        assert_eq!(found(&[blank.clone(), blank.clone(), blank], &[0, 0, 1]), [0, 1, 2]);
    }

    #[test]
    fn no_tile_is_split_and_the_parts_make_the_whole() {
        // 40 pictures of a class in tiles of 2 and 3, then 20 of another in tiles of 10.
        let tiles: Vec<usize> =
            (0..40).map(|i| i % 16).chain((0..20).map(|i| 16 + i / 10)).collect();
        let labels: Vec<usize> = (0..60).map(|i| usize::from(i >= 40)).collect();
        let classes = vec!["a".to_owned(), "b".to_owned()];
        let set = Images::new("x", classes, Array4::zeros((60, 1, 2, 2)), labels).unwrap();
        let parts = split_tiles(&set, &tiles, 0.15, 3);
        let mut all = parts.concat();
        all.sort_unstable();
        assert_eq!(all, (0..60).collect::<Vec<_>>());
        for tile in 0..18 {
            let sides = parts.iter().filter(|part| part.iter().any(|&i| tiles[i] == tile));
            assert_eq!(sides.count(), 1, "tile {tile}");
        }
        // There is room for 6 of 40, which tiles of 2 and 3 fill but for one; a tile of 10 does not fit into 3.
        for part in &parts[1..] {
            assert!((5..=6).contains(&part.len()) && part.iter().all(|&i| i < 40), "{part:?}");
        }
        assert_eq!(parts, split_tiles(&set, &tiles, 0.15, 3));
        assert_ne!(parts, split_tiles(&set, &tiles, 0.15, 4));
    }

    #[test]
    fn the_leaking_split_is_of_pictures() {
        let [train, test] = split_leaking(663, 0.15, 0);
        assert_eq!((train.len(), test.len()), (564, 99));
        let mut all = [train, test].concat();
        all.sort_unstable();
        assert_eq!(all, (0..663).collect::<Vec<_>>());
    }
}
