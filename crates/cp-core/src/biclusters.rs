//! The blocks of a kernel: [`Biclusters`].

use ndarray::{Array3, ArrayView3, Axis};

use crate::clusters::{Likeness, equal_clusters};
use crate::error::CpError;
use crate::real::Real;
use crate::unfold::unfold;

/// Output and input channels of a kernel `[T, S, K]` in clusters of equal size, which cut it into blocks `[T/oc, S/ic, K]`.
///
/// The filters of a block are alike, so that fewer terms do for it than for as large a piece of the kernel at random.
///
/// Source: Denton, Zaremba, Bruna, LeCun & Fergus (2014), §3.3 ("biclustering approximation").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Biclusters {
    outputs: Vec<Vec<usize>>,
    inputs: Vec<Vec<usize>>,
}

impl Biclusters {
    /// Of known clusters: the number of the cluster of each output channel and of each input channel, from 0.
    ///
    /// # Shapes
    /// `outputs`: `[T]`; `inputs`: `[S]`.
    ///
    /// # Errors
    /// Clusters that are not of equal size.
    pub fn new(outputs: &[usize], inputs: &[usize]) -> Result<Self, CpError> {
        let outputs = members(outputs, "output channels")?;
        Ok(Self { outputs, inputs: members(inputs, "input channels")? })
    }

    /// `counts` clusters, \[oc, ic\]: of the output channels by their filters, `[T, S·K]`, and of the input channels by what reads them,
    /// `[S, T·K]`, near lines ([`Likeness::Line`]): a rank-one term may have any multiple of its filter in each channel.
    ///
    /// # Shapes
    /// `kernel`: `[T, S, K]`.
    ///
    /// # Errors
    /// An empty kernel, entries that are not finite, counts that do not divide T and S.
    pub fn find<T: Real>(
        kernel: ArrayView3<'_, T>,
        counts: [usize; 2],
        seed: u64,
    ) -> Result<Self, CpError> {
        let labels = |mode: usize, what| {
            let rows = unfold(kernel.into_dyn(), mode);
            let (clusters, size) = (counts[mode], rows.nrows());
            if clusters == 0 || !size.is_multiple_of(clusters) {
                return Err(CpError::UnequalClusters { what, clusters, rows: size });
            }
            equal_clusters(rows.view(), clusters, Likeness::Line, seed)
        };
        Self::new(&labels(0, "output channels")?, &labels(1, "input channels")?)
    }

    /// The output channels of each cluster, rising.
    pub fn outputs(&self) -> &[Vec<usize>] {
        &self.outputs
    }

    /// The input channels of each cluster, rising.
    pub fn inputs(&self) -> &[Vec<usize>] {
        &self.inputs
    }

    /// The block of an output and an input cluster, `[T/oc, S/ic, K]`.
    ///
    /// # Panics
    /// Where there is no such cluster, or the kernel has fewer channels.
    pub fn block<T: Real>(
        &self,
        kernel: ArrayView3<'_, T>,
        output: usize,
        input: usize,
    ) -> Array3<T> {
        kernel.select(Axis(0), &self.outputs[output]).select(Axis(1), &self.inputs[input])
    }

    /// Puts a block back where [`Biclusters::block`] took it from.
    ///
    /// # Panics
    /// As [`Biclusters::block`], and for a block of another shape.
    pub fn put<T: Real>(
        &self,
        kernel: &mut Array3<T>,
        output: usize,
        input: usize,
        block: ArrayView3<'_, T>,
    ) {
        for (&t, rows) in self.outputs[output].iter().zip(block.outer_iter()) {
            for (&s, filter) in self.inputs[input].iter().zip(rows.outer_iter()) {
                kernel.index_axis_mut(Axis(0), t).index_axis_mut(Axis(0), s).assign(&filter);
            }
        }
    }
}

/// The members of each cluster.
fn members(labels: &[usize], what: &'static str) -> Result<Vec<Vec<usize>>, CpError> {
    let (rows, clusters) = (labels.len(), labels.iter().max().map_or(0, |most| most + 1));
    let unequal = CpError::UnequalClusters { what, clusters, rows };
    if clusters == 0 || !rows.is_multiple_of(clusters) {
        return Err(unequal);
    }
    let mut members = vec![Vec::with_capacity(rows / clusters); clusters];
    for (channel, &label) in labels.iter().enumerate() {
        members[label].push(channel);
    }
    if members.iter().any(|members| members.len() != rows / clusters) {
        return Err(unequal);
    }
    Ok(members)
}
