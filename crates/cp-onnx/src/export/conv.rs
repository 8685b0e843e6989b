//! Convolutions. Padding is written out for the sizes that the network was built for: `auto_pad` is deprecated.

use cp_net::{Conv, ConvTranspose};

use crate::export::Export;
use crate::export::writer::{Site, int, int_list};
use crate::proto::{Message, attribute};

/// `[before, behind]` of each axis as ONNX has them: all begins, then all ends.
pub(super) fn pads(pairs: &[[usize; 2]]) -> Vec<i64> {
    let of = |side: usize| pairs.iter().map(move |pair| int(pair[side]));
    of(0).chain(of(1)).collect()
}

impl Export for Conv {
    fn export(&self, at: &mut Site<'_, '_>) {
        let attributes = attributes(self, &at.shape(0));
        finish(at, "Conv", self.bias, attributes);
    }
}

/// The attributes of `conv` for an input `[S, H₀, …]`.
pub(super) fn attributes(conv: &Conv, input: &[usize]) -> Vec<Message> {
    let sizes = input.iter().skip(1).enumerate();
    let pairs: Vec<[usize; 2]> = sizes.map(|(axis, &size)| conv.padding(axis, size)).collect();
    geometry(&conv.kernel, &conv.stride, &conv.dilation, conv.groups, &pairs)
}

/// What is added behind an axis is the same as what is not cut off there. Where it is more than that, only the bias is in it, and
/// ONNX Runtime takes less than the stride; the rest is put behind as zeros before the bias.
impl Export for ConvTranspose {
    fn export(&self, at: &mut Site<'_, '_>) {
        // All amounts are written out: it pads by none itself.
        let axes = 0..self.kernel.len();
        let mut pairs: Vec<[usize; 2]> =
            axes.map(|axis| self.padding.amounts(axis, 1, 1, 1)).collect();
        let mut added = self.output_padding.clone();
        for (pair, added) in pairs.iter_mut().zip(&mut added) {
            let uncut = pair[1].min(*added);
            pair[1] -= uncut;
            *added -= uncut;
        }
        let fits = added.iter().zip(&self.stride).all(|(added, stride)| added < stride);
        let mut attributes =
            geometry(&self.kernel, &self.stride, &self.dilation, self.groups, &pairs);
        if fits {
            attributes.push(attribute::ints("output_padding", &int_list(&added)));
            return finish(at, "ConvTranspose", self.bias, attributes);
        }
        let (input, weight) = (at.input(), at.param("weight"));
        at.kernel(&weight);
        let inputs = [input.as_str(), &weight];
        let value = at.emit_named("ConvTranspose", "unbiased", &inputs, attributes);
        let behind = added.iter().map(|&added| [0, added]);
        let whole: Vec<[usize; 2]> = [[0; 2]; 2].into_iter().chain(behind).collect();
        let amounts = at.ints("pads", &pads(&whole));
        let mode = vec![attribute::string("mode", "constant")];
        if !self.bias {
            return at.finish("Pad", &[&value, &amounts], mode);
        }
        let padded = at.emit("Pad", "padded", &[&value, &amounts], mode);
        let bias = at.per_channel("bias");
        at.finish("Add", &[&padded, &bias], Vec::new());
    }
}

fn geometry(
    kernel: &[usize],
    stride: &[usize],
    dilation: &[usize],
    groups: usize,
    pairs: &[[usize; 2]],
) -> Vec<Message> {
    vec![
        attribute::ints("dilations", &int_list(dilation)),
        attribute::int("group", int(groups)),
        attribute::ints("kernel_shape", &int_list(kernel)),
        attribute::ints("pads", &pads(pairs)),
        attribute::ints("strides", &int_list(stride)),
    ]
}

fn finish(at: &mut Site<'_, '_>, op: &str, bias: bool, attributes: Vec<Message>) {
    let (input, weight) = (at.input(), at.param("weight"));
    at.kernel(&weight);
    let bias = bias.then(|| at.param("bias"));
    let mut inputs = vec![input.as_str(), &weight];
    inputs.extend(bias.as_deref());
    at.finish(op, &inputs, attributes);
}
