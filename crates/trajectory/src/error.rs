//! Why conversations do not become tokens.

use crate::template::TemplateError;
use std::path::PathBuf;

/// Why a conversation cannot be rendered.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum ChatError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{}` is not a tokenizer that can be used: {reason}", path.display())]
    Tokenizer { path: PathBuf, reason: String },
    #[error(transparent)]
    Template(#[from] TemplateError),
}
