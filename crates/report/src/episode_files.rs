//! The episodes of a page, in files beside it that a script loads: an index with a few numbers of every episode, and
//! chunks with the texts, which are loaded when they are looked at.
//!
//! Each file is a script that hands over its content with a call, for a page opened as a file may load scripts but not
//! fetch data. Only one chunk is in memory at a time.

use crate::conversation::conversation;
use rolegraft_spans::ViolationKind;
use rolegraft_trajectory::{Episode, Status};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The folder beside the page.
pub const DATA: &str = "report-data";
/// Bytes from which a chunk is full.
const CHUNK: usize = 1 << 19;

/// Who writes a file of a report, by its name in the report's folder.
pub type Put<'p, E> = dyn FnMut(&str, &[u8]) -> Result<(), E> + 'p;

/// The files as they grow.
pub(crate) struct EpisodeFiles<'p, E> {
    put: &'p mut Put<'p, E>,
    chunk: String,
    starts: Vec<usize>,
    models: Vec<String>,
    suites: Names,
    tasks: Names,
    columns: Columns,
}

/// A number an episode in each, in the order of the chunks.
#[derive(Default)]
struct Columns {
    model: Vec<usize>,
    suite: Vec<usize>,
    task: Vec<usize>,
    trial: Vec<u32>,
    reward: Vec<f64>,
    status: Vec<usize>,
    /// A bit a kind of violation.
    violations: Vec<u32>,
    turns: Vec<usize>,
}

/// Names by their numbers, and back.
#[derive(Default)]
struct Names {
    names: Vec<String>,
    numbers: HashMap<String, usize>,
}

impl Names {
    fn number(&mut self, name: &str) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len();
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }
}

impl<'p, E> EpisodeFiles<'p, E> {
    pub(crate) fn new(put: &'p mut Put<'p, E>) -> Self {
        let (chunk, starts, models) = (String::new(), vec![0], Vec::new());
        Self {
            put,
            chunk,
            starts,
            models,
            suites: Names::default(),
            tasks: Names::default(),
            columns: Columns::default(),
        }
    }

    /// The model whose episodes come next.
    pub(crate) fn model(&mut self, name: &str) {
        self.models.push(name.to_owned());
    }

    /// Takes an episode of that model.
    pub(crate) fn add(&mut self, episode: &Episode) -> Result<(), E> {
        let columns = &mut self.columns;
        columns.model.push(self.models.len().saturating_sub(1));
        columns.suite.push(self.suites.number(&episode.key.suite));
        columns.task.push(self.tasks.number(&episode.key.task));
        columns.trial.push(episode.key.trial);
        columns.reward.push((1e4 * episode.reward).round() / 1e4);
        columns.status.push(Status::ALL.iter().position(|s| *s == episode.status).unwrap_or(0));
        let found = |kind: &ViolationKind| episode.turns.iter().any(|t| t.violations.iter().any(|v| v.kind == *kind));
        columns.violations.push((0..).zip(&ViolationKind::ALL).filter(|(_, k)| found(k)).map(|(i, _)| 1 << i).sum());
        columns.turns.push(episode.turns.len());
        if !self.chunk.is_empty() {
            self.chunk.push(',');
        }
        self.chunk += &script(&conversation(episode));
        if self.chunk.len() >= CHUNK { self.end_chunk() } else { Ok(()) }
    }

    fn end_chunk(&mut self) -> Result<(), E> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let number = self.starts.len() - 1;
        let content = format!("rolegraft.chunk({number},[{}]);\n", self.chunk);
        (self.put)(&format!("{DATA}/{number}.js"), content.as_bytes())?;
        self.starts.push(self.columns.model.len());
        self.chunk.clear();
        Ok(())
    }

    /// Writes what is left.
    pub(crate) fn finish(mut self) -> Result<(), E> {
        self.end_chunk()?;
        let columns = self.columns;
        let index = json!({
            "models": self.models, "suites": self.suites.names, "tasks": self.tasks.names,
            "statuses": Status::ALL.map(Status::as_str), "kinds": ViolationKind::ALL.map(ViolationKind::as_str),
            "starts": self.starts, "model": columns.model, "suite": columns.suite, "task": columns.task,
            "trial": columns.trial, "reward": columns.reward, "status": columns.status,
            "violations": columns.violations, "turns": columns.turns,
        });
        (self.put)(&format!("{DATA}/index.js"), format!("rolegraft.index({});\n", script(&index)).as_bytes())
    }
}

/// A value as a script may hold it: text cannot end the script.
fn script(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_end_its_script() {
        let hostile = json!({"</script><img onerror=x>": "\u{2028}<!--\u{2029}"});
        let text = script(&hostile);
        assert!(!text.contains(['<', '\u{2028}', '\u{2029}']), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), hostile);
    }
}
