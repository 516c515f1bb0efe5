//! Why a log cannot be used.

use super::origin::VERSION;
use crate::EpisodeKey;
use rolegraft_files::hint;
use std::io;
use std::path::{Path, PathBuf};

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum LogError {
    #[error("cannot use `{}`{}", path.display(), hint(source))]
    Io { path: PathBuf, source: io::Error },
    #[error("`{}` line {line}: {reason}", path.display())]
    Line { path: PathBuf, line: usize, reason: String },
    #[error(
        "`{}` line {line}: task `{}` of {}, trial {}, is counted already{}; give each log once, or let the later one count (--last)",
        path.display(), key.task, key.suite, key.trial,
        first.as_ref().map_or(String::new(), |first| format!(", by `{}`", first.display()))
    )]
    Twice { path: PathBuf, line: usize, key: EpisodeKey, first: Option<PathBuf> },
    #[error("`{}` was written by a newer version (format {found}, this program reads {VERSION})", path.display())]
    Newer { path: PathBuf, found: u32 },
    #[error("`{}` holds episodes of other inputs ({found} instead of {expected}); move it away or choose another run directory", path.display())]
    OtherInputs { path: PathBuf, found: String, expected: String },
}

impl LogError {
    /// That the episode of a line is counted already, perhaps by another log.
    #[must_use]
    pub fn twice(path: &Path, line: usize, key: &EpisodeKey, first: Option<&Path>) -> Self {
        let first = first.filter(|first| *first != path).map(Path::to_owned);
        Self::Twice { path: path.to_owned(), line, key: key.clone(), first }
    }
}
