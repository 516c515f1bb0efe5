//! Hugging Face checkpoint directories: read, validate, compare, write.
//!
//! A [`Checkpoint`] is a directory with `config.json`, safetensors shards and a tokenizer. Nothing in it is trusted:
//! headers are bounded before they are parsed, every tensor's range is checked against its dtype, shape, neighbours and
//! file length, and shards are read through maps whose length is checked again at each access. A [`Writer`] streams
//! tensors into a directory that gets its name only when it is whole.
//!
//! What the tensors mean is for others: this crate knows names, shapes and bytes.

pub mod atomic;
mod checkpoint;
mod config;
mod dtype;
mod pool;
pub mod safetensors;
mod writer;

pub use atomic::{Digest, WriteError, write_atomic};
pub use checkpoint::{Checkpoint, OpenError, Tensor};
pub use config::{ConfigError, ModelConfig};
pub use dtype::Dtype;
pub use pool::{PoolError, check_pool};
pub use safetensors::{Header, HeaderError, TensorInfo};
pub use writer::Writer;
