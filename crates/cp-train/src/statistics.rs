//! Second moments of the inputs of layers, from unlabelled images, for data-aware decompositions.

#[cfg(feature = "torch")]
mod executor;

use std::collections::BTreeMap;
use std::iter::Take;
use std::sync::Arc;

use cp_core::InputStatistics;
use cp_data::{Dataset, Loader, LoaderConfig, Order};
use cp_net::{Architecture, Conv, Node, Op};
use cp_plan::LayerStatistics;
use indicatif::ProgressBar;
use ndarray::{Array2, ArrayView2, ArrayView4, ArrayViewD, Axis, Ix4, s};
use rand::SeedableRng as _;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::batch;
use crate::error::TrainError;
use crate::fit::check_takes;
use crate::progress;
#[cfg(feature = "torch")]
pub use executor::input_statistics;

/// Which images are looked at, and how closely.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StatisticsOptions {
    /// Images, from the beginning of an order drawn from `seed`; all where the set has fewer.
    pub images: usize,
    /// Positions of a convolution's output for each image, drawn for each batch; all where there are fewer.
    pub positions: usize,
    /// Share of a multiple of the identity that is mixed in ([`InputStatistics::shrink`]).
    pub shrink: f64,
    /// Seed of images and positions.
    pub seed: u64,
}

impl Default for StatisticsOptions {
    /// 500 images, 64 positions, a share of 0.01, seed 0.
    fn default() -> Self {
        Self { images: 500, positions: 64, shrink: 0.01, seed: 0 }
    }
}

/// Widest layer whose Σ is kept: a 3×3 kernel on 512 channels. In f64 that is 170 MB, and its eigenvectors take a minute; of the 25,088
/// inputs of VGG-16's first linear layer Σ would be 5 GB, and hopeless to factorize.
pub(crate) const WIDEST: usize = 4_608;

/// Layers that are left out, each with the reason.
pub(crate) type LeftOut = Vec<(String, String)>;

/// Of `layers`, those whose inputs can be measured, and the others with the reason: they are decomposed for their kernels.
///
/// # Errors
/// Unknown layers.
pub(crate) fn measurable(
    arch: &Architecture,
    layers: &[String],
) -> Result<(Vec<String>, LeftOut), TrainError> {
    let (mut taken, mut left) = (Vec::new(), Vec::new());
    for layer in layers {
        match unfolded_size(&arch.node(layer)?.op) {
            Ok(_) => taken.push(layer.clone()),
            Err(why) => left.push((layer.clone(), why)),
        }
    }
    Ok((taken, left))
}

/// Numbers under the kernel of a layer at one place of its output, in one group; or why they are not measured.
pub(crate) fn unfolded_size(op: &Op) -> Result<usize, String> {
    let size = match op {
        Op::Linear(linear) => linear.in_features,
        Op::Conv(conv) if conv.kernel.len() <= 2 => conv.group_shape()[1..].iter().product(),
        Op::Conv(conv) => {
            return Err(format!(
                "those of a convolution over {} axes are not unfolded",
                conv.kernel.len()
            ));
        }
        other => return Err(format!("a {} layer's are not unfolded", other.kind())),
    };
    match size > WIDEST {
        true => Err(format!("{size} are too many; at most {WIDEST} are measured")),
        false => Ok(size),
    }
}

/// Images of a forward pass.
const BATCH: usize = 50;

/// The moments of some layers of a network, while images run through it.
pub(crate) struct Gathering<'a> {
    arch: &'a Architecture,
    options: &'a StatisticsOptions,
    /// By the name of the layer whose kernel it is.
    sums: BTreeMap<&'a str, Sums>,
    rng: ChaCha8Rng,
}

impl<'a> Gathering<'a> {
    /// Nothing yet, of `layers`.
    ///
    /// # Errors
    /// Layers that cannot be measured.
    pub(crate) fn of(
        arch: &'a Architecture,
        layers: &[String],
        options: &'a StatisticsOptions,
    ) -> Result<Self, TrainError> {
        let mut sums = BTreeMap::new();
        for layer in layers {
            let node = arch.node(layer)?;
            let statistics = Sums::of(&node.op)
                .map_err(|why| TrainError::Statistics { layer: layer.clone(), why })?;
            sums.insert(arch.layer_of(node), statistics);
        }
        Ok(Self { arch, options, sums, rng: ChaCha8Rng::seed_from_u64(options.seed) })
    }

    /// The images that the options ask for, in batches, and a bar over these.
    ///
    /// # Errors
    /// Images that the network does not take.
    pub(crate) fn images(
        &self,
        data: &Arc<dyn Dataset>,
        workers: usize,
    ) -> Result<(Take<Loader>, ProgressBar), TrainError> {
        check_takes(self.arch, data.as_ref())?;
        let loader = Loader::new(
            data.clone(),
            LoaderConfig {
                batch_size: BATCH,
                order: Order::Shuffled { seed: self.options.seed, epoch: 0 },
                transform: batch::fitting_transform(data.as_ref(), self.arch.input())?,
                workers,
                drop_last: false,
            },
        )?;
        let batches = self.options.images.div_ceil(BATCH).clamp(1, loader.batches());
        Ok((loader.take(batches), progress::bar(batches as u64, "input statistics")))
    }

    /// Whether what `node` reads is asked for.
    pub(crate) fn measures(&self, node: &Node) -> bool {
        self.sums.contains_key(self.arch.layer_of(node))
    }

    /// Adds what `node`, which is measured, reads of a batch.
    ///
    /// # Errors
    /// Values that are not finite.
    pub(crate) fn add(&mut self, node: &Node, x: &ArrayViewD<'_, f32>) -> Result<(), TrainError> {
        let Some(sums) = self.sums.get_mut(self.arch.layer_of(node)) else { return Ok(()) };
        sums.add(x, &node.op, self.options.positions, &mut self.rng)
    }

    /// The second moments of all layers.
    pub(crate) fn finished(self) -> LayerStatistics {
        let shrink = self.options.shrink;
        let finished = |(layer, sums): (&str, Sums)| (layer.to_owned(), sums.finished(shrink));
        self.sums.into_iter().map(finished).collect()
    }
}

/// What is added up for a layer: one for each group.
pub(crate) struct Sums(Vec<InputStatistics>);

impl Sums {
    /// Nothing yet; an error says why `op` is not measured.
    pub(crate) fn of(op: &Op) -> Result<Self, String> {
        let size = unfolded_size(op)?;
        let groups = if let Op::Conv(conv) = op { conv.groups } else { 1 };
        Ok(Self(vec![InputStatistics::new(size); groups]))
    }

    /// Adds what `op` reads: of a convolution over one or two axes, `[B, S, (H,) W]`, the windows under its kernel at `positions` random
    /// places of the output; of a linear layer all rows of `[…, S]`.
    pub(crate) fn add(
        &mut self,
        x: &ArrayViewD<'_, f32>,
        op: &Op,
        positions: usize,
        rng: &mut ChaCha8Rng,
    ) -> Result<(), TrainError> {
        let Op::Conv(conv) = op else { return self.add_rows(x) };
        // A sequence is a plane of one row.
        let x = if conv.kernel.len() == 1 { x.view().insert_axis(Axis(2)) } else { x.view() };
        match x.into_dimensionality::<Ix4>() {
            Ok(x) => self.add_windows(&x, conv, positions, rng),
            // Never: layers read maps with as many axes as their kernels.
            Err(_) => Ok(()),
        }
    }

    /// The second moments, each with the given share of a multiple of the identity.
    pub(crate) fn finished(self, shrink: f64) -> Vec<Arc<InputStatistics>> {
        self.0.into_iter().map(|sum| Arc::new(sum.shrink(shrink))).collect()
    }
}

impl Sums {
    /// The windows of a map at places that are drawn, the same in all examples.
    fn add_windows(
        &mut self,
        x: &ArrayView4<'_, f32>,
        conv: &Conv,
        positions: usize,
        rng: &mut ChaCha8Rng,
    ) -> Result<(), TrainError> {
        let (examples, channels, height, width) = x.dim();
        let rows = Extent::rows(conv, height);
        let columns = Extent::columns(conv, width);
        let places = rows.outputs() * columns.outputs();
        let drawn = positions.min(places);
        let mut at = index::sample(rng, places, drawn).into_vec();
        at.sort_unstable();
        let taps = rows.kernel * columns.kernel;
        // [B · L′, S · kh · kw], the window slowest by channel.
        let mut windows = Array2::zeros((examples * drawn, channels * taps));
        let mut made = windows.axis_iter_mut(Axis(0));
        for example in x.axis_iter(Axis(0)) {
            for place in &at {
                let Some(mut window) = made.next() else { break };
                for tap in 0..taps {
                    let y = rows.input(place / columns.outputs(), tap / columns.kernel);
                    let x = columns.input(place % columns.outputs(), tap % columns.kernel);
                    // What lies in the padding is 0.
                    let (Some(y), Some(x)) = (y, x) else { continue };
                    window.slice_mut(s![tap..;taps]).assign(&example.slice(s![.., y, x]));
                }
            }
        }
        let each = channels * taps / self.0.len().max(1);
        for (group, sum) in self.0.iter_mut().enumerate() {
            sum.add(windows.slice(s![.., group * each..(group + 1) * each]))?;
        }
        Ok(())
    }

    /// All axes in front of the last one are treated alike.
    fn add_rows(&mut self, x: &ArrayViewD<'_, f32>) -> Result<(), TrainError> {
        let features = x.shape().last().copied().unwrap_or(1);
        let order = x.as_standard_layout();
        let Some(values) = order.as_slice() else { return Ok(()) };
        let rows = ArrayView2::from_shape((values.len() / features.max(1), features), values);
        // Never an error: the numbers of rows and columns are of the values that there are.
        let Ok(rows) = rows else { return Ok(()) };
        self.0.iter_mut().try_for_each(|sum| Ok(sum.add(rows)?))
    }
}

/// How a window moves along an axis.
struct Extent {
    kernel: usize,
    stride: usize,
    dilation: usize,
    /// Padding in front and behind.
    sides: [usize; 2],
    size: usize,
}

impl Extent {
    /// The columns of a map, or the places of a sequence.
    fn columns(conv: &Conv, size: usize) -> Self {
        Self::of(conv, conv.kernel.len() - 1, size)
    }

    /// The rows of a map; a sequence has one.
    fn rows(conv: &Conv, size: usize) -> Self {
        match conv.kernel.len() {
            1 => Self { kernel: 1, stride: 1, dilation: 1, sides: [0, 0], size },
            _ => Self::of(conv, 0, size),
        }
    }

    fn of(conv: &Conv, axis: usize, size: usize) -> Self {
        Self {
            kernel: conv.kernel[axis],
            stride: conv.stride[axis],
            dilation: conv.dilation[axis],
            sides: conv.padding(axis, size),
            size,
        }
    }

    /// Places of the window.
    fn outputs(&self) -> usize {
        let padded = self.size + self.sides[0] + self.sides[1];
        let reach = self.dilation * (self.kernel - 1) + 1;
        (padded + self.stride).saturating_sub(reach) / self.stride
    }

    /// What a tap reads; none in the padding.
    fn input(&self, output: usize, tap: usize) -> Option<usize> {
        let at = output * self.stride + tap * self.dilation;
        at.checked_sub(self.sides[0]).filter(|at| *at < self.size)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use cp_net::Padding;
    use ndarray::ArrayD;
    use rand::SeedableRng as _;

    use super::*;

    /// Of a sequence, the windows are those of a plane of one row.
    #[test]
    fn sequences_are_unfolded_with_their_padding() {
        let line = |axes: bool| {
            let both = |one: usize, other: usize| if axes { vec![one, other] } else { vec![other] };
            let padding = if axes { vec![[0, 0], [2, 1]] } else { vec![[2, 1]] };
            Op::Conv(Conv {
                stride: both(1, 2),
                dilation: both(1, 2),
                padding: Padding::Each(padding),
                groups: 2,
                ..Conv::new(4, 6, both(1, 3))
            })
        };
        let x =
            ArrayD::from_shape_fn(vec![2, 4, 11], |at| (at[0] * 44 + at[1] * 11 + at[2]) as f32);
        let moments = |op: &Op, x: &ArrayD<f32>| {
            let mut sums = Sums::of(op).unwrap();
            sums.add(&x.view(), op, usize::MAX, &mut ChaCha8Rng::seed_from_u64(0)).unwrap();
            let found = sums.finished(0.0);
            found.iter().map(|sum| (sum.examples(), sum.moments().unwrap())).collect::<Vec<_>>()
        };
        let found = moments(&line(false), &x);
        assert_eq!((found.len(), found[0].0, found[0].1.nrows()), (2, 2 * 5, 2 * 3));
        assert_eq!(found, moments(&line(true), &x.clone().insert_axis(Axis(2))));
    }

    #[test]
    fn layers_with_too_many_inputs_are_left_out_by_name() {
        for (name, too_wide) in [
            ("vgg16", vec!["classifier.0"]),
            ("alexnet", vec!["classifier.1"]),
            ("resnet20", vec![]),
        ] {
            let arch = cp_net::arch::by_name(name).unwrap();
            let layers = arch.compressible();
            let (taken, left) = measurable(&arch, &layers).unwrap();
            assert_eq!(left.iter().map(|(layer, _)| layer.as_str()).collect::<Vec<_>>(), too_wide);
            assert_eq!(taken.len() + left.len(), layers.len(), "{name}");
        }
    }
}
