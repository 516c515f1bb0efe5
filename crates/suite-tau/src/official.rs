//! The official data: databases, policy, tool schemas and tasks of a domain.

use crate::database::Tables;
use crate::{Domain, Goal};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why official data cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum OfficialError {
    #[error(
        "`{}` is missing: --data must hold sierra-research/tau-bench's `{domain}` as JSON: {tables}, wiki.md, rules.json, \
         tools.json and tasks_SPLIT.json",
        path.display()
    )]
    Missing { path: PathBuf, domain: &'static str, tables: String, source: std::io::Error },
    #[error("`{}`: {reason}", path.display())]
    Format { path: PathBuf, reason: String },
}

/// One domain's official data.
#[derive(Debug, Clone)]
pub struct Official {
    /// Which.
    pub domain: Domain,
    /// The database as every episode finds it.
    pub tables: Arc<Tables>,
    /// The policy: upstream's system prompt.
    pub wiki: String,
    /// The policy's rules one by one; empty for the airline.
    pub rules: Vec<String>,
    /// The tools as chat APIs announce them.
    pub tools: Vec<Value>,
    dir: PathBuf,
}

impl Official {
    /// Opens `data/DOMAIN` or `data/tau-bench/DOMAIN`.
    ///
    /// # Errors
    /// If a file is missing, or not what upstream's data looks like.
    pub fn open(data: &Path, domain: Domain) -> Result<Self, OfficialError> {
        let nested = data.join("tau-bench").join(domain.as_str());
        let dir = if nested.exists() { nested } else { data.join(domain.as_str()) };
        let mut tables = Map::new();
        for table in domain.tables() {
            let rows: Map<String, Value> = json(&dir, domain, &format!("{table}.json"))?;
            tables.insert(table.to_owned(), Value::Object(rows));
        }
        let tools: Vec<Value> = json(&dir, domain, "tools.json")?;
        let unknown = tools
            .iter()
            .find(|t| t["function"]["name"].as_str().is_none_or(|n| !domain.tools().iter().any(|k| k == n)));
        if let Some(tool) = unknown {
            let reason =
                format!("describes a tool that {} does not have: {}", domain.as_str(), tool["function"]["name"]);
            return Err(OfficialError::Format { path: dir.join("tools.json"), reason });
        }
        Ok(Self {
            domain,
            tables: Arc::new(Tables::new(tables)),
            wiki: text(&dir, domain, "wiki.md")?,
            rules: json(&dir, domain, "rules.json")?,
            tools,
            dir,
        })
    }

    /// The tasks of upstream's split `test`, `train` or `dev`, with the bytes they were read from; `None` if the domain
    /// has no such split.
    ///
    /// # Errors
    /// If the file is there but holds something else.
    pub fn tasks(&self, split: &str) -> Result<Option<(Vec<Goal>, String)>, OfficialError> {
        let file = format!("tasks_{split}.json");
        if !self.dir.join(&file).exists() {
            return Ok(None);
        }
        let text = text(&self.dir, self.domain, &file)?;
        Ok(Some((parse(&self.dir.join(file), &text)?, text)))
    }
}

fn text(dir: &Path, domain: Domain, file: &str) -> Result<String, OfficialError> {
    let path = dir.join(file);
    std::fs::read_to_string(&path).map_err(|source| OfficialError::Missing {
        path,
        domain: domain.as_str(),
        tables: domain.tables().map(|t| format!("{t}.json")).join(", "),
        source,
    })
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, OfficialError> {
    serde_json::from_str(text).map_err(|e| OfficialError::Format { path: path.to_owned(), reason: e.to_string() })
}

fn json<T: DeserializeOwned>(dir: &Path, domain: Domain, file: &str) -> Result<T, OfficialError> {
    parse(&dir.join(file), &text(dir, domain, file)?)
}
