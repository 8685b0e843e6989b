//! Model files.

mod safetensors;

pub use safetensors::METADATA_KEY;
pub(crate) use safetensors::write_atomic;
