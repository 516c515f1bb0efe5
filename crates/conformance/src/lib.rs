//! Replays what reference implementations recorded, case by case, and counts agreements.
//!
//! A recording's folder says which cases there are and what came out; the rules of comparison are those of the
//! recording, never of a case. Nothing is written but temporary files.

mod alfworld;
mod chat;
mod db;
mod engine;
mod merge;
mod office;
mod os;
mod parse;
mod recordings;
mod saliency;
mod tau;
mod tolerance;
mod webshop;

pub use alfworld::alfworld;
pub use chat::chat;
pub use db::dbbench;
pub use engine::engine;
pub use merge::merge;
pub use office::{officebench, officebench_verdict};
pub use os::os;
pub use parse::parse;
pub use rolegraft_suite::sandbox::{BoxUser, Image};
pub use saliency::saliency;
pub use tau::tau;
pub use webshop::webshop;

use std::fmt;
use std::path::PathBuf;

/// Why recordings cannot be replayed at all.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum ConformanceError {
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
    fn add(&mut self, case: String, outcome: Result<(), String>) {
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
