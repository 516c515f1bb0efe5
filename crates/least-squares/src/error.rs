//! What can go wrong.

use rolegraft_checkpoint::{OpenError, PoolError, WriteError};
use rolegraft_decoder::DecoderError;
use rolegraft_merge::MergeError;
use std::io;
use std::path::PathBuf;

/// Why a fit ends early.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum LeastSquaresError {
    #[error(transparent)]
    Decoder(#[from] DecoderError),
    #[error(transparent)]
    Checkpoint(#[from] OpenError),
    #[error(transparent)]
    Merge(#[from] MergeError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error("interrupted")]
    Interrupted,
    #[error(
        "expert `{expert}`: calibration set {set} has no token with a weight above 0; give it others, or other weights"
    )]
    Weightless { expert: String, set: usize },
    #[error("expert `{expert}`: calibration set {set} has {weights} weights for {ids} ids")]
    Lengths { expert: String, set: usize, ids: usize, weights: usize },
    #[error("expert `{expert}`: the weight {weight} of a token is not a number of 0 or more")]
    Weight { expert: String, weight: f64 },
    #[error("expert `{expert}`: {source}")]
    Expert { expert: String, source: DecoderError },
    #[error("expert `{0}` has no token of a reply in its calibration sets, which the vocabulary is fitted by")]
    NoReplies(String),
    #[error(
        "expert `{0}`: Gram matrices do not do where inputs depend on the merge (`sequential`, `featcal`, `acm`); name its \
         calibration sets"
    )]
    NeedsTokens(String),
    #[error(
        "`{path}` has no tensor `{tensor}` of F64 with the shape {shape:?}; write it anew with `rolegraft trace --gram`"
    )]
    NoSums { path: String, tensor: String, shape: Vec<usize> },
    #[error("tensor `{tensor}` of `{path}` holds what is no finite number; write the file anew")]
    SumsNumbers { path: String, tensor: String },
    #[error("expert `{0}` has no calibration set")]
    NoCalibration(String),
    #[error("tensor `{tensor}` of `{model}` has the shape {found:?}, not {expected:?}")]
    Shape { tensor: String, model: String, found: Vec<usize>, expected: Vec<usize> },
    #[error(
        "tensor `{0}`: neither Cholesky's factors nor eigenvalues can be computed; its statistics are no finite numbers"
    )]
    Unsolvable(String),
    #[error(
        "{} MB of memory are too little: at least {} MB are needed beside a layer's weights and statistics",
        memory / 1_000_000, least.div_ceil(1_000_000)
    )]
    Memory { memory: usize, least: usize },
    #[error("the scratch file `{}`", path.display())]
    Scratch { path: PathBuf, source: io::Error },
    #[error("the merge has no tensor `{0}` of numbers")]
    NoTensor(String),
}

impl LeastSquaresError {
    /// Whether the same call may go on from what it left: nothing is wrong with what it was given.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Interrupted | Self::Write(_) | Self::Scratch { .. } | Self::Merge(MergeError::Interrupted))
    }
}

/// A result with [`LeastSquaresError`].
pub type Result<T> = std::result::Result<T, LeastSquaresError>;
