//! [`Compiled`]: a network that is ready to run.

use std::sync::Mutex;

use cp_net::Network;
use ndarray::{ArrayD, ArrayViewD, IxDyn};
use rayon::prelude::*;

use crate::block::{Block, Blocks, LANES};
use crate::error::InferError;
use crate::kernels::product::part;
use crate::level::Level;
use crate::lower::{Rules, Task, lower};
use crate::options::Options;
use crate::plan::Place;
use crate::schedule::{Segment, placed, segments};
use crate::step::{BufferId, Frame, Scratch};

/// A name and a shape, `[…]` for one image.
#[derive(Debug, Clone)]
struct End {
    name: String,
    shape: Vec<usize>,
    buffer: BufferId,
}

impl End {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A step of a [`Compiled`] network: which layers run by which algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepInfo {
    /// The layers that it runs, each with its multiply-adds for one image.
    pub layers: Vec<(String, usize)>,
    /// `chain`, `pointwise`, `direct`, `depthwise`, `pool`, …; `reference` is an op by its slow definition.
    pub algorithm: &'static str,
    /// How many images it takes at once.
    pub images: usize,
    /// Numbers that it makes for each image, with those that fill up blocks.
    pub values: usize,
}

/// What is told of the steps of a call as they run: for a profile, say, as this crate reads no clock. Where each thread has images of its own,
/// the steps of several run at a time.
pub trait Watch: Sync {
    /// Runs the step of this index in [`Compiled::steps`]. A step that takes a few images at a time runs several times a call.
    fn step(&self, index: usize, run: &mut dyn FnMut());
}

/// No one looks.
impl Watch for () {
    fn step(&self, _: usize, run: &mut dyn FnMut()) {
        run();
    }
}

/// A network that is ready to run: folded, its weights packed, its memory planned. See the crate documentation for an example.
#[derive(Debug)]
pub struct Compiled {
    name: String,
    level: Level,
    threads: usize,
    /// Images of one thread.
    batch: usize,
    tasks: Vec<Task>,
    segments: Vec<Segment>,
    places: Vec<Place>,
    inputs: Vec<End>,
    outputs: Vec<End>,
    /// Blocks of all values.
    size: usize,
    scratch: Scratch,
    /// Memory that no call is using.
    idle: Mutex<Vec<Memory>>,
}

/// The memory of one thread.
#[derive(Debug)]
struct Memory {
    values: Blocks,
    scratch: Blocks,
    table: Vec<u32>,
}

impl Compiled {
    /// Makes a network ready for inputs of the shape that it was built for.
    ///
    /// # Errors
    /// What [`Network::folded`] reports; [`InferError::TooLarge`]; [`InferError::NoKernel`] with [`Options::fast_only`].
    pub fn new(net: &Network, options: &Options) -> Result<Self, InferError> {
        let net = net.folded()?;
        let arch = net.architecture();
        let shapes = arch.shapes(arch.input_shapes())?;
        let level = options.level.unwrap_or_else(Level::best);
        let rules = Rules {
            level,
            workers: options.threads,
            winograd: options.winograd,
            fast_only: options.fast_only,
        };
        let lowered = lower(&net, &shapes, rules)?;
        let batch = options.batch.div_ceil(options.threads);
        let segments = segments(&lowered, batch);
        let (places, size) = placed(&lowered, &segments, batch)?;
        let needs = lowered.tasks.iter().map(|task| task.step.scratch());
        let scratch = needs.fold(Scratch::default(), Scratch::max);
        let end = |name: &String, &buffer: &BufferId| {
            let shape = shapes.get(name).unwrap_or_default().to_vec();
            End { name: name.clone(), shape, buffer }
        };
        let inputs = arch.inputs.iter().map(|input| &input.name).zip(&lowered.inputs);
        let outputs = arch.outputs.iter().zip(&lowered.outputs);
        Ok(Self {
            name: arch.name.clone(),
            level,
            threads: options.threads,
            batch,
            inputs: inputs.map(|(name, buffer)| end(name, buffer)).collect(),
            outputs: outputs.map(|(name, buffer)| end(name, buffer)).collect(),
            tasks: lowered.tasks,
            segments,
            places,
            size,
            scratch,
            idle: Mutex::new(Vec::new()),
        })
    }

    /// The network's outputs in their order.
    ///
    /// # Shapes
    /// `inputs`: one for each input of the network, `[N, …]` each; results `[N, …]`.
    ///
    /// # Errors
    /// [`InferError::Count`], [`InferError::Shape`].
    pub fn run(&self, inputs: &[ArrayViewD<'_, f32>]) -> Result<Vec<ArrayD<f32>>, InferError> {
        self.check_count("inputs", self.inputs.len(), inputs.len())?;
        let images = inputs.first().and_then(|input| input.shape().first()).copied().unwrap_or(1);
        for (end, input) in self.inputs.iter().zip(inputs) {
            if input.shape() != [&[images], &end.shape[..]].concat() {
                return Err(InferError::Shape {
                    input: end.name.clone(),
                    expected: end.shape.clone(),
                    got: input.shape().to_vec(),
                });
            }
        }
        let ordered: Vec<_> = inputs.iter().map(|input| input.as_standard_layout()).collect();
        let slices: Vec<&[f32]> =
            ordered.iter().map(|input| input.as_slice().unwrap_or_default()).collect();
        let zeros = |end: &End| ArrayD::zeros(IxDyn(&[&[images], &end.shape[..]].concat()));
        let mut outputs: Vec<ArrayD<f32>> = self.outputs.iter().map(zeros).collect();
        let mut made: Vec<&mut [f32]> =
            outputs.iter_mut().map(|output| output.as_slice_mut().unwrap_or_default()).collect();
        self.run_into(images, &slices, &mut made)?;
        Ok(outputs)
    }

    /// As [`Compiled::run`], from slices into slices. On one thread it allocates nothing once as many calls have run side by side before, but
    /// for steps that run by their definition.
    ///
    /// # Shapes
    /// `inputs` and `outputs`: `[images, …]` each, in the order of their axes.
    ///
    /// # Errors
    /// [`InferError::Count`], [`InferError::Length`].
    pub fn run_into(
        &self,
        images: usize,
        inputs: &[&[f32]],
        outputs: &mut [&mut [f32]],
    ) -> Result<(), InferError> {
        self.run_watched(images, inputs, outputs, &())
    }

    /// As [`Compiled::run_into`], with each step told to `watch`.
    ///
    /// # Errors
    /// As [`Compiled::run_into`].
    pub fn run_watched(
        &self,
        images: usize,
        inputs: &[&[f32]],
        outputs: &mut [&mut [f32]],
        watch: &dyn Watch,
    ) -> Result<(), InferError> {
        self.check_count("inputs", self.inputs.len(), inputs.len())?;
        self.check_count("outputs", self.outputs.len(), outputs.len())?;
        let given = self.inputs.iter().zip(inputs.iter().map(|input| input.len()));
        let made = self.outputs.iter().zip(outputs.iter().map(|output| output.len()));
        for (what, end, got) in given
            .map(|(end, got)| ("input", end, got))
            .chain(made.map(|(end, got)| ("output", end, got)))
        {
            let expected = images * end.len();
            if got != expected {
                return Err(InferError::Length { what, name: end.name.clone(), expected, got });
            }
        }
        let round = self.batch * self.threads;
        for first in (0..images).step_by(round) {
            self.round(first, round.min(images - first), inputs, outputs, watch);
        }
        Ok(())
    }

    /// Images `first..first + count`, at most a batch for each thread.
    fn round(
        &self,
        first: usize,
        count: usize,
        inputs: &[&[f32]],
        outputs: &mut [&mut [f32]],
        watch: &dyn Watch,
    ) {
        if count < self.threads || self.threads == 1 {
            // Too few images to go round: the threads share the work of each step.
            let mut memory = self.take(self.threads);
            for part in (first..first + count).step_by(self.batch) {
                let images = self.batch.min(first + count - part);
                self.part(part, images, self.threads, inputs, &mut memory, watch);
                self.copy(part, images, &memory, outputs);
            }
            self.give(memory);
            return;
        }
        let mut memories: Vec<Memory> = (0..self.threads).map(|_| self.take(1)).collect();
        memories.par_iter_mut().enumerate().for_each(|(thread, memory)| {
            let part = part(count, self.threads, thread);
            self.part(first + part.start, part.len(), 1, inputs, memory, watch);
        });
        for (thread, memory) in memories.into_iter().enumerate() {
            let part = part(count, self.threads, thread);
            self.copy(first + part.start, part.len(), &memory, outputs);
            self.give(memory);
        }
    }

    /// Runs images `first..first + count`, each step on up to so many threads.
    fn part(
        &self,
        first: usize,
        count: usize,
        workers: usize,
        inputs: &[&[f32]],
        memory: &mut Memory,
        watch: &dyn Watch,
    ) {
        let mut frame = Frame {
            level: self.level,
            workers,
            places: &self.places,
            memory: &mut memory.values,
            scratch: &mut memory.scratch,
            table: &mut memory.table,
            inputs,
            before: first,
            images: count,
            first: 0,
            count: 0,
        };
        let mut start = 0;
        for segment in &self.segments {
            let chunks = count.div_ceil(segment.chunk);
            for chunk in 0..chunks {
                let part = part(count, chunks, chunk);
                (frame.first, frame.count) = (part.start, part.len());
                for (index, task) in self.tasks.iter().enumerate().take(segment.end).skip(start) {
                    frame.workers = workers.min(task.workers);
                    watch.step(index, &mut || task.step.run(&mut frame));
                }
            }
            start = segment.end;
        }
    }

    /// Outputs from memory to where they belong.
    fn copy(&self, first: usize, count: usize, memory: &Memory, outputs: &mut [&mut [f32]]) {
        for (end, output) in self.outputs.iter().zip(outputs) {
            let place = &self.places[end.buffer.0];
            let values = memory.values[place.range()].as_flattened();
            let to = &mut output[first * end.len()..][..count * end.len()];
            to.copy_from_slice(&values[..count * end.len()]);
        }
    }

    /// Memory for steps that run on `workers` threads.
    fn take(&self, workers: usize) -> Memory {
        let idle = self.idle.lock().map(|mut idle| idle.pop()).unwrap_or_default();
        let mut memory = idle.unwrap_or_else(|| Memory {
            values: Blocks::zeros(self.size),
            scratch: Blocks::default(),
            table: Vec::new(),
        });
        if memory.scratch.len() < workers * self.scratch.blocks {
            memory.scratch = Blocks::zeros(workers * self.scratch.blocks);
        }
        if memory.table.len() < workers * self.scratch.table {
            memory.table = vec![0; workers * self.scratch.table];
        }
        memory
    }

    fn give(&self, memory: Memory) {
        if let Ok(mut idle) = self.idle.lock() {
            idle.push(memory);
        }
    }

    fn check_count(
        &self,
        what: &'static str,
        expected: usize,
        got: usize,
    ) -> Result<(), InferError> {
        if expected == got {
            return Ok(());
        }
        Err(InferError::Count { network: self.name.clone(), what, expected, got })
    }

    /// Bytes that a call works in, beside weights, inputs and outputs, on all its threads; steps that run by their definition need more.
    pub fn peak_memory(&self) -> usize {
        // Either each thread runs images of its own, or all of them share the steps of one memory, which keeps their scratch.
        let scratch = 2 * self.threads - 1;
        let blocks = self.threads * self.size + scratch * self.scratch.blocks;
        blocks * size_of::<Block>() + scratch * self.scratch.table * size_of::<u32>()
    }

    /// The steps in their order.
    pub fn steps(&self) -> Vec<StepInfo> {
        let mut start = 0;
        let mut steps = Vec::new();
        for segment in &self.segments {
            steps.extend(self.tasks[start..segment.end].iter().map(|task| StepInfo {
                layers: task.layers.clone(),
                algorithm: task.algorithm,
                images: segment.chunk,
                values: task.writes.iter().map(|&buffer| self.values_of(buffer)).sum(),
            }));
            start = segment.end;
        }
        steps
    }

    fn values_of(&self, buffer: BufferId) -> usize {
        self.places[buffer.0].layout.size(1) * LANES
    }

    /// The vector instructions that it was compiled for.
    pub fn level(&self) -> Level {
        self.level
    }
}
