//! How much the rank-one terms of CP layers matter: their order by λ, and the accuracy without the first or the last of them.
//!
//! The claim of Wang, Guo & Yue (arXiv 2005.13746), §4.3, is that terms of small factors can be left out. They look at ‖kˢ‖, which depends on
//! how the scale of a term is spread over its vectors; λ, the norm of the term, does not.

use std::sync::Arc;

use cp_data::Dataset;
use cp_net::{Network, Op};
use ndarray::{Array2, ArrayViewD, Axis, Ix2};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::TrainError;
use crate::evaluate::{EvalOptions, evaluate_in};

/// One term of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TermRow {
    /// Its number in the layer.
    pub term: usize,
    /// λ, the norm of the term.
    pub lambda: f64,
    /// ‖kˢ‖, the norm of its vector of input channels.
    pub input: f64,
}

/// Accuracy without some terms of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Dropped {
    /// Terms left out.
    pub terms: usize,
    /// Top-1 then, 0…1.
    pub top1: f64,
}

/// The terms of one layer and what the network is without them; all other layers are whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerSignificance {
    /// The layer.
    pub layer: String,
    /// Its terms by falling λ.
    pub terms: Vec<TermRow>,
    /// Left out from the smallest λ on.
    pub least_first: Vec<Dropped>,
    /// Left out from the largest λ on.
    pub most_first: Vec<Dropped>,
}

/// Measures every CP layer of `net` ([`Network::cp_layers`]) on `data`, at about `points` numbers of dropped terms from none to all.
///
/// # Errors
/// As [`evaluate_in`]; [`TrainError::OutputsNotFinite`].
pub fn significance(
    engine: Engine,
    net: &Network,
    data: &Arc<dyn Dataset>,
    points: usize,
    options: &EvalOptions,
) -> Result<Vec<LayerSignificance>, TrainError> {
    let top1 = |net: &Network| {
        let found = evaluate_in(engine, net, data, options)?;
        if found.loss.is_finite() {
            return Ok(found.top1);
        }
        let network = net.architecture().name.clone();
        Err(TrainError::OutputsNotFinite { network, data: data.name().into() })
    };
    let whole = top1(net)?;
    let mut layers = Vec::new();
    for layer in net.cp_layers() {
        let mut terms: Vec<TermRow> = net
            .terms(layer)?
            .into_iter()
            .enumerate()
            .map(|(term, found)| TermRow { term, lambda: found.lambda, input: found.input })
            .collect();
        // Stable: of equal ones the first.
        terms.sort_by(|one, other| other.lambda.total_cmp(&one.lambda));
        let order: Vec<usize> = terms.iter().map(|row| row.term).collect();
        let back: Vec<usize> = order.iter().rev().copied().collect();
        let curve = |order: &[usize]| -> Result<Vec<Dropped>, TrainError> {
            let mut curve = vec![Dropped { terms: 0, top1: whole }];
            for count in counts(order.len(), points) {
                let top1 = top1(&net.without_terms(layer, &order[..count])?)?;
                curve.push(Dropped { terms: count, top1 });
            }
            Ok(curve)
        };
        let (least_first, most_first) = (curve(&back)?, curve(&order)?);
        layers.push(LayerSignificance { layer: layer.into(), terms, least_first, most_first });
    }
    Ok(layers)
}

/// About `points` numbers from 1 to `terms`, evenly, with `terms` itself.
fn counts(terms: usize, points: usize) -> Vec<usize> {
    let points = points.clamp(1, terms.max(1));
    let mut counts: Vec<usize> =
        (1..=points).map(|point| (point * terms).div_ceil(points)).collect();
    counts.dedup();
    counts
}

/// The maps that the terms of `layer` make of some examples, in front of its last part: what each term adds to output channel t is its map
/// times a number. `None` where the layer makes no maps of one or two axes.
///
/// # Shapes
/// `inputs`: `[B, …]`, one for each input of the network; result: for every example, a map for every term.
///
/// # Errors
/// As [`Network::eval`], and where `layer` is no CP layer.
pub fn term_maps(
    net: &Network,
    layer: &str,
    inputs: &[ArrayViewD<'_, f32>],
) -> Result<Option<Vec<Vec<Array2<f32>>>>, TrainError> {
    let record = net.architecture().factorization(layer)?;
    let [.., before, _] = &record.parts[..] else { return Ok(None) };
    let axes = match &record.dense {
        Op::Conv(conv) => conv.kernel.len(),
        _ => 0,
    };
    if !(1..=2).contains(&axes) {
        return Ok(None);
    }
    let value = net.node(before)?.output().to_owned();
    let mut arch = net.architecture().clone();
    // A record says that nobody else reads what is between the parts.
    arch.factorized.clear();
    let known = arch.outputs.iter().position(|output| *output == value);
    let place = known.unwrap_or(arch.outputs.len());
    if known.is_none() {
        arch.outputs.push(value);
    }
    let tapped = Network::new(arch, net.params().clone())?;
    let maps = tapped.eval(inputs)?.swap_remove(place);
    let of_example = |example: ArrayViewD<'_, f32>| -> Vec<Array2<f32>> {
        let map = |map: ArrayViewD<'_, f32>| {
            let map = if axes == 1 { map.insert_axis(Axis(0)) } else { map };
            let map = map.into_dimensionality::<Ix2>();
            map.unwrap_or_else(|error| unreachable!("a map of {layer}: {error}")).to_owned()
        };
        example.outer_iter().map(map).collect()
    };
    Ok(Some(maps.outer_iter().map(of_example).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_end_with_all() {
        assert_eq!(counts(5, 10), [1, 2, 3, 4, 5]);
        assert_eq!(counts(10, 4), [3, 5, 8, 10]);
        assert_eq!(counts(1, 4), [1]);
    }
}
