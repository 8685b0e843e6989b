//! The rank-one terms of CP layers: how much each contributes, and the network without some of them.

use ndarray::{Array1, Array2, ArrayD, ArrayView1, Axis, IxDyn};

use crate::error::NetError;
use crate::factor::form::Form;
use crate::network::Network;
use crate::op::{Conv, Op};
use crate::rewrite::factors::Factors;

/// One rank-one term of a factorized layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// λ: the product of the norms of its vectors, which is the norm of the term.
    pub lambda: f64,
    /// The norm of its vector of input channels, ‖kˢ‖, which depends on how the scale is spread over the vectors.
    pub input: f64,
    /// Its spatial pattern at norm 1; empty where the layer has none.
    ///
    /// # Shapes
    /// The kernel's spatial axes.
    pub pattern: ArrayD<f32>,
}

impl Network {
    /// The layers that are sums of rank-one terms: those factorized into CP-3, CP-4 or low-rank pairs.
    pub fn cp_layers(&self) -> Vec<&str> {
        let is = |form: Form| matches!(form, Form::Cp3 | Form::Cp4 | Form::LowRank);
        let records = self.arch.factorized.iter();
        // In the order in which they run.
        let mut layers: Vec<(usize, &str)> = records
            .filter(|(_, record)| is(record.form))
            .filter_map(|(layer, record)| {
                let first = record.parts.first()?;
                let position = self.arch.nodes.iter().position(|node| node.name == *first)?;
                Some((position, layer.as_str()))
            })
            .collect();
        layers.sort_unstable();
        layers.into_iter().map(|(_, layer)| layer).collect()
    }

    /// The same network with every [`CpConv`](crate::CpConv) as the factorized layer that it is, in CP-4, or in low-rank form where its
    /// kernel is 1×1.
    ///
    /// # Errors
    /// As [`Network::put_factors`]: values that are not finite.
    pub fn with_cp_layers(&self) -> Result<Self, NetError> {
        let mut net = self.clone();
        for node in &self.arch.nodes {
            let Op::CpConv(op) = &node.op else { continue };
            let dense = op.dense();
            let factor = |slot: &str| -> Result<Array2<f32>, NetError> {
                let array = self.array(node, slot)?;
                let shape = (array.len_of(Axis(0)), op.rank);
                let array = array.into_shape_with_order(shape);
                Ok(array
                    .unwrap_or_else(|error| unreachable!("{}.{slot}: {error}", node.name))
                    .to_owned())
            };
            let mut last = factor("output")?;
            if op.weights {
                let weights = self.array(node, "weights")?;
                let weights: Array1<f32> = weights.iter().copied().collect();
                last *= &weights;
            }
            let form = if dense.is_pointwise() { Form::LowRank } else { Form::Cp4 };
            let mut parts = vec![factor("input")?.reversed_axes()];
            if form == Form::Cp4 {
                for axis in 0..op.kernel.len() {
                    parts.push(factor(&format!("axis{axis}"))?.reversed_axes());
                }
            } else {
                // Numbers, one for each term and axis.
                for axis in 0..op.kernel.len() {
                    let numbers = factor(&format!("axis{axis}"))?;
                    last *= &numbers.row(0);
                }
            }
            parts.push(last);
            let position = net.arch.position(&node.name)?;
            let kernel = net.free_name(&format!("{}.weight", node.name));
            let mut dense_node = node.clone();
            dense_node.op = Op::Conv(Conv { ..dense.clone() });
            dense_node.params.clear();
            dense_node.set_param("weight", kernel.clone());
            if dense.bias {
                dense_node.set_param("bias", node.param("bias"));
            }
            net.arch.nodes[position] = dense_node;
            net.params.insert(kernel, ArrayD::zeros(IxDyn(&dense.weight_shape())));
            let factors = Factors::new(form, op.rank, parts);
            net.put_factors(&node.name, &[factors], 0.0)?;
        }
        net.drop_unused();
        Self::new(net.arch, net.params)
    }

    /// The terms of a factorized layer, group after group; term i goes through channel i of its depthwise parts.
    ///
    /// # Errors
    /// [`NetError::NotFactorized`], also for forms that are no sums of rank-one terms.
    pub fn terms(&self, layer: &str) -> Result<Vec<Term>, NetError> {
        let record = self.arch.factorization(layer)?;
        if !self.cp_layers().contains(&layer) {
            return Err(NetError::NotFactorized {
                layer: layer.into(),
                factorized: self.cp_layers().into_iter().map(String::from).collect(),
            });
        }
        let spatial: Vec<usize> = match &record.dense {
            Op::Conv(conv) if !conv.is_pointwise() => conv.kernel.clone(),
            _ => Vec::new(),
        };
        let mut terms = Vec::new();
        for group in self.factors(layer)? {
            let [first, middle @ .., last] = &group.parts[..] else { continue };
            for term in 0..first.nrows() {
                let input = norm(first.row(term));
                let mut lambda = input * norm(last.column(term));
                let mut pattern = Array1::from_elem(1, 1.0_f64);
                for part in middle {
                    let taps = part.row(term).mapv(f64::from);
                    lambda *= norm(part.row(term));
                    // The outer product, the last axis fastest.
                    pattern =
                        pattern.iter().flat_map(|p| taps.iter().map(move |t| p * t)).collect();
                }
                let size = pattern.dot(&pattern).sqrt();
                let unit = pattern.mapv(|p| if size > 0.0 { (p / size) as f32 } else { 0.0 });
                let shape = if spatial.is_empty() { vec![0] } else { spatial.clone() };
                let pattern = if spatial.is_empty() { Array1::zeros(0) } else { unit };
                let pattern = pattern
                    .into_shape_with_order(IxDyn(&shape))
                    .unwrap_or_else(|error| unreachable!("the taps of {layer}: {error}"));
                terms.push(Term { lambda, input, pattern });
            }
        }
        Ok(terms)
    }

    /// The network without some terms of a factorized layer, whose shape stays: their vectors of output channels become 0.
    ///
    /// # Errors
    /// As [`Network::terms`].
    ///
    /// # Panics
    /// Where there is no such term.
    pub fn without_terms(&self, layer: &str, terms: &[usize]) -> Result<Self, NetError> {
        let count = self.terms(layer)?.len();
        let record = self.arch.factorization(layer)?;
        let name = record.parts.last().map(String::as_str).unwrap_or_default();
        let param = self.node(name)?.param("weight");
        let mut net = self.clone();
        let Some(weight) = net.params.get_mut(&param) else { return Ok(net) };
        let (rows, columns) = (weight.len_of(Axis(0)), weight.len_of(Axis(1)));
        // Every group reads its own terms.
        let groups = count / columns;
        for &term in terms {
            assert!(term < count, "term {term} of {count}");
            let (group, column) = (term / columns, term % columns);
            for row in group * rows / groups..(group + 1) * rows / groups {
                weight.index_axis_mut(Axis(0), row).index_axis_mut(Axis(0), column).fill(0.0);
            }
        }
        Ok(net)
    }
}

fn norm(vector: ArrayView1<'_, f32>) -> f64 {
    vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}
