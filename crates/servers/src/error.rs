//! Why servers do not serve.

use std::path::PathBuf;

/// Why servers do not serve.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum ServerError {
    #[error("under [server]: {0}")]
    Rules(String),
    #[error("under [server]: there is no command")]
    NoCommand,
    #[error(
        "the server's program `{program}` cannot be started: {source}; install it, or say another `command` under [server]"
    )]
    NotFound { program: String, source: std::io::Error },
    #[error("the server ended before it was ready ({status}); {log}")]
    Exited { status: String, log: String },
    #[error("the server did not answer {route} within {seconds} s; {log}")]
    NotReady { route: String, seconds: u64, log: String },
    #[error("port {port} is taken; stop what listens there, or leave `port` out, so that a free one is found")]
    Taken { port: u16 },
    #[error("at {url} another server answers: it has {found}, not `{expected}`")]
    Another { url: String, found: String, expected: String },
    #[error("no server could be given {digest}: {reasons}")]
    AllQuarantined { digest: String, reasons: String },
    #[error("interrupted; run the same command to go on where it stopped")]
    Interrupted,
    #[error("cannot use `{}`", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("no HTTP client: {0}")]
    Http(reqwest::Error),
}
