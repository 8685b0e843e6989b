//! Terms of convolutions with CP factors that count for nothing, taken out.

use ndarray::{ArrayD, Axis};

use crate::error::NetError;
use crate::network::Network;
use crate::op::Op;

impl Network {
    /// Takes the terms with |λ| ≤ `share` · max |λ| out of every [`CpConv`](crate::CpConv) that has λ as a parameter, whose rank falls by as
    /// many; a layer keeps at least its largest. By layer, how many went.
    ///
    /// With `share = 0` those of λ = 0 go, as training under an L1 penalty leaves them, and the network gives what it gave.
    ///
    /// Source: Kossaifi et al. (arXiv 1906.06196), §3.4, "automatic rank selection".
    ///
    /// # Errors
    /// As [`Network::unshare`].
    pub fn prune_terms(&mut self, share: f64) -> Result<Vec<(String, usize)>, NetError> {
        let mut pruned = Vec::new();
        for position in 0..self.arch.nodes.len() {
            let node = self.arch.nodes[position].clone();
            let Op::CpConv(op) = &node.op else { continue };
            if !op.weights {
                continue;
            }
            let sizes: Vec<f64> =
                self.array(&node, "weights")?.iter().map(|&value| f64::from(value).abs()).collect();
            let largest = sizes.iter().copied().fold(0.0, f64::max);
            let mut kept: Vec<usize> =
                (0..sizes.len()).filter(|&term| sizes[term] > share * largest).collect();
            if kept.is_empty() {
                // All are as small as that: the last of the largest stands for them.
                kept.extend((0..sizes.len()).max_by(|&a, &b| sizes[a].total_cmp(&sizes[b])));
            }
            if kept.len() == op.rank {
                continue;
            }
            self.unshare(&node.name)?;
            let node = &mut self.arch.nodes[position];
            let Op::CpConv(op) = &mut node.op else { continue };
            let gone = op.rank - kept.len();
            op.rank = kept.len();
            // λ is a vector over the terms, the factors have them as columns, and the bias knows of none.
            for spec in node.op.params().iter().filter(|spec| spec.slot != "bias") {
                let name = node.param(spec.slot);
                let Some(array) = self.params.get_mut(&name) else { continue };
                let terms = Axis(array.ndim().saturating_sub(1));
                let left: ArrayD<f32> = array.select(terms, &kept);
                *array = left;
            }
            pruned.push((node.name.clone(), gone));
        }
        Ok(pruned)
    }
}
