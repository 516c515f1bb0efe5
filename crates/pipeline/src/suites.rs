//! `benchmarks/SUITE/suite.toml`: concrete suites by folder.

use rolegraft_checkpoint::Digest;
use rolegraft_spans::{Format, FormatError, python_json};
use rolegraft_suite::{Limits, Split, Suite, Task, TaskSet, TasksError};
use rolegraft_suite_office::OfficeSuite;
use rolegraft_suite_os::OsSuite;
use rolegraft_suite_tau::{Domain, TauSuite, User};
use serde::Deserialize;
use serde_json::Value;
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
    #[error(
        "suite `{suite}`: `{}` is missing or not JSON; --data must hold sierra-research/tau-bench's {domain} data as JSON",
        path.display()
    )]
    Official { suite: String, domain: &'static str, path: PathBuf },
    #[error("suite `{0}` has no official data to read; leave out --data")]
    NoOfficial(String),
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
    source: Source,
}

enum Source {
    /// Files by split.
    Files(BTreeMap<String, PathBuf>),
    /// Tasks of the official data, by split.
    Official(BTreeMap<&'static str, TaskSet>),
}

/// What an official τ-bench episode may use (arXiv 2601.07309, table 5).
const TAU_LIMITS: Limits = Limits { turns: 30, tokens: 1024, temperature: 0.2, top_p: 1.0 };

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
        let tasks = file.tasks.into_iter().map(|(split, path)| (split, dir.join(path))).collect();
        Ok(Self { suite, source: Source::Files(tasks) })
    }

    /// Opens `tau-retail` or `tau-airline` on the official data in `data/DOMAIN` or `data/tau-bench/DOMAIN`: databases,
    /// `wiki.md`, `tools.json` and `tasks_SPLIT.json` (test; dev; train, for calibration).
    ///
    /// # Errors
    /// If a file is missing, or the suite is another.
    pub fn open_official(name: &str, data: &Path) -> Result<Self, SuitesError> {
        let (domain, folder, tables): (_, _, &[&str]) = match name {
            "tau-retail" => (Domain::Retail, "retail", &["orders", "products", "users"]),
            "tau-airline" => (Domain::Airline, "airline", &["flights", "reservations", "users"]),
            other => return Err(SuitesError::NoOfficial(other.to_owned())),
        };
        let nested = data.join("tau-bench").join(folder);
        let dir = if nested.exists() { nested } else { data.join(folder) };
        let missing =
            |file: &str| SuitesError::Official { suite: name.to_owned(), domain: folder, path: dir.join(file) };
        let text = |file: &str| std::fs::read_to_string(dir.join(file)).map_err(|_| missing(file));
        let json = |file: &str| serde_json::from_str::<Value>(&text(file)?).map_err(|_| missing(file));
        let mut database = serde_json::Map::new();
        for table in tables {
            database.insert((*table).to_owned(), json(&format!("{table}.json"))?);
        }
        let tools: Vec<String> = json("tools.json")?.as_array().into_iter().flatten().map(python_json::dumps).collect();
        let system = format!("{}{}", text("wiki.md")?, hermes_tools(&tools));
        let mut sets = BTreeMap::new();
        for (split, file) in [("test", "test"), ("dev", "dev"), ("calibration", "train")] {
            let path = format!("tasks_{file}.json");
            let Ok(text) = text(&path) else { continue };
            let rows: Vec<Value> = serde_json::from_str(&text).map_err(|_| missing(&path))?;
            let task = |(i, fields): (usize, Value)| Task { id: format!("{folder}-{file}-{i:03}"), fields };
            let tasks = rows.into_iter().enumerate().map(task).collect();
            sets.insert(split, TaskSet { tasks, digest: Digest::of(text.as_bytes()).to_string() });
        }
        let format = Format::builtin("hermes")?;
        let suite = TauSuite::new(domain, format, TAU_LIMITS, system, User::Scripted, Some(database));
        Ok(Self { suite: Arc::new(suite), source: Source::Official(sets) })
    }

    /// The first `limit` tasks of a split.
    ///
    /// # Errors
    /// If the file is missing or has fewer.
    pub fn tasks(&self, split: Split, limit: Option<usize>) -> Result<TaskSet, SuitesError> {
        let none = || SuitesError::NoSplit { suite: self.suite.id().to_owned(), split: split.as_str() };
        match &self.source {
            Source::Files(files) => Ok(TaskSet::read(files.get(split.as_str()).ok_or_else(none)?, limit)?),
            Source::Official(sets) => {
                let mut set = sets.get(split.as_str()).ok_or_else(none)?.clone();
                set.tasks.truncate(limit.unwrap_or(usize::MAX));
                Ok(set)
            }
        }
    }
}

/// Tool schemas as Qwen's and Hermes' chat templates announce them.
fn hermes_tools(tools: &[String]) -> String {
    format!(
        "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function \
         signatures within <tools></tools> XML tags:\n<tools>\n{}\n</tools>\n\nFor each function call, return a json object \
         with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{{\"name\": \
         <function-name>, \"arguments\": <args-json-object>}}\n</tool_call>",
        tools.join("\n")
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SystemPrompt {
    system: String,
}
