//! What the convolutions whose weights are factors have in common: the ways in which they run, each a sequence of ordinary convolutions
//! with kernels that are contractions of the factors.
//!
//! An engine that knows convolutions and tensor products thereby runs them all, and [`Network::folded`](crate::Network::folded) puts the
//! cheapest sequence in their place.

use ndarray::{ArrayD, ArrayViewD, IxDyn};

use super::conv::Conv;
use super::spec::{BadField, OpSpec, Shape, at_least, demand};

/// The methods of [`OpSpec`] that an op has by its dense convolution and its ways.
macro_rules! methods_of_dense {
    () => {
        fn complete(&mut self, inputs: &[&[usize]]) {
            let mut dense = self.dense();
            dense.complete(inputs);
            self.in_channels = dense.in_channels;
            self.stride = dense.stride;
            self.padding = dense.padding;
            self.dilation = dense.dilation;
        }

        fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
            self.dense().output(inputs)
        }

        /// Of the cheapest way.
        fn macs(&self, inputs: &[&[usize]], _: &[Shape]) -> usize {
            fewest_macs(&self.ways(), inputs[0])
        }

        fn eval(
            &self,
            inputs: &[ArrayViewD<'_, f32>],
            params: &[ArrayViewD<'_, f32>],
        ) -> Vec<ArrayD<f32>> {
            let slots: Vec<&str> = self.params().iter().map(|spec| spec.slot).collect();
            eval(&self.ways(), &slots, inputs, params)
        }
    };
}
pub(super) use methods_of_dense;

/// `dense`, of an op with the geometry of a convolution.
macro_rules! dense_of {
    ($name:ident) => {
        impl $name {
            /// The dense convolution with the kernel put together.
            pub fn dense(&self) -> Conv {
                Conv {
                    in_channels: self.in_channels,
                    out_channels: self.out_channels,
                    kernel: self.kernel.clone(),
                    stride: self.stride.clone(),
                    padding: self.padding.clone(),
                    dilation: self.dilation.clone(),
                    groups: 1,
                    bias: self.bias,
                }
            }
        }
    };
}
pub(super) use dense_of;

/// The slots of the factors of spatial axes.
pub(super) const AXES: [&str; 3] = ["axis0", "axis1", "axis2"];

/// Letters of the taps of spatial axes in a [`Contraction`].
pub(super) const TAPS: [&str; 3] = ["a", "b", "c"];

/// A convolution whose weights are factors.
pub trait Factored: OpSpec {
    /// The sequences of convolutions that it may run as; the first is a single one. Its settings are checked.
    fn ways(&self) -> Vec<Way>;
}

/// A sequence of convolutions that gives what an op with factors gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// What the literature calls it.
    pub name: &'static str,
    /// From the first to the last, which has the bias.
    pub parts: Vec<WayPart>,
}

/// One convolution of a [`Way`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayPart {
    /// What its name ends in, where the sequence becomes nodes: `reduce`, `vertical`, …; empty where it is the only one.
    pub suffix: &'static str,
    /// Its settings.
    pub conv: Conv,
    /// Its kernel.
    pub kernel: Contraction,
}

/// A product of factors, summed over the letters that the result does not have, in Einstein's notation: `sr,ar,tr->tsa`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contraction {
    /// The slots of the factors.
    pub slots: Vec<&'static str>,
    /// The letters of the factors' axes, those of each apart.
    pub letters: Vec<String>,
    /// The letters of the result's axes.
    pub result: String,
}

impl Contraction {
    /// Of `(slot, letters)`.
    pub(super) fn new<'a>(
        factors: impl IntoIterator<Item = (&'static str, &'a str)>,
        result: &str,
    ) -> Self {
        let (slots, letters) =
            factors.into_iter().map(|(slot, letters)| (slot, letters.to_owned())).unzip();
        Self { slots, letters, result: result.to_owned() }
    }

    /// As torch's and ONNX's `einsum` take it.
    pub fn equation(&self) -> String {
        format!("{}->{}", self.letters.join(","), self.result)
    }

    /// The letters, each once: first those of the result.
    fn all(&self) -> Vec<char> {
        let mut all: Vec<char> = self.result.chars().collect();
        for letter in self.letters.iter().flat_map(|letters| letters.chars()) {
            if !all.contains(&letter) {
                all.push(letter);
            }
        }
        all
    }

    /// Multiplications, where nothing is summed before everything is multiplied.
    ///
    /// # Shapes
    /// `shapes`: those of the factors.
    pub fn cost(&self, shapes: &[&[usize]]) -> usize {
        if self.slots.len() < 2 {
            return 0;
        }
        let sizes = self.all().into_iter().map(|letter| self.size(letter, shapes));
        sizes.fold(self.slots.len() - 1, usize::saturating_mul)
    }

    /// The size of the axes with this letter; they are equal in the factors of a checked op.
    fn size(&self, letter: char, shapes: &[&[usize]]) -> usize {
        let mut sizes =
            self.letters.iter().zip(shapes).filter_map(|(letters, shape)| {
                letters.chars().zip(*shape).find(|(l, _)| *l == letter)
            });
        sizes.next().map_or(1, |(_, &size)| size)
    }

    /// By the definition, in double precision.
    ///
    /// # Shapes
    /// `factors`: in the order of [`slots`](Contraction::slots); result: as its letters say.
    ///
    /// # Panics
    /// Where there are fewer factors than slots.
    pub fn eval(&self, factors: &[ArrayViewD<'_, f32>]) -> ArrayD<f64> {
        let shapes: Vec<&[usize]> = factors.iter().map(|factor| factor.shape()).collect();
        let all = self.all();
        let sizes: Vec<usize> = all.iter().map(|&letter| self.size(letter, &shapes)).collect();
        let kept = self.result.chars().count();
        // Where the axes of each factor stand among all letters.
        let places: Vec<Vec<usize>> = self
            .letters
            .iter()
            .map(|letters| {
                let place = |letter| all.iter().position(|&known| known == letter);
                letters.chars().filter_map(place).collect()
            })
            .collect();
        // One row of factors at a time, so that no index is looked up again.
        let factors: Vec<Vec<f64>> = factors
            .iter()
            .map(|factor| factor.iter().map(|&value| f64::from(value)).collect())
            .collect();
        let strides: Vec<Vec<usize>> = places
            .iter()
            .zip(&shapes)
            .map(|(places, shape)| {
                let mut strides = vec![0; all.len()];
                let mut stride = 1;
                for (&place, &size) in places.iter().zip(*shape).rev() {
                    strides[place] = stride;
                    stride *= size;
                }
                strides
            })
            .collect();
        let summed: usize = sizes[kept..].iter().product();
        let mut at = vec![0; all.len()];
        let mut offsets = vec![0; factors.len()];
        let mut next = || {
            let product: f64 =
                factors.iter().zip(&offsets).map(|(factor, &offset)| factor[offset]).product();
            // The last letter runs fastest.
            for letter in (0..at.len()).rev() {
                at[letter] += 1;
                offsets
                    .iter_mut()
                    .zip(&strides)
                    .for_each(|(offset, stride)| *offset += stride[letter]);
                if at[letter] < sizes[letter] {
                    break;
                }
                at[letter] = 0;
                let back = sizes[letter];
                offsets
                    .iter_mut()
                    .zip(&strides)
                    .for_each(|(offset, stride)| *offset -= stride[letter] * back);
            }
            product
        };
        let kept = &sizes[..kept];
        let values = (0..kept.iter().product()).map(|_| (0..summed).map(|_| next()).sum());
        ArrayD::from_shape_vec(IxDyn(kept), values.collect())
            .unwrap_or_else(|error| unreachable!("as many values as the shape has: {error}"))
    }
}

impl Way {
    /// Multiply-adds for one example of shape `input`, kernels not counted.
    pub fn macs(&self, input: &[usize]) -> usize {
        let mut shape: Shape = input.to_vec();
        let mut macs = 0_usize;
        for part in &self.parts {
            // The op has accepted the input, and every part then fits.
            let Ok(outputs) = part.conv.output(&[&shape]) else { return usize::MAX };
            macs = macs.saturating_add(part.conv.macs(&[&shape], &outputs));
            shape = outputs.into_iter().next().unwrap_or_default();
        }
        macs
    }

    /// The same for `batch` examples and the kernels.
    ///
    /// # Shapes
    /// `factor`: gives the shape of the factor in a slot.
    pub fn cost(
        &self,
        input: &[usize],
        batch: usize,
        factor: impl Fn(&str) -> Vec<usize>,
    ) -> usize {
        let kernels = self.parts.iter().map(|part| {
            let shapes: Vec<Vec<usize>> =
                part.kernel.slots.iter().map(|slot| factor(slot)).collect();
            let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
            part.kernel.cost(&shapes)
        });
        kernels.fold(self.macs(input).saturating_mul(batch), usize::saturating_add)
    }
}

/// The way with the fewest multiply-adds for an example of shape `input`; the first of several that have as few.
///
/// # Panics
/// If `ways` is empty.
pub(super) fn fewest_macs(ways: &[Way], input: &[usize]) -> usize {
    ways.iter().map(|way| way.macs(input)).min().expect("an op with factors has a way to run")
}

/// The names of parts along one of `count` spatial axes.
pub(crate) fn axis_suffixes(count: usize) -> &'static [&'static str] {
    match count {
        1 => &["spatial"],
        2 => &["vertical", "horizontal"],
        _ => &["depth", "vertical", "horizontal"],
    }
}

/// What is asked of the settings of an op with factors: those of its dense convolution, and at most three spatial axes.
pub(super) fn check(dense: &Conv, ranks: &[usize], field: &'static str) -> Result<(), BadField> {
    dense.check()?;
    let axes = dense.kernel.len();
    demand(axes <= AXES.len(), "kernel", &dense.kernel, "one to three spatial axes")?;
    for &rank in ranks {
        at_least(field, rank, 1)?;
    }
    Ok(())
}

/// What the ways of an op give for inputs and parameters: the kernel of its dense convolution, and that convolution.
///
/// `ways[0]` is the one with a single convolution.
pub(super) fn eval(
    ways: &[Way],
    slots: &[&'static str],
    inputs: &[ArrayViewD<'_, f32>],
    params: &[ArrayViewD<'_, f32>],
) -> Vec<ArrayD<f32>> {
    let part = &ways[0].parts[0];
    let of = |slot: &str| slots.iter().position(|known| *known == slot);
    let factors: Vec<ArrayViewD<'_, f32>> = part
        .kernel
        .slots
        .iter()
        .filter_map(|slot| of(slot))
        .map(|index| params[index].view())
        .collect();
    let kernel = part.kernel.eval(&factors).mapv(|value| value as f32);
    let mut arrays = vec![kernel.view()];
    arrays.extend(of("bias").map(|index| params[index].view()));
    part.conv.eval(inputs, &arrays)
}

#[cfg(test)]
mod tests {
    use ndarray::{arr1, arr2};

    use super::*;

    #[test]
    fn a_contraction_is_a_sum_of_products() {
        let product = Contraction::new([("input", "sr"), ("weights", "r"), ("output", "tr")], "ts");
        assert_eq!(product.equation(), "sr,r,tr->ts");
        let [s, t] =
            [arr2(&[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), arr2(&[[1.0, -1.0], [0.5, 2.0]])];
        let weights = arr1(&[2.0_f32, 3.0]);
        let views = [s.view().into_dyn(), weights.view().into_dyn(), t.view().into_dyn()];
        let expected = (&t * &weights).dot(&s.t()).mapv(f64::from);
        assert_eq!(product.eval(&views), expected.into_dyn());
        // T S R sums of products of three.
        assert_eq!(product.cost(&[&[3, 2], &[2], &[2, 2]]), 2 * 2 * 3 * 2);
        let turned = Contraction::new([("input", "sr")], "rs");
        assert_eq!(turned.eval(&views[..1]), s.t().mapv(f64::from).into_dyn());
        assert_eq!(turned.cost(&[&[3, 2]]), 0);
    }
}
