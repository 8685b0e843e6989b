//! Poolings. Windows are those of the sizes that the network was built for, with all padding written out: what `ceil_mode` does with
//! a last window that reaches beyond the padding has changed between versions of ONNX and its runtimes.

use cp_net::{AdaptiveAvgPool, AdaptiveMaxPool, AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool};
use ndarray::ArrayD;

use crate::export::Export;
use crate::export::conv::pads;
use crate::export::writer::{Site, int, int_list};
use crate::proto::{Message, attribute};

/// Behind each axis as much padding as the last window needs; `pairs` are what the op itself pads.
fn reached(
    pairs: &[[usize; 2]],
    sizes: &[usize],
    windows: &[usize],
    stride: &[usize],
    reach: &[usize],
) -> Vec<[usize; 2]> {
    let needed = |(axis, &[before, behind]): (usize, &[usize; 2])| {
        let end = (windows[axis] - 1) * stride[axis] + reach[axis];
        [before, behind.max(end.saturating_sub(before + sizes[axis]))]
    };
    pairs.iter().enumerate().map(needed).collect()
}

impl Export for MaxPool {
    fn export(&self, at: &mut Site<'_, '_>) {
        let (mut input, shape, output) = (at.input(), at.shape(0), at.output_shape());
        let sizes = &shape[1..];
        let reach: Vec<usize> = (self.kernel.iter().zip(&self.dilation))
            .map(|(kernel, dilation)| dilation * (kernel - 1) + 1)
            .collect();
        let own: Vec<[usize; 2]> =
            sizes.iter().enumerate().map(|(axis, &size)| self.padding(axis, size)).collect();
        let mut pairs = reached(&own, sizes, &output[1..], &self.stride, &reach);
        // ONNX Runtime takes less padding than the kernel has taps, however far apart they are.
        let wide = |(pair, kernel): (&[usize; 2], &usize)| pair.iter().any(|size| size >= kernel);
        if pairs.iter().zip(&self.kernel).any(wide) {
            let whole: Vec<[usize; 2]> = [[0; 2]; 2].into_iter().chain(pairs.clone()).collect();
            let amounts = at.ints("pads", &pads(&whole));
            let least = at.scalar("least", f64::NEG_INFINITY);
            let mode = vec![attribute::string("mode", "constant")];
            input = at.emit("Pad", "padded", &[&input, &amounts, &least], mode);
            pairs.fill([0; 2]);
        }
        let attributes = vec![
            attribute::ints("dilations", &int_list(&self.dilation)),
            attribute::ints("kernel_shape", &int_list(&self.kernel)),
            attribute::ints("pads", &pads(&pairs)),
            attribute::ints("strides", &int_list(&self.stride)),
        ];
        at.finish("MaxPool", &[&input], attributes);
    }
}

impl Export for AvgPool {
    fn export(&self, at: &mut Site<'_, '_>) {
        let (input, shape, output) = (at.input(), at.shape(0), at.output_shape());
        let (sizes, windows) = (&shape[1..], &output[1..]);
        let own: Vec<[usize; 2]> = (sizes.iter().enumerate())
            .map(|(axis, &size)| {
                self.padding.amounts(axis, size, self.kernel[axis], self.stride[axis])
            })
            .collect();
        let pairs = reached(&own, sizes, windows, &self.stride, &self.kernel);
        let attributes = vec![
            attribute::int("count_include_pad", i64::from(self.count_padding)),
            attribute::ints("kernel_shape", &int_list(&self.kernel)),
            attribute::ints("pads", &pads(&pairs)),
            attribute::ints("strides", &int_list(&self.stride)),
        ];
        if !self.count_padding || pairs == own {
            return at.finish("AveragePool", &[&input], attributes);
        }
        // What a window reaches beyond the padding does not count, but was counted.
        let mean = at.emit_named("AveragePool", "mean", &[&input], attributes);
        let share = |axis: usize, window: usize| {
            let (first, [before, behind]) = (window * self.stride[axis], own[axis]);
            let counted = (first + self.kernel[axis]).min(sizes[axis] + before + behind) - first;
            self.kernel[axis] as f64 / counted as f64
        };
        let shares = ArrayD::from_shape_fn([&[1, 1], windows].concat(), |at| {
            (0..windows.len()).map(|axis| share(axis, at[axis + 2])).product::<f64>() as f32
        });
        let shares = at.floats("shares", &shares);
        at.finish("Mul", &[&mean, &shares], Vec::new());
    }
}

impl Export for GlobalAvgPool {
    fn export(&self, at: &mut Site<'_, '_>) {
        at.finish("GlobalAveragePool", &[&at.input()], Vec::new());
    }
}

impl Export for GlobalMaxPool {
    fn export(&self, at: &mut Site<'_, '_>) {
        at.finish("GlobalMaxPool", &[&at.input()], Vec::new());
    }
}

/// The ops that an adaptive pooling becomes.
struct Kind {
    global: &'static str,
    windows: &'static str,
    reduce: &'static str,
}

const MEAN: Kind =
    Kind { global: "GlobalAveragePool", windows: "AveragePool", reduce: "ReduceMean" };
const LARGEST: Kind = Kind { global: "GlobalMaxPool", windows: "MaxPool", reduce: "ReduceMax" };

impl Export for AdaptiveAvgPool {
    fn export(&self, at: &mut Site<'_, '_>) {
        adaptive(at, &self.output, &MEAN);
    }
}

impl Export for AdaptiveMaxPool {
    fn export(&self, at: &mut Site<'_, '_>) {
        adaptive(at, &self.output, &LARGEST);
    }
}

/// An ordinary pooling along the axes whose windows are all alike, the others axis by axis: a mean of means of as many values, and a
/// largest of largest.
fn adaptive(at: &mut Site<'_, '_>, output: &[usize], kind: &Kind) {
    let (input, shape) = (at.input(), at.shape(0));
    if output.iter().all(|&count| count == 1) {
        return at.finish(kind.global, &[&input], Vec::new());
    }
    let sizes = &shape[1..];
    let even = |axis: usize| sizes[axis].is_multiple_of(output[axis]);
    let uneven: Vec<usize> = (0..output.len()).filter(|&axis| !even(axis)).collect();
    let kernel: Vec<usize> = (0..output.len())
        .map(|axis| if even(axis) { sizes[axis] / output[axis] } else { 1 })
        .collect();
    let kernel = int_list(&kernel);
    let attributes =
        vec![attribute::ints("kernel_shape", &kernel), attribute::ints("strides", &kernel)];
    if uneven.is_empty() {
        return at.finish(kind.windows, &[&input], attributes);
    }
    let mut value = input;
    if kernel.iter().any(|&taps| taps > 1) {
        value = at.emit(kind.windows, "even", &[&value], attributes);
    }
    for (step, &axis) in uneven.iter().enumerate() {
        let (size, count) = (sizes[axis], output[axis]);
        let mut windows = Vec::with_capacity(count);
        for index in 0..count {
            let range = [index * size / count, ((index + 1) * size).div_ceil(count)];
            let what = format!("window_{axis}_{index}");
            let window = slice(at, &what, &value, axis + 2, range);
            windows.push(reduced(at, &format!("{what}_value"), &window, axis + 2, kind));
        }
        let windows: Vec<&str> = windows.iter().map(String::as_str).collect();
        let attributes = vec![attribute::int("axis", int(axis) + 2)];
        if step + 1 == uneven.len() {
            at.finish("Concat", &windows, attributes);
        } else {
            value = at.emit("Concat", &format!("axis_{axis}"), &windows, attributes);
        }
    }
}

fn slice(
    at: &mut Site<'_, '_>,
    what: &str,
    value: &str,
    axis: usize,
    [start, end]: [usize; 2],
) -> String {
    let bounds = [("start", start), ("end", end), ("axis", axis)]
        .map(|(name, number)| at.ints(&format!("{what}_{name}"), &[int(number)]));
    let [start, end, axis] = &bounds;
    at.emit("Slice", what, &[value, start, end, axis], Vec::new())
}

/// One value along an axis; axes are an input of these ops since opset 18.
fn reduced(at: &mut Site<'_, '_>, what: &str, value: &str, axis: usize, kind: &Kind) -> String {
    if at.opset() < 18 {
        let axes: Vec<Message> = vec![attribute::ints("axes", &[int(axis)])];
        return at.emit(kind.reduce, what, &[value], axes);
    }
    let axes = at.ints(&format!("{what}_axes"), &[int(axis)]);
    at.emit(kind.reduce, what, &[value, &axes], Vec::new())
}
