//! Why a suite cannot be set up.

use crate::TasksError;
use crate::settings::SettingsError;
use rolegraft_spans::FormatError;
use std::path::PathBuf;

/// Why a suite cannot be set up.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum OpenError {
    #[error("there is no suite `{suite}`: `{}` is missing", path.display())]
    Missing { suite: String, path: PathBuf },
    #[error("`{}`: {message}", path.display())]
    Toml { path: PathBuf, message: String },
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Tasks(#[from] TasksError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("suite `{suite}`: {source}")]
    Suite { suite: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error(
        "suite `{suite}` has no official data to read ({} have); leave out --data, and unset ROLEGRAFT_DATA",
        known.join(", ")
    )]
    NoOfficial { suite: String, known: Vec<&'static str> },
    #[error("suite `{0}` has official tasks only: say with --data where they are")]
    NeedsOfficial(String),
    #[error("suite `{suite}` has no `{split}` tasks{hint}")]
    NoSplit { suite: String, split: &'static str, hint: &'static str },
    #[error("suite `{suite}` has {found} `{split}` tasks, but {wanted} are asked for")]
    TooFew { suite: String, split: &'static str, found: usize, wanted: usize },
}

impl OpenError {
    /// What a benchmark itself has to say of a suite.
    pub fn of(suite: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Suite { suite: suite.to_owned(), source: source.into() }
    }
}
