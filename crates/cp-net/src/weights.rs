//! Model files.

mod safetensors;

pub use safetensors::METADATA_KEY;
