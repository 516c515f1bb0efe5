//! Replays of what reference implementations recorded: JSONL, gzip-compressed or not, single or in a folder.

use flate2::read::GzDecoder;
use rayon::prelude::*;
use rolegraft_spans::{Format, python_json};
use rolegraft_trajectory::{Message, Role};
use serde_json::{Value, json};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

const EXPECTED: &str = "a JSONL file of recordings, gzip-compressed or not, or a folder of such files";
/// Longest recording read, in bytes, after decompression.
const MAX_BYTES: u64 = 4 << 30;

/// Why recordings cannot be replayed at all.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum UnreadableError {
    #[error("`{}` holds no recordings: {expected}", path.display())]
    Nothing { path: PathBuf, expected: &'static str },
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{}` is not what a recording looks like: {reason}", path.display())]
    Format { path: PathBuf, reason: String },
    #[error(transparent)]
    Data(Box<dyn std::error::Error + Send + Sync>),
}

/// What came of one case.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The recording and the case in it.
    pub case: String,
    /// What differs, if anything.
    pub difference: Option<String>,
}

/// All verdicts, in the recordings' order. Displayed: a line for each difference, then `N passed, M failed`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// One a case.
    pub verdicts: Vec<Verdict>,
    /// Recordings that cannot be replayed here, with their size.
    pub skipped: Vec<String>,
}

impl Report {
    /// Adds what came of a case.
    pub fn add(&mut self, case: String, outcome: Result<(), String>) {
        self.verdicts.push(Verdict { case, difference: outcome.err() });
    }
    /// Cases that differ.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.verdicts.iter().filter(|v| v.difference.is_some()).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for skipped in &self.skipped {
            writeln!(f, "not replayed: {skipped}")?;
        }
        for verdict in &self.verdicts {
            if let Some(difference) = &verdict.difference {
                writeln!(f, "{}: {difference}", verdict.case)?;
            }
        }
        write!(f, "{} passed, {} failed", self.verdicts.len() - self.failed(), self.failed())
    }
}

/// The file itself, or the folder's files, by name.
///
/// # Errors
/// If there is none.
pub fn jsonl_files(traces: &Path) -> Result<Vec<PathBuf>, UnreadableError> {
    let fail = |source| UnreadableError::Read { path: traces.to_owned(), source };
    if !std::fs::metadata(traces).map_err(fail)?.is_dir() {
        return Ok(vec![traces.to_owned()]);
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(traces).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.to_string_lossy();
        if name.ends_with(".jsonl") || name.ends_with(".jsonl.gz") {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(UnreadableError::Nothing { path: traces.to_owned(), expected: EXPECTED });
    }
    Ok(paths)
}

/// A recording's text.
///
/// # Errors
/// If it cannot be read.
pub fn read(path: &Path) -> Result<String, UnreadableError> {
    let fail = |source| UnreadableError::Read { path: path.to_owned(), source };
    let bytes = std::fs::read(path).map_err(fail)?;
    let mut text = String::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        GzDecoder::new(bytes.as_slice()).take(MAX_BYTES).read_to_string(&mut text).map_err(fail)?;
    } else {
        bytes.as_slice().read_to_string(&mut text).map_err(fail)?;
    }
    Ok(text)
}

/// Compares how a reply is read with what its harness made of it: `{"reply": …, "expected": …}`.
pub type ReplayReply = fn(&Format, &Value) -> Result<(), String>;

/// What came of a case.
pub enum Replayed {
    /// It was compared.
    Compared(Result<(), String>),
    /// This machine lacks something for it.
    Lacking(String),
}

/// Replays every line of the recordings, side by side. `replay` is given the file's name up to its first dot, the line's number
/// from 0 and the case, and gives nothing for recordings that it does not know.
///
/// # Errors
/// If a file cannot be read.
pub fn cases(
    traces: &Path,
    replay: impl Fn(&str, usize, &Value) -> Option<Replayed> + Sync,
) -> Result<Report, UnreadableError> {
    let mut report = Report::default();
    for path in jsonl_files(traces)? {
        let text = read(&path)?;
        let file = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let kind = file.split('.').next().unwrap_or_default();
        let lines: Vec<(usize, &str)> = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()).collect();
        let outcomes: Vec<(String, Option<Replayed>)> = lines
            .par_iter()
            .map(|(i, line)| {
                // Python's reader: recorded numbers keep every digit.
                let outcome = match python_json::loads(line) {
                    Ok(case) => replay(kind, *i, &case),
                    Err(error) => Some(Replayed::Compared(Err(error.to_string()))),
                };
                (format!("{file}:{}", i + 1), outcome)
            })
            .collect();
        if outcomes.iter().all(|(_, outcome)| outcome.is_none()) {
            report.skipped.push(format!("{file}: {} cases", lines.len()));
        }
        for (case, outcome) in outcomes {
            match outcome {
                Some(Replayed::Compared(outcome)) => report.add(case, outcome),
                Some(Replayed::Lacking(what)) => report.skipped.push(format!("{case}: {what}")),
                None => {}
            }
        }
    }
    Ok(report)
}

/// Whether two values are the same.
///
/// # Errors
/// That they are not, with both.
pub fn same(what: &str, expected: &Value, got: &Value) -> Result<(), String> {
    if expected == got { Ok(()) } else { Err(format!("{what}: expected {expected}, got {got}")) }
}

/// A text field; the empty text if it is none.
#[must_use]
pub fn text<'c>(case: &'c Value, field: &str) -> &'c str {
    case[field].as_str().unwrap_or_default()
}

/// Messages as AgentBench's servers record them.
#[must_use]
pub fn spoken<'m>(messages: impl IntoIterator<Item = &'m Message>) -> Value {
    let role = |m: &Message| if m.role == Role::Assistant { "agent" } else { "user" };
    messages.into_iter().map(|m| json!({"role": role(m), "content": m.content})).collect()
}
