//! A task: a question, a table, what the answer should be.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A task as AgentBench's files have it (`data/dbbench/standard.jsonl`); what is not used is left out.
#[derive(Debug, Clone, Deserialize)]
pub struct Entry {
    /// What to do.
    pub description: String,
    /// The table's name and headers, in words.
    #[serde(default)]
    pub add_description: String,
    /// For function calls only.
    #[serde(default)]
    pub evidence: String,
    /// The first counts: `INSERT`, `UPDATE`, `counting`, …
    #[serde(rename = "type")]
    pub kinds: Vec<String>,
    /// The right answer, as texts.
    #[serde(default)]
    pub label: Value,
    /// What the table's hash is after the right change.
    #[serde(default)]
    pub answer_md5: Value,
    /// One table, or several.
    pub table: Tables,
}

/// One table, or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Tables {
    /// One.
    One(Table),
    /// Several: function calls only.
    Many(Vec<Table>),
}

impl Tables {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Table] {
        match self {
            Self::One(table) => std::slice::from_ref(table),
            Self::Many(tables) => tables,
        }
    }
}

/// A table with its rows.
#[derive(Debug, Clone, Deserialize)]
pub struct Table {
    /// Its name; under the text protocol also that of the database.
    #[serde(rename = "table_name")]
    pub name: String,
    /// Columns and rows.
    #[serde(rename = "table_info")]
    pub info: Info,
}

/// Columns and rows.
#[derive(Debug, Clone, Deserialize)]
pub struct Info {
    /// Columns, whose declared types upstream ignores: each is a `TEXT`.
    pub columns: Vec<Column>,
    /// Cells: texts and numbers.
    pub rows: Vec<Vec<Value>>,
}

/// A column.
#[derive(Debug, Clone, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
}

impl Entry {
    /// The type that counts.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.kinds.first().map_or("other", String::as_str)
    }
    /// Whether the table is judged, not the answer.
    #[must_use]
    pub fn changes(&self) -> bool {
        matches!(self.kind(), "INSERT" | "DELETE" | "UPDATE")
    }
}

/// A set of tasks with their numbers.
pub const SETS: [(&str, &str); 2] = [("test", "standard.jsonl"), ("dev", "dev.jsonl")];
/// Tasks of the test set whose expected outcome cannot be had, whether only under the text
/// protocol, and why.
pub const KNOWN_BAD: [(usize, bool, &str); 6] = [
    (4, true, "the label is wrong; repaired for function calls"),
    (13, true, "two columns have one name: the table cannot be made"),
    (14, true, "two columns have one name: the table cannot be made"),
    (17, true, "rows differ in length: the table stays empty"),
    (77, true, "rows differ in length: the table stays empty"),
    (225, false, "no statement reaches the expected hash"),
];

/// Tasks that were repaired for function calls.
const OVERRIDES: &str = "standard-fc-overrides.jsonl";

/// Why official data cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum OfficialError {
    #[error(
        "`{}` holds no DB-bench data: --data must hold `standard.jsonl` and `dev.jsonl` of AgentBench's `data/dbbench`, in \
         itself, in `db`, `agentbench/db` or `data/dbbench`",
        path.display()
    )]
    Missing { path: PathBuf },
    #[error("`{}`, line {line}: {reason}", path.display())]
    Format { path: PathBuf, line: usize, reason: String },
}

/// The folder with DB-bench's files in `data`.
///
/// # Errors
/// If there is none.
pub fn folder(data: &Path) -> Result<PathBuf, OfficialError> {
    let inside = ["agentbench/db", "db", "data/dbbench", "dbbench", ""].map(|folder| data.join(folder));
    let found = inside.into_iter().find(|folder| folder.join(SETS[0].1).is_file());
    found.ok_or_else(|| OfficialError::Missing { path: data.to_owned() })
}

/// The lines of a set's file as JSON; `repaired` puts in the entries that function calls use.
///
/// # Errors
/// If the file cannot be read, or a line is no task.
pub fn entries(folder: &Path, file: &str, repaired: bool) -> Result<Vec<Value>, OfficialError> {
    let mut entries: Vec<Value> = lines(&folder.join(file))?;
    if repaired && file == SETS[0].1 && folder.join(OVERRIDES).is_file() {
        let overrides: BTreeMap<usize, Value> = lines(&folder.join(OVERRIDES))?
            .into_iter()
            .filter_map(|mut line| Some((usize::try_from(line["index"].as_u64()?).ok()?, line["entry"].take())))
            .collect();
        for (index, entry) in overrides {
            if let Some(old) = entries.get_mut(index) {
                *old = entry;
            }
        }
    }
    for (i, entry) in entries.iter().enumerate() {
        if let Err(error) = serde_json::from_value::<Entry>(entry.clone()) {
            return Err(OfficialError::Format { path: folder.join(file), line: i + 1, reason: error.to_string() });
        }
    }
    Ok(entries)
}

fn lines(path: &Path) -> Result<Vec<Value>, OfficialError> {
    let wrong = |line: usize, reason: String| OfficialError::Format { path: path.to_owned(), line, reason };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(0, e.to_string()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(i, line)| serde_json::from_str(line).map_err(|e| wrong(i + 1, e.to_string()))).collect()
}
