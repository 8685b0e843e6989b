//! Convolution whose kernel is a CP model.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::conv::{Conv, yes};
use super::factored::{
    AXES, Contraction, Factored, TAPS, Way, WayPart, axis_suffixes, check, dense_of, eval,
    fewest_macs, methods_of_dense,
};
use super::padding::Padding;
use super::spec::{
    BadField, Draw, Mismatch, OpSpec, ParamRole, ParamSpec, Sample, Shape, Start, product_start,
};

/// A convolution whose parameters are the factors of a CP model of its kernel,
/// K\[t, s, i, j, …\] = Σᵣ λᵣ A⁽ᵀ⁾\[t, r\] A⁽ˢ⁾\[s, r\] A⁽⁰⁾\[i, r\] A⁽¹⁾\[j, r\] …: they are what is trained.
///
/// It runs as one convolution with the kernel put together, as 1×1, depthwise and 1×1, or with a depthwise convolution for every axis,
/// whichever needs the fewest multiply-adds.
///
/// Sources: Wang, Guo & Yue (arXiv 2005.13746), equation (4), "CPAC-Conv", without λ and bias; Kossaifi et al. (arXiv 1906.06196), §3.2,
/// for any number of axes, with λ.
///
/// # Shapes
/// `output`: `[T, R]`; `input`: `[S, R]`; `axis0`, …: `[k₀, R]`, …; `weights` (λ): `[R]`; `bias`: `[T]`; input `[S, H₀, …]`; output
/// `[T, H′₀, …]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpConv {
    /// Input channels S; those of the input where it is left out of a file.
    #[serde(default)]
    pub in_channels: usize,
    /// Output channels T.
    pub out_channels: usize,
    /// Kernel size of each spatial axis, vertical first.
    pub kernel: Vec<usize>,
    /// Number of terms R.
    pub rank: usize,
    /// Step of the kernel along each axis, in pixels; 1 where it is left out of a file.
    #[serde(default)]
    pub stride: Vec<usize>,
    /// Zeros around the map; none where it is left out of a file.
    #[serde(default)]
    pub padding: Padding,
    /// Distance between kernel taps along each axis, in pixels; 1 where it is left out of a file.
    #[serde(default)]
    pub dilation: Vec<usize>,
    /// Whether λ is a parameter of its own; without it, it is spread over the factors.
    #[serde(default)]
    pub weights: bool,
    /// Whether the layer adds a bias.
    #[serde(default = "yes")]
    pub bias: bool,
}

impl CpConv {
    /// The factors of rank `rank` of a kernel of the convolution `dense`, whose groups do not count.
    pub fn of(dense: &Conv, rank: usize) -> Self {
        let Conv { in_channels, out_channels, kernel, stride, padding, dilation, bias, .. } =
            dense.clone();
        let weights = false;
        Self { in_channels, out_channels, kernel, rank, stride, padding, dilation, weights, bias }
    }

    fn axes(&self) -> usize {
        self.kernel.len()
    }

    /// The factors of the axes, with their letters: those of the taps, and r.
    fn spatial(&self) -> Vec<(&'static str, String)> {
        AXES.iter()
            .zip(TAPS)
            .take(self.axes())
            .map(|(slot, tap)| (*slot, format!("{tap}r")))
            .collect()
    }

    /// `output`, with λ.
    fn last(&self) -> Vec<(&'static str, String)> {
        let mut last = vec![("output", "tr".to_owned())];
        if self.weights {
            last.push(("weights", "r".to_owned()));
        }
        last
    }

    fn part(
        suffix: &'static str,
        conv: Conv,
        factors: &[(&'static str, String)],
        result: &str,
    ) -> WayPart {
        let factors = factors.iter().map(|(slot, letters)| (*slot, letters.as_str()));
        WayPart { suffix, conv, kernel: Contraction::new(factors, result) }
    }
}

dense_of!(CpConv);

impl OpSpec for CpConv {
    fn params(&self) -> Vec<ParamSpec> {
        let rank = self.rank;
        let start = product_start(rank, self.axes() + 2);
        let matrix = |slot, rows| ParamSpec {
            slot,
            shape: vec![rows, rank],
            role: ParamRole::Weight,
            start,
        };
        let mut specs =
            vec![matrix("output", self.out_channels), matrix("input", self.in_channels)];
        specs.extend(AXES.iter().zip(&self.kernel).map(|(slot, &taps)| matrix(slot, taps)));
        if self.weights {
            let start = Start::Constant(1.0);
            specs.push(ParamSpec {
                slot: "weights",
                shape: vec![rank],
                role: ParamRole::Weight,
                start,
            });
        }
        if self.bias {
            specs.push(ParamSpec::bias(self.out_channels));
        }
        specs
    }

    fn check(&self) -> Result<(), BadField> {
        check(&self.dense(), &[self.rank], "rank")
    }

    methods_of_dense!();

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let Sample { op, inputs, values } = Conv::sample(draw);
        let dense = Conv { groups: 1, ..op };
        let op = Self { weights: draw.flag(), ..Self::of(&dense, draw.size(1..=4)) };
        Sample { op, inputs, values }
    }
}

impl Factored for CpConv {
    fn ways(&self) -> Vec<Way> {
        let (dense, rank) = (self.dense(), self.rank);
        let axes: Vec<usize> = (0..self.axes()).collect();
        let taps: String = TAPS[..axes.len()].concat();
        let mut all = self.last();
        all.push(("input", "sr".to_owned()));
        all.extend(self.spatial());
        let merged = Self::part("", dense.clone(), &all, &format!("ts{taps}"));
        let reduce = || {
            let conv = dense.along(&[], [dense.in_channels, rank], 1);
            Self::part("reduce", conv, &[("input", "sr".to_owned())], "rs")
        };
        let expand = || {
            let conv = dense.along(&[], [rank, dense.out_channels], 1);
            Self::part("expand", Conv { bias: self.bias, ..conv }, &self.last(), "tr")
        };
        let depthwise = |suffix, axes: &[usize]| {
            let conv = dense.along(axes, [rank; 2], rank);
            let factors: Vec<_> = axes.iter().map(|&axis| self.spatial()[axis].clone()).collect();
            let taps: String = axes.iter().map(|&axis| TAPS[axis]).collect();
            Self::part(suffix, conv, &factors, &format!("r{taps}"))
        };
        let mut ways = vec![
            Way { name: "merged", parts: vec![merged] },
            Way { name: "cp3", parts: vec![reduce(), depthwise("spatial", &axes), expand()] },
        ];
        if axes.len() > 1 {
            let each = axis_suffixes(axes.len()).iter().zip(&axes);
            let mut parts = vec![reduce()];
            parts.extend(each.map(|(suffix, axis)| depthwise(suffix, &[*axis])));
            parts.push(expand());
            ways.push(Way { name: "cp4", parts });
        }
        ways
    }
}
