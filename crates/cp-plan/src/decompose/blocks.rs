//! Denton's forms: blocks of clusters, and colours.
//!
//! The source in all of it: Denton, Zaremba, Bruna, LeCun & Fergus (2014), "Exploiting linear structure within convolutional networks for
//! efficient evaluation", §3.

use cp_core::{Biclusters, CpError, PowerMethod, RightFactor, Solver, block_svd, monochromatic};
use cp_net::{Form, Rank};
use ndarray::{Array2, Array3, ArrayView3, ArrayViewD, Ix3, s};

use super::Decomposer;
use crate::model::KernelModel;

/// The parts of one block: `reduce` and what follows it, each with a row for every map, `expand`, `[T/oc, R]`, and the block that they make.
struct Block {
    reduce: Array2<f32>,
    middle: Array2<f32>,
    expand: Array2<f32>,
    made: Array3<f32>,
}

impl Decomposer {
    /// `rank` greedy terms for each block of oc × ic clusters.
    pub(super) fn terms_of_blocks(
        &self,
        tensor: ArrayViewD<'_, f32>,
        ranks: [usize; 3],
    ) -> Result<KernelModel, CpError> {
        let [outputs, inputs, rank] = ranks;
        let kernel = three(&tensor)?;
        let clusters = Biclusters::find(kernel, [outputs, inputs], self.seed)?;
        let blocks = each_block(kernel, &clusters, |block| {
            let mut cp = PowerMethod::greedy(rank).decompose(block.into_dyn())?.cp;
            let made = into_three(cp.reconstruct().view())?;
            cp.balance();
            let [expand, reduce, middle] = [0, 1, 2].map(|mode| cp.factors[mode].clone());
            let (reduce, middle) = (reduce.reversed_axes(), middle.reversed_axes());
            Ok(Block { reduce, middle, expand, made })
        })?;
        Ok(assembled(Form::Denton, ranks.into(), kernel, &clusters, &blocks))
    }

    /// Ranks \[r_o, r_i\] for each block of oc × ic clusters, by two singular value decompositions.
    ///
    /// The second one sees the right factor of the first with its singular values, which loses less than the source's, without them.
    pub(super) fn cores_of_blocks(
        &self,
        tensor: ArrayViewD<'_, f32>,
        ranks: [usize; 4],
    ) -> Result<KernelModel, CpError> {
        let [outputs, inputs, out, input] = ranks;
        let kernel = three(&tensor)?;
        let clusters = Biclusters::find(kernel, [outputs, inputs], self.seed)?;
        let blocks = each_block(kernel, &clusters, |block| {
            let found = block_svd(block, [out, input], RightFactor::Scaled)?;
            let made = found.reconstruct();
            let taps = found.core.dim().2;
            let middle = Array2::from_shape_fn((out, input * taps), |(row, at)| {
                found.core[[row, at / taps, at % taps]]
            });
            Ok(Block { reduce: found.inputs, middle, expand: found.outputs, made })
        })?;
        Ok(assembled(Form::DentonSvd, ranks.into(), kernel, &clusters, &blocks))
    }

    /// One of `colours` mixtures of the input channels for each output channel.
    pub(super) fn colours(
        &self,
        tensor: ArrayViewD<'_, f32>,
        colours: usize,
    ) -> Result<KernelModel, CpError> {
        let found = monochromatic(three(&tensor)?, colours, self.seed)?;
        let kernel = found.reconstruct();
        Ok(KernelModel::Parts {
            form: Form::Monochromatic,
            rank: Rank::One(colours),
            parts: vec![found.colours, found.spatial],
            order: vec![found.assignment],
            kernel,
        })
    }
}

/// The blocks of a kernel by `of`, those of an output cluster one after the other.
fn each_block(
    kernel: ArrayView3<'_, f32>,
    clusters: &Biclusters,
    of: impl Fn(ArrayView3<'_, f32>) -> Result<Block, CpError>,
) -> Result<Vec<Block>, CpError> {
    let mut blocks = Vec::with_capacity(clusters.outputs().len() * clusters.inputs().len());
    for output in 0..clusters.outputs().len() {
        for input in 0..clusters.inputs().len() {
            blocks.push(of(clusters.block(kernel, output, input).view())?);
        }
    }
    Ok(blocks)
}

/// The parts of the layer: maps in the order of input cluster, output cluster and place in the block, and output channels cluster after
/// cluster.
fn assembled(
    form: Form,
    rank: Rank,
    kernel: ArrayView3<'_, f32>,
    clusters: &Biclusters,
    blocks: &[Block],
) -> KernelModel {
    let (outputs, inputs) = (clusters.outputs(), clusters.inputs());
    let mut made = Array3::zeros(kernel.dim());
    let [read, middle, maps] = match blocks.first() {
        Some(block) => [block.reduce.dim(), block.middle.dim(), block.expand.dim()],
        None => [(0, 0); 3],
    };
    let mut reduces = Array2::zeros((blocks.len() * read.0, read.1));
    let mut middles = Array2::zeros((blocks.len() * middle.0, middle.1));
    let mut expand = Array2::zeros((kernel.dim().0, inputs.len() * maps.1));
    for (at, block) in blocks.iter().enumerate() {
        let (output, input) = (at / inputs.len(), at % inputs.len());
        clusters.put(&mut made, output, input, block.made.view());
        let place = input * outputs.len() + output;
        reduces.slice_mut(s![place * read.0..(place + 1) * read.0, ..]).assign(&block.reduce);
        middles.slice_mut(s![place * middle.0..(place + 1) * middle.0, ..]).assign(&block.middle);
        let rows = output * maps.0..(output + 1) * maps.0;
        expand.slice_mut(s![rows, input * maps.1..(input + 1) * maps.1]).assign(&block.expand);
    }
    let mut restore = vec![0; kernel.dim().0];
    outputs.iter().flatten().enumerate().for_each(|(place, &channel)| restore[channel] = place);
    let order = vec![inputs.concat(), restore];
    let parts = vec![reduces, middles, expand];
    KernelModel::Parts { form, rank, parts, order, kernel: made.into_dyn() }
}

/// `[T, S, K]`.
fn three<'a>(tensor: &'a ArrayViewD<'_, f32>) -> Result<ArrayView3<'a, f32>, CpError> {
    let got = tensor.ndim();
    let view = tensor.view().into_dimensionality::<Ix3>();
    view.map_err(|_| CpError::FactorCount { expected: 3, got })
}

fn into_three(tensor: ArrayViewD<'_, f32>) -> Result<Array3<f32>, CpError> {
    Ok(three(&tensor)?.to_owned())
}
