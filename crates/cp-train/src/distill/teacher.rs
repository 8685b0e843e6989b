//! [`Teacher`]: the dense network, and the loss of a student beside it.

use cp_torch::tch::{Kind, Tensor};
use cp_torch::{Executor, Mode};

use super::Distillation;
use crate::error::TrainError;
use crate::scores::{Scores, cross_entropy};

/// A teacher, and which of its outputs are compared with which of the student's.
pub(crate) struct Teacher<'a> {
    model: &'a Executor,
    config: Distillation,
    /// Names of dense layers in the teacher and of the last parts of the same layers in the student.
    taps: Vec<(String, String)>,
    /// Where the logits of the two are.
    scores: [Scores; 2],
}

impl<'a> Teacher<'a> {
    /// # Errors
    /// Where the two have different inputs or outputs.
    pub(crate) fn new(
        model: &'a Executor,
        student: &Executor,
        config: Distillation,
    ) -> Result<Self, TrainError> {
        config.check()?;
        let (dense, small) = (model.architecture(), student.architecture());
        if dense.inputs != small.inputs {
            return Err(TrainError::Teacher { what: "the input" });
        }
        let output = |arch: &cp_net::Architecture| arch.output_shape(arch.input_shapes());
        if output(dense)? != output(small)? {
            return Err(TrainError::Teacher { what: "the output" });
        }
        let mut taps = Vec::new();
        if config.layers > 0.0 {
            for (layer, record) in &small.factorized {
                if let (Some(last), true) = (record.parts.last(), dense.node(layer).is_ok()) {
                    taps.push((layer.clone(), last.clone()));
                }
            }
        }
        Ok(Self { model, config, taps, scores: [Scores::of(dense), Scores::of(small)] })
    }

    /// The student's logits for `x`, `[B, K]`, and its loss against labels and teacher.
    pub(crate) fn loss(
        &self,
        student: &Executor,
        x: &Tensor,
        labels: &Tensor,
        label_smoothing: f64,
    ) -> Result<(Tensor, Tensor), TrainError> {
        let (theirs, ours): (Vec<String>, Vec<String>) = self.taps.iter().cloned().unzip();
        let [of_teacher, of_student] = &self.scores;
        let (target, maps) =
            cp_torch::tch::no_grad(|| tapped(self.model, of_teacher, x, Mode::Eval, theirs))?;
        let (logits, outputs) = tapped(student, of_student, x, Mode::Train, ours)?;
        let Distillation { weight, temperature, layers } = self.config;
        let hard = cross_entropy(&logits, labels, label_smoothing)?;
        let soft = |logits: &Tensor| -> Result<Tensor, TrainError> {
            Ok(logits.f_div_scalar(temperature)?.f_log_softmax(-1, Kind::Float)?)
        };
        let (p, q) = (soft(&logits)?, soft(&target)?);
        // Σ q (ln q − ln p) per example, the mean over the batch.
        let divergence = q.f_exp()?.f_mul(&q.f_sub(&p)?)?.f_sum(Kind::Float)?;
        let scale = weight * temperature * temperature / labels.size()[0].max(1) as f64;
        let mut loss = hard.f_mul_scalar(1.0 - weight)?.f_add(&divergence.f_mul_scalar(scale)?)?;
        for (ours, theirs) in outputs.iter().zip(&maps) {
            let change = ours.f_sub(theirs)?.f_square()?.f_sum(Kind::Float)?;
            let size = theirs.f_square()?.f_sum(Kind::Float)?.f_add_scalar(1e-12)?;
            let part = change.f_div(&size)?.f_mul_scalar(layers / self.taps.len() as f64)?;
            loss = loss.f_add(&part)?;
        }
        Ok((logits, loss))
    }
}

/// The logits of `model`, and the values `taps`.
fn tapped(
    model: &Executor,
    scores: &Scores,
    x: &Tensor,
    mode: Mode,
    mut taps: Vec<String>,
) -> Result<(Tensor, Vec<Tensor>), TrainError> {
    let layers = taps.len();
    taps.extend_from_slice(scores.taps());
    let (output, mut values) = model.forward_tapped(x, mode, &taps)?;
    let before = values.split_off(layers.min(values.len()));
    Ok((scores.logits_of(output, before.first())?, values))
}
