//! Episodes on their way out, and what the forms have in common.

use crate::error::{RunError, unwritten};
use rolegraft_trajectory::{Episode, Episodes, LogError, Message};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// One log on its way out.
pub(super) struct Log<'l> {
    pub(super) path: &'l Path,
    /// The file's name without its end: who played.
    pub(super) model: String,
    /// The suite of all its episodes.
    pub(super) suite: String,
    /// When it was last written, in UTC: `2026-11-29T12:00:00+00:00`.
    pub(super) written: String,
}

impl Log<'_> {
    /// The episodes, one at a time; the log's own errors, and episodes that cannot be exported.
    pub(super) fn episodes(&self) -> Result<impl Iterator<Item = Result<Episode, RunError>> + use<'_>, RunError> {
        let (mut log, mut seen) = (Episodes::open(self.path)?, BTreeSet::new());
        Ok(std::iter::from_fn(move || {
            let episode = match log.next()? {
                Ok(episode) => episode,
                Err(error) => return Some(Err(error.into())),
            };
            if !seen.insert(episode.key.clone()) {
                return Some(Err(LogError::twice(self.path, log.line(), &episode.key, None).into()));
            }
            if episode.messages.is_empty() {
                let line = log.line();
                return Some(Err(
                    self.refuse(format!("line {line} holds an episode without texts, of which nothing can be shown"))
                ));
            }
            if episode.key.suite != self.suite {
                let reason = format!(
                    "line {} is of suite `{}`, the first of `{}`; export a log of one suite (`rolegraft log split`)",
                    log.line(),
                    episode.key.suite,
                    self.suite
                );
                return Some(Err(self.refuse(reason)));
            }
            Some(Ok(episode))
        }))
    }

    fn refuse(&self, reason: String) -> RunError {
        RunError::File { path: self.path.to_owned(), reason }
    }

    /// A number that differs from log to log, and not from call to call.
    pub(super) fn id(&self, of: &str) -> String {
        rolegraft_checkpoint::Digest::of_parts([
            (of, self.model.as_bytes()),
            ("suite", self.suite.as_bytes()),
            ("written", self.written.as_bytes()),
        ])
        .as_str()[..22]
            .to_owned()
    }
}

/// Creates a file, which must not be there.
pub(super) fn create(path: &Path) -> Result<std::fs::File, RunError> {
    std::fs::File::create_new(path).map_err(unwritten(path))
}

/// Seconds since 1970 as ISO 8601 in UTC.
pub(super) fn moment(time: std::time::SystemTime) -> String {
    let seconds = time.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs()) as i64;
    chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default().format("%Y-%m-%dT%H:%M:%S+00:00").to_string()
}

/// A name that may stand in a file's.
pub(super) fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect()
}

/// A call as OpenAI's API has it, where a reply made one.
pub(super) fn call(episode: &Episode, turn: usize) -> Option<(String, Value)> {
    let action = episode.turns.get(turn)?.action.as_ref()?;
    let arguments = match &action.payload {
        Value::Object(_) => action.payload.clone(),
        Value::Null => json!({}),
        other => json!({"input": other}),
    };
    Some((action.name.clone(), arguments))
}

/// The number of the turn that a message is.
pub(super) fn turn_of(episode: &Episode, message: usize) -> Option<usize> {
    episode.turns.iter().position(|turn| turn.message == message)
}

/// All of an episode but its texts, which stand beside it.
pub(super) fn rest(episode: &Episode) -> Value {
    let mut rest = serde_json::to_value(episode).unwrap_or_default();
    if let Some(fields) = rest.as_object_mut() {
        fields.remove("messages");
    }
    rest
}

/// An episode of what [`rest`] gave and its texts.
pub(crate) fn restored(rest: &Value, messages: &[Message]) -> Option<Episode> {
    let mut whole = rest.clone();
    whole.as_object_mut()?.insert("messages".into(), serde_json::to_value(messages).ok()?);
    let episode: Episode = serde_json::from_value(whole).ok()?;
    let sound = episode.contradiction().is_none() && (0.0..=1.0).contains(&episode.reward);
    sound.then_some(episode)
}
