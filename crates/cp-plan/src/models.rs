//! [`Models`]: the CP models that a profile was measured with, for the decompositions of a plan to go on from.

use std::collections::BTreeMap;
use std::path::Path;

use cp_core::CpTensor;
use cp_net::{Form, write_atomic};
use ndarray::{Array1, Array2};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

use crate::error::PlanError;

/// CP models by layer, form and rank, one for each group of the layer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Models(BTreeMap<(String, Form), ByRank>);

/// By rank, one for each group.
type ByRank = BTreeMap<usize, Vec<CpTensor<f32>>>;

impl Models {
    /// Keeps the models of the groups of a layer.
    pub(crate) fn insert(
        &mut self,
        layer: &str,
        form: Form,
        rank: usize,
        groups: Vec<CpTensor<f32>>,
    ) {
        self.0.entry((layer.to_owned(), form)).or_default().insert(rank, groups);
    }

    /// All models of `other` too.
    pub(crate) fn extend(&mut self, other: Models) {
        for (key, ranks) in other.0 {
            self.0.entry(key).or_default().extend(ranks);
        }
    }

    /// The models of the largest rank up to `rank`.
    pub(crate) fn up_to(&self, layer: &str, form: Form, rank: usize) -> Option<&[CpTensor<f32>]> {
        let ranks = self.0.get(&(layer.to_owned(), form))?;
        ranks.range(..=rank).next_back().map(|(_, groups)| groups.as_slice())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes them to a safetensors file, atomically.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), PlanError> {
        let path = path.as_ref();
        let mut arrays: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        let bytes =
            |values: &mut dyn Iterator<Item = f32>| values.flat_map(f32::to_le_bytes).collect();
        for ((layer, form), ranks) in &self.0 {
            for (rank, groups) in ranks {
                for (group, cp) in groups.iter().enumerate() {
                    let name = |part: String| format!("{form}/{rank}/{group}/{part}/{layer}");
                    arrays.push((
                        name("weights".into()),
                        vec![cp.weights.len()],
                        bytes(&mut cp.weights.iter().copied()),
                    ));
                    for (mode, factor) in cp.factors.iter().enumerate() {
                        let values = bytes(&mut factor.iter().copied());
                        arrays.push((name(mode.to_string()), factor.shape().to_vec(), values));
                    }
                }
            }
        }
        let wrong = |error: safetensors::SafeTensorError| unreadable(path, &error.to_string());
        let views = arrays
            .iter()
            .map(|(name, shape, bytes)| {
                let view = TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(wrong)?;
                Ok((name.as_str(), view))
            })
            .collect::<Result<Vec<_>, PlanError>>()?;
        let file = serialize(views, None).map_err(wrong)?;
        write_atomic(path, &file).map_err(|source| PlanError::Io { path: path.into(), source })
    }

    /// Reads what [`Models::save`] has written.
    ///
    /// # Errors
    /// Where it cannot be read, or holds something else.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, PlanError> {
        let path = path.as_ref();
        let file =
            std::fs::read(path).map_err(|source| PlanError::Io { path: path.into(), source })?;
        let arrays = SafeTensors::deserialize(&file)
            .map_err(|error| unreadable(path, &error.to_string()))?;
        let wrong = || unreadable(path, "it does not hold models of a profile");
        // (layer, form, rank, group) → weights and factors by mode.
        type Parts = (Option<Array1<f32>>, BTreeMap<usize, Array2<f32>>);
        let mut parts: BTreeMap<(String, Form, usize, usize), Parts> = BTreeMap::new();
        for (name, view) in arrays.tensors() {
            let [form, rank, group, part, layer] =
                name.splitn(5, '/').collect::<Vec<_>>().try_into().map_err(|_| wrong())?;
            let form: Form = form.parse().map_err(|_| wrong())?;
            let number = |text: &str| text.parse::<usize>().map_err(|_| wrong());
            let key = (layer.to_owned(), form, number(rank)?, number(group)?);
            let values: Vec<f32> = view
                .data()
                .chunks_exact(4)
                .filter_map(|bytes| Some(f32::from_le_bytes(bytes.try_into().ok()?)))
                .collect();
            let entry = parts.entry(key).or_default();
            match (part, view.shape()) {
                ("weights", [_]) => entry.0 = Some(Array1::from_vec(values)),
                (mode, &[rows, columns]) => {
                    let factor =
                        Array2::from_shape_vec([rows, columns], values).map_err(|_| wrong())?;
                    entry.1.insert(number(mode)?, factor);
                }
                _ => return Err(wrong()),
            }
        }
        let mut models = Models::default();
        for ((layer, form, rank, _), (weights, factors)) in parts {
            let cp = CpTensor::new(weights.ok_or_else(wrong)?, factors.into_values().collect())
                .map_err(|_| wrong())?;
            models.0.entry((layer, form)).or_default().entry(rank).or_default().push(cp);
        }
        Ok(models)
    }
}

fn unreadable(path: &Path, what: &str) -> PlanError {
    let source = std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    PlanError::Io { path: path.into(), source }
}
