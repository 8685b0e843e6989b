//! [`Padding`] of the windows of convolutions and poolings.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::spec::BadField;

/// What is put around the spatial axes of a map, before and behind each.
///
/// In files: a number an axis (`[1, 1]`, the same on both sides), a pair an axis (`[[0, 1], [1, 1]]`, before and behind),
/// `"same"` or `"same_lower"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Padding {
    /// So many values before and behind each spatial axis.
    Each(Vec<[usize; 2]>),
    /// As much as gives ⌈size / stride⌉ outputs; where that is odd, one more behind (TensorFlow, ONNX `SAME_UPPER`).
    Same,
    /// The same with one more before (ONNX `SAME_LOWER`).
    SameLower,
}

impl Padding {
    /// None around `axes` axes.
    pub fn none(axes: usize) -> Self {
        Padding::Each(vec![[0; 2]; axes])
    }

    /// The same before and behind each axis.
    pub fn symmetric(sizes: impl AsRef<[usize]>) -> Self {
        Padding::Each(sizes.as_ref().iter().map(|&size| [size; 2]).collect())
    }

    /// Before and behind `axis` of `size` values, under a window that reaches over `reach` values (`dilation · (kernel − 1) + 1`)
    /// and moves by `stride`.
    pub fn amounts(&self, axis: usize, size: usize, reach: usize, stride: usize) -> [usize; 2] {
        let all = match self {
            Padding::Each(pairs) => return pairs[axis],
            Padding::Same | Padding::SameLower => {
                ((size.div_ceil(stride) - 1) * stride + reach).saturating_sub(size)
            }
        };
        let (less, more) = (all / 2, all.div_ceil(2));
        if *self == Padding::Same { [less, more] } else { [more, less] }
    }

    /// The padding of some of the axes, none on the others.
    pub(crate) fn only(&self, axes: &[usize]) -> Self {
        match self {
            Padding::Each(pairs) => Padding::Each(
                (0..pairs.len())
                    .map(|axis| if axes.contains(&axis) { pairs[axis] } else { [0; 2] })
                    .collect(),
            ),
            // A window of one value is padded by nothing.
            same => same.clone(),
        }
    }

    /// Whether nothing is ever put around.
    pub fn is_none(&self) -> bool {
        matches!(self, Padding::Each(pairs) if pairs.iter().all(|pair| *pair == [0; 2]))
    }

    /// Where it was left open: none around `axes` axes.
    pub(super) fn complete(&mut self, axes: usize) {
        if matches!(self, Padding::Each(pairs) if pairs.is_empty()) {
            *self = Self::none(axes);
        }
    }

    pub(super) fn check(&self, axes: usize) -> Result<(), BadField> {
        match self {
            Padding::Each(pairs) if pairs.len() != axes => {
                Err(self.wrong(format!("{axes} values, one per spatial axis")))
            }
            Padding::Each(_) => Ok(()),
            Padding::Same | Padding::SameLower => Ok(()),
        }
    }

    /// A pooling window must not lie in the padding alone, as torch has it too: at most half of the window on each side.
    pub(super) fn check_pool(&self, kernel: &[usize]) -> Result<(), BadField> {
        match self {
            Padding::Each(pairs) => {
                let fits = pairs
                    .iter()
                    .zip(kernel)
                    .all(|(pair, kernel)| pair.iter().all(|size| *size <= kernel / 2));
                if fits { Ok(()) } else { Err(self.wrong("at most half of the window".into())) }
            }
            Padding::Same | Padding::SameLower => Ok(()),
        }
    }

    /// Whether the amounts are written out.
    pub(super) fn is_explicit(&self) -> bool {
        matches!(self, Padding::Each(_))
    }

    /// The error of a padding that is not what was expected.
    pub(super) fn wrong(&self, expected: String) -> BadField {
        let got = self.numbers().to_string().replace(',', ", ");
        BadField { field: "padding", got, expected }
    }

    /// As in a file.
    fn numbers(&self) -> serde_json::Value {
        match self {
            Padding::Same => "same".into(),
            Padding::SameLower => "same_lower".into(),
            Padding::Each(pairs) if pairs.iter().all(|[before, behind]| before == behind) => {
                pairs.iter().map(|[size, _]| *size).collect::<Vec<_>>().into()
            }
            Padding::Each(pairs) => {
                pairs.iter().map(|pair| pair.to_vec()).collect::<Vec<_>>().into()
            }
        }
    }
}

impl Default for Padding {
    /// Left open.
    fn default() -> Self {
        Padding::Each(Vec::new())
    }
}

impl Serialize for Padding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.numbers().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Padding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum File {
            Word(String),
            Axes(Vec<Sides>),
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Sides {
            Both(usize),
            Each([usize; 2]),
        }
        match File::deserialize(deserializer) {
            Ok(File::Word(word)) if word == "same" => Ok(Padding::Same),
            Ok(File::Word(word)) if word == "same_lower" => Ok(Padding::SameLower),
            Ok(File::Axes(axes)) => Ok(Padding::Each(
                axes.into_iter()
                    .map(|sides| match sides {
                        Sides::Both(size) => [size; 2],
                        Sides::Each(pair) => pair,
                    })
                    .collect(),
            )),
            _ => Err(de::Error::custom(
                "padding is a number or a pair [before, behind] for each spatial axis, \"same\" or \"same_lower\"",
            )),
        }
    }
}

impl Padding {
    /// A random one of up to `most` values on each side.
    pub(super) fn sample(draw: &mut super::spec::Draw, axes: usize, most: usize) -> Self {
        match draw.size(0..=4) {
            0 => Padding::Same,
            1 => Padding::SameLower,
            2 => Padding::none(axes),
            3 => Padding::symmetric(draw.sizes(axes, 0..=most)),
            _ => Padding::Each(
                (0..axes).map(|_| [draw.size(0..=most), draw.size(0..=most)]).collect(),
            ),
        }
    }

    /// A random one that a pooling window of this size may have.
    pub(super) fn sample_pool(draw: &mut super::spec::Draw, kernel: &[usize]) -> Self {
        match draw.size(0..=3) {
            0 => Padding::Same,
            1 => Padding::none(kernel.len()),
            2 => Padding::symmetric(
                kernel.iter().map(|size| draw.size(0..=size / 2)).collect::<Vec<_>>(),
            ),
            _ => Padding::Each(
                kernel
                    .iter()
                    .map(|size| [draw.size(0..=size / 2), draw.size(0..=size / 2)])
                    .collect(),
            ),
        }
    }
}
