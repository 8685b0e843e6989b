//! Activations with settings, and those that older opsets do not have.

use std::f64::consts::{PI, SQRT_2};

use cp_net::{
    Clip, Elu, Gelu, HardSigmoid, HardSwish, LeakyRelu, LogSoftmax, Maxout, Mish, PRelu, Silu,
    Softmax,
};

use crate::export::Export;
use crate::export::writer::{Site, int};
use crate::proto::attribute;

impl Export for Clip {
    fn export(&self, at: &mut Site<'_, '_>) {
        let min = self.min.map(|min| at.scalar("min", min)).unwrap_or_default();
        let max = self.max.map(|max| at.scalar("max", max));
        let input = at.input();
        let mut inputs = vec![input.as_str(), &min];
        inputs.extend(max.as_deref());
        at.finish("Clip", &inputs, Vec::new());
    }
}

impl Export for Elu {
    fn export(&self, at: &mut Site<'_, '_>) {
        let alpha = attribute::float("alpha", self.alpha as f32);
        at.finish("Elu", &[&at.input()], vec![alpha]);
    }
}

impl Export for LeakyRelu {
    fn export(&self, at: &mut Site<'_, '_>) {
        let alpha = attribute::float("alpha", self.slope as f32);
        at.finish("LeakyRelu", &[&at.input()], vec![alpha]);
    }
}

impl Export for HardSigmoid {
    fn export(&self, at: &mut Site<'_, '_>) {
        let alpha = attribute::float("alpha", self.alpha as f32);
        let beta = attribute::float("beta", self.beta as f32);
        at.finish("HardSigmoid", &[&at.input()], vec![alpha, beta]);
    }
}

/// An op of its own since opset 14.
impl Export for HardSwish {
    fn export(&self, at: &mut Site<'_, '_>) {
        let x = at.input();
        if at.opset() >= 14 {
            return at.finish("HardSwish", &[&x], Vec::new());
        }
        let alpha = attribute::float("alpha", 1.0 / 6.0);
        let beta = attribute::float("beta", 0.5);
        let gate = at.emit("HardSigmoid", "gate", &[&x], vec![alpha, beta]);
        at.finish("Mul", &[&x, &gate], Vec::new());
    }
}

impl Export for Silu {
    fn export(&self, at: &mut Site<'_, '_>) {
        let x = at.input();
        let gate = at.emit("Sigmoid", "gate", &[&x], Vec::new());
        at.finish("Mul", &[&x, &gate], Vec::new());
    }
}

/// An op of its own since opset 18.
impl Export for Mish {
    fn export(&self, at: &mut Site<'_, '_>) {
        let x = at.input();
        if at.opset() >= 18 {
            return at.finish("Mish", &[&x], Vec::new());
        }
        let soft = at.emit("Softplus", "softplus", &[&x], Vec::new());
        let gate = at.emit("Tanh", "gate", &[&soft], Vec::new());
        at.finish("Mul", &[&x, &gate], Vec::new());
    }
}

/// An op of its own since opset 20; before, the formula, as PyTorch's exporter writes it.
impl Export for Gelu {
    fn export(&self, at: &mut Site<'_, '_>) {
        let x = at.input();
        if at.opset() >= 20 {
            let form = if self.tanh { "tanh" } else { "none" };
            return at.finish("Gelu", &[&x], vec![attribute::string("approximate", form)]);
        }
        let gate = if self.tanh {
            let square = at.emit("Mul", "square", &[&x, &x], Vec::new());
            let cube = at.emit("Mul", "cube", &[&square, &x], Vec::new());
            let factor = at.scalar("cubic", 0.044_715);
            let cubic = at.emit("Mul", "cubic_term", &[&cube, &factor], Vec::new());
            let sum = at.emit("Add", "sum", &[&x, &cubic], Vec::new());
            let scale = at.scalar("scale", (2.0 / PI).sqrt());
            let scaled = at.emit("Mul", "scaled", &[&sum, &scale], Vec::new());
            at.emit("Tanh", "tanh", &[&scaled], Vec::new())
        } else {
            let root = at.scalar("sqrt2", SQRT_2);
            let scaled = at.emit("Div", "scaled", &[&x, &root], Vec::new());
            at.emit("Erf", "erf", &[&scaled], Vec::new())
        };
        let one = at.scalar("one", 1.0);
        let gate = at.emit("Add", "gate", &[&gate, &one], Vec::new());
        let gated = at.emit("Mul", "gated", &[&x, &gate], Vec::new());
        let half = at.scalar("half", 0.5);
        at.finish("Mul", &[&gated, &half], Vec::new());
    }
}

impl Export for PRelu {
    fn export(&self, at: &mut Site<'_, '_>) {
        let slope = if self.channels == 1 { at.param("weight") } else { at.per_channel("weight") };
        at.finish("PRelu", &[&at.input(), &slope], Vec::new());
    }
}

impl Export for Softmax {
    fn export(&self, at: &mut Site<'_, '_>) {
        let axis = attribute::int("axis", int(self.axis) + 1);
        at.finish("Softmax", &[&at.input()], vec![axis]);
    }
}

impl Export for LogSoftmax {
    fn export(&self, at: &mut Site<'_, '_>) {
        let axis = attribute::int("axis", int(self.axis) + 1);
        at.finish("LogSoftmax", &[&at.input()], vec![axis]);
    }
}

/// The pieces of a channel are neighbours: an axis of their own, split, and the largest.
impl Export for Maxout {
    fn export(&self, at: &mut Site<'_, '_>) {
        if self.pieces == 1 {
            return at.finish("Identity", &[&at.input()], Vec::new());
        }
        let (input, output) = (at.input(), at.output_shape());
        let [channels, ref map @ ..] = output[..] else {
            return at.finish("Identity", &[&input], Vec::new());
        };
        let apart = [&[channels, self.pieces], map].concat();
        let apart = at.reshape("apart", &input, &apart);
        let pieces = at.split("piece", &apart, 2, &vec![1; self.pieces]);
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let largest = at.emit("Max", "largest", &pieces, Vec::new());
        at.finish_reshape(&largest, &output);
    }
}
