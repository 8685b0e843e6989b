//! [`Step`]: one piece of work of a network that is ready to run, and [`Frame`], what it works on.

use std::fmt;

use crate::block::Block;
use crate::level::Level;
use crate::map::Layout;
use crate::plan::Place;
use crate::steps::workers::Workers;

/// A value, or the copy of it in one of its layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BufferId(pub(crate) usize);

/// Work on the images of a chunk, with weights that were packed when the network was compiled.
pub(crate) trait Step: fmt::Debug + Send + Sync {
    /// Runs it.
    fn run(&self, frame: &mut Frame<'_>);

    /// Scratch memory that each thread needs.
    fn scratch(&self) -> Scratch {
        Scratch::default()
    }
}

/// Memory that holds nothing between steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Scratch {
    pub(crate) blocks: usize,
    /// Positions.
    pub(crate) table: usize,
}

impl Scratch {
    /// What is enough for either.
    pub(crate) fn max(self, other: Scratch) -> Scratch {
        Scratch { blocks: self.blocks.max(other.blocks), table: self.table.max(other.table) }
    }
}

/// The memory of a run, as a step sees it.
pub(crate) struct Frame<'a> {
    pub(crate) level: Level,
    /// Threads that share the work of a step.
    pub(crate) workers: usize,
    pub(crate) places: &'a [Place],
    /// All values.
    pub(crate) memory: &'a mut [Block],
    /// Of all workers.
    pub(crate) scratch: &'a mut [Block],
    pub(crate) table: &'a mut [u32],
    /// The network's inputs as they were given, `[images, …]`.
    pub(crate) inputs: &'a [&'a [f32]],
    /// Images of the inputs in front of those of this thread.
    pub(crate) before: usize,
    /// Images of this thread.
    pub(crate) images: usize,
    /// The first image of the chunk.
    pub(crate) first: usize,
    /// Images of the chunk.
    pub(crate) count: usize,
}

/// A value that a step reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a> {
    values: &'a [f32],
    /// Where the chunk begins: in pixels of a map, in numbers of a plain value.
    pub(crate) start: usize,
    /// Pixels of all images, the distance of the blocks of a channel.
    pub(crate) stride: usize,
}

impl<'a> Input<'a> {
    /// A map.
    pub(crate) fn blocks(self) -> &'a [Block] {
        self.values.as_chunks().0
    }

    /// A plain value, from the chunk on.
    pub(crate) fn plain(self) -> &'a [f32] {
        &self.values[self.start..]
    }
}

/// A value that a step makes.
#[derive(Debug)]
pub(crate) struct Output<'a> {
    pub(crate) blocks: &'a mut [Block],
    /// As of [`Input`].
    pub(crate) start: usize,
    pub(crate) stride: usize,
}

impl Output<'_> {
    /// A plain value, from the chunk on.
    pub(crate) fn plain(&mut self) -> &mut [f32] {
        &mut self.blocks.as_flattened_mut()[self.start..]
    }
}

/// Everything that a step works on.
pub(crate) struct Open<'a, const N: usize> {
    pub(crate) output: Output<'a>,
    pub(crate) inputs: [Input<'a>; N],
    pub(crate) workers: Workers<'a>,
}

impl Frame<'_> {
    /// `output` to be written while `inputs` are read; no plan puts them over each other.
    pub(crate) fn open<const N: usize>(
        &mut self,
        output: BufferId,
        inputs: [BufferId; N],
    ) -> Open<'_, N> {
        let (images, first, count) = (self.images, self.first, self.count);
        let place = &self.places[output.0];
        let range = place.range();
        let (before, rest) = self.memory.split_at_mut(range.start);
        let (blocks, behind) = rest.split_at_mut(range.len());
        let (before, behind) = (&*before, &*behind);
        let (start, stride) = place.chunk(images, first, count);
        let inputs = inputs.map(|input| {
            let place = &self.places[input.0];
            let (start, stride) = place.chunk(images, first, count);
            let values = match place.external {
                Some(index) => place.external(self.inputs[index], self.before),
                None if place.offset < range.start => before[place.range()].as_flattened(),
                None => {
                    let offset = place.offset - range.end;
                    behind[offset..offset + place.size].as_flattened()
                }
            };
            Input { values, start, stride }
        });
        let output = Output { blocks, start, stride };
        let (scratch, table) = (&mut *self.scratch, &mut *self.table);
        Open { output, inputs, workers: Workers { count: self.workers, scratch, table } }
    }

    /// A plain value.
    pub(crate) fn plain(&self, buffer: BufferId) -> &[f32] {
        let place = &self.places[buffer.0];
        let (start, _) = place.chunk(self.images, self.first, self.count);
        let Layout::Plain(len) = place.layout else { return &[] };
        let values = match place.external {
            Some(index) => place.external(self.inputs[index], self.before),
            None => self.memory[place.range()].as_flattened(),
        };
        &values[start..start + len * self.count]
    }
}
