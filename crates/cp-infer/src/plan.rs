//! [`plan`]: where in one piece of memory every value lies, from how long it is needed.

use std::ops::Range;

use crate::map::Layout;
use crate::step::BufferId;

/// Where a value lies.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) layout: Layout,
    /// Of all images of a run; else of those of a chunk.
    pub(crate) whole: bool,
    /// The input of the network that it is, which lies where the caller has it.
    pub(crate) external: Option<usize>,
    /// First block.
    pub(crate) offset: usize,
    /// Blocks.
    pub(crate) size: usize,
}

impl Place {
    pub(crate) fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.size
    }

    /// An input of the network, without the images in front of a thread's.
    pub(crate) fn external<'a>(&self, values: &'a [f32], before: usize) -> &'a [f32] {
        match self.layout {
            Layout::Plain(len) => &values[before * len..],
            Layout::Blocked(_) => values,
        }
    }

    /// Where the chunk of `count` images from `first` on begins, and the distance between blocks of channels.
    pub(crate) fn chunk(&self, images: usize, first: usize, count: usize) -> (usize, usize) {
        let (before, all) = if self.whole { (first, images) } else { (0, count) };
        match self.layout {
            Layout::Blocked(map) => (before * map.pixels(), all * map.pixels()),
            Layout::Plain(len) => (before * len, 0),
        }
    }
}

/// A value and the steps from the first that writes it to the last that reads it.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub(crate) buffer: BufferId,
    pub(crate) steps: Range<usize>,
}

/// Puts every value at the lowest offset at which no value lies that is needed at the same time, the largest first; the blocks that all need.
pub(crate) fn plan(places: &mut [Place], lives: &[Life]) -> usize {
    let mut order: Vec<&Life> = lives.iter().collect();
    order.sort_by_key(|life| (std::cmp::Reverse(places[life.buffer.0].size), life.buffer));
    let mut placed: Vec<&Life> = Vec::new();
    let mut end = 0;
    for life in order {
        let size = places[life.buffer.0].size;
        let overlaps = |other: &&&Life| {
            other.steps.start < life.steps.end && life.steps.start < other.steps.end
        };
        let mut taken: Vec<Range<usize>> =
            placed.iter().filter(overlaps).map(|other| places[other.buffer.0].range()).collect();
        taken.sort_by_key(|range| range.start);
        let mut offset = 0;
        for range in taken {
            if offset + size <= range.start {
                break;
            }
            offset = offset.max(range.end);
        }
        places[life.buffer.0].offset = offset;
        end = end.max(offset + size);
        placed.push(life);
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lives and sizes of values, and the offsets that they get.
    fn check(values: &[(Range<usize>, usize)], expected: &[usize], total: usize) {
        let mut places: Vec<Place> = values
            .iter()
            .map(|(_, size)| Place {
                layout: Layout::Plain(0),
                whole: true,
                external: None,
                offset: 0,
                size: *size,
            })
            .collect();
        let lives: Vec<Life> = values
            .iter()
            .enumerate()
            .map(|(index, (steps, _))| Life { buffer: BufferId(index), steps: steps.clone() })
            .collect();
        assert_eq!(plan(&mut places, &lives), total, "{values:?}");
        let offsets: Vec<usize> = places.iter().map(|place| place.offset).collect();
        assert_eq!(offsets, expected, "{values:?}");
    }

    #[test]
    fn values_share_what_they_do_not_need_together() {
        check(&[], &[], 0);
        check(&[(0..2, 4), (1..3, 4), (2..4, 4)], &[0, 4, 0], 8);
        // The small one fits beside the last two, above both.
        check(&[(0..2, 8), (2..4, 6), (1..4, 3)], &[0, 0, 8], 11);
        // A gap between two others.
        check(&[(0..9, 8), (0..2, 4), (0..9, 3), (2..9, 4)], &[0, 8, 12, 8], 15);
    }
}
