//! Why no sandbox can be had.

use std::io;

/// Why no sandbox can be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum SandboxError {
    #[error("bubblewrap is not installed; install the package `bubblewrap`")]
    NotInstalled,
    #[error("bubblewrap does not work here: {0}")]
    Broken(String),
    #[error("Docker does not do what is asked: {0}")]
    Docker(String),
    #[error("Docker has no image `{0}`; build or pull it (docs/agentbench.md says how)")]
    NoImage(String),
    #[error("the sandbox failed: {0}")]
    Io(#[from] io::Error),
    #[error("the sandbox has ended: a command ran over its time limit or ended the shell")]
    Ended,
}
