//! What a detector finds in a picture, and how far two of them agree.

use anyhow::{Context as _, Result, bail};
use cp_ort::Tensor;
use ndarray::{ArrayD, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

/// How the outputs of a model are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Finds {
    /// One output `[1, cells, 5 + classes]`: center and the logarithm of the size relative to the cell's stride, objectness, classes; the
    /// cells row by row, the finest grid first. Ge et al. (2021), arXiv 2107.08430.
    Yolox { strides: Vec<usize>, score: f32, overlap: f32 },
    /// Boxes `[1, N, 4]` by two corners, and scores `[1, N, classes]` of which the first is the background.
    Corners { boxes: String, scores: String, score: f32, overlap: f32 },
    /// One output, a map of probabilities.
    Map { threshold: f32 },
}

/// What is found.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    Boxes(Vec<Detection>),
    Pixels(Vec<bool>),
}

/// A box by its corners, x before y.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Detection {
    corners: [f32; 4],
    class: usize,
    score: f32,
}

/// Over several pictures: what both found, and what one of them found.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Agreement {
    both: usize,
    dense: usize,
    compressed: usize,
    /// F1 of matched boxes, or the intersection over the union of two maps.
    pub(super) value: f64,
}

/// Boxes are matched from this overlap on.
const MATCHED: f32 = 0.5;

impl Finds {
    /// What the outputs of one picture of `height` and `width` pixels say.
    pub(super) fn read(&self, outputs: &[(String, Tensor)], size: [usize; 2]) -> Result<Found> {
        let named = |name: &str| -> Result<ArrayD<f32>> {
            let found = outputs.iter().find(|(known, _)| known == name);
            let (_, tensor) = found.with_context(|| format!("the model has no output '{name}'"))?;
            tensor.as_f32().cloned().with_context(|| format!("the output '{name}' is no float32"))
        };
        let only = || -> Result<ArrayD<f32>> {
            match outputs {
                [(name, _)] => named(name),
                _ => bail!("the model has {} outputs, one is expected", outputs.len()),
            }
        };
        let matrix = |array: ArrayD<f32>| -> Result<ndarray::Array2<f32>> {
            let shape = array.shape().to_vec();
            let array = array.index_axis_move(Axis(0), 0).into_dimensionality();
            array.with_context(|| format!("an output of shape {shape:?} is no list"))
        };
        Ok(match self {
            Finds::Map { threshold } => {
                Found::Pixels(only()?.iter().map(|value| value > threshold).collect())
            }
            Finds::Yolox { strides, score, overlap } => {
                let rows = matrix(only()?)?;
                Found::Boxes(suppressed(yolox(rows.view(), strides, size, *score)?, *overlap))
            }
            Finds::Corners { boxes, scores, score, overlap } => {
                let (boxes, scores) = (matrix(named(boxes)?)?, matrix(named(scores)?)?);
                let mut found = Vec::new();
                for (corners, scores) in boxes.rows().into_iter().zip(scores.rows()) {
                    for (class, &value) in scores.iter().enumerate().skip(1) {
                        if value > *score {
                            let corners = [corners[0], corners[1], corners[2], corners[3]];
                            found.push(Detection { corners, class, score: value });
                        }
                    }
                }
                Found::Boxes(suppressed(found, *overlap))
            }
        })
    }

    /// What the agreement is called.
    pub(super) fn measure(&self) -> &'static str {
        match self {
            Finds::Map { .. } => "intersection over union of the maps",
            _ => "F1 of the boxes",
        }
    }
}

fn yolox(
    rows: ArrayView2<'_, f32>,
    strides: &[usize],
    [height, width]: [usize; 2],
    least: f32,
) -> Result<Vec<Detection>> {
    let cells = strides.iter().flat_map(|&stride| {
        let columns = width / stride;
        (0..height / stride).flat_map(move |y| (0..columns).map(move |x| (x, y, stride)))
    });
    let cells: Vec<(usize, usize, usize)> = cells.collect();
    if cells.len() != rows.nrows() || rows.ncols() < 6 {
        bail!("the output has the shape {:?}, {} cells are expected", rows.shape(), cells.len());
    }
    let mut found = Vec::new();
    for (row, (x, y, stride)) in rows.rows().into_iter().zip(cells) {
        let classes = row.iter().enumerate().skip(5);
        let Some((class, value)) = classes.max_by(|a, b| a.1.total_cmp(b.1)) else { continue };
        let score = row[4] * value;
        if score > least {
            let stride = stride as f32;
            let center = [(row[0] + x as f32) * stride, (row[1] + y as f32) * stride];
            let half = [row[2].exp() * stride / 2.0, row[3].exp() * stride / 2.0];
            let corners = [
                center[0] - half[0],
                center[1] - half[1],
                center[0] + half[0],
                center[1] + half[1],
            ];
            found.push(Detection { corners, class: class - 5, score });
        }
    }
    Ok(found)
}

/// The best of boxes of one class that overlap by more than `most`.
fn suppressed(mut all: Vec<Detection>, most: f32) -> Vec<Detection> {
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Detection> = Vec::new();
    for one in all {
        let covered = |other: &Detection| {
            other.class == one.class && overlap(&other.corners, &one.corners) > most
        };
        if !kept.iter().any(covered) {
            kept.push(one);
        }
    }
    kept
}

/// Intersection over union.
fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let area = |c: &[f32; 4]| (c[2] - c[0]).max(0.0) * (c[3] - c[1]).max(0.0);
    let both = [a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])];
    let both = area(&both);
    let union = area(a) + area(b) - both;
    if union > 0.0 { both / union } else { 0.0 }
}

impl Agreement {
    /// Adds a picture.
    pub(super) fn add(&mut self, dense: &Found, compressed: &Found) {
        match (dense, compressed) {
            (Found::Pixels(dense), Found::Pixels(compressed)) => {
                let count = |of: &dyn Fn(bool, bool) -> bool| {
                    dense.iter().zip(compressed).filter(|(a, b)| of(**a, **b)).count()
                };
                self.both += count(&|a, b| a && b);
                self.dense += count(&|a, _| a);
                self.compressed += count(&|_, b| b);
                let union = self.dense + self.compressed - self.both;
                self.value = share(self.both, union);
            }
            (Found::Boxes(dense), Found::Boxes(compressed)) => {
                self.dense += dense.len();
                self.compressed += compressed.len();
                self.both += matched(dense, compressed);
                self.value = share(2 * self.both, self.dense + self.compressed);
            }
            // Both are read in the same way.
            _ => {}
        }
    }

    /// Things that the dense model found.
    pub(super) fn found(&self) -> usize {
        self.dense
    }
}

/// Two models that find nothing agree.
fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

/// Boxes of the compressed model, the surest first, each with the box of the dense one that it overlaps most and that is free.
fn matched(dense: &[Detection], compressed: &[Detection]) -> usize {
    let mut free: Vec<&Detection> = dense.iter().collect();
    let mut count = 0;
    for one in compressed {
        let overlaps = free
            .iter()
            .enumerate()
            .filter(|(_, other)| other.class == one.class)
            .map(|(at, other)| (at, overlap(&other.corners, &one.corners)));
        if let Some((at, found)) = overlaps.max_by(|a, b| a.1.total_cmp(&b.1))
            && found >= MATCHED
        {
            free.remove(at);
            count += 1;
        }
    }
    count
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test fails by panicking; the counts are exact"
)]
mod tests {
    use ndarray::{Array2, arr3};

    use super::*;

    fn detection(corners: [f32; 4], class: usize, score: f32) -> Detection {
        Detection { corners, class, score }
    }

    #[test]
    fn cells_become_boxes() {
        // A 16×16 picture: four cells of stride 8, one of stride 16.
        let mut rows = Array2::zeros((5, 7));
        rows.row_mut(3).assign(&ndarray::arr1(&[0.5, 0.5, 0.0, 2.0_f32.ln(), 0.9, 0.1, 0.8]));
        let found = yolox(rows.view(), &[8, 16], [16, 16], 0.3).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].class, 1);
        for (a, b) in found[0].corners.iter().zip([8.0, 4.0, 16.0, 20.0]) {
            assert!((a - b).abs() < 1e-4, "{found:?}");
        }
        assert!(yolox(rows.view(), &[8], [16, 16], 0.3).is_err());
    }

    #[test]
    fn boxes_of_one_class_are_suppressed_and_matched() {
        let a = detection([0.0, 0.0, 10.0, 10.0], 0, 0.9);
        let near = detection([0.0, 0.0, 10.0, 9.0], 0, 0.8);
        let other = Detection { class: 1, ..near };
        assert_eq!(suppressed(vec![near, a, other], 0.5), [a, other]);
        let mut agreement = Agreement::default();
        agreement.add(&Found::Boxes(vec![a, other]), &Found::Boxes(vec![near]));
        assert_eq!((agreement.found(), agreement.value), (2, 2.0 / 3.0));
        // A box is matched once.
        let mut agreement = Agreement::default();
        agreement.add(&Found::Boxes(vec![a]), &Found::Boxes(vec![a, near]));
        assert_eq!(agreement.value, 2.0 / 3.0);
    }

    #[test]
    fn maps_and_corners_are_read() {
        let map = Finds::Map { threshold: 0.3 };
        let outputs = vec![("p".to_owned(), Tensor::from(arr3(&[[[0.1_f32, 0.4]]]).into_dyn()))];
        let found = map.read(&outputs, [1, 2]).unwrap();
        assert_eq!(found, Found::Pixels(vec![false, true]));
        let mut agreement = Agreement::default();
        agreement.add(&found, &Found::Pixels(vec![true, true]));
        assert_eq!(agreement.value, 0.5);
        let corners =
            Finds::Corners { boxes: "b".into(), scores: "s".into(), score: 0.7, overlap: 0.3 };
        let boxes = arr3(&[[[0.0_f32, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]]).into_dyn();
        let scores = arr3(&[[[0.9_f32, 0.1], [0.2, 0.8]]]).into_dyn();
        let outputs = vec![("b".to_owned(), boxes.into()), ("s".to_owned(), scores.into())];
        let expected = Found::Boxes(vec![detection([0.5, 0.5, 1.0, 1.0], 1, 0.8)]);
        assert_eq!(corners.read(&outputs, [1, 1]).unwrap(), expected);
        assert!(corners.read(&outputs[..1], [1, 1]).is_err());
    }
}
