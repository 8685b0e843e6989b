//! Other shapes and parts of the same values.

use cp_net::{
    ChannelOrder, Concat, DepthToSpace, Flatten, Reshape, Slice, Split, Squeeze, Transpose,
    Unsqueeze,
};

use crate::program::call::{Call, Fail, Operand, because};

/// `cat(tensors, dim)`.
pub(super) fn cat(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let tensors = call.tensors("tensors")?;
    let Some(first) = tensors.first() else { return because("it joins nothing") };
    let axis = call.axis("dim", 0, &first.shape)?;
    let values: Vec<String> = tensors.iter().map(|tensor| tensor.value.clone()).collect();
    match &values[..] {
        [_] => call.emit(cp_net::Identity {}, values),
        _ => call.emit(Concat { axis }, values),
    }
}

/// `stack(tensors, dim)`.
pub(super) fn stack(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let tensors = call.tensors("tensors")?;
    let shape = call.output_shape()?;
    let axis = call.axis("dim", 0, &shape)?;
    let mut values = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        values.push(call.step(Unsqueeze { axes: vec![axis] }, vec![tensor.value]));
    }
    match values.len() {
        0 => because("it joins nothing"),
        1 => call.done(values.swap_remove(0)),
        _ => call.emit(Concat { axis }, values),
    }
}

/// `flatten(self, start_dim, end_dim)`.
pub(super) fn flatten(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let input = call.tensor("self")?;
    let axis = call.axis("start_dim", 0, &input.shape)?;
    let last = call.axis("end_dim", -1, &input.shape)?;
    if last + 2 == input.shape.len() {
        return call.view("self", Flatten { axis }, vec![input.value]);
    }
    reshaped(call, input.value, &input.shape)
}

/// `view(self, size)`, `reshape(self, shape)`, `unflatten(self, dim, sizes)`: the file says the shape that comes out.
pub(super) fn reshape(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let input = call.tensor("self")?;
    call.ignore(&["size", "shape", "dim", "sizes"]);
    reshaped(call, input.value, &input.shape)
}

fn reshaped(call: &mut Call<'_, '_>, value: String, input: &[usize]) -> Result<(), Fail> {
    let output = call.output_shape()?;
    // As long as the first axis stays, every example has the values that it had.
    if output.first() != input.first() {
        return because("it changes the first axis, the batch");
    }
    if output.len() == 2 {
        return call.view("self", Flatten { axis: 0 }, vec![value]);
    }
    let sizes: Option<Vec<i64>> =
        output[1..].iter().map(|size| i64::try_from(*size).ok()).collect();
    match sizes {
        Some(shape) if !shape.contains(&0) => call.view("self", Reshape { shape }, vec![value]),
        _ => because("it makes an axis of size 0"),
    }
}

/// `permute(self, dims)`.
pub(super) fn permute(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let dims = call.ints("dims")?.unwrap_or_default();
    if dims == [1, 0] && call.turn_weight("self") {
        return Ok(());
    }
    let input = call.tensor("self")?;
    let axes = input.shape.len() as i64;
    let counted: Vec<i64> =
        dims.iter().map(|axis| if *axis < 0 { axis + axes } else { *axis }).collect();
    match counted.split_first() {
        Some((0, rest)) if rest.iter().all(|axis| (1..axes).contains(axis)) => {
            let axes = rest.iter().map(|axis| *axis as usize - 1).collect();
            call.view("self", Transpose { axes }, vec![input.value])
        }
        _ => because("it moves the first axis, the batch"),
    }
}

/// `transpose(self, dim0, dim1)`.
pub(super) fn transpose(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let dims = [call.int("dim0")?, call.int("dim1")?];
    let swaps = |a, b| dims == [Some(a), Some(b)] || dims == [Some(b), Some(a)];
    if (swaps(0, 1) || swaps(-1, -2)) && call.turn_weight("self") {
        return Ok(());
    }
    let input = call.tensor("self")?;
    let first = call.axis("dim0", 0, &input.shape)?;
    let second = call.axis("dim1", 0, &input.shape)?;
    let mut axes: Vec<usize> = (0..input.shape.len() - 1).collect();
    axes.swap(first, second);
    call.view("self", Transpose { axes }, vec![input.value])
}

/// `t(self)`: of weights.
pub(super) fn t(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    if call.turn_weight("self") {
        return Ok(());
    }
    call.tensor("self")?;
    because("it moves the first axis, the batch")
}

/// `squeeze(self, dim)`: axes of another size stay.
pub(super) fn squeeze(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let input = call.tensor("self")?;
    let mut axes = call.axes("dim", &input.shape)?;
    if axes.is_empty() {
        return because("it says no axes, of which the batch may be one");
    }
    axes.retain(|axis| input.shape[axis + 1] == 1);
    if axes.is_empty() {
        return call.view("self", cp_net::Identity {}, vec![input.value]);
    }
    call.view("self", Squeeze { axes }, vec![input.value])
}

/// `unsqueeze(self, dim)`.
pub(super) fn unsqueeze(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let input = call.tensor("self")?;
    let output = call.output_shape()?;
    let axis = call.axis("dim", 0, &output)?;
    call.view("self", Unsqueeze { axes: vec![axis] }, vec![input.value])
}

/// `slice(self, dim, start, end, step)`.
pub(super) fn slice(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let input = call.tensor("self")?;
    let (start, end) = (call.int("start")?.unwrap_or(0), call.int("end")?);
    let step = call.int("step")?.unwrap_or(1);
    // A whole axis, which may be the batch.
    if start == 0 && end.is_none_or(|end| end == i64::MAX) && step == 1 {
        call.ignore(&["dim"]);
        return call.view("self", cp_net::Identity {}, vec![input.value]);
    }
    let axis = call.axis("dim", 0, &input.shape)?;
    let Ok(step) = usize::try_from(step) else { return because("its step is negative") };
    call.view("self", Slice { axis, start, end, step }, vec![input.value])
}

/// `select(self, dim, index)`.
pub(super) fn select(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let input = call.tensor("self")?;
    let axis = call.axis("dim", 0, &input.shape)?;
    let Some(start) = call.int("index")? else { return because("it has no index") };
    // −1 is the last one, behind which the axis ends.
    let end = if start == -1 { None } else { start.checked_add(1) };
    let one = call.step(Slice { axis, start, end, step: 1 }, vec![input.value]);
    call.view("self", Squeeze { axes: vec![axis] }, vec![one])
}

/// `chunk(self, chunks, dim)`, `split(self, split_size, dim)`, `split_with_sizes(self, split_sizes, dim)`: the file says the parts' sizes.
pub(super) fn split(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let input = call.tensor("self")?;
    let axis = call.axis("dim", 0, &input.shape)?;
    call.ignore(&["chunks", "split_size", "split_sizes"]);
    let sizes = call.output_sizes(axis + 1)?;
    call.share("self");
    if let [_] = sizes[..] {
        return call.view("self", cp_net::Identity {}, vec![input.value]);
    }
    call.emit_many(Split { axis, sizes }, input.value)
}

/// `expand(self, size)`, where that changes nothing.
pub(super) fn expand(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    call.ignore(&["size", "implicit"]);
    let output = call.output_shape()?;
    match call.operand("self")? {
        Some(Operand::Tensor(input)) if input.shape == output => {
            call.view("self", cp_net::Identity {}, vec![input.value])
        }
        _ => because("it repeats values"),
    }
}

/// `pixel_shuffle(self, upscale_factor)`.
pub(super) fn pixel_shuffle(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let input = call.tensor("self")?;
    match call.int("upscale_factor")?.and_then(|block| usize::try_from(block).ok()) {
        Some(block) if input.shape.len() == 4 => {
            let op = DepthToSpace { block, mode: ChannelOrder::ColumnFirst };
            call.emit(op, vec![input.value])
        }
        _ => because("it is not of maps with channels"),
    }
}
