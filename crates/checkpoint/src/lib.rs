//! Hugging Face checkpoint directories: read, validate, compare, write.
//!
//! A [`Checkpoint`] is a directory with `config.json`, safetensors shards and a tokenizer. Nothing in it is trusted:
//! headers are bounded before they are parsed, every tensor's range is checked against its dtype, shape, neighbours and
//! file length, and shards are read by position, or through maps whose length is checked again at each access. A
//! [`Writer`] streams tensors into a directory that gets its name only when it is whole.
//!
//! What the tensors mean, an [`Architecture`] says; what it does not know can be merged all the same.

mod adapter;
mod architecture;
mod checkpoint;
mod config;
mod diff;
mod digest;
mod dtype;
mod fingerprint;
mod location;
mod open_error;
mod pickle;
mod pool;
mod rope;
pub mod safetensors;
mod shards;
mod tensors;
mod torch;
mod writer;

pub use architecture::{Architecture, Biases, Family, Map};
pub use checkpoint::Checkpoint;
pub use config::{ArchitectureError, Config, ConfigError};
pub use diff::{Difference, DifferenceKind, diff, module_of};
pub use digest::{Digest, Digesting};
pub use dtype::{Dtype, round_bf16};
pub use fingerprint::{FINGERPRINT_BLOCK, Fingerprints};
pub use location::{Location, open_tensors};
pub use open_error::OpenError;
pub use pool::{PoolError, check_pool};
pub use rolegraft_files::{Scratch, WriteError, folder, open_own, write_atomic};
pub use rope::{Rope, Scaling};
pub use safetensors::{Header, HeaderError, TensorInfo};
pub use shards::Tensor;
pub use tensors::Tensors;
pub use writer::{OpenShard, TensorPlan, Writer, set_dtype};
