//! Pooling.

use cp_net::{AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool, Mul, Op, Pad, Padding};
use ndarray::{ArrayD, IxDyn};

use crate::import::call::{Call, Outcome};
use crate::import::error::Refusal;
use crate::import::op::conv::{padding, sizes};
use crate::import::value::{Data, Known, Map, Value};

pub(super) fn global(call: &mut Call<'_, '_>) -> Outcome {
    let x = call.layer_input()?;
    let op: Op = match call.op.as_str() {
        "GlobalAveragePool" => GlobalAvgPool {}.into(),
        _ => GlobalMaxPool {}.into(),
    };
    Ok(vec![Value::Map(call.last(op, &[&x], Vec::new(), 0)?)])
}

/// What both poolings have.
struct Window {
    kernel: Vec<usize>,
    stride: Vec<usize>,
    padding: Padding,
    dilation: Vec<usize>,
    ceil: bool,
}

fn window(call: &Call<'_, '_>, x: &Map) -> Result<Window, Refusal> {
    let axes = x.shape.len().saturating_sub(1);
    if call.attributes.ints("kernel_shape").is_none_or(|kernel| kernel.len() != axes) || axes == 0 {
        let got = call.attributes.ints("kernel_shape");
        return Refusal::setting("kernel_shape", got, format!("{axes} sizes"));
    }
    Ok(Window {
        kernel: sizes(call, "kernel_shape", axes, 1, 1)?,
        stride: sizes(call, "strides", axes, 1, 1)?,
        padding: padding(call, axes)?,
        dilation: sizes(call, "dilations", axes, 1, 1)?,
        ceil: call.attributes.flag("ceil_mode"),
    })
}

impl Window {
    /// The padding, where it is more than the network's poolings take: more than half of the window on a side.
    fn wide(&self) -> Option<Vec<[usize; 2]>> {
        let Padding::Each(pairs) = &self.padding else { return None };
        let wide =
            |(pair, &kernel): (&[usize; 2], &usize)| pair.iter().any(|&size| size > kernel / 2);
        pairs.iter().zip(&self.kernel).any(wide).then(|| pairs.clone())
    }
}

/// `x` with `value` around it.
fn padded(
    call: &mut Call<'_, '_>,
    x: &Map,
    pairs: &[[usize; 2]],
    value: f64,
) -> Result<Map, Refusal> {
    let side = |side: usize| {
        [0].into_iter().chain(pairs.iter().map(|pair| pair[side])).collect::<Vec<_>>()
    };
    let op = Pad { value, ..Pad::zeros(side(0), side(1)) };
    call.part("padded", op, &[x], Vec::new(), 0)
}

/// The largest value of each window. Where it lies is known to no network.
pub(super) fn max(call: &mut Call<'_, '_>) -> Outcome {
    // The order in which places are counted.
    call.attributes.take("storage_order");
    let mut x = call.map(0)?.in_front()?;
    let mut window = window(call, &x)?;
    if let Some(pairs) = window.wide() {
        if window.ceil {
            return Refusal::form("padding of more than half a window with ceil_mode");
        }
        x = padded(call, &x, &pairs, f64::from(f32::MIN))?;
        window.padding = Padding::none(pairs.len());
    }
    let Window { kernel, stride, padding, dilation, ceil } = window;
    let op = MaxPool { kernel, stride, padding, dilation, ceil };
    Ok(vec![Value::Map(call.last(op, &[&x], Vec::new(), 0)?), Value::Unknown])
}

/// The mean of each window.
pub(super) fn average(call: &mut Call<'_, '_>) -> Outcome {
    let x = call.layer_input()?;
    let count_padding = call.attributes.flag("count_include_pad");
    let mut window = window(call, &x)?;
    if window.dilation.iter().zip(&window.kernel).any(|(&step, &size)| step > 1 && size > 1) {
        return Refusal::form("a dilated average pooling");
    }
    let Some(pairs) = window.wide() else {
        let Window { kernel, stride, padding, ceil, .. } = window;
        let op = AvgPool { kernel, stride, padding, ceil, count_padding };
        return Ok(vec![Value::Map(call.last(op, &[&x], Vec::new(), 0)?)]);
    };
    if window.ceil {
        return Refusal::form("padding of more than half a window with ceil_mode");
    }
    let whole = padded(call, &x, &pairs, 0.0)?;
    window.padding = Padding::none(pairs.len());
    let Window { kernel, stride, padding, ceil, .. } = window;
    let op =
        AvgPool { kernel: kernel.clone(), stride: stride.clone(), padding, ceil, count_padding };
    if count_padding {
        return Ok(vec![Value::Map(call.last(op, &[&whole], Vec::new(), 0)?)]);
    }
    // The mean with the padding as zeros, times how many more values the window has than the map under it.
    let mean = call.part("mean", op, &[&whole], Vec::new(), 0)?;
    let under = |axis: usize, at: usize| {
        let (first, size, before) = (at * stride[axis], x.shape[axis + 1], pairs[axis][0]);
        let end = (first + kernel[axis]).saturating_sub(before).min(size);
        end.saturating_sub(first.saturating_sub(before))
    };
    let sizes = &mean.shape[1..];
    call.allow(sizes)?;
    let shape: Vec<usize> = [1].iter().chain(sizes).copied().collect();
    let share = ArrayD::from_shape_fn(IxDyn(&shape), |at| {
        let all: usize = kernel.iter().product();
        let some: usize = (0..kernel.len()).map(|axis| under(axis, at[axis + 1])).product();
        (all as f64 / some.max(1) as f64) as f32
    });
    let known = Known::new(&format!("{}.share", call.label), Data::Floats(share.into_shared()));
    let share = call.net.constant(&known, 0)?;
    Ok(vec![Value::Map(call.last(Mul {}, &[&mean, &share], Vec::new(), 0)?)])
}
