//! Maximum pooling.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::padding::Padding;
use super::spec::{BadField, Draw, Effect, Mismatch, OpSpec, Sample, Shape};
use super::window::Sweep;

/// Maximum over each window; padding never wins.
///
/// # Shapes
/// Input `[C, H₀, …]`; output `[C, H′₀, …]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaxPool {
    /// Window size of each spatial axis.
    pub kernel: Vec<usize>,
    /// Step of each spatial axis; 1 where it is left out of a file.
    #[serde(default)]
    pub stride: Vec<usize>,
    /// Padding around the map; none where it is left out of a file.
    #[serde(default)]
    pub padding: Padding,
    /// Distance between the values of a window; 1 where it is left out of a file.
    #[serde(default)]
    pub dilation: Vec<usize>,
    /// Round output sizes up, as Caffe does; a last window that would start beyond the map and its leading padding is dropped.
    #[serde(default)]
    pub ceil: bool,
}

impl MaxPool {
    fn sweep(&self) -> Sweep<'_> {
        Sweep {
            kernel: &self.kernel,
            stride: &self.stride,
            padding: &self.padding,
            dilation: &self.dilation,
            ceil: self.ceil,
        }
    }

    /// Padding before and behind spatial axis `axis` of an input of `size` pixels.
    pub fn padding(&self, axis: usize, size: usize) -> [usize; 2] {
        self.sweep().padding(axis, size)
    }
}

impl OpSpec for MaxPool {
    fn check(&self) -> Result<(), BadField> {
        self.sweep().check()?;
        self.padding.check_pool(&self.kernel)
    }

    fn complete(&mut self, _inputs: &[&[usize]]) {
        let axes = self.kernel.len();
        for steps in [&mut self.stride, &mut self.dilation] {
            if steps.is_empty() {
                *steps = vec![1; axes];
            }
        }
        self.padding.complete(axes);
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        let sizes = self.sweep().sizes(inputs[0])?;
        Ok(vec![[vec![inputs[0][0]], sizes].concat()])
    }

    fn effect(&self) -> Effect {
        Effect::Passes
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        vec![self.sweep().pooled(&inputs[0], |values, _| {
            values.iter().copied().fold(f32::NEG_INFINITY, f32::max)
        })]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let axes = draw.size(1..=3);
        let kernel = draw.sizes(axes, 1..=3);
        let mut pool = MaxPool {
            stride: draw.sizes(axes, 1..=3),
            dilation: draw.sizes(axes, 1..=2),
            padding: Padding::sample_pool(draw, &kernel),
            ceil: draw.flag(),
            kernel,
        };
        if !pool.padding.is_explicit() {
            pool.ceil = false;
        }
        let sizes: Vec<usize> =
            (0..axes).map(|axis| pool.sweep().reach(axis) + draw.size(0..=4)).collect();
        let channels = draw.size(1..=3);
        Sample::new(pool, vec![[vec![channels], sizes].concat()])
    }
}
