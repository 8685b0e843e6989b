//! Ops that ONNX has under a name of its own and without settings, and those that do nothing.

use cp_net::{
    Abs, Add, Div, Dropout, Erf, Exp, Floor, Identity, Log, Max, Min, Mul, Neg, Pow, Reciprocal,
    Relu, Sigmoid, Softplus, Sqrt, Sub, Tanh,
};

use crate::export::Export;
use crate::export::writer::Site;

macro_rules! unary {
    ($($name:ident)*) => {
        $(impl Export for $name {
            fn export(&self, at: &mut Site<'_, '_>) {
                at.finish(stringify!($name), &[&at.input()], Vec::new());
            }
        })*
    };
}

unary! { Abs Erf Exp Floor Identity Log Neg Reciprocal Relu Sigmoid Softplus Sqrt Tanh }

/// Dropout is for training; the node stays, so that its name does.
impl Export for Dropout {
    fn export(&self, at: &mut Site<'_, '_>) {
        at.finish("Identity", &[&at.input()], Vec::new());
    }
}

macro_rules! broadcast {
    ($($name:ident)*) => {
        $(impl Export for $name {
            fn export(&self, at: &mut Site<'_, '_>) {
                let inputs = at.aligned();
                let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
                at.finish(stringify!($name), &inputs, Vec::new());
            }
        })*
    };
}

/// `Add` takes two, `Sum` any number.
impl Export for Add {
    fn export(&self, at: &mut Site<'_, '_>) {
        let inputs = at.aligned();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let op = if inputs.len() == 2 { "Add" } else { "Sum" };
        at.finish(op, &inputs, Vec::new());
    }
}

broadcast! { Sub Mul Div Pow Max Min }
