//! Which steps run over how many images at once ([`segments`]), and where their values lie ([`placed`]).

use crate::block::Block;
use crate::error::InferError;
use crate::lower::{Lowered, Task};
use crate::map::Layout;
use crate::plan::{Life, Place, plan};
use crate::step::BufferId;

/// A part of the steps, and how many images run through it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The step behind its last.
    pub(crate) end: usize,
    /// Images at once.
    pub(crate) chunk: usize,
}

/// Blocks of a layer's input and output that are to stay in an L2 cache together.
const CACHED: usize = 512 * 1024 / size_of::<Block>();

/// Maps of fewer pixels do not fill the tiles of a layer by themselves.
const SMALL: usize = 56;

/// Depth first: all steps over a chunk of images whose maps stay in the cache, until maps are so small that a chunk would not fill the tiles and
/// weights would be read over and over; from there on all images together.
pub(crate) fn segments(lowered: &Lowered, batch: usize) -> Vec<Segment> {
    let pixels = |buffer: &BufferId| match lowered.layouts[buffer.0] {
        Layout::Blocked(map) => map.pixels(),
        Layout::Plain(_) => 1,
    };
    let is_small =
        |task: &Task| task.reads.iter().chain(&task.writes).map(pixels).max().unwrap_or(1) < SMALL;
    let tasks = &lowered.tasks;
    let front = tasks.iter().rposition(|task| !is_small(task)).map_or(0, |last| last + 1);
    let size = |task: &Task| -> usize {
        let buffers = task.reads.iter().chain(&task.writes);
        buffers.map(|buffer| lowered.layouts[buffer.0].size(1)).sum()
    };
    let largest = tasks[..front].iter().map(size).max().unwrap_or(1);
    let chunk = (CACHED / largest.max(1)).clamp(1, batch);
    let segments = [Segment { end: front, chunk }, Segment { end: tasks.len(), chunk: batch }];
    segments.into_iter().filter(|segment| segment.end > 0).collect()
}

/// Where all values lie, and the blocks that they need together.
pub(crate) fn placed(
    lowered: &Lowered,
    segments: &[Segment],
    batch: usize,
) -> Result<(Vec<Place>, usize), InferError> {
    let segment_of = |step: usize| {
        let index = segments.iter().position(|segment| step < segment.end);
        index.unwrap_or(segments.len().saturating_sub(1))
    };
    let range_of = |segment: usize| {
        let start = segment.checked_sub(1).map_or(0, |before| segments[before].end);
        start..segments[segment].end
    };
    let mut places = Vec::with_capacity(lowered.layouts.len());
    let mut lives = Vec::new();
    for (index, &layout) in lowered.layouts.iter().enumerate() {
        let buffer = BufferId(index);
        let uses = lowered.tasks.iter().enumerate();
        let uses =
            uses.filter(|(_, task)| task.reads.contains(&buffer) || task.writes.contains(&buffer));
        let steps: Vec<usize> = uses.map(|(step, _)| step).collect();
        let external = lowered.inputs.iter().position(|input| *input == buffer);
        let is_output = lowered.outputs.contains(&buffer);
        let (first, last) = (steps.first().copied(), steps.last().copied());
        let (first, last) = (first.unwrap_or(0), last.unwrap_or(0));
        let whole = is_output || external.is_some() || segment_of(first) != segment_of(last);
        let mut steps = first..last + 1;
        if whole && !segments.is_empty() {
            // A segment runs once for each chunk, and what all chunks share is there all the while.
            steps = range_of(segment_of(first)).start..range_of(segment_of(last)).end;
        }
        if is_output {
            steps.end = lowered.tasks.len() + 1;
        }
        let chunk = segments.get(segment_of(first)).map_or(batch, |segment| segment.chunk);
        let images = if whole { batch } else { chunk };
        let size = layout.size(images);
        if u32::try_from(size).is_err() {
            let (value, bytes) = (lowered.names[index].clone(), size * size_of::<Block>());
            return Err(InferError::TooLarge { value, images, bytes });
        }
        places.push(Place { layout, whole, external, offset: 0, size });
        if external.is_none() {
            lives.push(Life { buffer, steps });
        }
    }
    let size = plan(&mut places, &lives);
    Ok((places, size))
}
