//! Matrix products.

use cp_net::{Linear, MatMul};

use crate::export::Export;
use crate::export::writer::Site;
use crate::proto::attribute;

/// `Gemm` of vectors; with more axes in front, which `Gemm` does not take, `MatMul` and `Add`.
impl Export for Linear {
    fn export(&self, at: &mut Site<'_, '_>) {
        let input = at.input();
        if at.shape(0).len() == 1 {
            let weight = at.param("weight");
            at.kernel(&weight);
            let bias = self.bias.then(|| at.param("bias"));
            let mut inputs = vec![input.as_str(), &weight];
            inputs.extend(bias.as_deref());
            return at.finish("Gemm", &inputs, vec![attribute::int("transB", 1)]);
        }
        let turned = at.param_transposed("weight");
        at.kernel(&turned);
        if !self.bias {
            return at.finish("MatMul", &[&input, &turned], Vec::new());
        }
        let bias = at.param("bias");
        let product = at.emit_named("MatMul", "product", &[&input, &turned], Vec::new());
        at.finish("Add", &[&product, &bias], Vec::new());
    }
}

impl Export for MatMul {
    fn export(&self, at: &mut Site<'_, '_>) {
        let inputs = at.aligned();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        at.finish("MatMul", &inputs, Vec::new());
    }
}
