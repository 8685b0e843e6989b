//! Convolution whose kernel is a Tucker model.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::conv::{Conv, yes};
use super::factored::{
    AXES, Contraction, Factored, TAPS, Way, WayPart, check, dense_of, eval, fewest_macs,
    methods_of_dense,
};
use super::padding::Padding;
use super::spec::{
    BadField, Draw, Mismatch, OpSpec, ParamRole, ParamSpec, Sample, Shape, demand, product_start,
};

/// Letters of the ranks of spatial axes.
const RANKS: [&str; 3] = ["x", "y", "z"];

/// A convolution whose parameters are the core and the factors of a Tucker model of its kernel,
/// K\[t, s, i, …\] = Σ G\[u, v, x, …\] A⁽ᵀ⁾\[t, u\] A⁽ˢ⁾\[s, v\] A⁽⁰⁾\[i, x\] …: they are what is trained.
///
/// It runs as one convolution with the kernel put together, or as 1×1, a convolution between the ranks of the channels, and 1×1 (the
/// bottleneck of He et al. 2016), whichever needs fewer multiply-adds.
///
/// Source: Kossaifi et al. (arXiv 1906.06196), §3.2.
///
/// # Shapes
/// `core`: `[R_T, R_S, R₀, …]`; `output`: `[T, R_T]`; `input`: `[S, R_S]`; `axis0`, …: `[k₀, R₀]`, …; `bias`: `[T]`; input `[S, H₀, …]`;
/// output `[T, H′₀, …]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuckerConv {
    /// Input channels S; those of the input where it is left out of a file.
    #[serde(default)]
    pub in_channels: usize,
    /// Output channels T.
    pub out_channels: usize,
    /// Kernel size of each spatial axis, vertical first.
    pub kernel: Vec<usize>,
    /// The sizes of the core: of output and input channels, and of each spatial axis.
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

impl TuckerConv {
    /// The core of sizes `ranks` and the factors of a kernel of the convolution `dense`, whose groups do not count.
    pub fn of(dense: &Conv, ranks: impl Into<Vec<usize>>) -> Self {
        let Conv { in_channels, out_channels, kernel, stride, padding, dilation, bias, .. } =
            dense.clone();
        let ranks = ranks.into();
        Self { in_channels, out_channels, kernel, ranks, stride, padding, dilation, bias }
    }
}

dense_of!(TuckerConv);

impl OpSpec for TuckerConv {
    fn params(&self) -> Vec<ParamSpec> {
        let terms = self.ranks.iter().fold(1, |terms: usize, &rank| terms.saturating_mul(rank));
        let start = product_start(terms, self.kernel.len() + 2);
        let weight = |slot, shape| ParamSpec { slot, shape, role: ParamRole::Weight, start };
        let rank = |axis: usize| self.ranks.get(axis).copied().unwrap_or(0);
        let mut specs = vec![
            weight("core", self.ranks.clone()),
            weight("output", vec![self.out_channels, rank(0)]),
            weight("input", vec![self.in_channels, rank(1)]),
        ];
        let axes = AXES.iter().zip(&self.kernel).enumerate();
        specs.extend(axes.map(|(axis, (slot, &taps))| weight(slot, vec![taps, rank(axis + 2)])));
        if self.bias {
            specs.push(ParamSpec::bias(self.out_channels));
        }
        specs
    }

    fn check(&self) -> Result<(), BadField> {
        check(&self.dense(), &self.ranks, "ranks")?;
        let mut sizes = vec![self.out_channels, self.in_channels];
        sizes.extend(&self.kernel);
        let fits = self.ranks.len() == sizes.len()
            && self.ranks.iter().zip(&sizes).all(|(rank, size)| rank <= size);
        demand(fits, "ranks", &self.ranks, format!("{} numbers of at most {sizes:?}", sizes.len()))
    }

    methods_of_dense!();

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let Sample { op, inputs, values } = Conv::sample(draw);
        let dense = Conv { groups: 1, ..op };
        let mut ranks = vec![draw.size(1..=dense.out_channels), draw.size(1..=dense.in_channels)];
        ranks.extend(dense.kernel.iter().map(|&taps| draw.size(1..=taps)));
        Sample { op: Self::of(&dense, ranks), inputs, values }
    }
}

impl Factored for TuckerConv {
    fn ways(&self) -> Vec<Way> {
        let dense = self.dense();
        let axes: Vec<usize> = (0..self.kernel.len()).collect();
        let taps = TAPS[..axes.len()].concat();
        let core = format!("uv{}", RANKS[..axes.len()].concat());
        let spatial: Vec<String> = TAPS
            .iter()
            .zip(RANKS)
            .take(axes.len())
            .map(|(tap, rank)| format!("{tap}{rank}"))
            .collect();
        let mut inner = vec![("core", core.as_str())];
        inner.extend(AXES.iter().zip(&spatial).map(|(slot, letters)| (*slot, letters.as_str())));
        let all = [("output", "tu"), ("input", "sv")].into_iter().chain(inner.iter().copied());
        let merged = WayPart {
            suffix: "",
            conv: dense.clone(),
            kernel: Contraction::new(all, &format!("ts{taps}")),
        };
        let [outer, between] = [self.ranks[0], self.ranks[1]];
        let pointwise = |suffix, channels, bias, slot, letters, result| WayPart {
            suffix,
            conv: Conv { bias, ..dense.along(&[], channels, 1) },
            kernel: Contraction::new([(slot, letters)], result),
        };
        let reduce = pointwise("reduce", [dense.in_channels, between], false, "input", "sv", "vs");
        let middle = WayPart {
            suffix: "core",
            conv: dense.along(&axes, [between, outer], 1),
            kernel: Contraction::new(inner, &format!("uv{taps}")),
        };
        let expand =
            pointwise("expand", [outer, dense.out_channels], self.bias, "output", "tu", "tu");
        vec![
            Way { name: "merged", parts: vec![merged] },
            Way { name: "tucker2", parts: vec![reduce, middle, expand] },
        ]
    }
}
