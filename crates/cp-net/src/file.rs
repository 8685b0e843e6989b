//! Networks as files: safetensors files that carry their architecture ([`safetensors`](mod@safetensors)), the architecture alone as JSON
//! ([`architecture`]), arrays from elsewhere ([`arrays`]) under other names ([`names`]), files of the first format ([`format1`]), and
//! files that are none of these ([`kind`]).

pub(crate) mod architecture;
pub(crate) mod arrays;
mod format1;
pub(crate) mod kind;
mod names;
pub(crate) mod read;
pub(crate) mod safetensors;
