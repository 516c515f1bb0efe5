//! Task files: JSONL, one task a line, `id` in each.

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// One task in its suite's own form.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Unique in its file.
    pub id: String,
    /// Every field, `id` included.
    pub fields: Value,
}

impl Task {
    /// The replies of an agent that solves the task, where the file has them.
    #[must_use]
    pub fn oracle(&self) -> Option<Vec<String>> {
        self.fields["oracle"]
            .as_array()
            .map(|replies| replies.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }
}

/// A file of tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSet {
    /// In file order.
    pub tasks: Vec<Task>,
    /// Digest of the file's bytes.
    pub digest: String,
}

/// Why a task file cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum TasksError {
    #[error("cannot read the tasks in `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{}` line {line}: {reason}", path.display())]
    Line { path: PathBuf, line: usize, reason: String },
    #[error("`{}` has {found} tasks, but {wanted} are asked for; ask for fewer", path.display())]
    TooFew { path: PathBuf, found: usize, wanted: usize },
}

impl TaskSet {
    /// Tasks made from something else, whose bytes stand for them.
    #[must_use]
    pub fn made_from(tasks: Vec<Task>, bytes: &[u8]) -> Self {
        Self { tasks, digest: digest(bytes) }
    }
    /// Reads a task file, or its first `limit` tasks.
    ///
    /// # Errors
    /// If the file is missing, a line is not a task, an id repeats, or there are fewer than `limit`.
    pub fn read(path: &Path, limit: Option<usize>) -> Result<Self, TasksError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| TasksError::Read { path: path.to_owned(), source })?;
        let (mut tasks, mut ids) = (Vec::new(), HashSet::new());
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let bad = |reason: String| TasksError::Line { path: path.to_owned(), line: i + 1, reason };
            let fields: Value = serde_json::from_str(line).map_err(|e| bad(format!("not JSON: {e}")))?;
            let id = fields["id"].as_str().ok_or_else(|| bad("no `id`".into()))?.to_owned();
            if !ids.insert(id.clone()) {
                return Err(bad(format!("id `{id}` is used twice")));
            }
            tasks.push(Task { id, fields });
        }
        if let Some(wanted) = limit {
            if tasks.len() < wanted {
                return Err(TasksError::TooFew { path: path.to_owned(), found: tasks.len(), wanted });
            }
            tasks.truncate(wanted);
        }
        Ok(Self::made_from(tasks, text.as_bytes()))
    }
}

/// The SHA-256 digest of some bytes, in hexadecimal.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
