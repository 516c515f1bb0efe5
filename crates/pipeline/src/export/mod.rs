//! Logs as the tools that people have read them: inspect_ai, lm-evaluation-harness, tau2-bench, datasets of the Hub.
//!
//! Episodes are read one at a time. What a format has no place for is said.

mod hub;
mod inspect;
mod lm_eval;
mod source;
mod tau2;

use crate::error::{RunError, unwritten};
use rolegraft_files::Scratch;
use rolegraft_trajectory::{Episodes, LogError, log_name};
use source::{Log, moment};
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
    let fresh = !out.exists();
    std::fs::create_dir_all(out).map_err(unwritten(out))?;
    let written = staged(logs, form, out);
    if fresh && written.is_err() {
        let _ = std::fs::remove_dir(out);
    }
    let mut exported = written?;
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

/// Writes all files beside their places, and moves them there when they are whole.
fn staged(logs: &[PathBuf], form: ExportForm, out: &Path) -> Result<Exported, RunError> {
    let stage = Scratch::create(&out.join("export")).map_err(unwritten(out))?;
    let mut exported = Exported::default();
    for (number, path) in logs.iter().enumerate() {
        let mut episodes = Episodes::open(path)?;
        let Some(first) = episodes.next().transpose()? else {
            return Err(RunError::File { path: path.clone(), reason: "holds no finished episode".into() });
        };
        let written = std::fs::metadata(path).and_then(|meta| meta.modified());
        let written = written.map_err(|source| LogError::Io { path: path.clone(), source })?;
        let log = Log { path, model: log_name(path), suite: first.key.suite, written: moment(written) };
        // A folder of its own, so that two logs of one name are told from a file that is there.
        let folder = stage.path().join(number.to_string());
        std::fs::create_dir_all(&folder).map_err(unwritten(&folder))?;
        let (files, episodes) = match form {
            ExportForm::Inspect => inspect::write(&log, &folder)?,
            ExportForm::LmEval => lm_eval::write(&log, &folder)?,
            ExportForm::Tau2 => tau2::write(&log, &folder)?,
            ExportForm::Hub => hub::write(&log, &folder)?,
        };
        exported.episodes += episodes;
        for file in files {
            let to = out.join(file.strip_prefix(&folder).unwrap_or(&file));
            let card = form == ExportForm::Hub && to.file_name().is_some_and(|name| name == "README.md");
            if exported.files.contains(&to) && !card {
                let reason = format!("would be written to `{}`, as another log of its name; rename one", to.display());
                return Err(RunError::File { path: path.clone(), reason });
            }
            if to.exists() && !card {
                return Err(RunError::File {
                    path: to,
                    reason: "is there already; remove it, or choose another --out".into(),
                });
            }
            if !exported.files.contains(&to) && !to.exists() {
                exported.files.push(to);
            }
        }
    }
    for number in 0..logs.len() {
        let folder = stage.path().join(number.to_string());
        for to in &exported.files {
            let from = folder.join(to.strip_prefix(out).unwrap_or(to));
            if from.exists() && !to.exists() {
                let parent = to.parent().unwrap_or(out);
                std::fs::create_dir_all(parent).map_err(unwritten(parent))?;
                std::fs::rename(&from, to).map_err(unwritten(to))?;
            }
        }
    }
    Ok(exported)
}
