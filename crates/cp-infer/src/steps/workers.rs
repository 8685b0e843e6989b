//! The work of one step on several threads: strips of pixels, or panels of channels.

use std::ops::Range;

use rayon::prelude::*;

use crate::block::Block;
use crate::kernels::product::{Packed, part};
use crate::kernels::target::Target;
use crate::step::{Output, Scratch};

/// What one thread has to itself.
#[derive(Debug)]
pub(crate) struct Own<'a> {
    pub(crate) target: Target<'a>,
    pub(crate) scratch: &'a mut [Block],
    pub(crate) table: &'a mut [u32],
}

/// The threads of a step, and the scratch memory of all of them.
#[derive(Debug)]
pub(crate) struct Workers<'a> {
    pub(crate) count: usize,
    pub(crate) scratch: &'a mut [Block],
    pub(crate) table: &'a mut [u32],
}

impl<'a> Workers<'a> {
    /// Runs strips `0..strips`, each thread neighboring ones; strip s makes the pixels of all `blocks` from `start(s)` to `start(s + 1)`.
    pub(crate) fn strips(
        self,
        output: Output<'a>,
        blocks: usize,
        need: Scratch,
        strips: usize,
        start: impl Fn(usize) -> usize,
        run: impl Fn(Range<usize>, Own<'_>) + Sync,
    ) {
        let count = self.count.min(strips);
        if count <= 1 {
            let target = Target::whole(output.blocks, output.start, output.stride);
            run(0..strips, Own { target, scratch: self.scratch, table: self.table });
            return;
        }
        let ranges: Vec<Range<usize>> =
            (0..count).map(|index| part(strips, count, index)).collect();
        let mut parts: Vec<Vec<&mut [Block]>> = ranges.iter().map(|_| Vec::new()).collect();
        let mut rest = &mut output.blocks[output.start..];
        for _ in 0..blocks {
            let (mut map, behind) = rest.split_at_mut(output.stride.min(rest.len()));
            rest = behind;
            for (range, parts) in ranges.iter().zip(&mut parts) {
                let (part, behind) = map.split_at_mut(start(range.end) - start(range.start));
                parts.push(part);
                map = behind;
            }
        }
        let scratch = self.scratch.chunks_mut(need.blocks.max(1));
        let table = self.table.chunks_mut(need.table.max(1));
        // A step without scratch memory, or without a table, has no piece of it for anybody.
        let scratch = scratch.map(Some).chain(std::iter::repeat_with(|| None));
        let table = table.map(Some).chain(std::iter::repeat_with(|| None));
        let mut own = Vec::with_capacity(count);
        for (((range, parts), scratch), table) in
            ranges.into_iter().zip(parts).zip(scratch).zip(table)
        {
            let target = Target::Parts { parts, before: start(range.start) };
            let (scratch, table) = (scratch.unwrap_or_default(), table.unwrap_or_default());
            own.push((range, Own { target, scratch, table }));
        }
        own.into_par_iter().for_each(|(range, own)| run(range, own));
    }

    /// Runs all panels of `packed`, each thread neighboring ones.
    pub(crate) fn panels(
        self,
        output: Output<'a>,
        packed: &Packed,
        run: impl Fn(Range<usize>, Target<'_>) + Sync,
    ) {
        let panels = packed.panels.len();
        let count = self.count.min(panels);
        let (start, stride) = (output.start, output.stride);
        if count <= 1 {
            run(0..panels, Target::whole(output.blocks, start, stride));
            return;
        }
        let mut rest = &mut output.blocks[start..];
        let mut own = Vec::with_capacity(count);
        for index in 0..count {
            let range = part(panels, count, index);
            let blocks: usize = packed.panels[range.clone()].iter().map(|panel| panel.blocks).sum();
            let (blocks, behind) = rest.split_at_mut((blocks * stride).min(rest.len()));
            rest = behind;
            let first = packed.panels[range.start].first;
            own.push((range, Target::Whole { blocks, start: 0, stride, first }));
        }
        own.into_par_iter().for_each(|(range, target)| run(range, target));
    }
}
