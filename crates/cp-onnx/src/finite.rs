//! [`Model::check_numbers`]: whether the weights of layers and normalizations are numbers.

use std::collections::BTreeSet;

use crate::error::OnnxError;
use crate::fold::constant;
use crate::layers::label;
use crate::model::Model;
use crate::proto::{model, node};

/// The ops whose constants have to be finite. Elsewhere infinity has its uses, as in masks.
const CHECKED: [&str; 5] = ["Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization"];

/// The ops that hand a NaN among their constants on to all that comes behind.
const ARITHMETIC: [&str; 9] = [
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "PRelu",
    "InstanceNormalization",
    "LayerNormalization",
    "GroupNormalization",
];

/// Where the variance stands among the inputs of a batch normalization.
const VARIANCE: usize = 4;

impl Model {
    /// Refuses weights, biases and statistics that are NaN or infinite, negative variances, and NaN among other numbers that values are
    /// reckoned with, in every scope.
    ///
    /// # Errors
    /// [`OnnxError::NoNumbers`] for the first; [`OnnxError::Quantized`].
    pub fn check_numbers(&self) -> Result<(), OnnxError> {
        let (scopes, _) = self.read()?;
        let mut seen = BTreeSet::new();
        for (index, scope) in scopes.all.iter().enumerate() {
            for (_, message) in scope.nodes() {
                let op = message.string(node::OP);
                let own = model::is_onnx_domain(&message.string(node::DOMAIN));
                let finite = CHECKED.contains(&op.as_str());
                if !own || !(finite || ARITHMETIC.contains(&op.as_str())) {
                    continue;
                }
                let variances = op == "BatchNormalization";
                for (slot, name) in message.strings(node::INPUTS).into_iter().enumerate() {
                    let Some(value) = scopes.resolve(index, &name) else { continue };
                    if !seen.insert((value.clone(), finite, variances && slot == VARIANCE)) {
                        continue;
                    }
                    // What is computed, or comes from outside, is not known here.
                    let Ok(found) = constant(&scopes, &value, self.folder()) else { continue };
                    let count =
                        |bad: fn(&f32) -> bool| found.array.iter().filter(|&x| bad(x)).count();
                    let wrong = match count(|x| !x.is_finite()) {
                        _ if !finite => (count(|x| x.is_nan()), "NaN"),
                        0 if variances && slot == VARIANCE => {
                            (count(|x| *x < 0.0), "negative variances")
                        }
                        count => (count, "NaN or infinite"),
                    };
                    if let (count @ 1.., what) = wrong {
                        let (path, node) = (self.path.clone(), label(message));
                        return Err(OnnxError::NoNumbers {
                            path,
                            node,
                            op,
                            value: name,
                            count,
                            what,
                        });
                    }
                }
            }
        }
        Ok(())
    }
}
