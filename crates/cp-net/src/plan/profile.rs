//! [`Profile`]: what every layer would cost and lose in every way it could be written, for plans to choose from.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use cp_core::truncated_svd;
use ndarray::Ix2;

use crate::cost::{Totals, factors_cost, input_of, weights_cost};
use crate::decompose::Decomposer;
use crate::error::NetError;
use crate::factorize::Form;
use crate::network::Network;
use crate::op::Op;
use crate::rank::Rank;

/// What every layer would cost and lose in every way it could be written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Shape of the input that costs are for, without the batch axis.
    pub input: Vec<usize>,
    /// Cost of the whole dense network.
    pub dense: Totals,
    /// Seconds of the whole dense network per batch, where they were measured.
    pub dense_seconds: Option<f64>,
    /// The dense convolutions and linear layers, in the order in which they run.
    pub layers: Vec<LayerProfile>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerProfile {
    /// Its name.
    pub layer: String,
    /// Its cost as it is, without its bias.
    pub dense: Totals,
    /// Its seconds per batch, where they were measured.
    pub dense_seconds: Option<f64>,
    /// Forms and ranks in which it is smaller in parameters or multiply-adds.
    pub choices: Vec<Choice>,
}

/// One way to write a layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The form.
    pub form: Form,
    /// The rank.
    pub rank: Rank,
    /// Its cost, without the bias.
    pub cost: Totals,
    /// ‖K − K̂‖ / ‖K‖.
    pub rel_error: f64,
    /// The same in the metric of the layer's inputs, where there were statistics.
    pub weighted_error: Option<f64>,
    /// Seconds per batch, where they were measured.
    pub seconds: Option<f64>,
}

impl Choice {
    /// The error that plans go by: that of the layer's output where it is known, else that of its kernel.
    pub fn error(&self) -> f64 {
        self.weighted_error.unwrap_or(self.rel_error)
    }
}

/// What [`Profile::measure`] looks at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileOptions {
    /// Forms of convolutions with a spatial extent; 1×1 convolutions and linear layers become low-rank.
    pub forms: Vec<Form>,
    /// Ranks of each form, in equal ratios from 1 to the largest that is smaller than dense.
    pub points: usize,
}

impl Default for ProfileOptions {
    /// CP-3 and Tucker-2, 12 ranks each.
    fn default() -> Self {
        Self { forms: vec![Form::Cp3, Form::Tucker2], points: 12 }
    }
}

impl Profile {
    /// Decomposes every layer at every rank of its ladder; layers in parallel, the result does not depend on it.
    ///
    /// Tucker-2 goes up a ladder of \[R_out, R_in\] in proportion to the channels, TKD-CPD with an inner rank as large as the
    /// larger of the two. With [`Decomposer::statistics`], errors are those of the layers' outputs. An error never rises along a
    /// ladder: where a solver found no better model at a higher rank, that of the lower one stands.
    ///
    /// # Shapes
    /// `input`: `[C, H, W]`, without the batch axis.
    ///
    /// # Errors
    /// Unknown or factorized layers, forms that do not fit, and what solvers refuse.
    pub fn measure(
        net: &Network,
        input: impl AsRef<[usize]>,
        layers: Option<&[String]>,
        options: &ProfileOptions,
        decomposer: &Decomposer,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<Self, NetError> {
        let (arch, input) = (net.architecture(), input.as_ref());
        let names = layers.map_or_else(|| arch.compressible(), <[String]>::to_vec);
        let shapes = arch.output_shapes(input)?;
        let found: Vec<Result<LayerProfile, NetError>> = names
            .par_iter()
            .map(|name| {
                let node = arch.node(name)?;
                let shape = input_of(node, &shapes, input);
                let profile = measure_layer(net, name, shape, options, decomposer);
                progress(name);
                profile
            })
            .collect();
        Ok(Self {
            input: input.to_vec(),
            dense: arch.cost(input)?.total,
            dense_seconds: None,
            layers: found.into_iter().collect::<Result<_, NetError>>()?,
        })
    }

    /// The layer `name`.
    pub fn layer(&self, name: &str) -> Option<&LayerProfile> {
        self.layers.iter().find(|layer| layer.layer == name)
    }
}

fn measure_layer(
    net: &Network,
    layer: &str,
    input: &[usize],
    options: &ProfileOptions,
    decomposer: &Decomposer,
) -> Result<LayerProfile, NetError> {
    let op = &net.node(layer)?.op;
    if !op.has_kernel() {
        return Err(NetError::PlanLayer { layer: layer.into(), op: op.kind() });
    }
    let dense = weights_cost(layer, &[op], input)?;
    let mut forms: Vec<Form> = options.forms.iter().filter_map(|form| form.suited_to(op)).collect();
    forms.sort();
    forms.dedup();
    let mut choices = Vec::new();
    for form in forms {
        let mut ladder = Vec::new();
        for rank in all_ranks(op, form) {
            let cost = factors_cost(layer, op, form, rank, input)?;
            if cost.params >= dense.params && cost.macs >= dense.macs {
                break;
            }
            ladder.push((rank, cost));
        }
        let ladder = spread(&ladder, options.points);
        let errors = errors(net, layer, form, &ladder, decomposer)?;
        let mut best = (f64::INFINITY, None);
        for ((rank, cost), (rel_error, weighted_error)) in ladder.into_iter().zip(errors) {
            best = match (best, weighted_error) {
                ((plain, Some(before)), Some(now)) if before <= now => (plain, Some(before)),
                ((before, None), None) if before <= rel_error => (before, None),
                _ => (rel_error, weighted_error),
            };
            let (rel_error, weighted_error) = best;
            choices.push(Choice { form, rank, cost, rel_error, weighted_error, seconds: None });
        }
    }
    Ok(LayerProfile { layer: layer.into(), dense, dense_seconds: None, choices })
}

/// Every rank of the form's ladder, in rising order, without an upper end in cost.
fn all_ranks(op: &Op, form: Form) -> Vec<Rank> {
    let (out, input, whole) = match op {
        Op::Conv(conv) => {
            let shape = conv.group_shape();
            (shape[0], shape[1], shape.iter().product::<usize>())
        }
        Op::Linear(linear) => {
            let (out, input) = (linear.out_features, linear.in_features);
            (out, input, out * input)
        }
        _ => return Vec::new(),
    };
    let larger = out.max(input);
    let pair = |step: usize| {
        let of = |size: usize| ((step * size) as f64 / larger as f64).round().max(1.0) as usize;
        [of(out), of(input)]
    };
    match form {
        Form::Cp3 | Form::Cp4 => (1..=whole).map(Rank::One).collect(),
        Form::LowRank => (1..=out.min(input)).map(Rank::One).collect(),
        Form::Tucker2 => (1..=larger).map(|step| Rank::Two(pair(step))).collect(),
        Form::TkdCpd => (1..=larger)
            .map(|step| {
                let [out, input] = pair(step);
                Rank::Three([out, input, out.max(input)])
            })
            .collect(),
    }
}

/// At most `points` of `ladder`, the first and the last among them, the others in equal ratios of their positions.
fn spread<T: Copy>(ladder: &[T], points: usize) -> Vec<T> {
    if ladder.len() <= points {
        return ladder.to_vec();
    }
    let last = ladder.len() as f64;
    let mut at: Vec<usize> = (0..points)
        .map(|point| last.powf(point as f64 / (points - 1).max(1) as f64).round() as usize - 1)
        .collect();
    at.dedup();
    at.into_iter().map(|index| ladder[index]).collect()
}

/// Plain and weighted errors of `layer` at every rank of `ladder`, over its groups.
fn errors(
    net: &Network,
    layer: &str,
    form: Form,
    ladder: &[(Rank, Totals)],
    decomposer: &Decomposer,
) -> Result<Vec<(f64, Option<f64>)>, NetError> {
    let failed = |source| NetError::Decompose { layer: layer.into(), source };
    let tensors = net.tensors(layer, form)?;
    let total: f64 = tensors.iter().map(|tensor| cp_core::norm(tensor.view()).powi(2)).sum();
    let mut sums = vec![(0.0, None::<f64>); ladder.len()];
    for (group, tensor) in tensors.iter().enumerate() {
        let square = cp_core::norm(tensor.view()).powi(2);
        // Without statistics, one singular value decomposition has the errors of all ranks.
        if form == Form::LowRank && !decomposer.statistics.contains_key(layer) {
            let most = ladder.iter().filter_map(|(rank, _)| rank.one()).max().unwrap_or(0);
            let matrix = tensor.view().into_dimensionality::<Ix2>();
            if let (Ok(matrix), 1..) = (matrix, most) {
                let values = truncated_svd(matrix, most).map_err(failed)?.s;
                for ((rank, _), sum) in ladder.iter().zip(&mut sums) {
                    let kept = values.iter().take(rank.one().unwrap_or(0));
                    let kept: f64 = kept.map(|value| f64::from(*value).powi(2)).sum();
                    sum.0 += (square - kept).max(0.0);
                }
            }
            continue;
        }
        for ((rank, _), sum) in ladder.iter().zip(&mut sums) {
            let mut ignore = |_: &cp_core::Progress| std::ops::ControlFlow::Continue(());
            let found = decomposer
                .decompose(layer, group, tensor.view(), form, *rank, &mut ignore)
                .map_err(failed)?;
            sum.0 += found.rel_error.powi(2) * square;
            sum.1 = match (sum.1, found.weighted_error) {
                (Some(a), Some(b)) => Some(f64::max(a, b)),
                (a, b) => a.or(b),
            };
        }
    }
    let relative = |sum: f64| if sum == 0.0 { 0.0 } else { (sum / total).sqrt() };
    Ok(sums.into_iter().map(|(sum, weighted)| (relative(sum), weighted)).collect())
}
