//! Whether an architecture hangs together, and whether arrays fit it.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::NetError;
use crate::network::{Architecture, Channels, INPUT, Network, Node};
use crate::op::{Conv, Op, Pool};

impl Architecture {
    /// Checks that this is one network: distinct names, every input defined before its use, the number of inputs that each
    /// op takes, possible values in every op, one output (the last node), shapes that fit from the
    /// [`InputSpec`](crate::InputSpec) to the output, and records of factorized layers that agree with the nodes.
    ///
    /// # Errors
    /// The first thing wrong, naming the layer.
    pub fn check(&self) -> Result<(), NetError> {
        let Some(output) = self.nodes.last() else {
            return Err(NetError::Empty { name: self.name.clone() });
        };
        self.check_input()?;
        let mut defined = BTreeSet::from([INPUT]);
        let mut used = BTreeSet::new();
        for node in &self.nodes {
            node.check()?;
            for input in &node.inputs {
                if !defined.contains(input.as_str()) {
                    return Err(NetError::UndefinedInput {
                        layer: node.name.clone(),
                        input: input.clone(),
                        known: defined.iter().map(ToString::to_string).collect(),
                    });
                }
                used.insert(input.as_str());
            }
            let problem = match node.name.as_str() {
                "" => Some("empty"),
                INPUT => Some("reserved for the network's input"),
                name => (!defined.insert(name)).then_some("used more than once"),
            };
            if let Some(problem) = problem {
                return Err(NetError::Name { name: node.name.clone(), problem });
            }
        }
        let leaves = self.nodes.iter().take(self.nodes.len() - 1);
        if let Some(unused) = leaves.into_iter().find(|node| !used.contains(node.name.as_str())) {
            return Err(NetError::Unused {
                layer: unused.name.clone(),
                output: output.name.clone(),
            });
        }
        self.output_shapes(&self.input.shape)?;
        self.check_factorized()
    }

    fn check_input(&self) -> Result<(), NetError> {
        let input = &self.input;
        let wrong = |field, got: String, expected: String| {
            Err(NetError::InputField { name: self.name.clone(), field, got, expected })
        };
        let channels = match input.channels {
            Channels::Gray => 1,
            Channels::Rgb | Channels::Bgr => 3,
            Channels::Features => input.shape.first().copied().unwrap_or(0),
        };
        let normalized = if input.channels == Channels::Features { 0 } else { channels };
        if input.shape.first() != Some(&channels) || input.shape.contains(&0) {
            return wrong(
                "shape",
                format!("{:?}", input.shape),
                format!("[{channels}, …] with no size 0"),
            );
        }
        for (field, values) in [("mean", &input.mean), ("std", &input.std)] {
            if values.len() != normalized {
                return wrong(
                    field,
                    format!("{values:?}"),
                    format!("{normalized} values, one per channel of an image"),
                );
            }
        }
        if !input.mean.iter().chain([&input.scale]).all(|value| value.is_finite()) {
            return wrong(
                "mean or scale",
                format!("{:?}, {}", input.mean, input.scale),
                "finite numbers".into(),
            );
        }
        if !input.std.iter().all(|value| value.is_finite() && *value > 0.0) {
            return wrong("std", format!("{:?}", input.std), "positive numbers".into());
        }
        Ok(())
    }

    /// Names, shapes and roles of all arrays that this architecture asks for.
    pub fn params(&self) -> impl Iterator<Item = (String, crate::ParamSpec)> + '_ {
        self.nodes.iter().flat_map(|node| {
            node.op
                .params()
                .into_iter()
                .map(|spec| (format!("{}.{}", node.name, spec.suffix), spec))
        })
    }
}

impl Network {
    /// Checks that the arrays are exactly those that the architecture asks for.
    pub(crate) fn check_params(&self) -> Result<(), NetError> {
        let shapes =
            self.params.iter().map(|(name, array)| (name.as_str(), array.shape())).collect();
        check_shapes(&self.arch, &shapes)
    }
}

/// Compares names and shapes with those that `arch` asks for.
pub(crate) fn check_shapes(
    arch: &Architecture,
    given: &BTreeMap<&str, &[usize]>,
) -> Result<(), NetError> {
    let (mut missing, mut misshaped) = (Vec::new(), Vec::new());
    let mut wanted = BTreeSet::new();
    for (name, spec) in arch.params() {
        match given.get(name.as_str()) {
            None => missing.push(name.clone()),
            Some(shape) if **shape != spec.shape => {
                misshaped.push((name.clone(), spec.shape, shape.to_vec()))
            }
            Some(_) => {}
        }
        wanted.insert(name);
    }
    let unexpected: Vec<String> =
        given.keys().filter(|name| !wanted.contains(**name)).map(ToString::to_string).collect();
    if missing.is_empty() && unexpected.is_empty() && misshaped.is_empty() {
        return Ok(());
    }
    Err(NetError::ParamMismatch { name: arch.name.clone(), missing, unexpected, misshaped })
}

impl Node {
    /// Number of inputs and values of the op; names and shapes are the architecture's business.
    pub(crate) fn check(&self) -> Result<(), NetError> {
        let got = self.inputs.len();
        let (expected, fits) = match self.op {
            Op::Add | Op::Concat => ("at least 2", got >= 2),
            _ => ("1", got == 1),
        };
        if !fits {
            return Err(NetError::Arity {
                layer: self.name.clone(),
                op: self.op.kind(),
                expected,
                got,
            });
        }
        check_values(&self.name, &self.op)
    }
}

/// Possible values in every field of `op`; what follows may divide and index by them.
pub(crate) fn check_values(layer: &str, op: &Op) -> Result<(), NetError> {
    check_op(op).map_err(|Wrong { field, got, expected }| NetError::OpField {
        layer: layer.into(),
        op: op.kind(),
        field,
        got,
        expected,
    })
}

/// A field with an impossible value; the caller knows the layer's name.
struct Wrong {
    field: &'static str,
    got: String,
    expected: String,
}

fn demand(
    holds: bool,
    field: &'static str,
    got: impl std::fmt::Debug,
    expected: impl Into<String>,
) -> Result<(), Wrong> {
    if holds {
        Ok(())
    } else {
        Err(Wrong { field, got: format!("{got:?}"), expected: expected.into() })
    }
}

/// `values` has one entry per axis, none of them 0 where `positive`.
fn per_axis(
    values: &[usize],
    axes: usize,
    positive: bool,
    field: &'static str,
) -> Result<(), Wrong> {
    let what = if positive { "positive value" } else { "value" };
    let fits = values.len() == axes && !(positive && values.contains(&0));
    demand(fits, field, values, format!("{axes} {what}s, one per spatial axis"))
}

fn check_op(op: &Op) -> Result<(), Wrong> {
    match op {
        Op::Conv(conv) => check_conv(conv),
        Op::Linear(linear) => {
            demand(linear.in_features > 0, "in_features", linear.in_features, "at least 1")?;
            demand(linear.out_features > 0, "out_features", linear.out_features, "at least 1")
        }
        Op::BatchNorm(norm) => {
            demand(norm.channels > 0, "channels", norm.channels, "at least 1")?;
            demand(norm.eps > 0.0 && norm.eps.is_finite(), "eps", norm.eps, "a positive number")?;
            demand(
                (0.0..=1.0).contains(&norm.momentum),
                "momentum",
                norm.momentum,
                "a number from 0 to 1",
            )
        }
        Op::Lrn(lrn) => {
            demand(lrn.size > 0, "size", lrn.size, "at least 1")?;
            demand(
                [lrn.alpha, lrn.beta, lrn.k].iter().all(|v| v.is_finite()),
                "alpha, beta, k",
                lrn,
                "finite numbers",
            )
        }
        Op::MaxPool(pool) | Op::AvgPool(pool) => check_pool(pool),
        Op::AdaptiveAvgPool { output } => per_axis(output, output.len().max(1), true, "output"),
        Op::Maxout { pieces } => demand(*pieces > 0, "pieces", pieces, "at least 1"),
        Op::Dropout { p } => demand((0.0..1.0).contains(p), "p", p, "a probability below 1"),
        Op::PadShortcut { stride, .. } => demand(*stride > 0, "stride", stride, "at least 1"),
        Op::Relu | Op::Add | Op::Concat | Op::Flatten | Op::Softmax => Ok(()),
    }
}

fn check_conv(conv: &Conv) -> Result<(), Wrong> {
    let axes = conv.kernel.len();
    per_axis(&conv.kernel, axes.max(1), true, "kernel")?;
    per_axis(&conv.geometry.stride, axes, true, "stride")?;
    per_axis(&conv.geometry.padding, axes, false, "padding")?;
    per_axis(&conv.geometry.dilation, axes, true, "dilation")?;
    let groups = conv.geometry.groups;
    demand(groups > 0, "groups", groups, "at least 1")?;
    for (field, channels) in
        [("in_channels", conv.in_channels), ("out_channels", conv.out_channels)]
    {
        let fits = channels > 0 && channels % groups == 0;
        demand(fits, field, channels, format!("a positive multiple of the {groups} groups"))?;
    }
    Ok(())
}

fn check_pool(pool: &Pool) -> Result<(), Wrong> {
    let axes = pool.kernel.len();
    per_axis(&pool.kernel, axes.max(1), true, "kernel")?;
    per_axis(&pool.stride, axes, true, "stride")?;
    per_axis(&pool.padding, axes, false, "padding")?;
    // torch refuses more, since a window could then lie in the padding alone.
    let fits =
        pool.padding.iter().zip(&pool.kernel).all(|(padding, kernel)| 2 * padding <= *kernel);
    demand(fits, "padding", &pool.padding, "at most half of the window")
}
