//! Convolution whose kernel is a tensor train.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::conv::{Conv, yes};
use super::factored::{
    AXES, Contraction, Factored, TAPS, Way, WayPart, axis_suffixes, check, dense_of, eval,
    fewest_macs, methods_of_dense,
};
use super::padding::Padding;
use super::spec::{
    BadField, Draw, Mismatch, OpSpec, ParamRole, ParamSpec, Sample, Shape, demand, product_start,
};

/// Letters of the ranks from one core to the next.
const RANKS: [&str; 4] = ["u", "v", "w", "x"];

/// A convolution whose parameters are the cores of a tensor train of its kernel, with the input channels first and the output channels
/// last: K\[t, s, i, j\] = Σ A⁽ˢ⁾\[s, u\] A⁽⁰⁾\[u, i, v\] A⁽¹⁾\[v, j, w\] A⁽ᵀ⁾\[w, t\].
///
/// It runs as one convolution with the kernel put together, or as 1×1, a convolution along every axis, and 1×1, whichever needs fewer
/// multiply-adds.
///
/// Sources: Oseledets (2011), definition (1.3); Kossaifi et al. (arXiv 1906.06196), whose `FactorizedConv` has the modes in this order.
///
/// # Shapes
/// `input`: `[S, R₀]`; `axis0`, …: `[R₀, k₀, R₁]`, …; `output`: `[Rₙ, T]`; `bias`: `[T]`; input `[S, H₀, …]`; output `[T, H′₀, …]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TtConv {
    /// Input channels S; those of the input where it is left out of a file.
    #[serde(default)]
    pub in_channels: usize,
    /// Output channels T.
    pub out_channels: usize,
    /// Kernel size of each spatial axis, vertical first.
    pub kernel: Vec<usize>,
    /// The ranks from one core to the next: one more than there are spatial axes.
    pub ranks: Vec<usize>,
    /// Step of the kernel along each axis, in pixels; 1 where it is left out of a file.
    #[serde(default)]
    pub stride: Vec<usize>,
    /// Zeros around the map; none where it is left out of a file.
    #[serde(default)]
    pub padding: Padding,
    /// Distance between kernel taps along each axis, in pixels; 1 where it is left out of a file.
    #[serde(default)]
    pub dilation: Vec<usize>,
    /// Whether the layer adds a bias.
    #[serde(default = "yes")]
    pub bias: bool,
}

impl TtConv {
    /// The cores with `ranks` between them of a kernel of the convolution `dense`, whose groups do not count.
    pub fn of(dense: &Conv, ranks: impl Into<Vec<usize>>) -> Self {
        let Conv { in_channels, out_channels, kernel, stride, padding, dilation, bias, .. } =
            dense.clone();
        let ranks = ranks.into();
        Self { in_channels, out_channels, kernel, ranks, stride, padding, dilation, bias }
    }
}

dense_of!(TtConv);

impl OpSpec for TtConv {
    fn params(&self) -> Vec<ParamSpec> {
        let terms = self.ranks.iter().fold(1, |terms: usize, &rank| terms.saturating_mul(rank));
        let start = product_start(terms, self.kernel.len() + 2);
        let weight = |slot, shape| ParamSpec { slot, shape, role: ParamRole::Weight, start };
        let rank = |axis: usize| self.ranks.get(axis).copied().unwrap_or(0);
        let mut specs = vec![weight("input", vec![self.in_channels, rank(0)])];
        let axes = AXES.iter().zip(&self.kernel).enumerate();
        specs.extend(
            axes.map(|(axis, (slot, &taps))| weight(slot, vec![rank(axis), taps, rank(axis + 1)])),
        );
        specs.push(weight("output", vec![rank(self.kernel.len()), self.out_channels]));
        if self.bias {
            specs.push(ParamSpec::bias(self.out_channels));
        }
        specs
    }

    /// A rank is at most the number of values on either side of it, beyond which a train says nothing more.
    fn check(&self) -> Result<(), BadField> {
        check(&self.dense(), &self.ranks, "ranks")?;
        let mut sizes = vec![self.in_channels];
        sizes.extend(&self.kernel);
        sizes.push(self.out_channels);
        let product =
            |sizes: &[usize]| sizes.iter().fold(1, |all: usize, &size| all.saturating_mul(size));
        let most: Vec<usize> = (1..sizes.len())
            .map(|cut| product(&sizes[..cut]).min(product(&sizes[cut..])))
            .collect();
        let fits = self.ranks.len() == most.len()
            && self.ranks.iter().zip(&most).all(|(rank, most)| rank <= most);
        demand(fits, "ranks", &self.ranks, format!("{} numbers of at most {most:?}", most.len()))
    }

    methods_of_dense!();

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let Sample { op, inputs, values } = Conv::sample(draw);
        let dense = Conv { groups: 1, ..op };
        let mut sizes = vec![dense.in_channels];
        sizes.extend(&dense.kernel);
        sizes.push(dense.out_channels);
        let ranks: Vec<usize> = (1..sizes.len())
            .map(|cut| {
                let [front, back] =
                    [&sizes[..cut], &sizes[cut..]].map(|sizes| sizes.iter().product());
                draw.size(1..=std::cmp::min::<usize>(front, back).min(4))
            })
            .collect();
        Sample { op: Self::of(&dense, ranks), inputs, values }
    }
}

impl Factored for TtConv {
    fn ways(&self) -> Vec<Way> {
        let dense = self.dense();
        let axes = self.kernel.len();
        let last = format!("{}t", RANKS[axes]);
        let cores: Vec<String> =
            (0..axes).map(|axis| [RANKS[axis], TAPS[axis], RANKS[axis + 1]].concat()).collect();
        let mut all = vec![("input", "su")];
        all.extend(AXES.iter().zip(&cores).map(|(slot, letters)| (*slot, letters.as_str())));
        all.push(("output", last.as_str()));
        let merged = WayPart {
            suffix: "",
            conv: dense.clone(),
            kernel: Contraction::new(all, &format!("ts{}", TAPS[..axes].concat())),
        };
        let mut parts = vec![WayPart {
            suffix: "reduce",
            conv: dense.along(&[], [dense.in_channels, self.ranks[0]], 1),
            kernel: Contraction::new([("input", "su")], "us"),
        }];
        for (axis, suffix) in axis_suffixes(axes).iter().enumerate() {
            let result = [RANKS[axis + 1], RANKS[axis], TAPS[axis]].concat();
            parts.push(WayPart {
                suffix,
                conv: dense.along(&[axis], [self.ranks[axis], self.ranks[axis + 1]], 1),
                kernel: Contraction::new([(AXES[axis], cores[axis].as_str())], &result),
            });
        }
        let expand = dense.along(&[], [self.ranks[axes], dense.out_channels], 1);
        parts.push(WayPart {
            suffix: "expand",
            conv: Conv { bias: self.bias, ..expand },
            kernel: Contraction::new([("output", last.as_str())], &format!("t{}", RANKS[axes])),
        });
        vec![Way { name: "merged", parts: vec![merged] }, Way { name: "train", parts }]
    }
}
