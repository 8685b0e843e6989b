//! Fully connected layers and products of matrices.

use cp_net::{Linear, MatMul};

use crate::program::call::{Call, Fail, Operand, Tensor, Weight, because};

/// `linear(input, weight, bias)`.
pub(super) fn linear(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let input = call.tensor("input")?;
    let Some(weight) = call.weight("weight")? else { return because("it has no weight") };
    let bias = call.weight("bias")?;
    emit(call, input, weight, bias)
}

/// `addmm(self, mat1, mat2, beta, alpha)`: self + mat1 · mat2.
pub(super) fn addmm(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let input = call.tensor("mat1")?;
    let bias = call.weight("self")?;
    for name in ["alpha", "beta"] {
        if call.float(name)?.is_some_and(|factor| (factor - 1.0).abs() > 0.0) {
            return because(format!("its '{name}' is not 1"));
        }
    }
    match call.turned("mat2")? {
        Some(weight) => emit(call, input, weight, bias),
        None => because("its second matrix is no weight of two axes"),
    }
}

/// `matmul(self, other)`, `mm(self, mat2)`, `bmm(self, mat2)`.
pub(super) fn matmul(call: &mut Call<'_, '_>, second: &str) -> Result<(), Fail> {
    let input = call.tensor("self")?;
    if let Some(weight) = call.turned(second)? {
        return emit(call, input, weight, None);
    }
    match call.operand(second)? {
        Some(Operand::Tensor(other)) if input.shape.len() == other.shape.len() => {
            if input.shape.len() < 3 {
                return because("it multiplies the batch axis");
            }
            call.emit(MatMul {}, vec![input.value, other.value])
        }
        _ => because("it multiplies values with different numbers of axes"),
    }
}

fn emit(
    call: &mut Call<'_, '_>,
    input: Tensor,
    weight: Weight,
    bias: Option<Weight>,
) -> Result<(), Fail> {
    let &[out_features, in_features] = weight.array.shape() else {
        return because("its weight has not two axes");
    };
    if input.shape.len() < 2 {
        return because("its input has no batch axis");
    }
    if bias.as_ref().is_some_and(|bias| bias.array.shape() != [out_features]) {
        return because("its bias has another number of values than the weight has rows");
    }
    let linear = Linear { in_features, out_features, bias: bias.is_some() };
    let bias = bias.map(|bias| ("bias", bias));
    call.layer(linear, input.value, [("weight", weight)].into_iter().chain(bias).collect())
}
