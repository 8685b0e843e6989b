//! Networks as files: safetensors files that carry their architecture ([`safetensors`](mod@safetensors)), the architecture alone as JSON
//! ([`architecture`]), files of the first format ([`format1`]), weights from elsewhere under other names ([`names`]), and
//! files that are none of these ([`kind`]).

pub(crate) mod architecture;
mod format1;
pub(crate) mod kind;
mod names;
pub(crate) mod read;
pub(crate) mod safetensors;
