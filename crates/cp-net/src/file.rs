//! Networks as files: safetensors files that carry their architecture ([`safetensors`](mod@safetensors)), the architecture alone as JSON
//! ([`architecture`]), files of the first format ([`format1`]), and weights from elsewhere under other names ([`names`]).

pub(crate) mod architecture;
mod format1;
mod names;
pub(crate) mod safetensors;
