//! Functions of one value, applied to every value alike.

use tch::{TchError, Tensor};

use super::{Forward, Run, simple};

impl Forward for cp_net::Relu {
    /// max(x, 0), written over the input where the run allows it.
    fn forward(&self, inputs: &[&Tensor], _: &[Tensor], run: Run) -> Result<Vec<Tensor>, TchError> {
        let x = inputs[0];
        Ok(vec![if run.in_place { x.shallow_clone().f_relu_()? } else { x.f_relu()? }])
    }

    fn in_place(&self) -> bool {
        true
    }
}

simple! {
    Abs: |_, x, _, _| x.f_abs();
    Erf: |_, x, _, _| x.f_erf();
    Exp: |_, x, _, _| x.f_exp();
    Floor: |_, x, _, _| x.f_floor();
    HardSwish: |_, x, _, _| x.f_hardswish();
    Log: |_, x, _, _| x.f_log();
    Mish: |_, x, _, _| x.f_mish();
    Neg: |_, x, _, _| x.f_neg();
    Reciprocal: |_, x, _, _| x.f_reciprocal();
    Sigmoid: |_, x, _, _| x.f_sigmoid();
    Silu: |_, x, _, _| x.f_silu();
    Softplus: |_, x, _, _| x.f_softplus();
    Sqrt: |_, x, _, _| x.f_sqrt();
    Tanh: |_, x, _, _| x.f_tanh();
    Gelu: |op, x, _, _| x.f_gelu(if op.tanh { "tanh" } else { "none" });
    Clip: |op, x, _, _| clip(x, op.min, op.max);
    Elu: |op, x, _, _| elu(x, op.alpha);
    HardSigmoid: |op, x, _, _| hard_sigmoid(x, op.alpha, op.beta);
    // tch's leaky_relu has a slope of 0.01.
    LeakyRelu: |op, x, _, _| x.f_prelu(&Tensor::f_full([1], op.slope, (x.f_kind()?, x.device()))?);
    PRelu: |_, x, params, _| x.f_prelu(&params[0]);
}

/// x, not below `min` and not above `max`.
fn clip(x: &Tensor, min: Option<f64>, max: Option<f64>) -> Result<Tensor, TchError> {
    match (min, max) {
        (Some(min), Some(max)) => x.f_clamp(min, max),
        (Some(min), None) => x.f_clamp_min(min),
        (None, Some(max)) => x.f_clamp_max(max),
        (None, None) => Ok(x.shallow_clone()),
    }
}

/// x above 0, α (eˣ − 1) below.
fn elu(x: &Tensor, alpha: f64) -> Result<Tensor, TchError> {
    // tch's has an α of 1.
    if (alpha - 1.0).abs() < f64::EPSILON {
        return x.f_elu();
    }
    x.f_relu()?.f_add(&x.f_clamp_max(0.0)?.f_expm1()?.f_mul_scalar(alpha)?)
}

/// α x + β, not below 0 and not above 1.
fn hard_sigmoid(x: &Tensor, alpha: f64, beta: f64) -> Result<Tensor, TchError> {
    x.f_mul_scalar(alpha)?.f_add_scalar(beta)?.f_clamp(0.0, 1.0)
}
