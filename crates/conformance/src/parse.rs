//! Replies as the official harnesses parsed them.

use crate::{Report, UnreadableError};
use rolegraft_spans::Format;
use rolegraft_suites::Registry;
use rolegraft_suites::recordings::{Replayed, cases};
use std::path::Path;

/// Replays recorded replies, a file a format: `FORMAT.jsonl`, a line `{"reply": …, "expected": …}`.
///
/// # Errors
/// If there are no recordings.
pub fn parse(traces: &Path, registry: &Registry) -> Result<Report, UnreadableError> {
    cases(traces, |file, _, case| {
        let format = Format::builtin(file).ok()?;
        let (_, replay) = registry.iter().filter_map(|b| b.replies()).find(|(name, _)| *name == file)?;
        Some(Replayed::Compared(replay(&format, case)))
    })
}
