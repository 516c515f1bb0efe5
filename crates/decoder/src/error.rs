//! What can go wrong.

use rolegraft_checkpoint::{ArchitectureError, OpenError};

/// Why a checkpoint cannot be run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum DecoderError {
    #[error(transparent)]
    Architecture(#[from] ArchitectureError),
    #[error(transparent)]
    Checkpoint(#[from] OpenError),
    #[error("arithmetic failed: {}", .0.to_string().lines().next().unwrap_or_default())]
    Candle(#[from] candle_core::Error),
    #[error("a sequence of {tokens} tokens exceeds the model's {limit} positions")]
    TooLong { tokens: usize, limit: usize },
    #[error("token {id} is beyond the vocabulary of {vocabulary}")]
    Token { id: u32, vocabulary: usize },
    #[error(
        "layer {layer} computes what is no finite number; the checkpoint's weights are broken or too large for F32"
    )]
    NonFinite { layer: usize },
    #[error("device `{asked}` is not there: {why}")]
    Device { asked: String, why: String },
    #[error("{0}")]
    Stopped(&'static str),
}

/// A result with [`DecoderError`].
pub type Result<T> = std::result::Result<T, DecoderError>;
