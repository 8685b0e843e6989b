//! The forms a factorized layer can take, as a rewriting of the graph: which small ops replace a dense one.
//!
//! The kernel K of a convolution has shape `[T, S/g, k₀, …]` with g groups; each group of `[T/g, S/g, k₀, …]` is
//! decomposed for itself with the same rank R, so that the parts are grouped convolutions again:
//!
//! | form | sequence | parameters |
//! |---|---|---|
//! | [`Form::Cp3`] | 1×1 S→gR in g groups · k₀×… depthwise · 1×1 gR→T in g groups (+ bias) | R(S + g∏k + T) + T |
//! | [`Form::Cp4`] | 1×1 S→gR in g groups · one depthwise convolution per spatial axis · 1×1 gR→T (+ bias) | R(S + gΣk + T) + T |
//! | [`Form::LowRank`] | S→gR · gR→T (+ bias); linear layers and 1×1 convolutions | R(S + T) + T |
//! | [`Form::Tucker2`] | 1×1 S→gR_in · k₀×… gR_in→gR_out in g groups · 1×1 gR_out→T (+ bias) | R_in S + g R_in R_out ∏k + R_out T + T |
//! | [`Form::TkdCpd`] | 1×1 S→gR_in · 1×1 gR_in→gR · k₀×… depthwise · 1×1 gR→gR_out · 1×1 gR_out→T (+ bias) | R_in S + gR(R_in + ∏k + R_out) + R_out T + T |
//!
//! There is no non-linearity between the parts, and only the last has the bias. Stride, padding and dilation go axis by
//! axis onto the spatial parts: the vertical one takes the first entry of each and leaves the horizontal axis alone, and
//! the other way round.
//!
//! Reference: Lebedev et al. (2015), §3; Astrid & Lee (2017), §3; Kim et al. (2016), §3.1 (Tucker-2); Phan et al. (2020), §4.2
//! (TKD-CPD).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::check::check_values;
use crate::error::NetError;
use crate::network::{Architecture, Node};
use crate::op::{Conv, ConvGeometry, Linear, Op};
use crate::rank::Rank;

/// The factorized form of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Form {
    /// 1×1 S→R · kh×kw depthwise · 1×1 R→T (Astrid & Lee 2017): nodes `reduce`, `spatial`, `expand`.
    Cp3,
    /// 1×1 S→R · kh×1 depthwise · 1×kw depthwise · 1×1 R→T (Lebedev et al. 2015): nodes `reduce`, `vertical`,
    /// `horizontal`, `expand` (for three spatial axes `depth` in front, for one `spatial`).
    Cp4,
    /// Two linear layers, or two 1×1 convolutions, in→R→out by truncated SVD: nodes `reduce`, `expand`.
    LowRank,
    /// 1×1 S→R_in · kh×kw R_in→R_out · 1×1 R_out→T (Kim et al. 2016): nodes `reduce`, `core`, `expand`.
    Tucker2,
    /// Tucker-2 with its core in CP-3 (Phan et al. 2020): nodes `reduce`, `core_reduce`, `spatial`, `core_expand`, `expand`.
    TkdCpd,
}

impl Form {
    /// All of them.
    pub const ALL: [Form; 5] = [Form::Cp3, Form::Cp4, Form::LowRank, Form::Tucker2, Form::TkdCpd];

    /// The name as in plans and on the command line: `cp3`, `cp4`, `low-rank`, `tucker2`, `tkd-cpd`.
    pub fn name(self) -> &'static str {
        match self {
            Form::Cp3 => "cp3",
            Form::Cp4 => "cp4",
            Form::LowRank => "low-rank",
            Form::Tucker2 => "tucker2",
            Form::TkdCpd => "tkd-cpd",
        }
    }

    /// The rank of this form in which all numbers are 1.
    pub fn least_rank(self) -> Rank {
        match self {
            Form::Cp3 | Form::Cp4 | Form::LowRank => Rank::One(1),
            Form::Tucker2 => Rank::Two([1; 2]),
            Form::TkdCpd => Rank::Three([1; 3]),
        }
    }

    /// What a rank of this form looks like, for messages.
    fn rank_words(self) -> &'static str {
        match self {
            Form::Cp3 | Form::Cp4 | Form::LowRank => "one number, as in `rank = 16`",
            Form::Tucker2 => "two numbers, of output and input channels, as in `rank = [24, 16]`",
            Form::TkdCpd => {
                "three numbers, of output and input channels and of the core, as in `rank = [24, 16, 30]`"
            }
        }
    }

    /// The form that `op` takes where `self` is wanted for convolutions with a spatial extent: linear layers and 1×1
    /// convolutions have no spatial factor and become [`Form::LowRank`]. `None` for ops without a kernel and for
    /// convolutions with a spatial extent where `self` is [`Form::LowRank`].
    pub fn suited_to(self, op: &Op) -> Option<Form> {
        match op {
            Op::Linear(_) => Some(Form::LowRank),
            Op::Conv(conv) if conv.is_pointwise() => Some(Form::LowRank),
            Op::Conv(_) if self != Form::LowRank => Some(self),
            _ => None,
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no form named '{0}'; there are: cp3, cp4, low-rank, tucker2, tkd-cpd")]
pub struct UnknownForm(pub String);

impl FromStr for Form {
    type Err = UnknownForm;

    fn from_str(name: &str) -> Result<Self, UnknownForm> {
        Form::ALL
            .into_iter()
            .find(|form| form.name() == name)
            .ok_or_else(|| UnknownForm(name.into()))
    }
}

/// How a layer was factorized: kept with the network, so that a report or a second compression knows what stood there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Factorization {
    /// The form.
    pub form: Form,
    /// The rank (of each group).
    pub rank: Rank,
    /// The dense op that was replaced.
    pub dense: Op,
    /// The nodes that took its place, in order; the last one carries the dense layer's bias.
    pub parts: Vec<String>,
    /// ‖K − K̂‖ / ‖K‖ of the weights when they were replaced.
    pub rel_error: f64,
}

/// Suffix of the first part: input channels to R.
pub(crate) const REDUCE: &str = "reduce";
/// Suffix of the last part: R to output channels; it carries the bias.
pub(crate) const EXPAND: &str = "expand";

/// Every suffix that a part of a factorized layer can have, whatever its form.
pub const PART_SUFFIXES: [&str; 9] = [
    REDUCE,
    "spatial",
    "depth",
    "vertical",
    "horizontal",
    "core",
    "core_reduce",
    "core_expand",
    EXPAND,
];

impl Architecture {
    /// Replaces `layer` by the parts of its factorized form; what read `layer` now reads its last part.
    ///
    /// This is the rewriting of the graph alone, without arrays: it is what costs are predicted from. Networks are
    /// factorized by [`Network::factorize`](crate::Network::factorize).
    ///
    /// # Errors
    /// Unknown or already factorized layer, a form that does not fit its op, rank 0, a rank above that of the matrix, or a
    /// name of a part that is taken.
    pub fn factorize(
        &mut self,
        layer: &str,
        form: Form,
        rank: impl Into<Rank>,
    ) -> Result<&Factorization, NetError> {
        let rank = rank.into();
        let position = self.position(layer)?;
        let dense = self.nodes[position].clone();
        let parts = replacement(layer, &dense.op, form, rank)?;
        let names: Vec<String> =
            parts.iter().map(|(suffix, _)| format!("{layer}.{suffix}")).collect();
        if let Some(taken) =
            names.iter().find(|name| self.nodes.iter().any(|node| node.name == **name))
        {
            return Err(NetError::Name { name: taken.clone(), problem: "used more than once" });
        }
        let mut inputs = dense.inputs;
        let mut nodes = Vec::with_capacity(parts.len());
        for (name, (_, op)) in names.iter().zip(parts) {
            nodes.push(Node { name: name.clone(), op, inputs });
            inputs = vec![name.clone()];
        }
        self.nodes.splice(position..=position, nodes);
        if let Some(last) = names.last() {
            self.rename_inputs(layer, last);
        }
        let record = Factorization { form, rank, dense: dense.op, parts: names, rel_error: 0.0 };
        Ok(self.factorized.entry(layer.into()).insert_entry(record).into_mut())
    }

    /// Takes the parts of `layer` out again and puts the dense op in their place.
    ///
    /// # Errors
    /// [`NetError::NotFactorized`], [`NetError::UnknownLayer`].
    pub fn densify(&mut self, layer: &str) -> Result<(), NetError> {
        let record = self.factorization(layer)?.clone();
        let (Some(first), Some(last)) = (record.parts.first(), record.parts.last()) else {
            return Err(NetError::FactorizationRecord {
                layer: layer.into(),
                part: layer.into(),
                problem: "it has no parts",
            });
        };
        let position = self.position(first)?;
        let inputs = self.nodes[position].inputs.clone();
        self.nodes[position] = Node { name: layer.into(), op: record.dense, inputs };
        self.nodes.retain(|node| !record.parts.contains(&node.name));
        self.rename_inputs(last, layer);
        self.factorized.remove(layer);
        Ok(())
    }

    /// How `layer` was factorized.
    ///
    /// # Errors
    /// [`NetError::NotFactorized`] where it was not, [`NetError::UnknownLayer`] where there is none.
    pub fn factorization(&self, layer: &str) -> Result<&Factorization, NetError> {
        if let Some(record) = self.factorized.get(layer) {
            return Ok(record);
        }
        self.position(layer)?;
        Err(NetError::NotFactorized {
            layer: layer.into(),
            factorized: self.factorized.keys().cloned().collect(),
        })
    }

    fn rename_inputs(&mut self, from: &str, to: &str) {
        for input in
            self.nodes.iter_mut().flat_map(|node| &mut node.inputs).filter(|input| *input == from)
        {
            *input = to.into();
        }
    }

    /// The records of factorized layers say what the nodes say.
    pub(crate) fn check_factorized(&self) -> Result<(), NetError> {
        let nodes: BTreeMap<&str, &Node> =
            self.nodes.iter().map(|node| (node.name.as_str(), node)).collect();
        for (layer, record) in &self.factorized {
            let wrong = |part: &str, problem| NetError::FactorizationRecord {
                layer: layer.clone(),
                part: part.into(),
                problem,
            };
            let expected = replacement(layer, &record.dense, record.form, record.rank)?;
            if nodes.contains_key(layer.as_str()) {
                return Err(wrong(layer, "the dense layer is still there"));
            }
            if expected.len() != record.parts.len() {
                return Err(wrong(layer, "the form has another number of parts"));
            }
            let mut before: Option<&str> = None;
            for (name, (_, op)) in record.parts.iter().zip(&expected) {
                let node = nodes
                    .get(name.as_str())
                    .ok_or_else(|| wrong(name, "there is no such layer"))?;
                if node.op != *op {
                    return Err(wrong(
                        name,
                        "the op is not the one that form, rank and dense op give",
                    ));
                }
                if before.is_some_and(|before| node.inputs != [before]) {
                    return Err(wrong(name, "it does not follow the part before it"));
                }
                if let Some(before) = before
                    && self
                        .nodes
                        .iter()
                        .filter(|node| node.inputs.iter().any(|input| input == before))
                        .count()
                        != 1
                {
                    return Err(wrong(before, "more than the next part reads it"));
                }
                before = Some(name);
            }
        }
        Ok(())
    }
}

/// The ops that replace `dense`, each with the suffix of its name.
///
/// # Errors
/// [`NetError::FormMismatch`], [`NetError::RankKind`], [`NetError::ZeroRank`], [`NetError::RankTooLarge`].
pub(crate) fn replacement(
    layer: &str,
    dense: &Op,
    form: Form,
    rank: Rank,
) -> Result<Vec<(&'static str, Op)>, NetError> {
    if rank.parts().contains(&0) {
        return Err(NetError::ZeroRank { layer: layer.into() });
    }
    check_values(layer, dense)?;
    check_form(layer, dense, form)?;
    match (dense, form, rank) {
        (Op::Conv(conv), Form::Cp3, Rank::One(rank)) => {
            check_cp_rank(layer, rank, &conv.group_shape())?;
            Ok(conv_parts(conv, rank, &[("spatial", &all_axes(conv))]))
        }
        (Op::Conv(conv), Form::Cp4, Rank::One(rank)) => {
            check_cp_rank(layer, rank, &conv.group_shape())?;
            Ok(match conv.kernel.len() {
                1 => conv_parts(conv, rank, &[("spatial", &[0])]),
                2 => conv_parts(conv, rank, &[("vertical", &[0]), ("horizontal", &[1])]),
                _ => conv_parts(
                    conv,
                    rank,
                    &[("depth", &[0]), ("vertical", &[1]), ("horizontal", &[2])],
                ),
            })
        }
        (Op::Conv(conv), Form::LowRank, Rank::One(rank)) => {
            check_matrix_rank(layer, rank, &conv.group_shape()[..2])?;
            Ok(pointwise_parts(conv, rank))
        }
        (Op::Linear(linear), Form::LowRank, Rank::One(rank)) => {
            check_matrix_rank(layer, rank, &[linear.out_features, linear.in_features])?;
            Ok(linear_parts(linear, rank))
        }
        (Op::Conv(conv), Form::Tucker2, Rank::Two(ranks)) => {
            check_tucker_ranks(layer, ranks, conv)?;
            Ok(tucker_parts(conv, ranks))
        }
        (Op::Conv(conv), Form::TkdCpd, Rank::Three([out, input, rank])) => {
            check_tucker_ranks(layer, [out, input], conv)?;
            let core: Vec<usize> =
                [out, input].into_iter().chain(conv.kernel.iter().copied()).collect();
            check_cp_rank(layer, rank, &core)?;
            Ok(tkd_cpd_parts(conv, [out, input], rank))
        }
        _ => Err(NetError::RankKind {
            layer: layer.into(),
            form,
            expected: form.rank_words(),
            got: rank,
        }),
    }
}

/// Whether `dense` can be written as `form` at all.
fn check_form(layer: &str, dense: &Op, form: Form) -> Result<(), NetError> {
    let mismatch = |reason| Err(NetError::FormMismatch { layer: layer.into(), form, reason });
    match (dense, form) {
        (Op::Conv(conv), Form::LowRank) if conv.is_pointwise() => Ok(()),
        (Op::Conv(_), Form::LowRank) => {
            mismatch("low-rank is for linear layers and 1×1 convolutions; use cp3, cp4 or tucker2")
        }
        (Op::Conv(conv), _) if conv.is_pointwise() => {
            mismatch("a 1×1 kernel has no spatial factor; use low-rank")
        }
        (Op::Conv(conv), Form::Cp4) if !(1..=3).contains(&conv.kernel.len()) => {
            mismatch("one factor per axis is written for one to three spatial axes; use cp3")
        }
        (Op::Conv(_), _) | (Op::Linear(_), Form::LowRank) => Ok(()),
        (Op::Linear(_), _) => mismatch("a linear layer has no spatial factor; use low-rank"),
        _ => mismatch("only convolutions and linear layers are factorized"),
    }
}

fn check_matrix_rank(layer: &str, rank: usize, shape: &[usize]) -> Result<(), NetError> {
    match shape.iter().min() {
        Some(&max) if rank > max => Err(NetError::RankTooLarge { layer: layer.into(), rank, max }),
        _ => Ok(()),
    }
}

/// Every kernel is a sum of as many rank-one terms as it has entries. The bound is generous (published plans go above the
/// least one) and keeps a slip of the pen from asking for arrays that no machine holds.
fn check_cp_rank(layer: &str, rank: usize, shape: &[usize]) -> Result<(), NetError> {
    let max = shape.iter().product();
    if rank > max { Err(NetError::RankTooLarge { layer: layer.into(), rank, max }) } else { Ok(()) }
}

/// The ranks of Tucker-2 are numbers of columns of orthonormal matrices.
fn check_tucker_ranks(layer: &str, ranks: [usize; 2], conv: &Conv) -> Result<(), NetError> {
    for (rank, &max) in ranks.into_iter().zip(&conv.group_shape()) {
        if rank > max {
            return Err(NetError::RankTooLarge { layer: layer.into(), rank, max });
        }
    }
    Ok(())
}

fn all_axes(conv: &Conv) -> Vec<usize> {
    (0..conv.kernel.len()).collect()
}

/// 1×1 → one depthwise convolution per entry of `spatial` (suffix and the axes it works on) → 1×1.
fn conv_parts(
    conv: &Conv,
    rank: usize,
    spatial: &[(&'static str, &[usize])],
) -> Vec<(&'static str, Op)> {
    let mut parts = vec![(REDUCE, reduce(conv, rank, ConvGeometry::unit(conv.kernel.len())))];
    for &(suffix, axes) in spatial {
        parts.push((suffix, depthwise(conv, rank, axes)));
    }
    parts.push((EXPAND, expand(conv, rank)));
    parts
}

/// 1×1 to the input rank, the core with the dense layer's kernel and geometry, 1×1 from the output rank.
fn tucker_parts(conv: &Conv, [out, input]: [usize; 2]) -> Vec<(&'static str, Op)> {
    let core = core(conv, [out, input]);
    vec![
        (REDUCE, reduce(conv, input, ConvGeometry::unit(conv.kernel.len()))),
        ("core", Op::Conv(core)),
        (EXPAND, expand(conv, out)),
    ]
}

/// The dense layer's convolution between `input` and `out` channels of each group.
fn core(conv: &Conv, [out, input]: [usize; 2]) -> Conv {
    let groups = conv.geometry.groups;
    Conv { in_channels: groups * input, out_channels: groups * out, bias: false, ..conv.clone() }
}

/// Tucker-2 with the core as 1×1, depthwise, 1×1.
fn tkd_cpd_parts(conv: &Conv, [out, input]: [usize; 2], rank: usize) -> Vec<(&'static str, Op)> {
    let unit = || ConvGeometry::unit(conv.kernel.len());
    let core = core(conv, [out, input]);
    vec![
        (REDUCE, reduce(conv, input, unit())),
        ("core_reduce", reduce(&core, rank, unit())),
        ("spatial", depthwise(&core, rank, &all_axes(conv))),
        ("core_expand", expand(&core, rank)),
        (EXPAND, expand(conv, out)),
    ]
}

/// The two parts of a 1×1 convolution: stride and padding at the first, which then computes no more than is used.
fn pointwise_parts(conv: &Conv, rank: usize) -> Vec<(&'static str, Op)> {
    vec![(REDUCE, reduce(conv, rank, conv.geometry.clone())), (EXPAND, expand(conv, rank))]
}

fn linear_parts(linear: &Linear, rank: usize) -> Vec<(&'static str, Op)> {
    let reduce = Linear { in_features: linear.in_features, out_features: rank, bias: false };
    let expand = Linear { in_features: rank, out_features: linear.out_features, bias: linear.bias };
    vec![(REDUCE, Op::Linear(reduce)), (EXPAND, Op::Linear(expand))]
}

fn reduce(conv: &Conv, rank: usize, geometry: ConvGeometry) -> Op {
    let groups = conv.geometry.groups;
    Op::Conv(Conv {
        in_channels: conv.in_channels,
        out_channels: groups * rank,
        kernel: vec![1; conv.kernel.len()],
        geometry: ConvGeometry { groups, ..geometry },
        bias: false,
    })
}

/// The depthwise convolution along `axes`; the other axes have one tap and unit geometry.
fn depthwise(conv: &Conv, rank: usize, axes: &[usize]) -> Op {
    let channels = conv.geometry.groups * rank;
    let mut kernel = vec![1; conv.kernel.len()];
    let mut geometry = ConvGeometry { groups: channels, ..ConvGeometry::unit(conv.kernel.len()) };
    for &axis in axes {
        kernel[axis] = conv.kernel[axis];
        geometry.stride[axis] = conv.geometry.stride[axis];
        geometry.padding[axis] = conv.geometry.padding[axis];
        geometry.dilation[axis] = conv.geometry.dilation[axis];
    }
    Op::Conv(Conv { in_channels: channels, out_channels: channels, kernel, geometry, bias: false })
}

fn expand(conv: &Conv, rank: usize) -> Op {
    let groups = conv.geometry.groups;
    Op::Conv(Conv {
        in_channels: groups * rank,
        out_channels: conv.out_channels,
        kernel: vec![1; conv.kernel.len()],
        geometry: ConvGeometry { groups, ..ConvGeometry::unit(conv.kernel.len()) },
        bias: conv.bias,
    })
}

impl Conv {
    /// Whether every spatial extent of the kernel is 1.
    pub fn is_pointwise(&self) -> bool {
        self.kernel.iter().all(|&taps| taps == 1)
    }
}
