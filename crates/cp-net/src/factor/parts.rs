//! Which small ops stand for a dense one: the parts of a factorized layer.
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
//! | [`Form::Jaderberg1`] | k₀×1 S→SM in S groups · 1×k₁ depthwise · 1×1 SM→T in g groups (+ bias) | SM(k₀ + k₁) + SMT/g + T |
//! | [`Form::Jaderberg2`] | k₀×1 S→gR in g groups · 1×k₁ gR→T in g groups (+ bias) | R(S k₀ + T k₁) + T |
//! | [`Form::Decoupled`] | 1×1 S→RT in g groups · k₀×… RT→T in T groups (+ bias) | RT(S/g + ∏k) + T |
//! | [`Form::Jaderberg1Shared`] | as maps of one channel, S deep: 1×k₀×1 1→M · 1×1×k₁ depthwise · S×1×1 M→T (+ bias) | M(k₀ + k₁) + SMT + T |
//! | [`Form::Denton`] | 1×1 S→N = g·ic·oc·k in g·ic groups · k₀×… depthwise · 1×1 N→T in g·oc groups (+ bias) | k(oc·S + g·oc·ic∏k + ic·T) + T |
//! | [`Form::DentonSvd`] | 1×1 S→g·ic·oc·r_i in g·ic groups · k₀×… r_i→r_o in g·ic·oc groups · 1×1 →T in g·oc groups (+ bias) | r_i oc·S + g·oc·ic·r_i r_o ∏k + r_o ic·T + T |
//! | [`Form::Monochromatic`] | 1×1 S→C · T of these · k₀×… depthwise (+ bias) | SC + T∏k + T |
//!
//! There is no non-linearity between the parts, and only the last with a weight has the bias. Stride, padding and dilation go axis by
//! axis onto the spatial parts: the vertical one takes the first entry of each and leaves the horizontal axis alone, and
//! the other way round.
//!
//! Reference: Lebedev et al. (2015), §3; Astrid & Lee (2017), §3; Kim et al. (2016), §3.1 (Tucker-2); Phan et al. (2020), §4.2
//! (TKD-CPD); Jaderberg et al. (2014), §3; Xie et al. (2018); Denton et al. (2014), §3.

mod blocks;
mod colours;
mod shared_basis;

use crate::error::NetError;
use crate::factor::form::Form;
use crate::factor::rank::Rank;
use crate::op::{Conv, Linear, Op, axis_suffixes};

/// Suffix of the first part: input channels to R.
pub(crate) const REDUCE: &str = "reduce";
/// Suffix of the last part: R to output channels; it carries the bias.
pub(crate) const EXPAND: &str = "expand";

/// Every suffix that a part with a weight can have, whatever the form.
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

/// The ops that replace `dense`, each with the suffix of its name. Orders of channels, which the rank does not say, are as they come: every
/// channel in its place, colours in turn.
///
/// # Errors
/// [`NetError::FormMismatch`], [`NetError::RankKind`], [`NetError::ZeroRank`], [`NetError::RankTooLarge`], [`NetError::Clusters`].
pub fn replacement(
    layer: &str,
    dense: &Op,
    form: Form,
    rank: Rank,
) -> Result<Vec<(&'static str, Op)>, NetError> {
    if rank.parts().contains(&0) {
        return Err(NetError::ZeroRank { layer: layer.into() });
    }
    dense.check().map_err(|field| NetError::OpField {
        layer: layer.into(),
        op: dense.kind(),
        field,
    })?;
    check_form(layer, dense, form)?;
    match (dense, form, rank) {
        (Op::Conv(conv), Form::Cp3, Rank::One(rank)) => {
            check_cp_rank(layer, rank, &conv.group_shape())?;
            Ok(conv_parts(conv, rank, &[("spatial", &all_axes(conv))]))
        }
        (Op::Conv(conv), Form::Cp4, Rank::One(rank)) => {
            check_cp_rank(layer, rank, &conv.group_shape())?;
            let axes: Vec<usize> = all_axes(conv);
            let spatial: Vec<(&'static str, &[usize])> =
                axis_suffixes(axes.len()).iter().copied().zip(axes.chunks(1)).collect();
            Ok(conv_parts(conv, rank, &spatial))
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
        (Op::Conv(conv), Form::Jaderberg1, Rank::One(rank)) => {
            let [out, _, rows, columns] = four(conv);
            // A slice [T/g, k₀, k₁] is a sum of so many terms.
            let max = (out * rows).min(out * columns).min(rows * columns);
            check_largest(layer, rank, max)?;
            let maps = conv.in_channels * rank;
            let vertical = conv.along(&[0], [conv.in_channels, maps], conv.in_channels);
            let horizontal = conv.along(&[1], [maps; 2], maps);
            let expand = pointwise(maps, conv.out_channels, conv, conv.bias);
            Ok(vec![
                ("vertical", Op::Conv(vertical)),
                ("horizontal", Op::Conv(horizontal)),
                (EXPAND, expand),
            ])
        }
        (Op::Conv(conv), Form::Jaderberg2, Rank::One(rank)) => {
            let [out, inputs, rows, columns] = four(conv);
            check_largest(layer, rank, (inputs * rows).min(out * columns))?;
            let maps = conv.groups * rank;
            let vertical = conv.along(&[0], [conv.in_channels, maps], conv.groups);
            let horizontal = conv.along(&[1], [maps, conv.out_channels], conv.groups);
            let horizontal = Conv { bias: conv.bias, ..horizontal };
            Ok(vec![("vertical", Op::Conv(vertical)), ("horizontal", Op::Conv(horizontal))])
        }
        (Op::Conv(conv), Form::Decoupled, Rank::One(rank)) => {
            let taps: usize = conv.kernel.iter().product();
            check_largest(layer, rank, (conv.in_channels / conv.groups).min(taps))?;
            let maps = rank * conv.out_channels;
            let spatial = Conv { in_channels: maps, groups: conv.out_channels, ..conv.clone() };
            let reduce = pointwise(conv.in_channels, maps, conv, false);
            Ok(vec![(REDUCE, reduce), ("spatial", Op::Conv(spatial))])
        }
        (Op::Conv(conv), Form::Jaderberg1Shared, Rank::One(rank)) => {
            shared_basis::parts(layer, conv, rank)
        }
        (Op::Conv(conv), Form::Denton, Rank::Three(rank)) => blocks::terms(layer, conv, rank),
        (Op::Conv(conv), Form::DentonSvd, Rank::Four(rank)) => blocks::cores(layer, conv, rank),
        (Op::Conv(conv), Form::Monochromatic, Rank::One(rank)) => colours::parts(layer, conv, rank),
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
        (Op::Conv(conv), Form::Jaderberg1 | Form::Jaderberg2 | Form::Jaderberg1Shared)
            if conv.kernel.len() != 2 =>
        {
            mismatch("it is written for two spatial axes; use cp3")
        }
        (Op::Conv(conv), Form::Jaderberg1Shared) if conv.groups > 1 => {
            mismatch("one basis for all input channels is written for one group; use jaderberg1")
        }
        (Op::Conv(conv), Form::Monochromatic) if conv.groups > 1 => {
            mismatch("colours mix all input channels, in one group; use decoupled")
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
    check_largest(layer, rank, shape.iter().product())
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

fn check_largest(layer: &str, rank: usize, max: usize) -> Result<(), NetError> {
    if rank > max { Err(NetError::RankTooLarge { layer: layer.into(), rank, max }) } else { Ok(()) }
}

/// `[T/g, S/g, k₀, k₁]`; of a convolution over two axes, which was checked.
fn four(conv: &Conv) -> [usize; 4] {
    let shape = conv.group_shape();
    [0, 1, 2, 3].map(|axis| shape.get(axis).copied().unwrap_or(1))
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
    let mut parts = vec![(REDUCE, reduce(conv, rank))];
    for &(suffix, axes) in spatial {
        parts.push((suffix, depthwise(conv, rank, axes)));
    }
    parts.push((EXPAND, expand(conv, rank)));
    parts
}

/// 1×1 to the input rank, the core with the dense layer's kernel and geometry, 1×1 from the output rank.
fn tucker_parts(conv: &Conv, [out, input]: [usize; 2]) -> Vec<(&'static str, Op)> {
    let core = core(conv, [out, input]);
    vec![(REDUCE, reduce(conv, input)), ("core", Op::Conv(core)), (EXPAND, expand(conv, out))]
}

/// The dense layer's convolution between `input` and `out` channels of each group.
fn core(conv: &Conv, [out, input]: [usize; 2]) -> Conv {
    let groups = conv.groups;
    Conv { in_channels: groups * input, out_channels: groups * out, bias: false, ..conv.clone() }
}

/// Tucker-2 with the core as 1×1, depthwise, 1×1.
fn tkd_cpd_parts(conv: &Conv, [out, input]: [usize; 2], rank: usize) -> Vec<(&'static str, Op)> {
    let core = core(conv, [out, input]);
    vec![
        (REDUCE, reduce(conv, input)),
        ("core_reduce", reduce(&core, rank)),
        ("spatial", depthwise(&core, rank, &all_axes(conv))),
        ("core_expand", expand(&core, rank)),
        (EXPAND, expand(conv, out)),
    ]
}

/// The two parts of a 1×1 convolution: stride and padding at the first, which then computes no more than is used.
fn pointwise_parts(conv: &Conv, rank: usize) -> Vec<(&'static str, Op)> {
    let reduce = Conv {
        out_channels: conv.groups * rank,
        bias: false,
        // The kernel has one tap, so that nothing else than its stride and padding is left of the geometry.
        ..conv.clone()
    };
    vec![(REDUCE, Op::Conv(reduce)), (EXPAND, expand(conv, rank))]
}

fn linear_parts(linear: &Linear, rank: usize) -> Vec<(&'static str, Op)> {
    let reduce = Linear { in_features: linear.in_features, out_features: rank, bias: false };
    let expand = Linear { in_features: rank, out_features: linear.out_features, bias: linear.bias };
    vec![(REDUCE, Op::Linear(reduce)), (EXPAND, Op::Linear(expand))]
}

fn reduce(conv: &Conv, rank: usize) -> Op {
    pointwise(conv.in_channels, conv.groups * rank, conv, false)
}

fn expand(conv: &Conv, rank: usize) -> Op {
    pointwise(conv.groups * rank, conv.out_channels, conv, conv.bias)
}

/// A 1×1 convolution over as many axes and in as many groups as `conv`.
fn pointwise(in_channels: usize, out_channels: usize, conv: &Conv, bias: bool) -> Op {
    Op::Conv(Conv { bias, ..conv.along(&[], [in_channels, out_channels], conv.groups) })
}

/// The depthwise convolution along `axes`; the other axes have one tap and unit geometry.
fn depthwise(conv: &Conv, rank: usize, axes: &[usize]) -> Op {
    let channels = conv.groups * rank;
    Op::Conv(conv.along(axes, [channels; 2], channels))
}
