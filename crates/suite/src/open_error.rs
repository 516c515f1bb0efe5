//! Why a suite cannot be set up.

use crate::TasksError;
use crate::settings::SettingsError;
use rolegraft_spans::FormatError;
use std::path::{Path, PathBuf};

/// Why a suite cannot be set up.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum OpenError {
    #[error("there is no folder `{}` with suites; leave out --suites, and the built-in ones are played", .0.display())]
    NoSuites(PathBuf),
    #[error("there is no suite `{suite}`; in `{}` are {}", folder.display(), known.join(", "))]
    Missing { suite: String, folder: PathBuf, known: Vec<String> },
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
    /// That a folder of suites has none of that name.
    pub(crate) fn missing(suites: &Path, name: &str) -> Self {
        let Ok(entries) = suites.read_dir() else { return Self::NoSuites(suites.to_owned()) };
        let there = entries.flatten().filter(|entry| entry.path().join("suite.toml").is_file());
        let mut known: Vec<String> = there.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        known.sort();
        Self::Missing { suite: name.to_owned(), folder: suites.to_owned(), known }
    }
    /// What a benchmark itself has to say of a suite.
    pub fn of(suite: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Suite { suite: suite.to_owned(), source: source.into() }
    }
}
