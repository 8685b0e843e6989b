//! [`input_statistics`]: second moments of the inputs of layers, from unlabelled images, for data-aware decompositions.

use std::collections::BTreeMap;
use std::sync::Arc;

use cp_core::InputStatistics;
use cp_data::{Dataset, Loader, LoaderConfig, Order};
use cp_net::{Architecture, Conv, Op, Padding};
use cp_plan::LayerStatistics;
use cp_torch::tch::{Device, Tensor};
use cp_torch::{Executor, Mode, array_from_tensor, tensor_from_i64};
use ndarray::Ix2;
use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::batch;
use crate::error::TrainError;
use crate::fit::check_takes;
use crate::progress;

/// Which images are looked at, and how closely.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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

/// Second moments Σ = E\[x xᵀ\] of the unfolded inputs of `layers`, for [`Decomposer::statistics`](cp_plan::Decomposer).
///
/// Of a convolution, x is the window under the kernel, `[S/g · kh · kw]` for each of the g groups, at random positions; of a
/// linear layer the input itself. Of layers that share a kernel, the first one's name stands for all. Labels are not used. The
/// images run through the dense network in eval mode.
///
/// # Errors
/// Unknown layers and layers without a kernel, convolutions over three axes, images that cannot be read.
pub fn input_statistics(
    model: &Executor,
    layers: &[String],
    data: &Arc<dyn Dataset>,
    options: &StatisticsOptions,
    workers: usize,
) -> Result<LayerStatistics, TrainError> {
    let arch = model.architecture();
    check_takes(arch, data.as_ref())?;
    let mut sums: BTreeMap<&str, Sums> = BTreeMap::new();
    for layer in layers {
        let node = arch.node(layer)?;
        let statistics = Sums::of(&node.op)
            .map_err(|why| TrainError::Statistics { layer: layer.clone(), why })?;
        sums.insert(arch.layer_of(node), statistics);
    }
    let input = arch.input();
    let transform = batch::fitting_transform(data.as_ref(), input)?;
    let loader = Loader::new(
        data.clone(),
        LoaderConfig {
            batch_size: BATCH,
            order: Order::Shuffled { seed: options.seed, epoch: 0 },
            transform,
            workers,
            drop_last: false,
        },
    )?;
    let batches = options.images.div_ceil(BATCH).clamp(1, loader.batches());
    let bar = progress::bar(batches as u64, "input statistics");
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let _guard = cp_torch::tch::no_grad_guard();
    for batch in loader.take(batches) {
        let (x, _) = batch::to_tensors(&batch?, input, model.device())?;
        let _ = model.forward_watched(&x, Mode::Eval, &mut |node, inputs| match (
            sums.get_mut(arch.layer_of(node)),
            inputs.first(),
        ) {
            (Some(sums), Some(x)) => sums.add(x, &node.op, options.positions, &mut rng),
            _ => Ok(()),
        })?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let finished = |(layer, sums): (&str, Sums)| (layer.to_owned(), sums.finished(options.shrink));
    Ok(sums.into_iter().map(finished).collect())
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
        x: &Tensor,
        op: &Op,
        positions: usize,
        rng: &mut ChaCha8Rng,
    ) -> Result<(), TrainError> {
        match op {
            Op::Conv(conv) if conv.kernel.len() == 1 => {
                // As a plane of one row, padded before, since there is nothing above it to be padded.
                let behind = |values: &[usize]| [&[1], values].concat();
                let planar = Conv {
                    kernel: behind(&conv.kernel),
                    stride: behind(&conv.stride),
                    dilation: behind(&conv.dilation),
                    padding: Padding::none(2),
                    ..conv.clone()
                };
                let length = x.size().last().copied().unwrap_or(0) as usize;
                let sides = conv.padding(0, length).map(|side| side as i64);
                let x = x.f_constant_pad_nd(sides)?.f_unsqueeze(2)?;
                add_windows(&mut self.0, &x, &planar, positions, rng)
            }
            Op::Conv(conv) => add_windows(&mut self.0, x, conv, positions, rng),
            _ => add_rows(&mut self.0, x),
        }
    }

    /// The second moments, each with the given share of a multiple of the identity.
    pub(crate) fn finished(self, shrink: f64) -> Vec<Arc<InputStatistics>> {
        self.0.into_iter().map(|sum| Arc::new(sum.shrink(shrink))).collect()
    }
}

/// Adds the windows of `x`, `[B, S, H, W]`, at `positions` random places of the output.
fn add_windows(
    groups: &mut [InputStatistics],
    x: &Tensor,
    conv: &Conv,
    positions: usize,
    rng: &mut ChaCha8Rng,
) -> Result<(), TrainError> {
    let pair = |values: &[usize]| values.iter().map(|&v| v as i64).collect::<Vec<_>>();
    let size = x.size();
    // From the last axis to the first, before and behind.
    let sides = [1, 0].map(|axis| conv.padding(axis, size[axis + 2] as usize));
    let x = x.f_contiguous()?.f_constant_pad_nd(pair(sides.as_flattened()))?;
    // [B, S·kh·kw, L], the window slowest by channel.
    let windows =
        x.f_im2col(pair(&conv.kernel), pair(&conv.dilation), [0, 0], pair(&conv.stride))?;
    let (count, size, places) = windows.size3()?;
    let drawn = positions.min(places as usize);
    let mut at: Vec<i64> =
        index::sample(rng, places as usize, drawn).into_iter().map(|i| i as i64).collect();
    at.sort_unstable();
    let at = tensor_from_i64(&at)?.f_to_device(x.device())?;
    let rows = windows.f_index_select(2, &at)?.f_permute([0, 2, 1])?; // [B, L′, S·kh·kw]
    let rows = rows.f_reshape([count * drawn as i64, size])?.f_to_device(Device::Cpu)?;
    let each = size / groups.len().max(1) as i64;
    for (group, sum) in groups.iter_mut().enumerate() {
        add(sum, &rows.f_narrow(1, group as i64 * each, each)?)?;
    }
    Ok(())
}

fn add_rows(groups: &mut [InputStatistics], x: &Tensor) -> Result<(), TrainError> {
    // All axes in front of the last one are treated alike.
    let features = x.size().last().copied().unwrap_or(1);
    let rows = x.f_reshape([-1, features])?;
    groups.iter_mut().try_for_each(|sum| add(sum, &rows))
}

fn add(sum: &mut InputStatistics, rows: &Tensor) -> Result<(), TrainError> {
    let rows = array_from_tensor(rows)?;
    match rows.into_dimensionality::<Ix2>() {
        Ok(rows) => Ok(sum.add(rows.view())?),
        // Never: both callers give matrices.
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use cp_torch::tch::Kind;

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
        let x = Tensor::arange(2 * 4 * 11, (Kind::Float, Device::Cpu)).reshape([2, 4, 11]);
        let moments = |op: &Op, x: &Tensor| {
            let mut sums = Sums::of(op).unwrap();
            sums.add(x, op, usize::MAX, &mut ChaCha8Rng::seed_from_u64(0)).unwrap();
            let found = sums.finished(0.0);
            found.iter().map(|sum| (sum.examples(), sum.moments().unwrap())).collect::<Vec<_>>()
        };
        let found = moments(&line(false), &x);
        assert_eq!((found.len(), found[0].0, found[0].1.nrows()), (2, 2 * 5, 2 * 3));
        assert_eq!(found, moments(&line(true), &x.unsqueeze(2)));
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
