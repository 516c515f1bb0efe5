//! Why a merge stops.

use rolegraft_checkpoint::{OpenError, WriteError};
use std::path::{Path, PathBuf};

/// Why a merge stopped.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum MergeError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("model `{model}`: {source}")]
    Model { model: String, source: OpenError },
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{}`: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("{0}")]
    Recipe(String),
    #[error("`{method}` {reason}")]
    Inputs { method: &'static str, reason: String },
    #[error("tensor `{tensor}`: {reason}")]
    Tensor { tensor: String, reason: String },
    #[error(
        "tensor `{tensor}` of `{model}` holds NaN or infinite values; --allow-nonfinite merges them as they are and counts them"
    )]
    NonFinite { tensor: String, model: String },
    #[error("an input changed while it was being merged; run the same command again")]
    Changed,
    #[error("interrupted; the same command goes on where it stopped")]
    Interrupted,
}

impl MergeError {
    /// Names the recipe that an error is about.
    #[must_use]
    pub fn in_recipe(self, path: &Path) -> Self {
        match self {
            Self::Recipe(reason) => Self::File { path: path.to_owned(), reason },
            other => other,
        }
    }
    pub(crate) fn tensor(tensor: &str, reason: impl Into<String>) -> Self {
        Self::Tensor { tensor: tensor.to_owned(), reason: reason.into() }
    }
}
