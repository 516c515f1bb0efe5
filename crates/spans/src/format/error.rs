//! Why formats cannot be used.

use std::path::PathBuf;

/// Why a format file cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum FormatError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("format `{name}`: {source}")]
    Toml { name: String, source: toml::de::Error },
    #[error("format `{name}`: pattern `{pattern}` is not a regular expression")]
    Pattern { name: String, pattern: String, source: regex::Error },
    #[error("format `{name}`: schema `{file}` {reason}")]
    Schema { name: String, file: String, reason: String },
    #[error("tool `{name}` {reason}")]
    Tool { name: String, reason: String },
    #[error("there is no format `{name}`; known: {known}")]
    Unknown { name: String, known: String },
}
