//! ATen's operations in terms of ours, by what they do: a file for each family.
//!
//! An operation is known by its name (`conv2d`); the name of the overload behind it (`default`, `padding`) mostly only says which arguments
//! there are. Arguments that are left over are an error, so that none is overlooked.

mod activation;
mod arithmetic;
mod conv;
mod linear;
mod norm;
mod pad;
mod pool;
mod reduce;
mod resize;
mod shape;

use super::call::{Call, Fail, because};

/// Adds what the operation comes to.
pub(super) fn convert(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let Some((op, overload)) = call.target() else {
        // Arithmetic of sizes: what is made with them is known from the shapes in the file.
        return if call.output_names().is_empty() { Ok(()) } else { because("is not supported") };
    };
    // An underscore at the end: in place.
    let (name, is_in_place) = match op.strip_suffix('_') {
        Some(name) if !op.starts_with('_') => (name, true),
        _ => (op, false),
    };
    let is_allowed = call.owns_first();
    match name {
        "conv1d" | "conv2d" | "conv3d" => conv::conv(call, name, overload)?,
        "convolution" => conv::convolution(call)?,
        "conv_transpose1d" | "conv_transpose2d" | "conv_transpose3d" => {
            conv::transposed(call, name)?
        }
        "linear" => linear::linear(call)?,
        "addmm" => linear::addmm(call)?,
        "mm" => linear::matmul(call, "mat2")?,
        "matmul" => linear::matmul(call, "other")?,
        "bmm" => linear::matmul(call, "mat2")?,
        "batch_norm" | "_native_batch_norm_legit_no_training" => norm::batch_norm(call)?,
        "layer_norm" | "native_layer_norm" => norm::layer_norm(call)?,
        "group_norm" => norm::group_norm(call, "num_groups")?,
        "native_group_norm" => norm::group_norm(call, "group")?,
        "instance_norm" => norm::instance_norm(call)?,
        "max_pool1d"
        | "max_pool2d"
        | "max_pool3d"
        | "max_pool2d_with_indices"
        | "max_pool3d_with_indices" => pool::max_pool(call)?,
        "avg_pool1d" | "avg_pool2d" | "avg_pool3d" => pool::avg_pool(call)?,
        "adaptive_avg_pool1d"
        | "adaptive_avg_pool2d"
        | "adaptive_avg_pool3d"
        | "_adaptive_avg_pool2d"
        | "_adaptive_avg_pool3d" => pool::adaptive(call, false)?,
        "adaptive_max_pool1d" | "adaptive_max_pool2d" | "adaptive_max_pool3d" => {
            pool::adaptive(call, true)?;
        }
        "add" | "sub" | "mul" | "div" | "rsub" | "pow" | "maximum" | "minimum" => {
            arithmetic::binary(call, name, overload)?;
        }
        "mean" | "sum" | "amax" | "amin" => reduce::reduce(call, name)?,
        "cat" => shape::cat(call)?,
        "stack" => shape::stack(call)?,
        "flatten" => shape::flatten(call)?,
        "view" | "reshape" | "_unsafe_view" | "unflatten" | "view_copy" => shape::reshape(call)?,
        "permute" => shape::permute(call)?,
        "transpose" => shape::transpose(call)?,
        "t" => shape::t(call)?,
        "squeeze" => shape::squeeze(call)?,
        "unsqueeze" => shape::unsqueeze(call)?,
        "slice" => shape::slice(call)?,
        "select" => shape::select(call)?,
        "chunk"
        | "split"
        | "split_with_sizes"
        | "unsafe_chunk"
        | "unsafe_split"
        | "unsafe_split_with_sizes" => shape::split(call)?,
        "expand" => shape::expand(call)?,
        "pixel_shuffle" => shape::pixel_shuffle(call)?,
        "constant_pad_nd" | "pad" | "reflection_pad1d" | "reflection_pad2d"
        | "reflection_pad3d" | "replication_pad1d" | "replication_pad2d" | "replication_pad3d" => {
            pad::pad(call, name)?
        }
        name if name.starts_with("upsample_") => resize::upsample(call, name)?,
        "dropout" | "feature_dropout" | "alpha_dropout" | "feature_alpha_dropout" => {
            activation::dropout(call, name)?;
        }
        "clone" | "lift_fresh_copy" | "detach_copy" | "alias_copy" => {
            call.ignore(&["memory_format"]);
            call.alias("self", true)?;
        }
        "detach" | "alias" | "contiguous" => {
            // Whether `contiguous` copies depends on how the memory lies.
            call.ignore(&["memory_format"]);
            if name == "contiguous" {
                call.share("self");
            }
            call.alias("self", false)?;
        }
        "to" | "_to_copy" | "type_as" | "float" => {
            call.output_shape()?;
            let arguments = ["dtype", "layout", "device", "pin_memory", "non_blocking", "copy"];
            call.ignore(&arguments);
            call.ignore(&["memory_format", "other"]);
            call.share("self");
            call.alias("self", false)?;
        }
        "sym_size"
        | "sym_stride"
        | "sym_numel"
        | "sym_storage_offset"
        | "_assert_tensor_metadata"
        | "_assert_scalar"
        | "_assert_async"
        | "sym_constrain_range"
        | "sym_constrain_range_for_size" => return Ok(()),
        _ => activation::activation(call, name)?,
    }
    if is_in_place {
        call.in_place(is_allowed)?;
    }
    call.finish()
}
