//! Why a checkpoint cannot be used.

use crate::ConfigError;
use crate::safetensors::HeaderError;
use std::io;
use std::path::PathBuf;

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum OpenError {
    #[error("checkpoint directory `{}` does not exist", .0.display())]
    Missing(PathBuf),
    #[error("`{}` is not a directory; give the folder that holds config.json", .0.display())]
    NotADirectory(PathBuf),
    #[error("`{}` holds no `{file}`; it is not a Hugging Face checkpoint", dir.display())]
    NoFile { dir: PathBuf, file: &'static str },
    #[error("`{}` lacks shard `{file}` of {of}; download it again", dir.display())]
    NoShard { dir: PathBuf, file: String, of: usize },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("`{}` {source}", path.display())]
    Header { path: PathBuf, source: HeaderError },
    #[error("`{}` {reason}", path.display())]
    Torch { path: PathBuf, reason: String },
    #[error("`{}` is not a valid index: {reason}; mend it, or take it away: then all numbered shards are read", path.display())]
    Index { path: PathBuf, reason: String },
    #[error("tensor `{tensor}` is in both `{first}` and `{second}`")]
    Twice { tensor: String, first: String, second: String },
    #[error("`{}` has no tensor `{tensor}`", dir.display())]
    NoTensor { dir: PathBuf, tensor: String },
    #[error("`{}` {reason}", path.display())]
    Adapter { path: PathBuf, reason: String },
    #[error("`{}` changed while it was being read (tensor `{tensor}`)", path.display())]
    Changed { path: PathBuf, tensor: String },
    #[error("tensor `{tensor}` in `{}` is {dtype}, not floating-point", path.display())]
    NotFloat { path: PathBuf, tensor: String, dtype: &'static str },
    #[error("tensor `{tensor}` in `{}` holds {count} NaN or infinite values, the first at element {first}", path.display())]
    NonFinite { path: PathBuf, tensor: String, count: usize, first: usize },
}
