//! Logs as the tools that people have read them: inspect_ai, lm-evaluation-harness, tau2-bench, datasets of the Hub.
//!
//! Episodes are read one at a time. What a format has no place for is said.

mod hub;
mod inspect;
mod lm_eval;
mod source;
mod tau2;

use crate::error::RunError;
use rolegraft_trajectory::Episodes;
use source::{Log, moment};
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use source::restored;

/// Whom logs are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportForm {
    /// inspect_ai's `.eval`.
    Inspect,
    /// Samples and results of lm-evaluation-harness.
    LmEval,
    /// Results of tau2-bench.
    Tau2,
    /// A dataset folder: JSON lines and a card.
    Hub,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exported {
    /// The files.
    pub files: Vec<PathBuf>,
    /// Episodes in them.
    pub episodes: usize,
    /// What the format has no place for.
    pub lost: Vec<&'static str>,
}

/// Writes logs in another form into a directory.
///
/// # Errors
/// If a log cannot be read, holds an episode twice, without texts or of several suites, a file is there already, or the disk refuses.
pub fn export(logs: &[PathBuf], form: ExportForm, out: &Path) -> Result<Exported, RunError> {
    let at = |path: &Path, source: io::Error| RunError::Export { path: path.to_owned(), reason: source.to_string() };
    std::fs::create_dir_all(out).map_err(|source| at(out, source))?;
    let mut exported = Exported::default();
    for path in logs {
        let first = Episodes::open(path)?.next().transpose()?;
        let Some(first) = first else {
            return Err(RunError::Export { path: path.clone(), reason: "holds no finished episode".into() });
        };
        let written = std::fs::metadata(path).and_then(|meta| meta.modified()).map_err(|source| at(path, source))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let model = name.trim_end_matches(".zst").trim_end_matches(".jsonl").to_owned();
        let log = Log { path, model, suite: first.key.suite, written: moment(written) };
        let (files, episodes) = match form {
            ExportForm::Inspect => inspect::write(&log, out)?,
            ExportForm::LmEval => lm_eval::write(&log, out)?,
            ExportForm::Tau2 => tau2::write(&log, out)?,
            ExportForm::Hub => hub::write(&log, out)?,
        };
        exported.files.extend(files);
        exported.episodes += episodes;
    }
    exported.lost = match form {
        ExportForm::Inspect | ExportForm::Hub => {
            vec!["the log's header: the digest of its inputs, and how a server was asked"]
        }
        ExportForm::LmEval => {
            vec!["all turns but the last reply", "spans and violations", "what was spent", "how episodes ended"]
        }
        ExportForm::Tau2 => {
            vec!["the text around a call", "spans and violations", "token ids and counts", "users' spending"]
        }
    };
    Ok(exported)
}
