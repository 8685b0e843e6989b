//! Normalizations, and the scale and shift that a folded one leaves behind.

use cp_net::{BatchNorm, GroupNorm, InstanceNorm, LayerNorm, Lrn, ScaleShift};
use ndarray::ArrayD;

use crate::export::Export;
use crate::export::writer::{Site, int};
use crate::proto::attribute;

impl Export for BatchNorm {
    fn export(&self, at: &mut Site<'_, '_>) {
        let params = ["weight", "bias", "running_mean", "running_var"].map(|slot| at.param(slot));
        let [weight, bias, mean, var] = &params;
        let attributes = vec![
            attribute::float("epsilon", self.eps as f32),
            // The share of the old statistics there, of the new ones here.
            attribute::float("momentum", (1.0 - self.momentum) as f32),
        ];
        at.finish("BatchNormalization", &[&at.input(), weight, bias, mean, var], attributes);
    }
}

/// γ and β, or ones and zeros of the same shape.
fn affine(at: &mut Site<'_, '_>, has: [bool; 2], shape: &[usize]) -> [String; 2] {
    let mut of = |has, slot, what, value| {
        if has { at.param(slot) } else { at.floats(what, &ArrayD::from_elem(shape, value)) }
    };
    [of(has[0], "weight", "ones", 1.0), of(has[1], "bias", "zeros", 0.0)]
}

impl Export for InstanceNorm {
    fn export(&self, at: &mut Site<'_, '_>) {
        let [scale, shift] = affine(at, [self.affine; 2], &[self.channels]);
        let eps = attribute::float("epsilon", self.eps as f32);
        at.finish("InstanceNormalization", &[&at.input(), &scale, &shift], vec![eps]);
    }
}

/// Since opset 17 an op of its own.
impl Export for LayerNorm {
    fn export(&self, at: &mut Site<'_, '_>) {
        let x = at.input();
        let axes = at.shape(0).len() + 1;
        let front = axes - self.shape.len();
        if at.opset() >= 17 {
            let bias = self.affine && self.bias;
            let [scale, shift] = affine(at, [self.affine, bias], &self.shape);
            let attributes = vec![
                attribute::int("axis", int(front)),
                attribute::float("epsilon", self.eps as f32),
            ];
            return at.finish("LayerNormalization", &[&x, &scale, &shift], attributes);
        }
        let over = || vec![attribute::ints("axes", &(int(front)..int(axes)).collect::<Vec<_>>())];
        let mean = at.emit("ReduceMean", "mean", &[&x], over());
        let centered = at.emit("Sub", "centered", &[&x, &mean], Vec::new());
        let squares = at.emit("Mul", "squares", &[&centered, &centered], Vec::new());
        let variance = at.emit("ReduceMean", "variance", &[&squares], over());
        let eps = at.scalar("eps", self.eps);
        let variance = at.emit("Add", "variance_eps", &[&variance, &eps], Vec::new());
        let deviation = at.emit("Sqrt", "deviation", &[&variance], Vec::new());
        if !self.affine {
            return at.finish("Div", &[&centered, &deviation], Vec::new());
        }
        let normal = at.emit("Div", "normalized", &[&centered, &deviation], Vec::new());
        let scale = at.param("weight");
        if !self.bias {
            return at.finish("Mul", &[&normal, &scale], Vec::new());
        }
        let scaled = at.emit("Mul", "scaled", &[&normal, &scale], Vec::new());
        let shift = at.param("bias");
        at.finish("Add", &[&scaled, &shift], Vec::new());
    }
}

/// Since opset 21 an op of its own (that of opset 18 has γ and β for groups, not channels, and is deprecated); before, an instance
/// normalization in which a group is a channel.
impl Export for GroupNorm {
    fn export(&self, at: &mut Site<'_, '_>) {
        let (x, shape) = (at.input(), at.shape(0));
        let eps = || attribute::float("epsilon", self.eps as f32);
        if at.opset() >= 21 && shape.len() > 1 {
            let [scale, shift] = affine(at, [self.affine; 2], &[self.channels]);
            let attributes = vec![eps(), attribute::int("num_groups", int(self.groups))];
            return at.finish("GroupNormalization", &[&x, &scale, &shift], attributes);
        }
        let values: usize = shape.iter().product();
        let groups = at.reshape("groups", &x, &[self.groups, values / self.groups]);
        let ones = at.floats("ones", &ArrayD::ones(vec![self.groups]));
        let zeros = at.floats("zeros", &ArrayD::zeros(vec![self.groups]));
        let inputs = [groups.as_str(), &ones, &zeros];
        let normal = at.emit("InstanceNormalization", "normalized", &inputs, vec![eps()]);
        if !self.affine {
            return at.finish_reshape(&normal, &shape);
        }
        let normal = at.reshape("ungrouped", &normal, &shape);
        scale_and_shift(at, &normal);
    }
}

fn scale_and_shift(at: &mut Site<'_, '_>, value: &str) {
    let scale = at.per_channel("weight");
    let scaled = at.emit("Mul", "scaled", &[value, &scale], Vec::new());
    let shift = at.per_channel("bias");
    at.finish("Add", &[&scaled, &shift], Vec::new());
}

impl Export for ScaleShift {
    fn export(&self, at: &mut Site<'_, '_>) {
        let input = at.input();
        scale_and_shift(at, &input);
    }
}

/// Windows of an even number of channels reach further back here and further on in ONNX's `LRN`; they, and what is no map, become
/// primitives: the mean of squares is a pooling along the channels. So do all where the model is only to run: ONNX Runtime takes a power of
/// every value on one thread, which is half the time of a GoogLeNet, while the usual exponent is three square roots.
impl Export for Lrn {
    fn export(&self, at: &mut Site<'_, '_>) {
        let (x, shape) = (at.input(), at.shape(0));
        if !self.size.is_multiple_of(2) && shape.len() == 3 && !at.forward() {
            let attributes = vec![
                attribute::float("alpha", self.alpha as f32),
                attribute::float("beta", self.beta as f32),
                attribute::float("bias", self.k as f32),
                attribute::int("size", int(self.size)),
            ];
            return at.finish("LRN", &[&x], attributes);
        }
        // Poolings have three axes at most; maps of more lose theirs for it.
        let flat = shape.len() > 3;
        let axes = if flat { 2 } else { shape.len() };
        let squares = at.emit("Mul", "squares", &[&x, &x], Vec::new());
        let along = |first: usize, other: usize| -> Vec<i64> {
            std::iter::once(int(first)).chain(std::iter::repeat_n(int(other), axes - 1)).collect()
        };
        let [before, behind] = [self.size / 2, (self.size - 1) / 2];
        let attributes = vec![
            attribute::int("count_include_pad", 1),
            attribute::ints("kernel_shape", &along(self.size, 1)),
            attribute::ints("pads", &[along(before, 0), along(behind, 0)].concat()),
            attribute::ints("strides", &along(1, 1)),
        ];
        let mean = if flat {
            let pixels: usize = shape[1..].iter().product();
            let plane = at.reshape("plane", &squares, &[1, shape[0], pixels]);
            let mean = at.emit("AveragePool", "mean", &[&plane], attributes);
            at.reshape("map", &mean, &shape)
        } else {
            let channels = at.ints("channels", &[1]);
            let plane = at.emit("Unsqueeze", "plane", &[&squares, &channels], Vec::new());
            let mean = at.emit("AveragePool", "mean", &[&plane], attributes);
            at.emit("Squeeze", "map", &[&mean, &channels], Vec::new())
        };
        let alpha = at.scalar("alpha", self.alpha);
        let scaled = at.emit("Mul", "scaled", &[&mean, &alpha], Vec::new());
        let k = at.scalar("k", self.k);
        let sum = at.emit("Add", "sum", &[&scaled, &k], Vec::new());
        let divisor = if (self.beta - 0.75).abs() < f64::EPSILON {
            let root = at.emit("Sqrt", "root", &[&sum], Vec::new());
            let fourth = at.emit("Sqrt", "fourth", &[&root], Vec::new());
            at.emit("Mul", "divisor", &[&root, &fourth], Vec::new())
        } else {
            let beta = at.scalar("beta", self.beta);
            at.emit("Pow", "divisor", &[&sum, &beta], Vec::new())
        };
        at.finish("Div", &[&x, &divisor], Vec::new());
    }
}
