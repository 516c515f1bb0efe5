//! `benchmarks/SUITE/suite.toml`: concrete suites by folder.

use rolegraft_spans::{Format, FormatError};
use rolegraft_suite::{Limits, Split, Suite, TaskSet, TasksError};
use rolegraft_suite_office::OfficeSuite;
use rolegraft_suite_os::OsSuite;
use rolegraft_suite_tau::{Domain, TauSuite, User};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a suite cannot be set up.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum SuitesError {
    #[error("there is no suite `{suite}`: `{}` is missing", path.display())]
    Missing { suite: String, path: PathBuf },
    #[error("`{}`: {message}", path.display())]
    Toml { path: PathBuf, message: String },
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Tasks(#[from] TasksError),
    #[error("suite `{suite}` has no `{split}` tasks; add them to its suite.toml")]
    NoSplit { suite: String, split: &'static str },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SuiteFile {
    kind: Kind,
    format: String,
    limits: Limits,
    prompt: toml::Value,
    tasks: BTreeMap<String, PathBuf>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    TauRetail,
    TauAirline,
    Officebench,
    Os,
}

/// A suite with its task files.
pub struct SuiteLibrary {
    /// The rules.
    pub suite: Arc<dyn Suite>,
    dir: PathBuf,
    tasks: BTreeMap<String, PathBuf>,
}

impl SuiteLibrary {
    /// Opens `ROOT/NAME`. A format in `ROOT/../parsers` wins over the built-in one of the same name.
    ///
    /// # Errors
    /// If the folder or its format is missing or wrong.
    pub fn open(root: &Path, name: &str) -> Result<Self, SuitesError> {
        let dir = root.join(name);
        let path = dir.join("suite.toml");
        let text = std::fs::read_to_string(&path)
            .map_err(|_| SuitesError::Missing { suite: name.to_owned(), path: path.clone() })?;
        let wrong = |message: String| SuitesError::Toml { path: path.clone(), message };
        let file: SuiteFile = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        let own = root.join("../parsers").join(format!("{}.toml", file.format));
        let format = if own.exists() { Format::load(&own)? } else { Format::builtin(&file.format)? };
        let prompt = file.prompt;
        let tau = |domain, format, prompt: toml::Value| -> Result<Arc<dyn Suite>, SuitesError> {
            let system: SystemPrompt = prompt.try_into().map_err(|e: toml::de::Error| wrong(e.to_string()))?;
            Ok(Arc::new(TauSuite::new(domain, format, file.limits, system.system, User::Scripted, None)))
        };
        let suite: Arc<dyn Suite> = match file.kind {
            Kind::TauRetail => tau(Domain::Retail, format, prompt)?,
            Kind::TauAirline => tau(Domain::Airline, format, prompt)?,
            Kind::Officebench => {
                let prompt = prompt.try_into().map_err(|e: toml::de::Error| wrong(e.to_string()))?;
                Arc::new(OfficeSuite::new(format, file.limits, prompt))
            }
            Kind::Os => {
                let prompt = prompt.try_into().map_err(|e: toml::de::Error| wrong(e.to_string()))?;
                Arc::new(OsSuite::new(format, file.limits, prompt))
            }
        };
        Ok(Self { suite, dir, tasks: file.tasks })
    }

    /// The first `limit` tasks of a split.
    ///
    /// # Errors
    /// If the file is missing or has fewer.
    pub fn tasks(&self, split: Split, limit: Option<usize>) -> Result<TaskSet, SuitesError> {
        let file = self
            .tasks
            .get(split.as_str())
            .ok_or_else(|| SuitesError::NoSplit { suite: self.suite.id().to_owned(), split: split.as_str() })?;
        Ok(TaskSet::read(&self.dir.join(file), limit)?)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SystemPrompt {
    system: String,
}
