//! What comes out of a box: read from its pipes, cut, and up to a mark.

use crate::sandbox_error::SandboxError;
use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

/// Longest output kept of one command, in bytes.
pub(crate) const MAX_OUTPUT: usize = 1 << 20;

/// What a command left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandOutput {
    /// Standard output and error, interleaved, cut at 1 MiB.
    pub bytes: Vec<u8>,
    /// Exit status; none if the time limit ended it.
    pub status: Option<i32>,
}

/// Reads a pipe to its end and keeps the first [`MAX_OUTPUT`] bytes.
pub(crate) fn drain(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (mut kept, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let room = MAX_OUTPUT - kept.len();
            kept.extend_from_slice(&buffer[..n.min(room)]);
        }
        kept
    })
}

/// Sends on what comes, until nobody takes it.
pub(crate) fn forward(mut from: impl Read, to: &SyncSender<Vec<u8>>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if to.send(buffer[..n].to_vec()).is_err() {
            break;
        }
    }
}

/// Reads on after `bytes` up to a mark: the first [`MAX_OUTPUT`] bytes before it, and the text between it and `close`, if it
/// comes within the limit.
pub(crate) fn read_to_mark(
    output: &Receiver<Vec<u8>>,
    mut bytes: Vec<u8>,
    mark: &str,
    close: u8,
    limit: Duration,
) -> Result<(Vec<u8>, Option<String>), SandboxError> {
    let (mark, until) = (mark.as_bytes(), Instant::now() + limit);
    let mut searched = 0;
    loop {
        if let Some(at) = find(&bytes[searched..], mark).map(|i| i + searched) {
            let rest = &bytes[at + mark.len()..];
            if let Some(end) = rest.iter().position(|b| *b == close) {
                let said = String::from_utf8_lossy(&rest[..end]).into_owned();
                bytes.truncate(at.min(MAX_OUTPUT));
                return Ok((bytes, Some(said)));
            }
        }
        searched = bytes.len().saturating_sub(mark.len() + 16);
        match output.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(chunk) => {
                // Beyond the cap only the tail matters, where the mark will be.
                if bytes.len() > 2 * MAX_OUTPUT {
                    let tail = bytes.split_off(bytes.len() - 256);
                    bytes.truncate(MAX_OUTPUT);
                    bytes.extend(tail);
                    searched = MAX_OUTPUT;
                }
                bytes.extend(chunk);
            }
            Err(RecvTimeoutError::Timeout) => {
                bytes.truncate(MAX_OUTPUT);
                return Ok((bytes, None));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(SandboxError::Ended),
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}
