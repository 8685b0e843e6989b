//! The factorized layers alone, as modules for models that are written with tch. They call the same forward functions
//! as the executor.

use std::collections::BTreeMap;

use cp_core::{CpTensor, Svd};
use cp_net::{Architecture, Conv, Factors, Form, InputSpec, NetError, Network, Node, Op};
use ndarray::{ArrayD, ArrayView1};
use tch::{Tensor, nn};

use crate::TorchError;
use crate::convert::tensor_from_f32;
use crate::layout::Layout;
use crate::op::{conv, linear};

/// A convolution over two axes as the sequence that the CP decomposition of its kernel gives.
///
/// Three factors (CP-3): `reduce` 1×1 S→R, `spatial` kh×kw depthwise, `expand` 1×1 R→T. Four factors (CP-4): `reduce`,
/// `vertical` kh×1 depthwise, `horizontal` 1×kw depthwise, `expand`. There is no non-linearity between, and only
/// `expand` has a bias. The variables are named `reduce.weight` … `expand.bias` under the path given.
///
/// It computes channels-last, whatever the layout of its input (a channels-last input saves a copy): in the default layout the
/// depthwise convolutions eat up what the decomposition saves.
///
/// ```
/// use cp_core::{Als, Init, Solver};
/// use cp_net::{Conv, Padding};
/// use cp_torch::{CpConv2d, tch};
/// use tch::nn::Module;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let kernel = ndarray::Array4::from_shape_fn((8, 4, 3, 3), |(t, s, i, j)| ((t + 2 * s + 3 * i + 5 * j) % 7) as f32);
/// let cp = Als::new(6).init(Init::Random { seed: 1 }).decompose(kernel.view().into_dyn())?.cp;
///
/// let dense = Conv { padding: Padding::symmetric([1, 1]), bias: false, ..Conv::new(4, 8, [3, 3]) };
/// let variables = tch::nn::VarStore::new(tch::Device::Cpu);
/// let layer = CpConv2d::from_cp(&variables.root(), &dense, &[cp], None)?;
/// let x = tch::Tensor::ones([1, 4, 5, 5], (tch::Kind::Float, tch::Device::Cpu));
/// assert_eq!(layer.forward(&x).size(), [1, 8, 5, 5]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct CpConv2d {
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    weight: Tensor,
    bias: Option<Tensor>,
    conv: Conv,
}

impl CpConv2d {
    /// The layer that takes the place of `dense`, from the CP models of its kernel: one per group, of three or four factors.
    /// λ is folded in and the norms are balanced over the factors ([`CpTensor::balance`]).
    ///
    /// # Shapes
    /// `factors[g]`: a model of `[T/g, S/g, kh·kw]` or `[T/g, S/g, kh, kw]`, all of one rank; `bias`: `[T]`.
    ///
    /// # Errors
    /// Where the factors do not fit `dense`, or `dense` has other than two axes or a 1×1 kernel.
    pub fn from_cp<'a>(
        path: impl std::borrow::Borrow<nn::Path<'a>>,
        dense: &Conv,
        factors: &[CpTensor<f32>],
        bias: Option<ArrayView1<'_, f32>>,
    ) -> Result<Self, TorchError> {
        const LAYER: &str = "layer";
        let mismatch =
            |what, expected, got| NetError::Factors { layer: LAYER.into(), what, expected, got };
        let groups = dense.groups;
        let Some(first) = factors.first().filter(|_| factors.len() == groups) else {
            return Err(mismatch(
                "number of models (one per group)",
                vec![groups],
                vec![factors.len()],
            )
            .into());
        };
        let form = if first.order() == 3 { Form::Cp3 } else { Form::Cp4 };
        let dense = Conv { bias: bias.is_some(), ..dense.clone() };
        let mut shape = dense.group_shape();
        if form == Form::Cp3 {
            shape.splice(2.., [dense.kernel.iter().product()]);
        }
        for cp in factors {
            if cp.shape() != shape || cp.rank() != first.rank() {
                let (mut expected, mut got) = (shape, cp.shape());
                expected.push(first.rank());
                got.push(cp.rank());
                return Err(mismatch("shape and rank of a model", expected, got).into());
            }
        }
        // A network of this one layer, in which it is factorized.
        let mut map = vec![dense.in_channels];
        map.extend(
            dense.kernel.iter().zip(&dense.dilation).map(|(taps, step)| (taps - 1) * step + 1),
        );
        let mut params =
            BTreeMap::from([(format!("{LAYER}.weight"), ArrayD::zeros(dense.weight_shape()))]);
        if let Some(bias) = bias {
            params.insert(format!("{LAYER}.bias"), bias.to_owned().into_dyn());
        }
        let input = InputSpec::features(map);
        let node = Node::new(LAYER, dense, [input.name.clone()]);
        let mut net = Network::new(Architecture::new("CpConv2d", input, vec![node]), params)?;
        let factors: Vec<Factors> = factors
            .iter()
            .map(|cp| {
                let mut cp = cp.clone();
                cp.balance();
                // The rows of a part's weight are its output channels: T for `expand`, R for the others.
                let mut parts: Vec<_> = cp.factors[1..].iter().map(|f| f.t().to_owned()).collect();
                parts.extend(cp.factors.first().cloned());
                Factors::new(form, cp.rank(), parts)
            })
            .collect();
        net.put_factors(LAYER, &factors, 0.0)?;
        Self::from_network(path, &net, LAYER)
    }

    /// The factorized convolution `layer` of `net`.
    ///
    /// # Errors
    /// Where `layer` was not factorized into CP-3 or CP-4, or has other than two axes.
    pub fn from_network<'a>(
        path: impl std::borrow::Borrow<nn::Path<'a>>,
        net: &Network,
        layer: &str,
    ) -> Result<Self, TorchError> {
        let record = net.architecture().factorization(layer)?;
        let nodes =
            record.parts.iter().map(|part| net.node(part)).collect::<Result<Vec<_>, _>>()?;
        let wrong = || TorchError::NotFactorized {
            layer: layer.into(),
            expected: "CP-3 or CP-4 convolution over two axes",
        };
        if nodes.len() < 3 {
            return Err(wrong());
        }
        let mut parts = Vec::with_capacity(nodes.len());
        for node in nodes {
            let Op::Conv(conv) = &node.op else { return Err(wrong()) };
            if conv.kernel.len() != 2 {
                return Err(wrong());
            }
            let (weight, bias) = variables(path.borrow(), node, net.params())?;
            parts.push(Part { weight, bias, conv: conv.clone() });
        }
        Ok(Self { parts })
    }

    /// The rank R, all groups together.
    pub fn rank(&self) -> usize {
        self.parts.first().map_or(0, |reduce| reduce.weight.size()[0] as usize)
    }

    /// The convolutions one after the other.
    ///
    /// # Shapes
    /// `x`: `[B, S, H, W]`; result: `[B, T, H′, W′]`.
    ///
    /// # Errors
    /// Where `x` has another shape, kind or device than the layer needs.
    pub fn f_forward(&self, x: &Tensor) -> Result<Tensor, TorchError> {
        if x.dim() != 4 {
            return Err(tch::TchError::Shape(format!(
                "CpConv2d takes [B, S, H, W], got {:?}",
                x.size()
            ))
            .into());
        }
        let mut x = Layout::ChannelsLast.apply(x)?;
        for Part { weight, bias, conv } in &self.parts {
            x = conv::conv(&x, weight, bias.as_ref(), conv)?;
        }
        Ok(x)
    }
}

impl nn::Module for CpConv2d {
    /// As [`CpConv2d::f_forward`].
    ///
    /// # Panics
    /// Where that gives an error.
    fn forward(&self, x: &Tensor) -> Tensor {
        self.f_forward(x).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// A linear layer as two, in→R→out, by truncated SVD. The variables are named `reduce.weight`, `expand.weight` and
/// `expand.bias` under the path given.
#[derive(Debug)]
pub struct LowRankLinear {
    reduce: Tensor,
    expand: Tensor,
    bias: Option<Tensor>,
}

impl LowRankLinear {
    /// The two layers W ≈ (U√s)(√s Vᵀ).
    ///
    /// # Shapes
    /// `svd`: of W, `[out, in]`; `bias`: `[out]`.
    ///
    /// # Errors
    /// Where the bias has another length.
    pub fn from_svd<'a>(
        path: impl std::borrow::Borrow<nn::Path<'a>>,
        svd: &Svd<f32>,
        bias: Option<ArrayView1<'_, f32>>,
    ) -> Result<Self, TorchError> {
        let path = path.borrow();
        let (expand, reduce) = svd.balanced();
        if let Some(got) = bias.map(|bias| bias.len()).filter(|&got| got != expand.nrows()) {
            let (expected, got) = (vec![expand.nrows()], vec![got]);
            return Err(
                NetError::Factors { layer: "layer".into(), what: "bias", expected, got }.into()
            );
        }
        let copy = |part: &str, name: &str, array: ArrayD<f32>| -> Result<Tensor, TorchError> {
            Ok((path / part).f_var_copy(name, &tensor_from_f32(array.view())?)?)
        };
        Ok(Self {
            reduce: copy("reduce", "weight", reduce.into_dyn())?,
            expand: copy("expand", "weight", expand.into_dyn())?,
            bias: bias
                .map(|bias| copy("expand", "bias", bias.to_owned().into_dyn()))
                .transpose()?,
        })
    }

    /// The factorized linear layer `layer` of `net`.
    ///
    /// # Errors
    /// Where `layer` is no linear layer that was factorized.
    pub fn from_network<'a>(
        path: impl std::borrow::Borrow<nn::Path<'a>>,
        net: &Network,
        layer: &str,
    ) -> Result<Self, TorchError> {
        let path = path.borrow();
        let record = net.architecture().factorization(layer)?;
        let [reduce, expand] = &record.parts[..] else {
            return Err(TorchError::NotFactorized {
                layer: layer.into(),
                expected: "low-rank linear layer",
            });
        };
        let (reduce, expand) = (net.node(reduce)?, net.node(expand)?);
        if !matches!((&reduce.op, &expand.op), (Op::Linear(_), Op::Linear(_))) {
            return Err(TorchError::NotFactorized {
                layer: layer.into(),
                expected: "low-rank linear layer",
            });
        }
        let (reduce, _) = variables(path, reduce, net.params())?;
        let (expand, bias) = variables(path, expand, net.params())?;
        Ok(Self { reduce, expand, bias })
    }

    /// The rank R.
    pub fn rank(&self) -> usize {
        self.reduce.size()[0] as usize
    }

    /// One layer after the other.
    ///
    /// # Shapes
    /// `x`: `[B, in]`; result: `[B, out]`.
    ///
    /// # Errors
    /// Where `x` has another shape, kind or device than the layer needs.
    pub fn f_forward(&self, x: &Tensor) -> Result<Tensor, TorchError> {
        let reduced = linear::linear(x, &self.reduce, None)?;
        Ok(linear::linear(&reduced, &self.expand, self.bias.as_ref())?)
    }
}

impl nn::Module for LowRankLinear {
    /// As [`LowRankLinear::f_forward`].
    ///
    /// # Panics
    /// Where that gives an error.
    fn forward(&self, x: &Tensor) -> Tensor {
        self.f_forward(x).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Variables for weight and bias of a part, under the last component of its name.
fn variables(
    path: &nn::Path<'_>,
    part: &Node,
    arrays: &BTreeMap<String, ArrayD<f32>>,
) -> Result<(Tensor, Option<Tensor>), TorchError> {
    let path = path / part.name.rsplit('.').next().unwrap_or_default();
    let copy = |slot: &str| -> Result<Option<Tensor>, TorchError> {
        let Some(array) = arrays.get(&part.param(slot)) else { return Ok(None) };
        Ok(Some(path.f_var_copy(slot, &tensor_from_f32(array.view())?)?))
    };
    let weight = copy("weight")?.ok_or_else(|| NetError::UnknownParam {
        name: part.param("weight"),
        known: arrays.keys().cloned().collect(),
    })?;
    Ok((weight, copy("bias")?))
}
